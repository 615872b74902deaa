"""Fetches what is needed soon while something else is read or written, a little at a time."""

from __future__ import annotations

from typing import NamedTuple

from nkilite.codegen.emitter import Emitter, Value
from nkilite.host.memory import LINE
from nkilite.schedule.tree import PARTS


class Ahead(NamedTuple):
    """What to fetch while reading a run of an operand: a part of the run some bytes ahead.

    Attributes:
        distance: how many bytes ahead.
        first, parts: which of the run's `PARTS`; other readers of it fetch the others.
    """

    distance: int
    first: int = 0
    parts: int = PARTS


def fetch(e: Emitter, ahead: Ahead | None, pointer: Value, offset: Value, count: int, run: int) -> None:
    """What goes with reading `count` bytes at a pointer, `offset` bytes after the start of a run of `run` bytes."""
    if ahead is None:
        return
    start = ahead.distance + run * ahead.first // PARTS
    if ahead.parts < PARTS:
        behind = e.mul(offset, PARTS - ahead.parts)
        pointer = e.offset(pointer, e.neg(e.lshr(behind, PARTS.bit_length() - 1)))
    fetch_lines(e, pointer, start, -(-count * ahead.parts // PARTS))


def fetch_lines(e: Emitter, pointer: Value, distance: int, count: int, write: bool = False) -> None:
    """The lines of `count` bytes that lie `distance` bytes ahead of a pointer, to read or to write there."""
    for at in range(0, count, LINE):
        e.prefetch(e.offset(pointer, distance + at), write=write)
