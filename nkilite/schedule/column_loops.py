"""Loops over columns of a row group: members that a few columns at a time go through in registers.

Members that have more columns than others, such as one that works on both halves of what those take one by one, are
cut: they come once for each half.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from nkilite.ir import nest
from nkilite.ir.program import Program
from nkilite.schedule.rows import Access, at_source, elements, in_order
from nkilite.schedule.runs import Run
from nkilite.schedule.tree import Dim, Loop, Node, Op, Scratch, Slice, Use

_LEAST_COLUMNS = 32  # shorter rows are better collapsed, or read across, by a member on its own
_LEAST_RUN = 16  # neighbours in a row, if it has gaps
_SLICES = 4  # of a member


class Step(NamedTuple):
    """A member of a loop, or a slice of one.

    Attributes:
        values: for every one of its tensor operands, a number: equal numbers are the same elements.
    """

    member: int
    slice: Slice | None
    accesses: tuple[Access, ...]
    values: tuple[int, ...]


class ColumnLoop(NamedTuple):
    """What of members `first` to `end - 1` is not left out, and goes through registers a few columns at a time.

    Attributes:
        columns: how many elements per row a step works on.
    """

    first: int
    end: int
    columns: int
    steps: tuple[Step, ...]

    @property
    def flat(self) -> bool:
        """Whether rows have no gaps."""
        return all(step.slice is None and all(a.operand.dense for a in step.accesses) for step in self.steps)


def find_column_loops(
    program: Program, run: Run, elided: Collection[int], sources: Mapping[int, int]
) -> list[ColumnLoop]:
    """The members that follow each other in step.

    Args:
        elided: members that are left out.
        sources: tiles whose readers read what a load, one of these members, would have copied.
    """
    found: list[ColumnLoop] = []
    growing = _Growing(run, sources)
    for m in range(len(run.shapes) + 1):
        if m in elided:
            continue
        own = program.signatures[run.signatures[m]].sweep if m < len(run.shapes) else 0
        if not growing.takes(m, own):
            if growing.members > 1:
                found.append(growing.loop())
            growing = _Growing(run, sources)
            growing.takes(m, own)
    return found


class _Part(NamedTuple):
    """A member, or a slice of it: what it touches, and that with the memory that a load copies in place of its tile."""

    member: int
    slice: Slice | None
    accesses: tuple[Access, ...]
    seen: tuple[Access, ...]


class _Growing:
    """A loop that is being put together."""

    def __init__(self, run: Run, sources: Mapping[int, int]) -> None:
        self._run, self._sources = run, sources
        self._parts: list[_Part] = []
        self._columns = 0

    @property
    def members(self) -> int:
        return len({part.member for part in self._parts})

    def takes(self, member: int, columns: int) -> bool:
        """Add a member with so many columns, cut if need be, if it may be."""
        if not columns:
            return False
        for cuts, pieces in self._ways(member, columns):
            old = [new for part in self._parts for new in self._cut(part.member, cuts)] if cuts else self._parts
            new = self._cut(member, pieces)
            least = min(columns, self._columns or columns)
            whole = len(new) == max(1, len(pieces)) and len(old) == len(self._parts) * max(1, len(cuts))
            if whole and least >= _LEAST_COLUMNS and self._fit(old, new, least):
                self._parts, self._columns = [*old, *new], least
                return True
        return False

    def _ways(self, member: int, columns: int) -> Iterator[tuple[list[Slice], list[Slice]]]:
        """How to cut the parts there are, and one more member, to the same number of columns; no slices for not."""
        if columns == self._columns or not self._parts:
            yield [], []
            return
        most, least = max(columns, self._columns), min(columns, self._columns)
        count, rest = divmod(most, least)
        if rest or count > _SLICES or (columns < self._columns and any(part.slice for part in self._parts)):
            return
        runs = {part.slice.run for part in self._parts if part.slice} or {
            a.operand.free[0][-1] for accesses in (self._run.accesses[member], *(part.accesses for part in self._parts))
            for a in accesses if a.operand.free[0]
        } | {least}
        for run in sorted(runs, reverse=True):
            if run >= _LEAST_RUN and most % (run * count) == 0:
                slices = [Slice(count, run, i) for i in range(count)]
                yield ([], slices) if columns > self._columns else (slices, [])

    def _cut(self, member: int, slices: Sequence[Slice]) -> list[_Part]:
        """A member in slices, or as it is; nothing where a slice is no loop of its own."""
        run, sources = self._run, self._sources
        own = run.accesses[member]
        seen = [at_source(run.accesses[sources[a.buffer]], a) if a.buffer in sources else a for a in own]
        found = []
        pieces: list[Slice | None] = [*slices] if slices else [None]
        for piece in pieces:
            parts = [tuple(cut for a in accesses if (cut := a.sliced(piece)) is not None) for accesses in (own, seen)]
            if any(len(part) < len(own) for part in parts):
                return []
            found.append(_Part(member, piece, *parts))
        return found

    def _fit(self, old: Sequence[_Part], new: Sequence[_Part], columns: int) -> bool:
        """Whether new parts go with those there are; those that are cut should have something in common."""
        every = [(part.slice, a) for part in (*old, *new) for a in part.seen]
        if not reachable(every, columns) or (any(cut for cut, _ in every) and not _share(old, new)):
            return False
        return all(
            in_order(one, other, self._run.rows, True)
            for i, part in enumerate(new) for before in (*old, *new[:i]) for one in part.seen for other in before.seen
        )

    def loop(self) -> ColumnLoop:
        """The loop of all that was taken."""
        values = numbered([part.accesses for part in self._parts])
        steps = tuple(Step(p.member, p.slice, p.accesses, own) for p, own in zip(self._parts, values, strict=True))
        return ColumnLoop(self._parts[0].member, self._parts[-1].member + 1, self._columns, steps)


def reachable(parts: Sequence[tuple[Slice | None, Access]], columns: int) -> bool:
    """Whether one loop over columns can go through accesses of members, or of slices of them.

    Where rows have gaps, all have them at the same places. What is combined over the row is there after the last
    column, and a slice would combine to a result of its own. Stores past the caches go over elements at the ends of a
    row several times.
    """
    accesses = [access for _, access in parts]
    flat = all(a.operand.dense for a in accesses)
    sums, placed = (any(getattr(a.operand, fact) for a in accesses) for fact in ("sums", "placed"))
    if sums or placed:
        stores = any(a.operand.writes and not a.operand.on_chip for a in accesses)
        if stores or not flat or any(cut and (placed or a.operand.sums) for cut, a in parts):
            return False
    if flat:
        return True
    layouts = [a.operand.free if a.operand.free[0] else ((columns,), (0,)) for a in accesses]
    dims = nest.unify(layouts)
    if not dims or dims[-1].count < _LEAST_RUN:
        return False
    return all(stride in (0, a.operand.itemsize) for stride, a in zip(dims[-1].strides, accesses, strict=True))


def _share(old: Sequence[_Part], new: Sequence[_Part]) -> bool:
    """Whether two sets of parts have elements in common, of which one of them writes some."""
    known = [{elements(a) for part in parts for a in part.seen if a.operand.free[0]} for parts in (old, new)]
    return bool(known[0] & known[1])


def pipelined(uses: Sequence[tuple[int, Use, Access]], member: int, first: int, columns: int) -> bool:
    """Whether a last loop, over so many columns, can work on the rows before those that a member works on.

    It fills lines of one stream. Scratch has one block: the member overwrites of it what the loop has done with, after
    which others have it.

    Args:
        uses: all that is touched, by number of the member.
        first: the loop's first member.
    """
    own = [(use, access) for number, use, access in uses if number == member]
    late = [(number, use, access) for number, use, access in uses if number >= first]
    streams = {number for number, use, _ in late if use.nontemporal}
    dense = all(access.operand.dense for number, _, access in uses if number == member or number >= first)
    if len(streams) != 1 or not dense or any(use.nontemporal for use, _ in own):
        return False
    return reachable([(None, access) for _, access in own], columns) and all(
        number == member and elements(access) == elements(other)
        for _, use, other in late if isinstance(use.place, Scratch)
        for number, _, access in uses if number <= member and access.buffer == other.buffer
    )


def numbered(members: Iterable[Sequence[Access]]) -> tuple[tuple[int, ...], ...]:
    """A number for every access, equal for the same elements."""
    numbers: dict[Hashable, int] = {}
    return tuple(tuple(numbers.setdefault(elements(a), len(numbers)) for a in accesses) for accesses in members)


def nested(ops: Sequence[Op], loops: Sequence[ColumnLoop], beside: int | None = None) -> tuple[Node, ...]:
    """Operations in order, those of loops in loops of their own, the last of which may go with a beside."""
    body: list[Node] = []
    done = 0
    for loop in loops:
        inside = tuple(
            valued for op in ops[loop.first : loop.end]
            for valued in [_valued(op, step) for step in loop.steps if step.member == op.member] or [op]
        )
        late = beside if loop is loops[-1] else None
        body += [*ops[done : loop.first], Loop(Dim.columns, loop.columns, inside, beside=late)]
        done = loop.end
    return (*body, *ops[done:])


def _valued(op: Op, step: Step) -> Op:
    """An operation in a loop over columns."""
    return Op(
        op.member, tuple(replace(u, value=v) for u, v in zip(op.uses, step.values, strict=True)), slice=step.slice
    )


def held(buffer: int, accesses: Sequence[Access], loops: Sequence[ColumnLoop]) -> bool:
    """Whether a tile that dies in a run, which is touched so, is but a value of a loop."""
    members = {a.member for a in accesses}
    for loop in loops:
        inside = [(step.member, a) for step in loop.steps for a in step.accesses if a.buffer == buffer]
        if members <= {member for member, _ in inside}:
            return made_before_used(inside)
    return False


def made_before_used(accesses: Sequence[tuple[int, Access]]) -> bool:
    """Whether members, each in its turn, read no elements that none of them has written, and combine none."""
    written: set[Hashable] = set()
    for _, same in itertools.groupby(accesses, lambda pair: pair[0]):
        for _, access in sorted(same, key=lambda pair: not pair[1].operand.reads):  # a member reads before it writes
            known = elements(access)
            if (known not in written and access.operand.reads) or access.operand.sums:
                return False
            written.add(known)
    return True


def row_bytes(touched: dict[int, list[Access]], apart: Collection[int] = ()) -> int:
    """About the bytes of all buffers but some that a row touches."""
    return 1 + sum(
        min(max(a.high for a in accesses) - min(a.low for a in accesses), sum(a.operand.bytes for a in accesses))
        for buffer, accesses in touched.items()
        if buffer not in apart
    )
