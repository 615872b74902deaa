"""Turn a Program into what the timing model takes: queues, durations and the regions each instruction touches.

The only place where the IR meets nkilite.machine.timeline. Works per signature and column of the instruction table,
so that a trace of 100,000 instructions costs a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from math import gcd

import numpy as np

from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.definition import Meets
from nkilite.ir.program import Program, Signature
from nkilite.ir.types import IndirectKind, MemoryRegion, ViewType
from nkilite.machine.communication import Transfer
from nkilite.machine.dependencies import ACCUMULATE, DATA, READ, WRITE, Accesses, Edges, hazards
from nkilite.machine.engine import Cost, Engine, clock_ghz, dma_issue_ns, result_latency_ns
from nkilite.machine.rows import distinct
from nkilite.machine.target import Target
from nkilite.machine.timeline import Workload
from nkilite.machine.traffic import Traffic, pieces_of
from nkilite.profiling.communication import Collective
from nkilite.profiling.joined import Joined
from nkilite.profiling.queues import COLLECTIVES, HARDWARE_SCALAR, HARDWARE_SYNC, LOADS, PER_CORE, SOFTWARE, STORES
from nkilite.profiling.summary import hbm_bytes

__all__ = ["Costs", "costs_of", "signature_ids", "workload_of"]

_SBUF_PORT, _PSUM_PORT = 1, 2  # shared on trn1: Vector with GpSimd on SBUF, Vector with Scalar on PSUM
_TRIGGERS = 8  # of DMAs with ready-made descriptors, one at a time
_SCALAR_SEQUENCER = 4  # the instructions of the Scalar Engine and the DMAs that it issues; published trn2 profiles
_GPSIMD_ENGINE = 16  # makes the descriptors that nothing else can make, and computes
_PORT_BITS = 5
_SPACES = {MemoryRegion.sbuf: 0, MemoryRegion.psum: 1}  # of every core; further spaces: those of the cores + buffer id


def signature_ids(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """The signature id and the word position of every instruction."""
    columns = Columns.of(program)
    return columns.ids, columns.starts


@dataclass(frozen=True)
class Costs:
    """The cost of every signature of a program, by id; None for signatures no instruction uses."""

    by_signature: list[Cost | None]

    def __getitem__(self, signature: int) -> Cost:
        found = self.by_signature[signature]
        assert found is not None
        return found


def costs_of(program: Program, ids: np.ndarray, collectives: Mapping[int, Collective]) -> Costs:
    """Ask each signature in use for its cost; that of communication is its time."""
    used = np.bincount(ids, minlength=len(program.signatures))
    found = [s.definition.rule("cost")(s) if used[s.id] else None for s in program.signatures]
    for signature, collective in collectives.items():
        found[signature] = Cost(Engine.dma, transfer_ns=collective.transfer.ns, bytes_moved=collective.size)
    return Costs(found)


def workload_of(launch: Joined, costs: Costs, collectives: Mapping[int, Collective]) -> Workload:
    """The model's view of the allocated programs of a launch."""
    program = launch.program
    n = len(program)
    target = program.target
    queue, ports = np.zeros(n, np.int64), np.zeros(n, np.int64)
    busy, latency, transfer, memory = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    turnaround = np.zeros(n)
    lead, count, priority = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    traffic: list[Traffic] = []
    spread: list[np.ndarray] = []  # loads that the vendor's compiler hands to two generators in turn
    columns = _Accesses(launch)
    for signature, rows, word in columns.table.uses():
        cost = costs[signature.id]
        communicates = cost.engine is Engine.dma and not cost.dma_engines
        place = COLLECTIVES if communicates else _queue(signature, cost, program)
        queue[rows] = place
        ports[rows] = _ports(signature, place, target)
        if communicates:  # whoever triggers it goes on; the queue is held until it is done
            busy[rows], latency[rows] = cost.transfer_ns, result_latency_ns(target, Engine.sync)
            traffic += _traffic(launch, rows, collectives[signature.id].transfer)
        elif cost.engine is Engine.dma:
            busy[rows] = _issue_ns(signature, program)
            latency[rows], transfer[rows], count[rows] = cost.fixed_ns, cost.transfer_ns, cost.dma_engines
            priority[rows] = signature.arguments.get("priority") or 0
            memory[rows] = sum(hbm_bytes(signature)) / _memory_bytes_per_ns(target, launch.cores)
            if place == HARDWARE_SYNC and program.managed:
                spread.append(rows)
        else:
            busy[rows] = cost.cycles / clock_ghz(target, cost.engine)
            latency[rows] = result_latency_ns(target, cost.engine) + cost.fixed_ns
            turnaround[rows] = cost.gap_ns(target)
        partition = columns.add(signature, cost, rows, word)
        if 0 < cost.dma_engines < target.dma_engines:
            lanes = partition // target.partitions_per_dma_engine
            lead[rows] = np.minimum(lanes, target.dma_engines - cost.dma_engines)
    loads = np.sort(np.concatenate(spread)) if spread else np.empty(0, np.int64)
    for core in range(launch.cores):
        queue[loads[launch.core[loads] == core][1::2]] = SOFTWARE
    queue += PER_CORE * launch.core
    lead += target.dma_engines * launch.core
    ports <<= _PORT_BITS * launch.core
    edges = _with_dependencies(hazards(*columns.collected(), queue), program)
    tensors = [Engine.tensor.value + PER_CORE * core for core in range(launch.cores)]
    return Workload(
        queue, busy, latency, transfer, np.column_stack([lead, count]), edges, ports,
        priority if priority.any() else (), turnaround, (tensors, target.tensor_warmup_ns),
        program.managed, launch.meetings if launch.cores > 1 else (),
        memory if launch.cores > 1 or traffic else (),  # one core alone does not move as much as its memory can
        traffic,
    )


def _memory_bytes_per_ns(target: Target, cores: int) -> float:
    """Bandwidth of the memory for the cores of a launch: their share; one alone gets what its DMA engines move."""
    own = target.dma_engines * target.dma_bytes_per_ns if cores == 1 else 0.0
    return max(target.hbm_bytes_per_ns * cores, own)


def _traffic(launch: Joined, rows: np.ndarray, transfer: Transfer) -> list[Traffic]:
    """What collectives move by the DMA engines of the cores that issue them, each its share.

    An engine reads and writes: of the bytes that are touched it moves half.
    """
    target, cores = launch.program.target, launch.cores
    bytes = transfer.touched / 2 / cores / target.dma_engines
    engine_ns = min(bytes / target.dma_bytes_per_ns, transfer.ns)
    memory_ns = min(transfer.touched / cores / _memory_bytes_per_ns(target, cores), transfer.ns / cores)
    return [
        Traffic(
            int(row), (int(launch.core[row]) * target.dma_engines, target.dma_engines), engine_ns, memory_ns,
            pieces_of(bytes),
        )
        for row in rows
    ]


def _with_dependencies(edges: Edges, program: Program) -> Edges:
    """Hazards and the dependencies the program states."""
    if not program.dependencies:
        return edges
    stated = np.array(program.dependencies, np.int64)
    return Edges(
        np.concatenate([edges.producer, stated[:, 1]]), np.concatenate([edges.consumer, stated[:, 0]]),
        np.concatenate([edges.kind, np.full(len(stated), DATA, np.int8)]),
    )


def _is_generated(signature: Signature, program: Program) -> bool:
    """Whether descriptors are made while the kernel runs: always on trn2 and later, unless the call says otherwise or
    the compiler was told to make them."""
    mode = getattr(signature.arguments.get("dge_mode"), "name", "unknown")
    if mode != "unknown":
        return mode != "none"
    return (program.target.hardware_dge and not program.disable_dge) or _by_gpsimd(signature)


def _by_gpsimd(signature: Signature) -> bool:
    """Whether the GpSimd Engine has to make the descriptors: the call says so, or every row has its own index (dge)."""
    mode = getattr(signature.arguments.get("dge_mode"), "name", "unknown")
    indices = [o.type.indirection for o in signature.operands]
    return mode == "swdge" or any(i is not None and i.kind is IndirectKind.vector for i in indices)


def _issue_ns(signature: Signature, program: Program) -> float:
    """How long a DMA holds its queue."""
    if _by_gpsimd(signature):
        return program.target.software_dge_ns
    return dma_issue_ns(program.target, generated=_is_generated(signature, program))


def _queue(signature: Signature, cost: Cost, program: Program) -> int:
    if cost.engine is not Engine.dma:
        result: int = cost.engine.value
        return result
    mode = getattr(signature.arguments.get("dge_mode"), "name", "unknown")
    if mode == "hwdge":
        return HARDWARE_SCALAR if signature.arguments.get("engine") is Engine.scalar else HARDWARE_SYNC
    to_hbm = any(o.writes and not o.type.region.on_chip for o in signature.operands)
    if not _is_generated(signature, program):
        return STORES if to_hbm else LOADS
    if program.managed and mode == "unknown" and not any(o.type.indirection for o in signature.operands):
        return HARDWARE_SCALAR if to_hbm else HARDWARE_SYNC  # as in profiles of trn2 kernels by neuronx-cc 2.23
    return SOFTWARE


def _ports(signature: Signature, queue: int, target: Target) -> int:
    """What an instruction holds against other queues: memory ports (arch-v2, lifted on trn2) and a sequencer."""
    regions = {o.type.region for o in signature.operands}
    mask = _SCALAR_SEQUENCER if target.hardware_dge and queue in (Engine.scalar.value, HARDWARE_SCALAR) else 0
    mask |= _TRIGGERS if queue in (LOADS, STORES) else 0
    makes = queue == SOFTWARE and _by_gpsimd(signature)
    mask |= _GPSIMD_ENGINE if queue == Engine.gpsimd.value or makes else 0
    if not target.vector_gpsimd_sbuf_parallel and queue in (Engine.vector.value, Engine.gpsimd.value):
        mask |= _SBUF_PORT if MemoryRegion.sbuf in regions else 0
    if not target.vector_scalar_psum_parallel and queue in (Engine.vector.value, Engine.scalar.value):
        mask |= _PSUM_PORT if MemoryRegion.psum in regions else 0
    return mask


class _Accesses:
    """Collects the accesses of all instructions, an operand column of a signature at a time."""

    def __init__(self, launch: Joined) -> None:
        self.program = program = launch.program
        self.table = Columns.of(program)
        self._code = self.table.code
        self._columns: list[tuple[np.ndarray, int, int]] = []  # instructions, which of their accesses, what it does
        self._regions: list[np.ndarray] = []  # the region of each, as fields
        self._counts = np.zeros(len(program), np.int64)  # accesses of every instruction
        self._fences = _fences(program)
        self._written = _written_buffers(program, self.table, self._fences)
        buffers = BufferColumns.of(program)
        self._top, self._left = np.zeros((2, len(program.buffers)), np.int64)
        if program.addresses:
            tiles, places = list(program.addresses), chain.from_iterable(program.addresses.values())
            self._top[tiles], self._left[tiles] = np.fromiter(places, np.int64, 2 * len(tiles)).reshape(-1, 2).T
        memory = buffers.measured(lambda kind: _SPACES.get(kind.region, -1))
        own = len(_SPACES) * launch.cores + np.arange(len(memory))
        self._space = np.where(memory >= 0, len(_SPACES) * launch.buffer_core + memory, own)
        self._pitch = buffers.measured(_pitch)
        self._rows = np.maximum(buffers.size_bytes, 1) // self._pitch

    def add(self, signature: Signature, cost: Cost, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Add a signature's instructions; returns the first partition each touches in SBUF."""
        partitions = np.zeros(len(rows), np.int64)
        columns: list[tuple[int, np.ndarray]] = []
        for operand in signature.operands:
            buffers, offsets = self._code[starts + operand.word], self._code[starts + operand.word + 1]
            regions = self._regions_of(operand.type, buffers, offsets)
            if operand.type.region.on_chip:
                partitions = regions[:, 1]
            elif not self._written[buffers].any():
                continue  # nothing ever writes it: no hazards
            flags = (READ if operand.reads else 0) | (WRITE if operand.writes or signature.id in self._fences else 0)
            if operand.reads and operand.writes and cost.engine is Engine.tensor:
                flags |= ACCUMULATE
            columns.append((flags, regions))
        columns.sort(key=lambda column: column[0] & WRITE)  # reads come first
        self._columns += [(rows, place, flags) for place, (flags, _) in enumerate(columns)]
        self._regions += [regions for _, regions in columns]
        self._counts[rows] = len(columns)
        return partitions

    def collected(self) -> tuple[np.ndarray, Accesses]:
        """The distinct regions, and all accesses in program order."""
        if not self._columns:
            none = np.empty(0, np.int64)
            return np.empty((0, 7), np.int64), Accesses(none, none, none)
        regions, numbers = distinct(np.concatenate(self._regions))
        first = np.cumsum(self._counts) - self._counts
        found = Accesses(np.repeat(np.arange(len(first)), self._counts), np.empty_like(numbers), np.empty_like(numbers))
        done = 0
        for rows, place, flags in self._columns:
            at = first[rows] + place
            found.region[at], found.flags[at] = numbers[done:done + len(rows)], flags
            done += len(rows)
        return regions, found

    def _regions_of(self, kind: ViewType, buffers: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """The region (a row of its fields) of a view at each place."""
        found = np.zeros((len(buffers), 7), np.int64)
        pitch, rows = self._pitch[buffers], self._rows[buffers]
        found[:, 0] = self._space[buffers]
        if kind.indirection is not None:
            found[:, 2], found[:, 4], found[:, 5:] = rows, pitch, 1
        else:
            for width in np.unique(pitch).tolist():
                at = slice(None) if (pitch == width).all() else np.flatnonzero(pitch == width)
                _place(found, at, _shape_of(kind, width), offsets[at], width, rows[at])
        top, left = self._top[buffers], self._left[buffers]
        found[:, 1] += top
        found[:, 2] += top
        found[:, 3] += left
        found[:, 4] += left
        return found


def _place(
    found: np.ndarray, at: np.ndarray | slice, shape: tuple[int, ...], offsets: np.ndarray, pitch: int, rows: np.ndarray
) -> None:
    """Fill in the regions of views of one shape in buffers of one row pitch."""
    up, down, before, after, step, width = shape
    top, left = offsets // pitch, offsets % pitch
    fields = np.column_stack([
        top - up, top + down, left - before, left + after, np.full(len(top), step), np.full(len(top), width)
    ])
    over = (fields[:, 2] < 0) | (fields[:, 3] > pitch)  # the view runs over the ends of rows
    if over.any():
        first = fields[over, 0] * pitch + fields[over, 2]
        last = (fields[over, 1] - 1) * pitch + fields[over, 3]
        fields[over, 0] = np.maximum(first // pitch, 0)
        fields[over, 1] = np.minimum(-(-last // pitch), rows[over])
        fields[over, 2:] = (0, pitch, 1, 1)
    found[at, 1:] = fields


def _fences(program: Program) -> set[int]:
    """The signatures of barriers: of their operand, what comes later waits for them, whoever has written it."""
    return {
        s.id for s in program.signatures if s.definition.meets is Meets.cores and not any(o.writes for o in s.operands)
    }


def _written_buffers(program: Program, table: Columns, fences: set[int]) -> np.ndarray:
    """Whether any instruction writes each buffer, or another core may have before a barrier."""
    written = np.zeros(len(program.buffers), bool)
    for signature, _, starts in table.uses():
        for operand in signature.operands:
            if operand.writes or signature.id in fences:
                written[table.code[starts + operand.word]] = True
    return written


def _pitch(buffer: ViewType) -> int:
    """Bytes from one row to the next of a buffer of this type: of a partition on chip, of the last dimension in HBM."""
    if buffer.region.on_chip:
        result: int = max(buffer.free_bytes, 1)
        return result
    return max((buffer.shape[-1] if len(buffer.shape) > 1 else buffer.size) * buffer.dtype.itemsize, 1)


def _shape_of(kind: ViewType, pitch: int) -> tuple[int, int, int, int, int, int]:
    """The rectangle of a view around its first element, in rows of `pitch` bytes.

    Returns:
        Rows above and below (the latter with the first), bytes to the left and right (the latter with the first
        element), and the step and width of its runs, 0 when it has no gaps.
    """
    size = kind.dtype.itemsize
    up, down, before, after = 0, 1, 0, size
    gaps, height = False, 1
    run, step = size, 0  # bytes of the innermost contiguous run; what all longer strides are multiples of
    dims = sorted((abs(s) * size, n, s < 0) for n, s in zip(kind.shape, kind.strides, strict=True) if n > 1 and s)
    for stride, n, negative in dims:
        reach = stride * (n - 1)
        if stride % pitch == 0:
            lines = reach // pitch
            up, down = (up + lines, down) if negative else (up, down + lines)
            gaps |= stride // pitch > height
            height += lines
            continue
        before, after = (before + reach, after) if negative else (before, after + reach)
        if stride <= run and not step:
            run += reach
        else:
            step = gcd(step, stride)
    if gaps:
        return up, down, before, after, 1, 1
    if step and run < step:
        return up, down, before, after, step, run
    return up, down, before, after, 0, 0
