"""Groups of instructions that work by row: one loop over blocks of rows, in which every member does its part."""

from __future__ import annotations

from collections.abc import Sequence

from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.ir.group import Forwarded, RowPlan, Scratch
from nkilite.ir.program import Signature
from nkilite.ir.types import ViewType


def write(members: Sequence[MicroKernel], plan: RowPlan) -> None:
    """The micro-kernel of a row group; calls side by side share its blocks."""
    e = members[0].e
    slots = [e.scratch(plan.rows * pitch) for pitch in plan.slots]
    working = [i for i in range(len(members)) if i not in plan.skipped]
    blocks = {i: _Block(i, members, plan, slots) for i in working}
    for i in plan.skipped:
        members[i].private.add("dst")
    first, end = members[0].share(plan.blocks, plan.rows)
    with e.loop(end, start=first) as loop:
        for i in working:
            part = blocks[i].kernel(loop.index)
            part.call.definition.rule("lower")(part.call, part)


class _Block:
    """One member on one block of rows."""

    def __init__(self, number: int, members: Sequence[MicroKernel], plan: RowPlan, slots: Sequence[Value]) -> None:
        self._member = member = members[number]
        self._call = _cut(member.call, plan.rows)
        self._operands: dict[str, CpuOperand] = {}
        self._bases: dict[str, tuple[Value, int]] = {}  # address of the first block, bytes from block to block
        ahead = {position for m, position in plan.ahead if m == number}
        for position, (argument, place) in enumerate(zip(member.call.operands, plan.places[number], strict=True)):
            operand = member.operands[argument.name]
            if place is not None:
                member.private.add(argument.name)
            if isinstance(place, Scratch):
                pitch = plan.slots[place.slot]
                base, step = member.e.offset(slots[place.slot], place.byte), 0
            elif isinstance(place, Forwarded):
                source = members[place.member]
                pitch = source.operands["src"].strides[0]
                base, step = member.e.offset(source.pointer("src"), place.byte), plan.rows * pitch
            else:
                pitch = operand.strides[0]
                base, step = member.pointer(argument.name), plan.rows * pitch
            self._bases[argument.name] = base, step
            self._operands[argument.name] = operand._replace(
                shape=(plan.rows, *operand.shape[1:]), strides=(pitch, *operand.strides[1:]),
                streams=number in plan.streams and argument.writes, ahead=step if position in ahead else 0,
            )

    def kernel(self, block: Value) -> MicroKernel:
        """The member with its operands at the rows of a block."""
        e = self._member.e
        pointers = {name: e.step(base, block, step) for name, (base, step) in self._bases.items()}
        return self._member.part(self._call, self._operands, pointers)


def _cut(call: Signature, rows: int) -> Signature:
    """The signature on `rows` rows."""
    arguments = {
        name: ViewType.of(value.region, value.dtype, (rows, *value.shape[1:]), value.strides)
        if isinstance(value, ViewType) else value
        for name, value in call.arguments.items()
    }
    return Signature(call.id, call.definition, arguments, call.target, call.key)
