"""Checks that a schedule is right for its program; run between passes and on parsed text.

A schedule is right if every read finds the value that it finds when instructions run in the order of the program.
Groups are runs of instructions, whose trees say in which order they run instead (nkilite/schedule/verify_tree.py) or
what is moved in their place (nkilite/schedule/verify_moves.py); what a group keeps to itself nobody else touches; and
how tiles lie suits all instructions that use them.
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import groupby
from typing import TypeGuard

from nkilite.errors import IrError
from nkilite.ir.verifier import verify
from nkilite.schedule.find_broadcast import equal_partitions
from nkilite.schedule.infer_panels import feeds
from nkilite.schedule.lives import Own
from nkilite.schedule.members import Members
from nkilite.schedule.rows import Rows
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.stage_overlaps import overlaps
from nkilite.schedule.tree import Slice, Tree
from nkilite.schedule.verify_moves import verify_moves
from nkilite.schedule.verify_tree import verify_tree


def verify_schedule(schedule: Schedule, after: str = "") -> None:
    """Check the program, what is said of its tiles, and its groups.

    Args:
        after: what produced the schedule, for the message.

    Raises:
        IrError: the program is malformed, or the schedule does not do what it does.
        NkiValidationError: an instruction breaks a rule of the hardware.
    """
    verify(schedule.program, after)
    where = f" after {after}" if after else ""
    _check_tiles(schedule, where)
    if schedule.groups:
        _check_groups(schedule, where)


def _check_tiles(schedule: Schedule, where: str) -> None:
    """Tiles lie as all instructions that use them can reach them."""
    alike = equal_partitions(schedule.program) if schedule.broadcast else frozenset()
    fed = feeds(schedule) if schedule.panels else {}
    wrong = [id for id in schedule.broadcast if id not in alike or id in schedule.panels]
    wrong += [id for id, feed in schedule.panels.items() if fed.get(id) is not feed]
    for id in wrong:
        raise IrError(f"{_label(schedule, id)} cannot be packed so, or be one row for all{where}")


def _check_groups(schedule: Schedule, where: str) -> None:
    program = schedule.program
    end = 0  # of the last group
    for group in schedule.groups:
        if not (end <= group.first < group.first + group.size <= program.count) or not isinstance(group.tree, Tree):
            raise IrError(f"group of {group.size} from instruction {group.first} of {program.count}{where}")
        end = group.first + group.size
    _check_private(schedule, where)
    rows, starts, staged = Rows(schedule), program.starts(), overlaps(program)
    seen: set[Hashable] = set()
    for group in schedule.groups:
        members = Members(schedule, group, starts[group.first : group.first + group.size], rows, where)
        members.need(all(s.definition.control is None for s in members.signatures), "it reaches into a loop")
        members.need(staged.keys().isdisjoint(members.starts), "a member overwrites what it still reads")
        known = members.pattern
        if known not in seen:
            try:
                _check_members(members, group.tree)
                (verify_moves if group.tree.moves else verify_tree)(members, group.tree)
            except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise members.fail(f"its tree is malformed ({error})") from error
            seen.add(known)


def _check_members(members: Members, tree: Tree) -> None:
    """Every member has its operation, in order, and every operation all of the member's operands."""
    numbers = [number for number, _ in groupby(tree.ops, lambda op: op.member)]
    members.need(numbers == list(range(len(members.signatures))), f"its tree has the members {numbers}")
    for number, same in groupby(tree.ops, lambda op: op.member):
        ops = list(same)
        counts = {len(op.uses) for op in ops}
        members.need(counts == {len(members.signatures[number].operands)}, f"member {number} has {counts} uses")
        cut = ops[0].slice
        slices = [Slice(cut.of, cut.run, i) for i in range(cut.of)] if cut else [None]
        members.need([op.slice for op in ops] == slices, f"member {number} has the slices {[op.slice for op in ops]}")
        alike = {(op.elided, *((u.place, u.prefetch, u.nontemporal, u.unread) for u in op.uses)) for op in ops}
        members.need(len(alike) == 1, f"slices of member {number} are used differently")


def _check_private(schedule: Schedule, where: str) -> None:
    """What a group keeps to itself is a tile of its own that nothing else uses, also in a later iteration."""
    own = Own(schedule.program)
    for group in schedule.groups:
        for id in group.private:
            if not _exists(id, schedule) or not own.by(id, group.first, group.first + group.size):
                what = _label(schedule, id)
                raise IrError(f"group of {group.size} from instruction {group.first} keeps {what} to itself{where}")


def _exists(id: object, schedule: Schedule) -> TypeGuard[int]:
    return isinstance(id, int) and 0 <= id < len(schedule.program.buffers)


def _label(schedule: Schedule, id: object) -> str:
    """Of a buffer, which may not exist."""
    return schedule.program.buffers[id].label if _exists(id, schedule) else f"buffer {id}"
