"""Segments of row groups: a few columns at a time go through elementwise members without leaving the registers.

The members' own rules write the code, on variables of the emitter in the place of memory. Elements are loaded where
the first member reads them and stored after the last one has written them, if they are needed elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from nkilite.codegen import convert, copy, elementwise, nest
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand

_LINE = 64
_AHEAD = 2 << 10  # bytes from a store to the line that is fetched for one to come: processors do that too late
_STAGED = 512  # bytes of a row that are gathered in the nearest cache before they are stored past the caches


class Access(NamedTuple):
    """An operand of a member on a block of rows.

    Attributes:
        number: of the elements; operands of the same number are the same.
        pointer: their address; None if they are not in memory.
    """

    number: int
    operand: CpuOperand
    pointer: Value | None
    reads: bool
    writes: bool


class Member(NamedTuple):
    """An instruction: its operands, and what writes its code, given a variable for each and the number of columns."""

    accesses: Sequence[Access]
    compute: Callable[[Mapping[str, Value], int], None]


def write(e: Emitter, members: Sequence[Member], rows: int, columns: int) -> None:
    """The members on all columns of a block of rows."""
    _Segment(e, members, columns).write(rows)


class _Elements:
    """What operands of the same number are."""

    def __init__(self, access: Access, columns: int) -> None:
        self.operand = access.operand
        self.pointer = access.pointer
        self.repeated = access.operand.columns != columns  # one element of the row is used for all columns
        self.loaded = access.reads
        self.last_write = -1
        self.streams = False
        self.ahead = 0

    @property
    def stride(self) -> int:
        return 0 if self.repeated else self.operand.dtype.itemsize

    def load(self, e: Emitter, pointer: Value, lanes: int = 0) -> Value:
        return e.load(convert.raw_scalar(self.operand.dtype), pointer, lanes)


class _Segment:
    """A segment being written."""

    def __init__(self, e: Emitter, members: Sequence[Member], columns: int) -> None:
        self._e = e
        self._members = members
        self._columns = columns
        found: dict[int, _Elements] = {}
        for position, member in enumerate(members):
            for access in sorted(member.accesses, key=lambda a: not a.reads):  # a member reads before it writes
                if access.number not in found:
                    found[access.number] = _Elements(access, columns)
                elements = found[access.number]
                elements.ahead = max(elements.ahead, access.operand.ahead)
                if access.writes and access.pointer is not None:
                    elements.last_write = position
                    elements.streams |= access.operand.streams
        self._elements = found
        self._in_memory = {number: x.pointer for number, x in found.items() if x.pointer is not None}
        self._streamed = [number for number, x in found.items() if x.streams]

    def write(self, rows: int) -> None:
        numbers = list(self._in_memory)
        elements = [self._elements[n] for n in numbers]
        dims = nest.merge([
            nest.Dim(rows, tuple(x.operand.strides[0] for x in elements)),
            nest.Dim(self._columns, tuple(x.stride for x in elements)),
        ])
        if len(dims) == 1:
            self._row(self._in_memory, dims[0].count)
            return
        with self._e.loop(dims[0].count) as row:
            at = {
                n: self._e.step(self._in_memory[n], row.index, stride)
                for n, stride in zip(numbers, dims[0].strides, strict=True)
            }
            self._row(at, dims[1].count)

    def _row(self, at: Mapping[int, Value], count: int) -> None:
        """All columns of a row, whose elements begin at given addresses."""
        e = self._e
        repeated = {n: x.load(e, at[n]) for n, x in self._elements.items() if x.repeated}
        lanes = elementwise.step_lanes(e)
        whole = count // lanes * lanes
        if self._streamed:
            address = functools.reduce(e.or_, (e.convert("ptrtoint", at[n], "i64") for n in self._streamed))
            aligned = e.compare("eq", e.and_(address, e.i64(_LINE - 1)), e.i64(0))
            with e.when(aligned), e.loop(whole, step=lanes) as loop:
                self._columns_at(at, repeated, loop.index, lanes, streaming=True)
            with e.when(e.not_(aligned)):
                self._staged(at, repeated, whole, lanes)
        else:
            with e.loop(whole, step=lanes) as loop:
                self._columns_at(at, repeated, loop.index, lanes)
        first, lanes = whole, lanes // 2
        while first < count:
            if count - first >= lanes:
                self._columns_at(at, repeated, e.i64(first), lanes)
                first += lanes
            lanes //= 2

    def _staged(self, at: Mapping[int, Value], repeated: Mapping[int, Value], count: int, lanes: int) -> None:
        """Columns of which some go past the caches to addresses in the middle of lines: by way of a piece of a row."""
        e = self._e
        strides = {n: self._elements[n].stride for n in self._streamed}
        stages = {n: e.scratch(_STAGED) for n in strides}
        piece = _STAGED // max(strides.values())
        with e.loop(count, step=piece) as begin:
            end = e.minimum(e.add(begin.index, e.i64(piece)), e.i64(count))
            here = {n: e.step(pointer, begin.index, self._elements[n].stride) for n, pointer in at.items()}
            with e.loop(e.sub(end, begin.index), step=lanes) as loop:
                self._columns_at(here, repeated, loop.index, lanes, targets={**here, **stages})
            for n, stride in strides.items():
                copy.stream_bytes(e, here[n], stages[n], e.mul(e.sub(end, begin.index), e.i64(stride)))

    def _columns_at(
        self, at: Mapping[int, Value], repeated: Mapping[int, Value], first: Value, lanes: int,
        targets: Mapping[int, Value] | None = None, streaming: bool = False,
    ) -> None:
        """A few columns.

        Args:
            at: addresses of the columns at 0.
            repeated: the elements that are used for all columns.
            targets: where to store instead.
            streaming: store past the caches what should go there.
        """
        e = self._e
        variables: dict[int, Value] = {}
        for position, member in enumerate(self._members):
            for number in (a.number for a in member.accesses if a.number not in variables):
                x = self._elements[number]
                value = repeated.get(number)
                if value is None and x.loaded:
                    pointer = e.step(at[number], first, x.stride)
                    elementwise.fetch(e, pointer, x.ahead, lanes * x.stride)
                    value = x.load(e, pointer, lanes)
                variables[number] = e.variable(value)
            member.compute({a.operand.name: variables[a.number] for a in member.accesses}, lanes)
            for number in dict.fromkeys(a.number for a in member.accesses):
                x = self._elements[number]
                if x.last_write == position:
                    target = e.step((targets or at)[number], first, x.stride)
                    past = streaming and x.streams
                    if not x.streams:
                        elementwise.fetch(e, target, _AHEAD, lanes * x.stride, write=True)
                    align = min(_LINE, lanes * x.stride) if past else 1
                    e.store(e.held(variables[number]), target, align, past)
