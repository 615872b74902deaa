"""Groups of instructions that work by row: one loop over blocks of rows, in which every member does its part."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from nkilite.codegen import registers
from nkilite.codegen.ahead import Ahead
from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import Beside, CpuOperand, MicroKernel
from nkilite.codegen.watch import end_if_told
from nkilite.schedule.tree import Loop, Op, Scratch, Source, Tree, column_loops, operations


def write(members: Sequence[MicroKernel], tree: Tree) -> None:
    """The code of a tree of rows; calls side by side share the steps of its loop."""
    e, loop = members[0].e, tree.loop
    late = next((node for node in column_loops(loop) if node.beside is not None), None)
    paired = _paired(loop, late)
    slots = [e.scratch(loop.step * pitch * (2 if i in paired else 1)) for i, pitch in enumerate(tree.scratch)]
    parts = {op.member: _Member(op, members, loop, tree.scratch, slots, paired) for op in tree.ops if not op.elided}
    for inner in column_loops(loop):
        for op in operations(inner.body):
            members[op.member].load_immediates()
    each = e.i64(loop.parallel)
    together = loop.step * loop.parallel
    first, end = (e.mul(u, each) for u in members[0].share(loop.extent // together, together))

    def inside(inner: Loop, block: Value) -> list[registers.Member]:
        return [parts[op.member].in_columns(block, inner.extent) for op in operations(inner.body) if not op.elided]

    elements = loop.extent * sum(max((o.columns for o in m.operands.values()), default=0) for m in members)
    with e.loop(end, start=first) as block:
        end_if_told(e, elements)
        for node in loop.body:
            if isinstance(node, Loop):
                if node is not late:
                    registers.write(e, inside(node, block.index), loop.step, node.extent)
                continue
            assert isinstance(node, Op)
            if late is not None and node.member == late.beside:
                follows = e.compare("sgt", block.index, first)
                before = e.select(follows, e.sub(block.index, e.i64(1)), block.index)
                beside = registers.Beside(e, inside(late, before), loop.step, late.extent, follows)
                parts[node.member].write(block.index, beside)
                beside.finish()
            elif not node.elided:
                parts[node.member].write(block.index)
    if late is not None:
        with e.when(e.compare("sgt", end, first)):
            registers.write(e, inside(late, e.sub(end, e.i64(1))), loop.step, late.extent)


def _paired(loop: Loop, late: Loop | None) -> set[int]:
    """Slots of two steps: the late loop still reads one while the other members work on the next."""
    if late is None:
        return set()
    used, early = (
        {use.place.slot for op in operations(nodes) for use in op.uses if isinstance(use.place, Scratch)}
        for nodes in (late.body, [node for node in loop.body if node is not late])
    )
    return used & early


class _Member:
    """One member on a step of the loop over rows."""

    def __init__(
        self, op: Op, members: Sequence[MicroKernel], loop: Loop, pitches: Sequence[int], slots: Sequence[Value],
        paired: set[int],
    ) -> None:
        self._op = op
        self._member = member = members[op.member]
        self._operands: dict[str, CpuOperand] = {}
        self._bases: dict[str, tuple[Value, int]] = {}  # address of the first step, bytes from step to step
        self._turns: dict[str, int] = {}  # bytes between the memory of even steps and that of odd ones
        e = member.e
        for argument, use in zip(member.call.operands, op.uses, strict=True):
            operand, place = member.operands[argument.name], use.place
            pitch = operand.strides[0]
            if isinstance(place, Scratch):
                pitch = pitches[place.slot]
                self._bases[argument.name] = e.offset(slots[place.slot], place.byte), 0
                if place.slot in paired:
                    self._turns[argument.name] = loop.step * pitch
            elif isinstance(place, Source):
                source = members[place.member]
                assert source.call.access.move is not None
                origin = source.call.access.move[1]
                pitch = source.operands[origin].strides[0]
                self._bases[argument.name] = e.offset(source.pointer(origin), place.byte), loop.step * pitch
            elif place is None:
                self._bases[argument.name] = member.pointer(argument.name), loop.step * pitch
            fetch = use.prefetch
            self._operands[argument.name] = operand._replace(
                shape=(loop.step, *operand.shape[1:]), strides=(pitch, *operand.strides[1:]),
                streams=use.nontemporal,
                ahead=None if fetch is None else Ahead(loop.step * pitch + fetch.byte, fetch.first, fetch.parts),
                unread=use.unread,
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

    def in_columns(self, block: Value, columns: int) -> registers.Member:
        """The member on a step as a part of a loop over columns."""
        pointers = self._pointers(block)
        accesses = []
        for use, argument in zip(self._op.uses, self._member.call.operands, strict=True):
            assert use.value is not None
            accesses.append(registers.Access(
                use.value, self._operands[argument.name], pointers.get(argument.name), argument.reads, argument.writes
            ))
        return registers.Member(accesses, functools.partial(self._compute, columns))

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
