"""Checks loops over columns: every number in them is one set of elements, and what is in registers is made there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from nkilite.schedule.tree import Loop, Op, operations
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
        known: list[tuple[int | None, Touch]] = []
        for op in operations(loop.body):
            if op.elided:
                continue
            touches = members.touches[op.member]
            alike = members.signatures[op.member].sweep == loop.extent and all(t.dense for t in touches)
            need(alike, f"member {op.member} does not work on {loop.extent} columns, each on its own")
            known += zip((use.value for use in op.uses), touches, strict=True)
        stores = any(t.operand.writes and not t.operand.type.region.on_chip for _, t in known)
        need(not (stores and any(map(members.sums, (t for _, t in known)))), "it combines a row and stores to HBM")
        for (value, one), (number, other) in combinations(known, 2):
            if members.sums(one) != members.sums(other) and (one.operand.writes or other.operand.writes):
                apart = members.rows_apart(one, other)
                need(apart, f"{members.name(one)} is combined, and meets {members.name(other)}")
            elif value == number:
                need(one.same(other), f"{members.name(one)} and {members.name(other)} are not one value")
            elif one.operand.writes or other.operand.writes:
                apart = one.member == other.member or members.rows_apart(one, other)
                need(apart, f"{members.name(one)} and {members.name(other)} are one value")


def verify_held(members: Members, ops: Sequence[Op], loops: Sequence[Loop], buffer: int) -> None:
    """Check that a value that never leaves registers is made, before it is used, in the one loop that uses it."""
    need = members.need
    uses = [t for op in ops if not op.elided for t in members.touches[op.member] if t.buffer == buffer]
    together = ({op.member for op in operations(loop.body)} for loop in loops)
    alone = any({t.member for t in uses} <= inside for inside in together)
    need(alone, f"{members.name(uses[0])} is held in registers outside of a loop over columns")
    made: set[int | None] = set()
    for touch in sorted(uses, key=lambda t: (t.member, not t.operand.reads)):
        value = ops[touch.member].uses[touch.position].value
        need(not members.sums(touch), f"{members.name(touch)} is combined, and held in registers")
        need(value in made or not touch.operand.reads, f"{members.name(touch)} is read before it is made")
        made.add(value)
