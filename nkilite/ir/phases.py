"""The phases of a program whose core meets others: what it may do between two meetings, as ranges of instructions.

Cores that come to the same meetings have the same phases, in the same order; what they do in one of them happens at the
same time. A loop with meetings in its body has a phase that crosses from one turn to the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nkilite.ir.definition import Meets
from nkilite.ir.loops import Loop, loops
from nkilite.ir.program import Program

Range = tuple[int, int]  # of instructions, the end excluded
Phase = tuple[Range, ...]


class _Open(NamedTuple):
    """A phase that has not ended; `first` if it began with the body that is looked at."""

    ranges: Phase
    first: bool


class _Body(NamedTuple):
    """The phases of a loop body: those before its first meeting, those between two, and those after its last."""

    heads: list[Phase]
    inner: list[Phase]
    tails: list[_Open]


def meetings(program: Program) -> set[int]:
    """The signatures at which a core waits for others."""
    return {s.id for s in program.signatures if s.definition.meets not in (None, Meets.nobody)}


def phases(program: Program) -> list[Phase]:
    """All phases."""
    meeting = meetings(program)
    met = [i.index for i in program if i.signature.id in meeting] if meeting else []
    every = [loop for loop in loops(program) if any(loop.begin < index < loop.end for index in met)] if met else []
    body = _body(0, program.count, None, met, every)
    return [*body.heads, *body.inner, *(t.ranges for t in body.tails)]


def _body(begin: int, end: int, parent: int | None, met: list[int], every: list[Loop]) -> _Body:
    """The phases of the instructions from `begin` to `end`, which are the body of a loop, or the program."""
    heads: list[Phase] = []
    inner: list[Phase] = []
    opened = [_Open((), True)]

    def close(ranges: Phase, first: bool) -> None:
        (heads if first else inner).append(ranges)

    at = begin
    for until, loop in _events(begin, end, parent, met, every):
        opened = [o._replace(ranges=(*o.ranges, (at, until))) for o in opened]
        at = until + 1
        if loop is None:
            for o in opened:
                close(*o)
            opened = [_Open((), False)]
            continue
        at = loop.end + 1
        if loop.trips == 0:
            continue
        inside = _body(loop.begin, loop.end + 1, loop.number, met, every)
        inner += inside.inner
        for head in inside.heads:
            for o in opened:
                close((*o.ranges, *head), o.first)
            if loop.trips != 1:
                inner += [(*tail.ranges, *head) for tail in inside.tails]
        left = [_Open(t.ranges, False) for t in inside.tails]
        opened = left + (opened if loop.trips is None else [])
    return _Body(heads, inner, [o._replace(ranges=(*o.ranges, (at, end))) for o in opened])


def _events(
    begin: int, end: int, parent: int | None, met: list[int], every: list[Loop]
) -> Iterator[tuple[int, Loop | None]]:
    """The meetings, and the loops with meetings, that follow each other in a body."""
    inside = [loop for loop in every if loop.parent == parent and begin <= loop.begin < end]
    covered = [(loop.begin, loop.end) for loop in inside]
    alone = [(i, None) for i in met if begin <= i < end and not any(a <= i <= b for a, b in covered)]
    yield from sorted([*alone, *((loop.begin, loop) for loop in inside)], key=lambda event: event[0])
