"""Schedule to text: that of the program (nkilite/ir/printer.py), with what was decided beside it.

Comments say which tiles one partition is kept of, for all hold the same, and which instructions form a group, with its
plan:

    // one partition for all: %sb4
    // group of 3: 8 of 128 rows at a time; 0 is read in place
"""

from __future__ import annotations

from nkilite.ir.printer import print_program
from nkilite.schedule.schedule import Schedule


def print_schedule(schedule: Schedule) -> str:
    """A program and its schedule as text."""
    head = []
    if schedule.uniform:
        head.append(("// one partition for all:", [schedule.program.buffers[id] for id in sorted(schedule.uniform)]))
    before = {group.first: [f"// group of {group.size}: {group.plan}"] for group in schedule.groups}
    return print_program(schedule.program, head, before)
