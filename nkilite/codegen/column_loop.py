"""Loops over columns: a few columns at a time go through elementwise members without leaving the registers.

The members' own rules write the code, on variables of the emitter in the place of memory. Elements are loaded where
the first member reads them and stored after the last one has written them, if they are needed elsewhere. What members
combine over a row stays in registers until its last column; then they take it, in their order.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from nkilite.codegen import convert, elementwise, loops
from nkilite.codegen.ahead import Ahead, fetch, fetch_lines
from nkilite.codegen.emitter import Emitter, Loop, Value
from nkilite.codegen.kernel import CpuOperand, Sweep
from nkilite.codegen.sums import TURNS, Combination, Sum
from nkilite.host.memory import LINE
from nkilite.ir import nest

_LEAST_LINES = 2  # neighbours that are stored past the caches
_AHEAD = 2 << 10  # bytes from a store to the line that is fetched for one to come: processors do that too late


class Access(NamedTuple):
    """An operand of a member on a block of rows.

    Attributes:
        number: of the elements; operands of the same number are the same.
        pointer: their address; None if they are not in memory.
        near: that is memory which all blocks of rows use, in the nearest cache.
    """

    number: int
    operand: CpuOperand
    pointer: Value | None
    reads: bool
    writes: bool
    sums: bool = False
    near: bool = False


class Member(NamedTuple):
    """An instruction: its operands, and what writes its code.

    That is given a variable for each operand, or the address of one that takes sums, and the number of columns.
    """

    accesses: Sequence[Access]
    compute: Callable[[Mapping[str, Value], int, Sweep], None]
    placed: bool = False  # it has to know the row and the columns


def write(e: Emitter, members: Sequence[Member], rows: int, columns: int) -> None:
    """The members on all columns of a block of rows."""
    _Body(e, members, columns).write(rows)


def write_beside(
    e: Emitter, members: Sequence[Member], late: Sequence[Member], active: Value, rows: int, columns: int
) -> None:
    """As `write`, and on the way other members on another block, if `active` says, when the code runs, there is one.

    Those touch columns of a row before the members touch them.
    """
    body, other = _Body(e, members, columns), _Body(e, late, columns)
    with e.loop(rows) as loop:
        beside = _StreamedRow(other, other.at(loop.index), columns, active)
        beside.ends()
        body.row(body.at(loop.index), columns, loop.index, beside)


class _Elements:
    """What operands of the same number are."""

    def __init__(self, access: Access, columns: int) -> None:
        self.operand = access.operand
        self.pointer = access.pointer
        self.near = access.near
        self.sums = access.sums  # touched after the last column alone
        self.single = access.operand.columns != columns  # one element of the row is used for all columns
        self.stride = 0 if self.single else access.operand.dtype.itemsize  # bytes between neighbouring columns
        self.loaded = access.reads and not access.sums
        self.last_write = -1
        self.streams = False
        self.ahead: Ahead | None = None

    @property
    def repeated(self) -> bool:
        """Whether it is the same for neighbouring columns."""
        return not self.stride

    def load(self, e: Emitter, pointer: Value, lanes: int = 0) -> Value:
        return e.load(convert.raw_scalar(self.operand.dtype), pointer, lanes)


class _Body:
    """A body being written."""

    def __init__(self, e: Emitter, members: Sequence[Member], columns: int) -> None:
        self.e = e
        self._members = members
        self._columns = columns
        found: dict[int, _Elements] = {}
        for position, member in enumerate(members):
            for access in sorted(member.accesses, key=lambda a: not a.reads):  # a member reads before it writes
                if access.number not in found:
                    found[access.number] = _Elements(access, columns)
                elements = found[access.number]
                elements.ahead = elements.ahead or access.operand.ahead
                if access.writes and access.pointer is not None and not (access.sums or access.operand.unread):
                    elements.last_write = position
                    elements.streams |= access.operand.streams
        self.elements = found
        self._in_memory = {number: x.pointer for number, x in found.items() if x.pointer is not None}
        self._dims = self._find_dims()
        self.run = self._dims[-1].count
        for x, stride in zip((found[n] for n in self._in_memory), self._dims[-1].strides, strict=True):
            x.stride = stride
        lines = self.run * min((x.stride for x in found.values() if x.streams), default=0) // LINE
        long = self.run >= elementwise.step_lanes(e) and lines >= _LEAST_LINES
        self.streams = [n for n, x in found.items() if x.streams and long]
        self._reduces = any(all(a.sums for a in m.accesses if a.writes) for m in members)
        self._placed = any(m.placed for m in members)
        once = self._placed or any(x.sums for x in found.values())
        assert not (self.streams and once), "elements at the ends come several times"

    def at(self, row: Value) -> dict[int, Value]:
        """Where the elements of a row begin."""
        return {n: self.e.step(p, row, self.elements[n].operand.strides[0]) for n, p in self._in_memory.items()}

    def write(self, rows: int) -> None:
        """All rows of a block."""
        pitches = tuple(self.elements[n].operand.strides[0] for n in self._in_memory)
        dims = [nest.Dim(rows, pitches), *self._dims]
        if self._placed:
            with self.e.loop(rows) as loop:
                self.row(self.at(loop.index), self._columns, loop.index)
            return
        if self._columns > 1:  # columns of one element are no runs of any
            dims = nest.merge(dims)
        self.run = dims[-1].count
        with loops.nested(self.e, dims[:-1], list(self._in_memory.values())) as at:
            self.row(dict(zip(self._in_memory, at, strict=True)), self.run)

    def _find_dims(self) -> list[nest.Dim]:
        """Loops over the columns of a row, with the strides of what is in memory."""
        elements = [self.elements[n] for n in self._in_memory]
        if self._columns == 1:
            return [nest.Dim(1, tuple(x.stride for x in elements))]
        dims = nest.unify([((self._columns,), (0,)) if x.single else x.operand.free for x in elements])
        assert dims, "rows that have gaps have them at the same places"
        return dims

    def row(
        self, at: Mapping[int, Value], count: int, row: Value | None = None, beside: _StreamedRow | None = None
    ) -> None:
        """All columns of a row, whose elements begin at given addresses, and those of another row beside them."""
        if self.streams:
            _StreamedRow(self, at, count).write()
            return
        e, repeated, lanes = self.e, self.repeated(at), elementwise.step_lanes(self.e)
        sums = _Sums(e, lanes, row)
        turns = TURNS if self._reduces and count >= TURNS * lanes else 1
        step = lanes * turns
        whole = count // step * step
        with e.loop(whole, step=step) as loop, sums.inside(loop, whole // step):
            for turn in range(turns):
                first = e.add(loop.index, turn * lanes)
                if beside is not None:
                    beside.step(first)
                self.columns_at(at, repeated, first, lanes, sums=sums)
        done = whole
        while done < count:
            if count - done < lanes:
                lanes //= 2
                continue
            if beside is not None and lanes == elementwise.step_lanes(e):
                beside.step(e.i64(done))
            self.columns_at(at, repeated, e.i64(done), lanes, sums=sums)
            done += lanes
        self._finish(at, repeated, sums)

    def _finish(self, at: Mapping[int, Value], repeated: Mapping[int, Value], sums: _Sums) -> None:
        """What members do with what is combined: their code once more, of which only that is of use."""
        sums.ended = True
        for position, member in enumerate(self._members):
            if any(a.sums for a in member.accesses):
                variables = self._variables(member, at, repeated)
                for access in member.accesses:
                    if access.number not in variables:
                        variables[access.number] = self.e.variable(
                            self.e.undef(convert.raw_scalar(access.operand.dtype), 1)
                        )
                member.compute({a.operand.name: variables[a.number] for a in member.accesses}, 1, sums.of(position))

    def _variables(
        self, member: Member, at: Mapping[int, Value], repeated: Mapping[int, Value]
    ) -> dict[int, Value]:
        """Those operands of a member that are the same for all columns."""
        return {
            a.number: at[a.number] if a.sums else self.e.variable(repeated[a.number])
            for a in member.accesses if a.sums or a.number in repeated
        }

    def repeated(self, at: Mapping[int, Value]) -> dict[int, Value]:
        """The elements that are used for all columns of a row."""
        return {n: x.load(self.e, at[n]) for n, x in self.elements.items() if x.repeated and not x.sums}

    def columns_at(
        self, at: Mapping[int, Value], repeated: Mapping[int, Value], first: Value, lanes: int,
        streams: Sequence[int] = (), targets: Mapping[int, Value] | None = None, sums: _Sums | None = None,
    ) -> None:
        """A few columns.

        Args:
            at: addresses of the columns at 0.
            repeated: the elements that are used for all columns.
            streams: elements to store past the caches; they begin at a line.
            targets: where to store the columns instead.
            sums: of the row.
        """
        e, sums = self.e, sums or _Sums(self.e, lanes)
        sums.place = sums.place[0], first
        variables: dict[int, Value] = {}
        for position, member in enumerate(self._members):
            for number in (a.number for a in member.accesses if a.number not in variables):
                x = self.elements[number]
                if x.sums:
                    variables[number] = at[number]
                    continue
                value = repeated.get(number)
                if value is not None and not x.single:
                    value = e.splat(value, lanes)
                if value is None and x.loaded:
                    pointer = e.step(at[number], first, x.stride)
                    fetch(e, x.ahead, pointer, e.mul(first, x.stride), lanes * x.stride, self.run * x.stride)
                    value = x.load(e, pointer, lanes)
                variables[number] = e.variable(value)
            own = {a.operand.name: variables[a.number] for a in member.accesses}
            member.compute(own, lanes, sums.of(position))
            for number in dict.fromkeys(a.number for a in member.accesses):
                x = self.elements[number]
                if x.last_write == position:
                    target = e.step(at[number], first, x.stride) if targets is None else targets[number]
                    if not (x.streams or x.near) and targets is None:
                        fetch_lines(e, target, _AHEAD, lanes * x.stride, write=True)
                    past = number in streams
                    e.store(e.held(variables[number]), target, min(LINE, lanes * x.stride) if past else 1, past)


class _Sums:
    """What the members combine over a row.

    Attributes:
        place: the row and the column that is being written.
        ended: its last column is done.
    """

    def __init__(self, e: Emitter, lanes: int, row: Value | None = None) -> None:
        self._e, self._lanes, self.ended = e, lanes, False
        self.place = e.i64(0) if row is None else row, e.i64(0)
        self._found: dict[tuple[int, int], Sum] = {}  # by member, and one after another
        self._next: Iterator[tuple[int, int]] = iter(())
        self._loop: tuple[Loop, int, ExitStack] | None = None

    @contextmanager
    def inside(self, loop: Loop, trips: int) -> Iterator[None]:
        """The body of the loop over columns is written."""
        with ExitStack() as stack:
            self._loop = loop, trips, stack
            yield
        self._loop = None

    def of(self, member: int) -> _Sums:
        """Those of a member, which combines them in the same order every time its code is written: now."""
        self._next = ((member, number) for number in itertools.count())
        return self

    def combine(self, what: Combination, value: Value, finish: Callable[[Value], None]) -> None:
        """As nkilite.codegen.kernel.Sweep."""
        key = next(self._next)
        if self.ended:
            finish(self._found[key].result())
            return
        if key not in self._found:
            found = self._found[key] = Sum(self._e, what, self._lanes)
            if self._loop is not None:
                loop, trips, stack = self._loop
                stack.enter_context(found.inside(loop, trips))
        self._found[key].take(value)


class _StreamedRow:
    """All columns of a row in steps that begin where a line of the first streamed elements does, and fill it."""

    def __init__(self, body: _Body, at: Mapping[int, Value], count: int, active: Value | None = None) -> None:
        self._body, self._at = body, at
        self._e = e = body.e
        self._lanes = elementwise.step_lanes(e)
        self._width = count
        self._repeated = body.repeated(at)
        stored = {n: x for n, x in body.elements.items() if x.last_write >= 0}
        self._stages = {n: e.scratch(self._lanes * x.stride) for n, x in stored.items()}
        sizes = [e.i64(body.elements[n].stride) for n in body.streams]
        gaps = [e.and_(e.neg(e.convert("ptrtoint", at[n], "i64")), LINE - 1) for n in body.streams]
        head = e.binary("udiv", gaps[0], sizes[0])
        first, *self._alike = [e.compare("eq", gap, e.mul(head, size)) for gap, size in zip(gaps, sizes, strict=True)]
        head, self._count = e.select(first, head, count), e.i64(count)
        if active is not None:
            head, self._count = (e.select(active, n, 0) for n in (head, self._count))
        self._head = head
        self._full = e.and_(e.sub(self._count, head), -self._lanes)
        self._lines = {n: e.step(pointer, head, body.elements[n].stride) for n, pointer in at.items()}

    def write(self) -> None:
        """The row."""
        e, streams = self._e, self._body.streams
        self.ends()
        if not self._alike:
            with e.loop(self._full, step=self._lanes) as loop:
                self._line(loop.index, streams)
        else:
            together = functools.reduce(e.and_, self._alike)
            for condition, streamed in ((together, streams), (e.not_(together), streams[:1])):
                with e.when(condition), e.loop(self._full, step=self._lanes) as loop:
                    self._line(loop.index, streamed)

    def ends(self) -> None:
        """The columns before the first line and those after the last step."""
        self._few(self._e.i64(0), self._head)
        self._few(self._e.add(self._head, self._full), self._count)

    def step(self, index: Value) -> None:
        """One step, if there are so many."""
        with self._e.when(self._e.compare("slt", index, self._full)):
            self._line(index, self._body.streams)

    def _line(self, index: Value, streams: Sequence[int]) -> None:
        self._body.columns_at(self._lines, self._repeated, index, self._lanes, streams)

    def _few(self, first: Value, end: Value) -> None:
        """Columns that fill no line: as many as in a step, by way of a stage, of which these are kept.

        Narrower code would need constants of its own in registers.
        """
        e, lanes, body = self._e, self._lanes, self._body
        with e.loop(end, start=first, step=lanes) as loop:
            at = e.minimum(loop.index, self._width - lanes)
            body.columns_at(self._at, self._repeated, at, lanes, targets=self._stages)
            with e.loop(e.minimum(e.add(loop.index, lanes), end), start=loop.index) as column:
                for n, stage in self._stages.items():
                    x = body.elements[n]
                    value = x.load(e, e.step(stage, e.sub(column.index, at), x.stride))
                    e.store(value, e.step(self._at[n], column.index, x.stride))
