"""Groups of instructions that work by row: one loop over blocks of rows, in which every member does its part.

Inside a block, elementwise members that follow each other form a segment: a few columns at a time go through them.
"""

from __future__ import annotations

from collections.abc import Sequence

from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.ir.group import Forwarded, RowPlan, Scratch, Segment
from nkilite.ir.program import Signature
from nkilite.ir.types import ViewType


def write(members: Sequence[MicroKernel], plan: RowPlan) -> None:
    """The micro-kernel of a row group; calls side by side share its blocks."""
    e = members[0].e
    slots = [e.scratch(plan.rows * pitch) for pitch in plan.slots]
    working = [i for i in range(len(members)) if i not in plan.skipped]
    parts = {i: _Member(i, members, plan, slots) for i in working}
    segments = {s.first: s for s in plan.segments}
    for i, places in enumerate(plan.places):
        for argument, place in zip(members[i].call.operands, places, strict=True):
            if place is not None or (i in plan.skipped and argument.type.region.on_chip):
                members[i].private.add(argument.name)
    first, end = members[0].share(plan.blocks, plan.rows)
    with e.loop(end, start=first) as block:
        done = 0
        for i in working:
            if i < done:
                continue
            segment = segments.get(i)
            if segment is None:
                parts[i].write(block.index)
            else:
                done = segment.end
                _write_segment([parts[m] for m in working if segment.first <= m < done], segment, block.index)


def _write_segment(parts: Sequence[_Member], segment: Segment, block: Value) -> None:
    """The members of a segment on one block of rows."""
    e = parts[0].e
    whole = segment.columns // segment.piece * segment.piece
    with e.loop(whole, step=segment.piece) as loop:
        for part in parts:
            part.write(block, segment.columns, loop.index, segment.piece)
    if whole < segment.columns:
        for part in parts:
            part.write(block, segment.columns, e.i64(whole), segment.columns - whole)


class _Member:
    """One member on a block of rows, with all of its columns or some."""

    def __init__(self, number: int, members: Sequence[MicroKernel], plan: RowPlan, slots: Sequence[Value]) -> None:
        self._member = member = members[number]
        self.e = member.e
        self._rows = plan.rows
        self._operands: dict[str, CpuOperand] = {}
        self._bases: dict[str, tuple[Value, int]] = {}  # address of the first block, bytes from block to block
        self._pieces: set[str] = set()  # operands whose scratch holds a piece of the columns
        for position, (argument, place) in enumerate(zip(member.call.operands, plan.places[number], strict=True)):
            operand = member.operands[argument.name]
            if isinstance(place, Scratch):
                pitch = plan.slots[place.slot]
                base, step = self.e.offset(slots[place.slot], place.byte), 0
                if place.piece:
                    self._pieces.add(argument.name)
            elif isinstance(place, Forwarded):
                source = members[place.member]
                pitch = source.operands["src"].strides[0]
                base, step = self.e.offset(source.pointer("src"), place.byte), plan.rows * pitch
            else:
                pitch = operand.strides[0]
                base, step = member.pointer(argument.name), plan.rows * pitch
            self._bases[argument.name] = base, step
            self._operands[argument.name] = operand._replace(
                shape=(plan.rows, *operand.shape[1:]), strides=(pitch, *operand.strides[1:]),
                streams=number in plan.streams and argument.writes,
                ahead=step if (number, position) in plan.ahead else 0, unread=(number, position) in plan.unread,
            )

    def write(self, block: Value, columns: int = 0, first: Value | None = None, piece: int = 0) -> None:
        """The member's code for a block, or for `piece` of its `columns` columns from the first one on."""
        e = self.e
        operands = dict(self._operands)
        pointers = {name: e.step(base, block, step) for name, (base, step) in self._bases.items()}
        for name, operand in self._operands.items():
            if first is not None and operand.columns == columns:
                size = operand.dtype.itemsize
                operands[name] = operand._replace(shape=(self._rows, piece), strides=(operand.strides[0], size))
                if name not in self._pieces:
                    pointers[name] = e.step(pointers[name], first, size)
        call = _cut(self._member.call, {name: o.shape for name, o in operands.items()})
        call.definition.rule("lower")(call, self._member.part(call, operands, pointers))


def _cut(call: Signature, shapes: dict[str, tuple[int, ...]]) -> Signature:
    """The signature on operands of smaller shapes; a new number of dimensions means dense rows."""
    arguments = dict(call.arguments)
    for name, shape in shapes.items():
        kind = arguments[name]
        strides = kind.strides if len(shape) == len(kind.strides) else (kind.strides[0], 1)
        arguments[name] = ViewType.of(kind.region, kind.dtype, shape, strides)
    return Signature(call.id, call.definition, arguments, call.target, call.key)
