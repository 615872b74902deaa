"""Checks groups: that they are runs of instructions of their own, that nobody needs what they keep, and their trees."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from itertools import groupby

from nkilite.errors import IrError
from nkilite.ir.accesses import Spaces
from nkilite.ir.loops import loops
from nkilite.ir.program import Program
from nkilite.ir.types import BufferKind
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import Group, Slice, Tree
from nkilite.schedule.verify_members import Members
from nkilite.schedule.verify_moves import verify_moves
from nkilite.schedule.verify_rows import verify_rows
from nkilite.schedule.verify_sums import verify_sums


def verify_groups(schedule: Schedule, where: str) -> None:
    """Check `groups`.

    Raises:
        IrError: a group is not what its instructions do one after another.
    """
    program = schedule.program
    end = 0
    for group in schedule.groups:
        if not (end <= group.first < group.first + group.size <= program.count) or not isinstance(group.tree, Tree):
            raise IrError(f"group of {group.size} from instruction {group.first} of {program.count}{where}")
        end = group.first + group.size
    _check_private(schedule, where)
    spaces = Spaces(program)
    seen: set[Hashable] = set()
    for group in schedule.groups:
        members = Members(schedule, group, spaces, where)
        members.need(all(s.definition.control is None for s in members.signatures), "it reaches into a loop")
        known = _pattern(members)
        if known not in seen:
            try:
                _check_members(members, group.tree)
                tree = group.tree
                (verify_moves if tree.moves else verify_sums if tree.terms else verify_rows)(members, tree)
            except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise members.fail(f"its tree is malformed ({error})") from error
            seen.add(known)


def _check_members(members: Members, tree: Tree) -> None:
    """Every member has its operation, in order, and every operation all of the member's operands."""
    numbers = [op.member for op in tree.members]
    members.need(numbers == list(range(len(members.signatures))), f"its tree has the members {numbers}")
    for op in tree.ops:
        touches, first = members.touches[op.member], tree.members[op.member]
        members.need(
            len(op.uses) == len(touches), f"{len(op.uses)} uses of the {len(touches)} operands of member {op.member}"
        )
        alike = [replace(use, value=None) for use in op.uses] == [replace(use, value=None) for use in first.uses]
        members.need(alike, f"slices of member {op.member} are used differently")
    for member, same in groupby(tree.ops, lambda op: op.member):
        cuts = [op.slice for op in same]
        first_cut = cuts[0]
        whole = len(cuts) == 1 if first_cut is None else cuts == [Slice(*first_cut[:2], i) for i in range(first_cut.of)]
        members.need(whole, f"member {member} has the slices {cuts}")


def _pattern(members: Members) -> Hashable:
    """Equal for groups that are right or wrong alike."""
    return members.group.tree, members.group.private, tuple(
        (signature.id, tuple((t.buffer, t.offset) for t in touches))
        for signature, touches in zip(members.signatures, members.touches, strict=True)
    )


def _check_private(schedule: Schedule, where: str) -> None:
    """What a group keeps to itself is a tile of its own that nothing else touches, also in a later iteration."""
    program = schedule.program
    keeper: dict[int, Group] = {}
    for group in schedule.groups:
        for id in group.private:
            buffer = program.buffers[id] if isinstance(id, int) and 0 <= id < len(program.buffers) else None
            alone = buffer is not None and buffer.region.on_chip and buffer.address is None
            if buffer is None or not alone or buffer.kind is not BufferKind.internal or id in keeper:
                raise IrError(
                    f"group of {group.size} from instruction {group.first} keeps buffer {id} to itself{where}"
                )
            keeper[id] = group
    if not keeper:
        return
    carried = _carried(program)
    for instruction in program:
        for operand in instruction.signature.operands:
            used, _ = instruction.access(operand)
            holder = keeper.get(used.id)
            if holder is None:
                continue
            inside = holder.first <= instruction.index < holder.first + holder.size
            if not inside or carried(instruction.index, used.loop):
                raise IrError(
                    f"{instruction.signature.name} uses {used.label}, which the group from instruction {holder.first} "
                    f"keeps to itself{where}", location=instruction.location,
                )


def _carried(program: Program) -> Callable[[int, int | None], bool]:
    """Whether a buffer made in a loop (or in none) is used, by an instruction, in another one inside of that."""
    inside: dict[int, int] = {}
    for loop in loops(program):  # inner loops begin later
        inside.update(dict.fromkeys(range(loop.begin + 1, loop.end + 1), loop.number))
    return lambda index, made: inside.get(index) != made
