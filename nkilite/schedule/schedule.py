"""A schedule: a program, and what has been decided about how a CPU runs it."""

from __future__ import annotations

from dataclasses import dataclass, field

from nkilite.ir.program import Program
from nkilite.schedule.panels import Feed
from nkilite.schedule.tree import Group


@dataclass
class Schedule:
    """How a CPU runs a program. A pass may change it, and the program in it.

    Attributes:
        program: the instructions, valid on their own.
        broadcast: ids of tiles whose partitions all hold the same, so that one of them is kept for all.
        panels: by buffer id, what the matmuls that read a tile make of it, for tiles that can lie in panels.
        groups: instructions that are compiled together; disjoint and in order.
    """

    program: Program
    broadcast: frozenset[int] = frozenset()
    panels: dict[int, Feed] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<nki schedule of {self.program.name}: {len(self.program):,} instructions, {len(self.groups):,} groups>"
