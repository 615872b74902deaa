"""Groups of instructions that work by row: one loop over blocks of rows, in which every member does its part."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from nkilite.codegen import registers
from nkilite.codegen.ahead import Ahead
from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import Beside, CpuOperand, MicroKernel
from nkilite.codegen.watch import end_if_told
from nkilite.schedule.group import Forwarded, Held, RowPlan, Scratch, Segment


def write(members: Sequence[MicroKernel], plan: RowPlan) -> None:
    """The micro-kernel of a row group; calls side by side share its blocks."""
    e = members[0].e
    paired = plan.paired
    slots = [e.scratch(plan.rows * pitch * (2 if i in paired else 1)) for i, pitch in enumerate(plan.slots)]
    working = [i for i in range(len(members)) if i not in plan.skipped]
    parts = {i: _Member(i, members, plan, slots) for i in working}
    segments = {s.first: s for s in plan.segments}
    for i, places in enumerate(plan.places):
        for argument, place in zip(members[i].call.operands, places, strict=True):
            if place is not None or (i in plan.skipped and argument.type.region.on_chip):
                members[i].private.add(argument.name)
    for known in plan.segments:
        for i in range(known.first, known.end):
            members[i].load_immediates()
    each = e.i64(plan.each)
    first, end = (e.mul(u, each) for u in members[0].share(plan.blocks // plan.each, plan.rows * plan.each))
    last = None if plan.carrier is None else plan.segments[-1]

    def inside(segment: Segment, block: Value) -> list[registers.Member]:
        return [parts[m].in_segment(block, segment) for m in working if segment.first <= m < segment.end]

    elements = plan.rows * plan.blocks * sum(max((o.columns for o in m.operands.values()), default=0) for m in members)
    with e.loop(end, start=first) as block:
        end_if_told(e, elements)
        done = 0
        for i in working:
            segment = segments.get(i)
            if i < done:
                continue
            if last is not None and segment is last:
                break
            if last is not None and i == plan.carrier:
                follows = e.compare("sgt", block.index, first)
                before = e.select(follows, e.sub(block.index, e.i64(1)), block.index)
                beside = registers.Beside(e, inside(last, before), plan.rows, last.columns, follows)
                parts[i].write(block.index, beside)
                beside.finish()
            elif segment is None:
                parts[i].write(block.index)
            else:
                registers.write(e, inside(segment, block.index), plan.rows, segment.columns)
            done = i if segment is None else segment.end
    if last is not None:
        with e.when(e.compare("sgt", end, first)):
            registers.write(e, inside(last, e.sub(end, e.i64(1))), plan.rows, last.columns)


class _Member:
    """One member on a block of rows."""

    def __init__(self, number: int, members: Sequence[MicroKernel], plan: RowPlan, slots: Sequence[Value]) -> None:
        self._member = member = members[number]
        self._number = number
        self._operands: dict[str, CpuOperand] = {}
        self._bases: dict[str, tuple[Value, int]] = {}  # address of the first block, bytes from block to block
        self._turns: dict[str, int] = {}  # bytes between the memory of even blocks and that of odd ones
        e, paired = member.e, plan.paired
        for position, (argument, place) in enumerate(zip(member.call.operands, plan.places[number], strict=True)):
            operand = member.operands[argument.name]
            if isinstance(place, Held):
                pitch = operand.strides[0]
            elif isinstance(place, Scratch):
                pitch = plan.slots[place.slot]
                self._bases[argument.name] = e.offset(slots[place.slot], place.byte), 0
                if place.slot in paired:
                    self._turns[argument.name] = plan.rows * pitch
            elif isinstance(place, Forwarded):
                source = members[place.member]
                assert source.call.access.move is not None
                origin = source.call.access.move[1]
                pitch = source.operands[origin].strides[0]
                self._bases[argument.name] = e.offset(source.pointer(origin), place.byte), plan.rows * pitch
            else:
                pitch = operand.strides[0]
                self._bases[argument.name] = member.pointer(argument.name), plan.rows * pitch
            self._operands[argument.name] = operand._replace(
                shape=(plan.rows, *operand.shape[1:]), strides=(pitch, *operand.strides[1:]),
                streams=number in plan.streams and argument.writes,
                ahead=next((
                    Ahead(plan.rows * pitch + f.byte, f.first, f.parts)
                    for f in plan.ahead if (f.member, f.operand) == (number, position)
                ), None),
                unread=(number, position) in plan.unread,
            )

    def _pointers(self, block: Value) -> dict[str, Value]:
        e = self._member.e
        odd = e.and_(block, e.i64(1)) if self._turns else block
        return {
            name: e.step(base, odd, self._turns[name]) if name in self._turns else e.step(base, block, step)
            for name, (base, step) in self._bases.items()
        }

    def write(self, block: Value, beside: Beside | None = None) -> None:
        """The member's code for a block, with work on another one beside it."""
        self._member.write_part(self._operands, self._pointers(block), beside)

    def in_segment(self, block: Value, segment: Segment) -> registers.Member:
        """The member on a block as a part of a segment."""
        pointers = self._pointers(block)
        values = segment.values[self._number - segment.first]
        accesses = [
            registers.Access(number, self._operands[a.name], pointers.get(a.name), a.reads, a.writes)
            for number, a in zip(values, self._member.call.operands, strict=True)
        ]
        return registers.Member(accesses, functools.partial(self._compute, segment.columns))

    def _compute(self, columns: int, variables: Mapping[str, Value], lanes: int) -> None:
        """The member's code for a few of its columns, which variables hold."""
        operands = {
            name: o._replace(
                shape=(1, lanes if o.columns == columns else 1), strides=(o.strides[0], o.dtype.itemsize),
                streams=False, ahead=None,
            )
            for name, o in self._operands.items()
        }
        self._member.write_part(operands, variables)
