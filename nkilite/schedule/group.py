"""Groups: consecutive instructions that are compiled to one micro-kernel and run as one entry of the native table.

A pass decides which instructions belong together and how; the *plan* holds what it decided. Instructions in no group
run on their own.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple


class Group(NamedTuple):
    """Instructions `first` to `first + size - 1` of a program.

    Attributes:
        plan: how their code is written. Its type chooses the writer (nkilite/native/lower.py); two groups of the
            same signatures on the same row pitches share a micro-kernel if their plans are equal, so a plan says
            everything else the code depends on, such as which operands are the same memory.
        private: ids of buffers that need no memory, for the group keeps what they hold to itself.
    """

    first: int
    size: int
    plan: Hashable
    private: tuple[int, ...] = ()


class Scratch(NamedTuple):
    """An operand of a row group that lives in the group's own scratch memory.

    Attributes:
        slot: which of the plan's slots.
        byte: where in a row of the slot the operand's row begins.
    """

    slot: int
    byte: int


class Forwarded(NamedTuple):
    """An operand of a row group that is read where a DMA load of the group would have read it from.

    Attributes:
        member: the load, which does nothing.
        byte: where in a row of the load's source the operand's row begins.
    """

    member: int
    byte: int


class Held(NamedTuple):
    """An operand of a row group that only a segment needs, and never leaves the registers."""


class Segment(NamedTuple):
    """Members `first` to `end - 1`, elementwise, which a few columns at a time go through in registers.

    Attributes:
        columns: how many elements per row a member works on.
        values: for every member and every one of its tensor operands, a number: equal numbers are the same elements.
    """

    first: int
    end: int
    columns: int
    values: tuple[tuple[int, ...], ...]


Place = Scratch | Forwarded | Held


PARTS = 8  # of an operand's row that is fetched ahead


class Fetch(NamedTuple):
    """While a member reads an operand, it fetches a part of the operand's rows of the next block.

    Attributes:
        first, parts: which of the `PARTS` of what it reads of a row.
        byte: so many bytes after that.
    """

    member: int
    operand: int
    first: int = 0
    parts: int = PARTS
    byte: int = 0


class RowPlan(NamedTuple):
    """Instructions that work on each partition on its own: a few partitions at a time go through all of them.

    Attributes:
        rows: partitions in a block.
        blocks: how many blocks there are.
        slots: row pitches, in bytes, of the scratch memory, which has `rows` rows and serves every block.
        places: for every member and every one of its tensor operands, where it is; None is where its buffer is.
        skipped: members that do nothing: what they write is not read, or not where they write it.
        segments: disjoint and in order.
        streams: members that store past the caches.
        ahead: what is fetched of the next block while this one is read.
        unread: (member, operand) pairs: what is written is not read.
        carrier: beside this member, the last segment works on the block before; None if it works after the others.
        each: blocks that stay together when threads share them.
    """

    rows: int
    blocks: int
    slots: tuple[int, ...]
    places: tuple[tuple[Place | None, ...], ...]
    skipped: tuple[int, ...]
    segments: tuple[Segment, ...]
    streams: tuple[int, ...]
    ahead: tuple[Fetch, ...]
    unread: tuple[tuple[int, int], ...]
    carrier: int | None = None
    each: int = 1

    @property
    def paired(self) -> set[int]:
        """Slots of two blocks: the last segment still reads one while the other members work on the next."""
        if self.carrier is None:
            return set()
        last = self.segments[-1]
        late: set[int] = set()
        early: set[int] = set()
        for i, places in enumerate(self.places):
            used = late if last.first <= i < last.end else early
            used.update(place.slot for place in places if isinstance(place, Scratch))
        return late & early

    def __str__(self) -> str:
        """What was decided, with members numbered from 0."""
        forwarding = {p.member for places in self.places for p in places if isinstance(p, Forwarded)}
        parts = [f"{self.rows} of {self.rows * self.blocks} rows at a time"]
        parts += [f"{s.first}..{s.end - 1} in registers" for s in self.segments]
        parts += [f"{m} is read in place" if m in forwarding else f"{m} is dead" for m in self.skipped]
        shares = ((f.member, "" if f.parts == PARTS else f" {f.parts}/{PARTS}") for f in self.ahead)
        parts += [f"{member} fetches{share} ahead" for member, share in shares]
        parts += [f"{m} stores past the caches" for m in self.streams]
        if self.carrier is not None:
            late = self.segments[-1]
            parts.append(f"{late.first}..{late.end - 1} go with {self.carrier} of the next rows")
        if self.slots:
            parts.append(f"{self.rows * (sum(self.slots) + sum(self.slots[i] for i in self.paired))} bytes of scratch")
        return "; ".join(parts)


class Accumulation(NamedTuple):
    """Matmuls of equal operand shapes that add up in one view, and elementwise instructions that use what they make.

    All matmuls but the first accumulate.

    Attributes:
        products: how many matmuls; the members after them follow.
        sums: (follower, operand) pairs: operands that are the view, if nothing else needs what is in it.
        by_rows: threads share rows of the result rather than columns, as those that work by row next to it do.
    """

    products: int
    sums: tuple[tuple[int, int], ...] = ()
    by_rows: bool = False

    def __str__(self) -> str:
        unseen = " that are never in PSUM" if self.sums else ""
        return f"sums of {self.products} matmuls{unseen}" + (", shared by rows" if self.by_rows else "")


class Spot(NamedTuple):
    """A place in the buffer that a member reads or writes: so far from where its own operand begins."""

    member: int
    partitions: int  # 0 off chip
    bytes: int


class Steps(NamedTuple):
    """A loop over elements: trips, and (partitions, bytes) from one to the next in either buffer."""

    count: int  # type: ignore[assignment]  # tuple.count is of no use here
    to: tuple[int, int]
    origin: tuple[int, int]


class Piece(NamedTuple):
    """Elements that keep their bits on the way from one buffer to another.

    Attributes:
        loops: in no particular order, as few as possible.
        streams: the target is large and not read, so that it should be stored past the caches.
    """

    to: Spot
    origin: Spot
    loops: tuple[Steps, ...]
    streams: bool


@dataclass(frozen=True)
class Relocation:
    """The plan of copies and transposes after each other: from where to where the elements go in the end.

    Attributes:
        pieces: do not overlap, and nothing is both read and written.
        private: (member, operand) pairs whose buffers need no memory.
    """

    pieces: tuple[Piece, ...]
    private: tuple[tuple[int, str], ...]

    def __str__(self) -> str:
        """What is moved, loop by loop."""
        return "moves " + ", ".join(" x ".join(str(s.count) for s in p.loops) for p in self.pieces)
