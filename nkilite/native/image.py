"""What it takes to run a compiled program, as plain data: no IR, nothing of this process.

An executable is made of an image alone, so that one read from the disk cache runs like one just compiled. Fields are
numbers, strings, NumPy arrays and named tuples of these. Whoever needs more at run time adds such a field, here or to
`Lowered`; the disk cache carries it along.
"""

from __future__ import annotations

from bisect import bisect_right
from math import prod
from typing import Any, NamedTuple

import numpy as np

from nkilite.dtypes import as_dtype
from nkilite.ir.columns import Columns, numbered
from nkilite.ir.program import WORDS_BEFORE_ARGUMENTS, Instruction, Operand, Program
from nkilite.ir.types import BufferKind, MemoryRegion, extent
from nkilite.isa.custom import custom_operator
from nkilite.isa.debugging import device_print
from nkilite.isa.dynamic import bounded_index
from nkilite.location import Location
from nkilite.native.lower import Lowered, cpu_strides
from nkilite.native.numbers import Numbers
from nkilite.native.operands import HEADER_WORDS
from nkilite.schedule.place import CpuPlacement


class HbmArray(NamedTuple):
    """An input or output.

    Attributes:
        slot: its place among the bases.
        dtype: name of the element type.
        written: for an input, the first line that writes it.
        filled: for an output, what a launch fills all its bytes with before its cores begin, if it does.
    """

    slot: int
    shape: tuple[int, ...]
    dtype: str
    written: Location | None = None
    filled: int | None = None

    @property
    def bytes(self) -> int:
        return prod(self.shape) * as_dtype(self.dtype).itemsize


class Held(NamedTuple):
    """A tensor that the host reads or writes: `words` is where its base and offset are in the entry, strides are bytes
    and [low, high) the bytes around its first element that it spans."""

    words: int
    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...]
    low: int
    high: int
    shared: bool


class Stop(NamedTuple):
    """What the host needs to know about an entry at which the native loop may stop.

    Attributes:
        tensors: by operand, those of an instruction the host takes part in: one that prints, or at which cores meet.
        values: its other arguments, as (name, value); of an operator of the user's, which one it is; of a check of a
            dynamic dimension, what it is about.
        meets: whether cores meet there, or ask for their rank.
    """

    instruction: str
    location: Location
    tensors: tuple[tuple[str, Held], ...] = ()
    values: tuple[tuple[str, Any], ...] = ()
    meets: bool = False


class Image(NamedTuple):
    """A compiled program.

    Attributes:
        level: the CPU level of its micro-kernels.
        arena_bytes: memory for the tiles, the first of the bases.
        bases: number of bases.
        inputs, outputs: what a launch is given, in order.
        internal: (slot, bytes) of HBM tensors that are neither.
        constants: (slot, values).
        registers: (arena offset, bytes) of engines' registers, which are zero when a kernel begins.
        stops: by number of the entry.
        numbers: what is looked for in results, if anything is.
        hasty: there is a better one to be had.
    """

    name: str
    level: str
    lowered: Lowered
    arena_bytes: int
    bases: int
    inputs: tuple[HbmArray, ...]
    outputs: tuple[HbmArray, ...]
    internal: tuple[tuple[int, int], ...]
    constants: tuple[tuple[int, np.ndarray], ...]
    registers: tuple[tuple[int, int], ...]
    stops: dict[int, Stop]
    numbers: Numbers | None = None
    hasty: bool = False


def image_of(
    program: Program, placement: CpuPlacement, lowered: Lowered, level: str, hasty: bool = False
) -> Image:
    """The image of a lowered program."""
    outputs = {b.id for b in program.outputs}
    written = written_inputs(program)
    slots = {b.id: slot for slot, b in enumerate(placement.external, start=1)}
    internal, constants = [], []
    for buffer in placement.external:
        slot = slots[buffer.id]
        if buffer.kind is BufferKind.constant:
            assert buffer.data is not None
            constants.append((slot, buffer.data))
        elif buffer.kind is BufferKind.internal and buffer.id not in outputs:
            internal.append((slot, buffer.size_bytes))
    unwritten = program.target.unwritten_byte
    return Image(
        name=program.name, level=level, lowered=lowered, arena_bytes=placement.arena_bytes,
        bases=1 + len(placement.external),
        inputs=tuple(HbmArray(slots[b.id], b.shape, str(b.dtype), written.get(b.id)) for b in program.inputs),
        outputs=tuple(
            HbmArray(slots[b.id], b.shape, str(b.dtype), filled=unwritten if place in program.fresh else None)
            for place, b in enumerate(program.outputs)
        ),
        internal=tuple(internal), constants=tuple(constants),
        registers=tuple(
            (placement.of(b.id).offset, b.size_bytes)
            for b in program.buffers
            if b.kind is BufferKind.registers and placement.of(b.id).pitch  # or nothing touches them
        ),
        stops=_stops(program, placement, lowered),
        numbers=_numbers(program, placement), hasty=hasty,
    )


def _numbers(program: Program, placement: CpuPlacement) -> Numbers | None:
    if program.watched < 0:
        return None
    state = program.buffers[program.watched]
    return Numbers(placement.of(state.id).offset, state.partitions, program.fatal, tuple(program.checks))


def written_inputs(program: Program) -> dict[int, Location]:
    """The input buffers a program writes, with the first line that does."""
    columns = Columns.of(program)
    first: dict[int, int] = {}  # word positions of the instructions
    for signature, _, starts in columns.uses():
        for operand in signature.operands:
            if operand.writes and not operand.type.region.on_chip:
                buffers, places, _ = numbered(columns.code[starts + operand.word])
                for buffer, start in zip(buffers.tolist(), starts[places].tolist(), strict=True):
                    first[buffer] = min(start, first.get(buffer, start))
    return {
        b.id: program.locations[program.code[first[b.id] + 1]] for b in program.inputs if b.id in first
    }


def _stops(program: Program, placement: CpuPlacement, lowered: Lowered) -> dict[int, Stop]:
    """The entries of instructions that check an index or that the host takes part in."""
    host = {s.id for s in program.signatures if s.definition is device_print.definition or s.definition.meets}
    may_stop = host | {s.id for s in program.signatures if s.checks_indices}
    if not may_stop:
        return {}
    stops: dict[int, Stop] = {}
    firsts = lowered.firsts.tolist()
    for instruction in program:
        signature = instruction.signature
        if signature.id in may_stop:
            entry = bisect_right(firsts, instruction.index) - 1
            if entry not in stops:
                stop = Stop(signature.name, instruction.location)
                if signature.definition is custom_operator.definition:
                    stop = stop._replace(values=(("operator", signature.operator),))
                elif signature.definition is bounded_index.definition:
                    stop = stop._replace(values=(("what", signature.what),))
                stops[entry] = _hosted(stop, instruction, placement) if signature.id in host else stop
    return stops


def _hosted(stop: Stop, instruction: Instruction, placement: CpuPlacement) -> Stop:
    """The stop of an instruction that the host takes part in."""
    call = instruction.signature
    tensors = tuple((o.name, _held(instruction, o, placement)) for o in call.operands)
    numbers = {i.name: instruction.value(i) for i in call.immediates}
    values = tuple((n, numbers.get(n, v)) for n, v in call.arguments.items() if not call.is_tensor(n))
    return stop._replace(tensors=tensors, values=values, meets=call.definition.meets is not None)


def _held(instruction: Instruction, operand: Operand, placement: CpuPlacement) -> Held:
    kind = operand.type
    buffer, _ = instruction.access(operand)
    strides = cpu_strides(kind, buffer.partition_bytes, placement.of(buffer.id).pitch)
    low, high = extent(kind.shape, strides)
    words = HEADER_WORDS + operand.word - WORDS_BEFORE_ARGUMENTS
    shared = kind.region is MemoryRegion.shared_hbm
    return Held(words, kind.shape, str(kind.dtype), strides, low, high + kind.dtype.itemsize, shared)
