"""Kernels with one collective, drawn from a seed, and what NumPy says that every rank and core receives."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import nkilite as nki
import nkilite.collectives as ncc
import nkilite.isa as nisa
import nkilite.language as nl

RANKS = (1, 2, 4, 8)
KINDS = (
    "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "all_to_all_v", "all_gather_v", "collective_permute",
    "collective_permute_implicit", "collective_permute_implicit_reduce",
)
DTYPES = (
    nl.float32, nl.bfloat16, nl.float16, nl.float8_e4m3, nl.float8_e5m2, nl.int32, nl.int16, nl.int8, nl.uint32,
    nl.uint8,
)
OPERATORS = {nl.add: np.add, nl.maximum: np.maximum, nl.minimum: np.minimum}


COUNTED = {
    "all_to_all_v": (ncc.all_to_all_v, ncc.all_to_all_v_prepare, ncc.all_to_all_v_trigger),
    "all_gather_v": (ncc.all_gather_v, ncc.all_gather_v_prepare, ncc.all_gather_v_trigger),
}


class Plan(NamedTuple):
    """What a kernel does.

    Attributes:
        lists: of ranks; those of one list communicate.
        active: how many of the lists communicate, of a collective_permute.
        tensors: of a call; of a ring, channels.
        margin: columns on both sides that do not belong to the operands.
        slots: of by-count collectives: whether metadata state where what comes is put.
        known: whether counts of what comes are left as they are.
        on_chip: whether metadata are in SBUF.
    """

    seed: int
    kind: str
    simulated: bool
    cores: int
    count: int
    lists: list[list[int]]
    active: int
    ring: int
    dtype: Any
    memory: Any
    tensors: int
    rows: int
    columns: int
    dim: int
    op: Any
    margin: int
    prepared: bool
    slots: bool
    known: bool
    on_chip: bool

    @property
    def length(self) -> int:
        """Of a list."""
        return len(self.lists[0])

    @property
    def counted(self) -> bool:
        return self.kind.endswith("_v")

    @property
    def received(self) -> tuple[int, int]:
        """The shape of a destination."""
        rows, columns = self.rows, self.columns
        if self.kind == "all_gather":
            return (rows * self.length, columns) if self.dim == 0 else (rows, columns * self.length)
        return (rows // self.length, columns) if self.kind == "reduce_scatter" else (rows, columns)

    def list_of(self, rank: int) -> list[int]:
        return next(ranks for ranks in self.lists if rank in ranks)

    def sees(self, core: int) -> int:
        """The core whose tensors a core communicates."""
        return 0 if self.memory == nl.shared_hbm else core


def drawn(seed: int, count: int | None = None) -> Plan:
    """The plan of a seed; every kind comes up in as many seeds as there are kinds."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    count = count or int(rng.choice(RANKS))
    length = int(rng.choice([n for n in RANKS if n <= count]))
    lists = rng.permutation(count).reshape(-1, length).tolist()
    counted, around = kind.endswith("_v"), kind.startswith("collective_permute_implicit")
    on_chip = [nl.sbuf] if kind not in ("all_to_all", "collective_permute") and not counted else []
    memory = [nl.private_hbm, nl.shared_hbm, *on_chip][rng.integers(2 + len(on_chip))]
    several = memory != nl.sbuf and kind != "collective_permute" and not counted
    dim = int(rng.integers(2)) if kind == "all_gather" and memory == nl.sbuf else 0
    return Plan(
        seed, kind, bool(rng.integers(2)), int(rng.integers(1, 3)), count, lists, int(rng.integers(1, len(lists) + 1)),
        int(rng.integers(4)), DTYPES[rng.integers(len(DTYPES))], memory,
        int(rng.integers(1, 3)) if several or around else 1, length * int(rng.integers(1, 7)), int(rng.integers(1, 40)),
        dim, list(OPERATORS)[rng.integers(3)], int(rng.integers(3)), bool(rng.integers(2)), bool(rng.integers(2)),
        bool(rng.integers(2)), bool(rng.integers(2)),
    )


# --- the kernel -------------------------------------------------------------------------------------------------------


def kernel_of(plan: Plan) -> Any:
    """A kernel `(x, start, table)`: what is sent, what destinations hold before, and metadata; returns destinations,
    metadata, and whom a ring puts before the rank on every channel."""

    def kernel(x, start, table):
        core = nl.program_id(0)
        given = plan.sees(core)
        shape = (plan.cores, plan.tensors, *plan.received)
        out = nl.ndarray(shape, dtype=x.dtype, buffer=nl.shared_hbm)
        told = nl.ndarray((plan.cores, *table.shape), dtype=nl.uint32, buffer=nl.shared_hbm)
        before = nl.ndarray((plan.cores, 1, plan.tensors), dtype=nl.int32, buffer=nl.shared_hbm)
        sources = [_operand(plan, (plan.rows, plan.columns), x[given, i], core, "s", i) for i in range(plan.tensors)]
        others = [_operand(plan, (plan.rows, plan.columns), x[given, i], core, "o", i) for i in range(plan.tensors)]
        made = [_operand(plan, plan.received, start, core, "m", i) for i in range(plan.tensors)]
        metadata = _metadata(plan, table, core)
        if plan.cores > 1 and plan.memory == nl.shared_hbm:
            nisa.core_barrier(out, (0, 1))
        _communicate(plan, sources, others, made, metadata)
        for i, result in enumerate(made):
            nisa.dma_copy(out[core, i], result)
        nisa.dma_copy(told[core], metadata[0] if plan.on_chip and plan.counted else metadata)
        _ask(plan, before[core])
        return out, told, before

    return (nki.simulate if plan.simulated else nki.jit)(kernel)[plan.cores]


def _operand(plan: Plan, shape: tuple[int, int], values: Any, core: int, kind: str, number: int) -> Any:
    """A tensor of the plan's memory with some values: columns of a wider one."""
    rows, columns = shape
    whole = nl.ndarray(
        (rows, columns + 2 * plan.margin), dtype=values.dtype, buffer=plan.memory, name=f"{kind}{number}"
    )
    part = whole[:, plan.margin : plan.margin + columns]
    if core == 0 or plan.memory != nl.shared_hbm:
        nisa.dma_copy(part, values)
    return part


def _metadata(plan: Plan, table: Any, core: int) -> Any:
    on_chip = plan.on_chip and plan.counted
    memory = nl.sbuf if on_chip else plan.memory if plan.counted else nl.private_hbm
    made = nl.ndarray((1, *table.shape) if on_chip else table.shape, dtype=nl.uint32, buffer=memory, name="table")
    if core == 0 or memory != nl.shared_hbm:
        nisa.dma_copy(made[0] if on_chip else made, table)
    return made


def _communicate(plan: Plan, sources: list, others: list, made: list, metadata: Any) -> None:
    kind, group = plan.kind, ncc.ReplicaGroup(plan.lists)
    if plan.counted:
        arguments = (sources, made, group, metadata, plan.known, plan.slots)
        whole, prepare, trigger = COUNTED[kind]
        if plan.prepared:
            trigger(prepare(*arguments))
        else:
            whole(*arguments)
    elif kind == "collective_permute":
        ncc.collective_permute(sources, made, pairs(plan))
    elif kind == "collective_permute_implicit":
        ncc.collective_permute_implicit([[s] for s in sources], [[m] for m in made], group, list(range(plan.tensors)))
    elif kind == "collective_permute_implicit_reduce":
        ncc.collective_permute_implicit_reduce(
            [[s] for s in sources], [[o] for o in others], [[m] for m in made], group, plan.op,
            list(range(plan.tensors)),
        )
    else:
        call, *more = {
            "all_reduce": (ncc.all_reduce, plan.op), "reduce_scatter": (ncc.reduce_scatter, 0, plan.op),
            "all_gather": (ncc.all_gather, plan.dim), "all_to_all": (ncc.all_to_all, 0),
        }[kind]
        call(sources, made, group, *more)


def _ask(plan: Plan, before: Any) -> None:
    group = ncc.ReplicaGroup(plan.lists)
    tile = nl.ndarray((1, plan.tensors), dtype=nl.int32, buffer=nl.sbuf)
    for channel in range(plan.tensors):
        whose = ncc.collective_permute_implicit_current_processing_rank_id(1, group, channel)
        nisa.register_store(tile[:, channel : channel + 1], whose)
    nisa.dma_copy(before, tile)


# --- what it communicates, and what comes -----------------------------------------------------------------------------


def pairs(plan: Plan) -> list[tuple[int, int]]:
    """Circles around the lists that are active."""
    return [(ranks[i - 1], rank) for ranks in plan.lists[: plan.active] for i, rank in enumerate(ranks)]


def inputs(plan: Plan, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a rank launches the kernel with."""
    rng = np.random.default_rng([plan.seed, rank])
    dtype = plan.dtype.numpy
    shape = (plan.cores, plan.tensors, plan.rows, plan.columns)
    if plan.dtype in (nl.uint32, nl.uint8):
        x = rng.integers(0, 200, shape)
    elif plan.dtype in (nl.int32, nl.int16, nl.int8):
        x = rng.integers(-100, 100, shape)
    else:
        x = rng.standard_normal(shape) * 4
    size = plan.rows * plan.columns
    slot = size // plan.length
    table = np.full((3 + plan.slots, plan.length), 77, np.uint32)
    table[0] = rng.integers(0, slot + 1, plan.length)  # nothing at all, too
    table[1] = rng.integers(0, size - slot + 1, plan.length)
    if plan.slots:
        table[3] = rng.permutation(plan.length) * slot
    return x.astype(dtype), np.full(plan.received, 7, dtype), table


def expected(plan: Plan, rank: int, core: int, before: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The destinations of a rank on a core, and its metadata, where `before` are those whom rings put before it."""
    every = {r: inputs(plan, r) for r in plan.list_of(rank)}
    group, own = list(every), plan.sees(core)
    position, table = group.index(rank), every[rank][2].copy()
    found = []
    for i in range(plan.tensors):
        sent = [every[r][0][own, i] for r in group]
        found.append(_destination(plan, rank, position, sent, every[rank][1], int(before[i]), group, every))
    if plan.counted and not plan.known:
        table[2] = [every[r][2][0, 0 if plan.kind == "all_gather_v" else position] for r in group]
    return found, table


def _destination(
    plan: Plan, rank: int, position: int, sent: list[np.ndarray], start: np.ndarray, previous: int, group: list[int],
    every: dict,
) -> np.ndarray:
    kind, count = plan.kind, plan.length
    rows = plan.rows // count
    part = slice(position * rows, (position + 1) * rows)
    if plan.counted:
        return _by_counts(plan, rank, position, sent, start, every)
    if kind == "all_reduce":
        return summed(plan, sent)
    if kind == "reduce_scatter":
        return summed(plan, sent)[part]
    if kind == "all_gather":
        return np.concatenate(sent, axis=plan.dim)
    if kind == "all_to_all":
        return np.concatenate([x[part] for x in sent])
    if kind == "collective_permute":
        senders = [source for source, target in pairs(plan) if target == rank]
        return sent[group.index(senders[0])] if senders else start
    came = sent[group.index(previous)]
    return came if kind == "collective_permute_implicit" else summed(plan, [came, came])


def _by_counts(
    plan: Plan, rank: int, position: int, sent: list[np.ndarray], start: np.ndarray, every: dict
) -> np.ndarray:
    result = start.reshape(-1).copy()
    slot = result.size // plan.length
    column = 0 if plan.kind == "all_gather_v" else position
    for number, (values, (_, _, table)) in enumerate(zip(sent, every.values(), strict=True)):
        amount, first = int(table[0, column]), int(table[1, column])
        to = int(every[rank][2][3, number]) if plan.slots else number * slot
        result[to : to + amount] = values.reshape(-1)[first : first + amount]
    return result.reshape(start.shape)


def summed(plan: Plan, values: list[np.ndarray]) -> np.ndarray:
    """Floats in float32 and rounded once; integers exactly, then saturated."""
    dtype = plan.dtype.numpy
    integers = np.dtype(dtype).kind in "iu"
    total = values[0].astype(np.int64 if integers else np.float32)
    for x in values[1:]:
        total = OPERATORS[plan.op](total, x.astype(total.dtype))
    if integers:
        total = np.clip(total, np.iinfo(dtype).min, np.iinfo(dtype).max)
    with np.errstate(over="ignore"):
        return total.astype(dtype)


def results(plan: Plan) -> list[tuple]:
    """What every rank returns."""
    launch = kernel_of(plan)
    return nki.ranks(plan.count, lambda rank: launch(*inputs(plan, rank)), ring=plan.ring)
