"""Let a few partitions at a time go through a run of instructions while they are in the cache nearest to the core.

Instructions that work by row (nkilite/schedule/rows.py) and follow each other can be interchanged with the loop over
blocks of rows, as long as a row of one only ever meets the same row of another. What is kept in a tile that dies in
the run then needs a block of rows of scratch memory instead of the tile's, a tile that a DMA only loads need not be
filled at all, and results go to HBM past the caches.
"""

from __future__ import annotations

from collections.abc import Iterable

from nkilite import knobs
from nkilite.ir.program import Program
from nkilite.schedule.row_plans import Alike, Planner
from nkilite.schedule.runs import Finder, with_common_ends
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import Group

_BUDGET = 96  # members of distinct groups that are always compiled


class Fuse:
    """Group runs of instructions that work by row; leaves those of other groups alone."""

    def run(self, schedule: Schedule) -> Schedule:
        if not knobs.fuse():
            return schedule
        runs = with_common_ends(list(Finder(schedule).runs()))
        planner = Planner(schedule)
        groups = _affordable(schedule.program, planner.groups(runs))
        schedule.groups = sorted([*schedule.groups, *groups])
        return schedule


def _affordable(program: Program, found: Iterable[Alike]) -> list[Group]:
    """The groups worth compiling: code is written per distinct group, and a program may have thousands.

    Those that repeat most, by their members, come first, until the distinct ones together have a few members per
    signature of the program.
    """
    kinds: dict[tuple[tuple[int, ...], int], list[Group]] = {}
    for alike in found:
        kinds.setdefault((alike.signatures, id(alike.tree)), []).extend(alike.groups)
    budget = max(_BUDGET, 2 * len(program.signatures))
    chosen: list[Group] = []
    for (members, _), same in sorted(kinds.items(), key=lambda kind: -len(kind[1]) * len(kind[0][0])):
        budget -= len(members)
        if budget < 0:
            break
        chosen += same
    return chosen
