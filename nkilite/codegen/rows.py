"""Groups of instructions that work by row: one loop over blocks of rows, in which every member does its part."""

from __future__ import annotations

from collections.abc import Sequence

from nkilite.codegen import column_loop
from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.part import Block, Home, Part
from nkilite.codegen.watch import end_if_told
from nkilite.schedule.tree import Loop, Op, Scratch, Source, Tree, column_loops, operations


def write(members: Sequence[MicroKernel], tree: Tree) -> None:
    """The code of a tree of rows; calls side by side share the steps of its loop."""
    e, loop = members[0].e, tree.loop
    late = next((node for node in column_loops(loop) if node.beside is not None), None)
    paired = _paired(loop, late)
    slots = [e.scratch(loop.step * pitch * (2 if i in paired else 1)) for i, pitch in enumerate(tree.scratch)]
    parts = {op: _part(op, members, loop, tree.scratch, slots, paired) for op in tree.ops if not op.elided}
    for inner in column_loops(loop):
        for op in operations(inner.body):
            members[op.member].load_immediates()
    each = e.i64(loop.parallel)
    together = loop.step * loop.parallel
    first, end = (e.mul(u, each) for u in members[0].share(loop.extent // together, together))

    def inside(inner: Loop, block: Value) -> list[column_loop.Member]:
        ops = (op for op in operations(inner.body) if not op.elided)
        return [parts[op].in_columns(Block(loop.step, block), inner.extent) for op in ops]

    elements = loop.extent * sum(max((o.columns for o in m.operands.values()), default=0) for m in members)
    with e.loop(end, start=first) as block:
        end_if_told(e, elements)
        for node in loop.body:
            if isinstance(node, Loop):
                if node is not late:
                    column_loop.write(e, inside(node, block.index), loop.step, node.extent)
                continue
            assert isinstance(node, Op)
            if late is not None and node.member == late.beside:
                follows = e.compare("sgt", block.index, first)
                before = e.select(follows, e.sub(block.index, e.i64(1)), block.index)
                beside = column_loop.Beside(e, inside(late, before), loop.step, late.extent, follows)
                parts[node].write(Block(loop.step, block.index), beside=beside)
                beside.finish()
            elif not node.elided:
                parts[node].write(Block(loop.step, block.index))
    if late is not None:
        with e.when(e.compare("sgt", end, first)):
            column_loop.write(e, inside(late, e.sub(end, e.i64(1))), loop.step, late.extent)


def _paired(loop: Loop, late: Loop | None) -> set[int]:
    """Slots of two steps: the late loop still reads one while the other members work on the next."""
    if late is None:
        return set()
    used, early = (
        {use.place.slot for op in operations(nodes) for use in op.uses if isinstance(use.place, Scratch)}
        for nodes in (late.body, [node for node in loop.body if node is not late])
    )
    return used & early


def _part(
    op: Op, members: Sequence[MicroKernel], loop: Loop, pitches: Sequence[int], slots: Sequence[Value], paired: set[int]
) -> Part:
    """A member on a step of the loop."""
    member = members[op.member]
    e, homes = member.e, {}
    for argument, use in zip(member.call.operands, op.uses, strict=True):
        place = use.place
        if isinstance(place, Scratch):
            pitch = pitches[place.slot]
            turn = loop.step * pitch if place.slot in paired else 0
            homes[argument.name] = Home(e.offset(slots[place.slot], place.byte), pitch, rows=False, turn=turn)
        elif isinstance(place, Source):
            source = members[place.member]
            assert source.call.access.move is not None
            home = Home.of(source, source.call.access.move[1])
            homes[argument.name] = home._replace(pointer=e.offset(home.pointer, place.byte))
        elif place is None:
            homes[argument.name] = Home.of(member, argument.name)
    return Part(member, op, homes, max(o.columns for o in member.operands.values()))
