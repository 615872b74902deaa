"""Checks loops over columns: every number in them is one set of elements, and what is in registers is made there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, groupby

from nkilite.ir import nest
from nkilite.schedule.tree import Loop, Op, Slice, operations
from nkilite.schedule.verify_members import Members, Touch


def verify_values(members: Members, ops: Sequence[Op], loops: Sequence[Loop]) -> None:
    """Check the values of all operations, of which some are in loops over columns."""
    need = members.need
    inside = {op.member for loop in loops for op in operations(loop.body)}
    for op in ops:
        valued = op.member in inside and not op.elided
        right = all((use.value is not None) == valued for use in op.uses)
        need(right, f"member {op.member} has values for registers, or has none")
    for loop in loops:
        need(not (loop.step or loop.parallel), "a loop over columns has steps of its own")
        known: list[tuple[int | None, Touch, Slice | None]] = []
        for op in operations(loop.body):
            if op.elided:
                continue
            touches = members.touches[op.member]
            alike = members.signatures[op.member].sweep == loop.extent * (op.slice.of if op.slice else 1)
            need(alike, f"member {op.member} does not work on {loop.extent} columns, each on its own")
            known += ((use.value, touch, op.slice) for use, touch in zip(op.uses, touches, strict=True))
        _verify_gaps(members, loop.extent, known)
        for (value, one, cut), (number, other, other_cut) in combinations(known, 2):
            if members.sums(one) != members.sums(other):
                if one.operand.writes or other.operand.writes:
                    apart = members.rows_apart(one, other)
                    need(apart, f"{members.name(one)} is combined, and meets {members.name(other)}")
            elif value == number:
                same = one.same(other, cut, other_cut)
                need(same, f"{members.name(one)} and {members.name(other)} are not one value")
            elif one.operand.writes or other.operand.writes:
                apart = (one.member, cut) == (other.member, other_cut) or (
                    one.apart(other, cut, other_cut) if cut or other_cut else members.rows_apart(one, other)
                )
                need(apart, f"{members.name(one)} and {members.name(other)} are one value")


def _verify_gaps(members: Members, columns: int, known: Sequence[tuple[int | None, Touch, Slice | None]]) -> None:
    """All operands are reached by the same loops, the innermost over neighbours; by one loop if rows are combined."""
    layouts, sizes = [], []
    for _, touch, cut in known:
        kind, size = touch.operand.type, touch.operand.type.dtype.itemsize
        layout = kind.shape[1:], tuple(s * size for s in kind.strides[1:])
        if kind.free_size == 1:
            layout = (columns,), (0,)
        elif cut is not None:
            found = nest.take(layout, *cut)
            if found is None:
                raise members.fail(f"{members.name(touch)} has no columns {cut}")
            layout = found[1]
        layouts.append(layout)
        sizes.append(size)
    dims = nest.unify(layouts) or [nest.Dim(0, (-1,) * len(sizes))]
    near = all(stride in (0, size) for stride, size in zip(dims[-1].strides, sizes, strict=True))
    members.need(near, "its rows have gaps at different places")
    touches = [touch for _, touch, _ in known]
    placed = [t for t in touches if members.signatures[t.member].access.placed]
    members.need(not placed or all(cut is None for _, _, cut in known), "it needs to know its columns, and is cut")
    torn = [members.name(touch) for _, touch, cut in known if cut is not None and members.sums(touch)]
    members.need(not torn, f"{', '.join(torn)} is combined from the columns of a slice alone")
    if placed or any(map(members.sums, touches)):
        stores = any(t.operand.writes and not t.operand.type.region.on_chip for t in touches)
        members.need(not stores and len(dims) == 1, "it combines rows that have gaps or go to HBM")


def verify_held(members: Members, loops: Sequence[Loop], buffer: int) -> None:
    """Check that a value that never leaves registers is made, before it is used, in the one loop that uses it."""
    need = members.need
    uses = [
        [(op.member, t, use.value) for op in operations(loop.body) if not op.elided
         for t, use in zip(members.touches[op.member], op.uses, strict=True) if t.buffer == buffer]
        for loop in loops
    ]
    inside = next((found for found in uses if found), [])
    name = f"buffer {members.program.buffers[buffer].label}"
    touched = {t.member for touches in members.touches for t in touches if t.buffer == buffer}
    need(touched <= {m for m, _, _ in inside}, f"{name} is held in registers outside of a loop over columns")
    made: set[int | None] = set()
    for _, same in groupby(inside, lambda use: use[0]):
        for _, touch, value in sorted(same, key=lambda use: not use[1].operand.reads):
            need(not members.sums(touch), f"{members.name(touch)} is combined, and held in registers")
            need(value in made or not touch.operand.reads, f"{members.name(touch)} is read before it is made")
            made.add(value)
