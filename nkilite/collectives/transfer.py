"""The two instructions behind nki.collectives: one that transfers, and one that asks for the number of a rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np

from nkilite.codegen.kernel import MicroKernel
from nkilite.collectives.group import own_group
from nkilite.collectives.kinds import KINDS, Brought, Round, received_counts
from nkilite.dtypes import ALL, ELEMENTS
from nkilite.errors import InvalidOperand, RankInNoGroup
from nkilite.ir.access import Opaque
from nkilite.ir.definition import Meets
from nkilite.ir.meeting import Arrival, Written
from nkilite.ir.program import Signature
from nkilite.ir.rank import Group, Rank
from nkilite.ir.rules import ReadArguments
from nkilite.isa import rules
from nkilite.isa.operators import Op
from nkilite.isa.registers import require_int, require_registers
from nkilite.location import Location
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.trace.instruction import instruction
from nkilite.trace.register import VirtualRegister
from nkilite.trace.tensor import NkiTensor

MOST = 8  # tensors of a call
_REDUCED = tuple(d for d in ALL.values() if d not in ELEMENTS and not d.is_wide)  # packed elements have no sum
CURRENT_RANK = "collective_permute_implicit_current_processing_rank_id"
_COUNTED = ("all_to_all_v", "all_gather_v")


def _keeps(arguments: dict[str, object]) -> tuple[str, ...]:
    """Where counts say what arrives, the rest of a destination stays."""
    return ("dsts_0",) if arguments["kind"] in _COUNTED else ()


@instruction(
    writes=("dsts", "received"), updates=_keeps, lists={"srcs": MOST, "dsts": MOST}, partly_read=("metadata",),
    meets=Meets.ranks, access=Opaque("what the ranks bring decides what they receive"),
)
def collective(
    kind: str,
    srcs: Sequence[NkiTensor],
    dsts: Sequence[NkiTensor],
    replica_group: Sequence[Sequence[int]] | None,
    metadata: NkiTensor | None = None,
    received: NkiTensor | None = None,
    op: Op | None = None,
    collective_dim: SupportsIndex | None = None,
    channel_ids: Sequence[int] | None = None,
    has_rdispls: bool | None = None,
    name: str | None = None,
) -> None:
    """A collective of nki.collectives, whose functions check and write it.

    Args:
        kind: which one.
        srcs: what the rank brings.
        dsts: what it receives.
        replica_group: rank lists; of collective_permute, the pairs.
        metadata: counts and displacements, of those that end in _v.
        received: where the counts of what came are written.
        op: name of the reduction.
        collective_dim: the dimension that is joined.
        channel_ids: of the tensors, where they go along rings.
        has_rdispls: whether metadata state where what comes is put.
    """


@collective.spelling
def _collective_spelling(arguments: ReadArguments, operand: str) -> str:
    stem, _, number = operand.partition("_")
    if not number:
        return "metadata_tensor"  # both what it says, and the counts that are written to it
    if arguments["channel_ids"] is None:
        return f"{stem}[{number}]"
    list_, channel = divmod(int(number), len(arguments["channel_ids"]))
    two = stem == "srcs" and arguments["op"] is not None
    return f"{stem}{list_ if two else ''}_by_channel[{channel}][0]"


@collective.check
def _collective_check(call: Signature) -> None:
    for operand in rules.tensors(call):
        rules.require_memory(call, operand, rules.SBUF, *rules.HBM)
        if call.arguments[operand].region.on_chip:
            rules.require_partitions(call, operand)
        if call.op is not None:
            rules.require_dtype(call, operand, _REDUCED)


@collective.reference
def _collective_reference(call: Signature, **given: object) -> tuple[object, ...]:
    """Of a rank that is alone in its group, on whose ring it follows itself."""
    return tuple(None for o in call.operands if o.writes)


@collective.exchange
def _collective_exchange(arrivals: Sequence[Arrival], rank: Rank) -> list[Written]:
    first = arrivals[0]
    # Cores issue a transfer of shared tensors together, and it happens once; of tensors of its own, each does one.
    once = len(arrivals) > 1 and "dsts_0" in first.shared
    if not once:
        return [_received(arrival, rank) for arrival in arrivals]
    written = _received(first, rank)
    # What arrived is the same for all of them: each may have metadata of its own.
    return [written, *({n: v for n, v in written.items() if n not in first.shared} for _ in arrivals[1:])]


def _received(call: Arrival, rank: Rank) -> Written:
    groups = (tuple(sorted(s for s, _ in call.replica_group)),) if _by_pairs(call) else call.replica_group
    group = own_group(groups, rank)
    if group is None:
        if _by_pairs(call):
            return {}
        raise _in_no_group(call.kind, rank, groups, call.location)
    sources, destinations = call.items("srcs"), call.items("dsts")
    metadata = call.arguments.get("metadata")
    rows = None if metadata is None else metadata.reshape(-1, len(group)).copy()
    brought = Brought([s.copy() for s in sources], rows, destinations[0].size)
    what = (call.kind, call.core, *((s.shape, str(s.dtype)) for s in sources), call.op, call.collective_dim)
    found = Round(call, rank, group, rank.gather(group, what, brought, call.location))
    written = {f"dsts_{i}": KINDS[call.kind](found, i) for i in range(len(destinations))}
    if call.arguments.get("received") is not None:
        written["received"] = received_counts(found)
    return written


def _in_no_group(kind: str, rank: Rank, groups: Sequence[Group], location: Location) -> RankInNoGroup:
    for group in groups:
        rank.require(group, location)  # they may be right, and the launch too small
    return RankInNoGroup(
        rank=rank.number, instruction=f"nki.collectives.{kind}", groups=[list(g) for g in groups], location=location
    )


def _by_pairs(call: Arrival) -> bool:
    result: bool = call.kind == "collective_permute"
    return result


@collective.cost
def _collective_cost(call: Signature) -> Cost:
    kinds = [kind for name, kind in rules.tensors(call).items() if name.startswith("srcs")]
    moved = sum(kind.size * kind.dtype.itemsize for kind in kinds)
    return costs.dma(call.target, call.target.dma_engines, moved / call.target.dma_engines)


@instruction(meets=Meets.nobody, access=Opaque("the host says which rank it is"))
def rank_number(
    dst: VirtualRegister,
    iteration: int | VirtualRegister,
    replica_group: Sequence[Sequence[int]] | None,
    channel_id: SupportsIndex = 0,
    name: str | None = None,
) -> None:
    """dst = the rank whose data a ring has brought after so many steps; by default the rank itself.

    Args:
        dst: the register.
        iteration: steps.
        replica_group: rank lists, or None for no ring.
        channel_id: the ring's.
    """


@rank_number.check
def _rank_number_check(call: Signature) -> None:
    require_registers(call, "dst", "iteration")


@rank_number.check_immediates
def _rank_number_check_immediates(call: Signature, iteration: object = 0) -> None:
    require_int(f"nki.collectives.{CURRENT_RANK}", "iteration_id", iteration, call.dst.dtype)


@rank_number.reference
def _rank_number_reference(call: Signature, dst: np.ndarray, **_: object) -> np.ndarray:
    return np.zeros((1, 1), np.int32)


@rank_number.exchange
def _rank_number_exchange(arrivals: Sequence[Arrival], rank: Rank) -> list[Written]:
    (call,) = arrivals
    number = rank.number
    if call.replica_group is not None:
        group = own_group(call.replica_group, rank)
        if group is None:
            raise _in_no_group(CURRENT_RANK, rank, call.replica_group, call.location)
        rank.require(group, call.location)
        ring = rank.around(group, call.channel_id)
        steps = int(np.asarray(call.iteration).reshape(-1)[0])
        number = ring[(ring.index(number) - steps) % len(ring)]
    return [{"dst": np.array([[number]], np.int32)}]


@rank_number.cost
def _rank_number_cost(call: Signature) -> Cost:
    return costs.sequencer(call.target, Engine.gpsimd)


@collective.lower
@rank_number.lower
def _collective_lower(call: Signature, kernel: MicroKernel) -> None:
    kernel.pause()


def invalid(instruction: str, operand: str, found: str, expected: str) -> InvalidOperand:
    """The error for an argument of a collective."""
    return InvalidOperand(instruction=f"nki.collectives.{instruction}", operand=operand, found=found, expected=expected)
