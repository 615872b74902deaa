"""What instructions touch row by row, and whether their order may change from row to row.

A row is what position i of dimension 0 reaches: a partition on chip, a stretch of addresses in HBM.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from nkilite.ir import nest, regions
from nkilite.ir.access import AccessMap
from nkilite.ir.accesses import Spaces
from nkilite.ir.columns import BufferColumns
from nkilite.ir.program import Operand, Signature
from nkilite.ir.regions import all_apart, distinct, in_step
from nkilite.ir.types import ViewType, extent
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import Slice

_STREAMED = 1 << 10  # bytes of a row that are stored past the caches, at least


class RowOperand(NamedTuple):
    """A tensor argument of a signature that works by row.

    Attributes:
        operand: its position among the signature's operands.
        stride: bytes from row to row, in the buffer's row-major storage; 0 for one row that serves all.
        low, high: the bytes of a row that it spans, from its first element on.
        bytes: of its elements in a row.
        row: which bytes they are.
        dense: the elements of a row follow each other without gaps.
        sums: it is written with what the elements of a row are combined to.
        free: the elements of a row in their order: counts and strides in bytes, as few as possible.
        placed: its instruction has to know which rows and columns it is given.
    """

    operand: int
    word: int
    stride: int
    low: int
    high: int
    bytes: int
    row: regions.Pattern
    dense: bool
    reads: bool
    writes: bool
    on_chip: bool
    sums: bool
    itemsize: int
    free: nest.Layout
    placed: bool


class RowShape(NamedTuple):
    """A signature that works by row, on `rows` of them and well on `least` or more."""

    rows: int
    least: int
    operands: tuple[RowOperand, ...]
    bytes: int  # that one row of it touches


def rows_of(signature: Signature) -> int:
    """How many rows a signature works on, each on its own; 0 if it does not work by row."""
    access = signature.access
    if access.rows is None or any(o.type.indirection is not None for o in signature.operands):
        return 0
    needed = (o for o in signature.operands if not access.runs_over(o.name, access.rows))  # whole
    return access.extents[access.rows] if all(o.type.shape[0] == 1 for o in needed) else 0


@functools.lru_cache(1 << 10)  # signatures are known by their identity
def row_shape(signature: Signature) -> RowShape | None:
    """How a signature works by row; None if it does not, or not efficiently."""
    access, definition, rows = signature.access, signature.definition, rows_of(signature)
    if rows < 2 or access.rows is None or definition.indexed:  # errors have a line, and a group has only one
        return None
    operands = tuple(
        _row_operand(i, o, not access.runs_over(o.name, access.rows), access) for i, o in enumerate(signature.operands)
    )
    for operand, known in zip(operands, signature.operands, strict=True):
        kind = known.type
        if operand.writes and not (operand.stride if operand.on_chip else distinct(kind.shape, kind.strides)):
            return None  # rows are written over each other
        if not operand.on_chip and operand.stride and _transposed(known):
            return None  # blocks of rows and columns at once are faster
    return RowShape(rows, definition.least_rows, operands, sum(o.bytes for o in operands))


def _transposed(operand: Operand) -> bool:
    """Whether rows are closer to each other than the elements of a row."""
    kind = operand.type
    free = [abs(s) for n, s in zip(kind.shape[1:], kind.strides[1:], strict=True) if n > 1]
    return bool(free) and 0 < abs(kind.strides[0]) < min(free)


@functools.lru_cache(1 << 10)
def view_shape(signature: Signature, name: str) -> RowShape:
    """One operand of a signature by the rows it has, whatever the signature does with them."""
    operand = signature.operand(name)
    own = _row_operand(signature.operands.index(operand), operand, False, signature.access)
    return RowShape(operand.type.shape[0], 1, (own,), own.bytes)


class _Row(NamedTuple):
    """A row of a view: the bytes from `low` to `high` that it spans, which of them, whether all, and how they lie."""

    low: int
    high: int
    bytes: regions.Pattern
    dense: bool
    layout: nest.Layout


@functools.lru_cache(1 << 12)
def _row(kind: ViewType) -> _Row:
    size = kind.dtype.itemsize
    low, high = extent(kind.shape[1:], kind.strides[1:])
    strides = tuple(s * size for s in kind.strides[1:])
    step, dense = 1, True
    for n, stride in zip(reversed(kind.shape[1:]), reversed(kind.strides[1:]), strict=True):
        if n != 1:
            dense &= stride == step
            step *= n
    pattern = regions.pattern(size, zip(kind.shape[1:], strides, strict=True))
    return _Row(low * size, (high + 1) * size, pattern, dense, nest.collapse((kind.shape[1:], strides)))


def _row_operand(position: int, operand: Operand, repeated: bool, access: AccessMap) -> RowOperand:
    kind, row = operand.type, _row(operand.type)
    size = kind.dtype.itemsize
    return RowOperand(
        position, operand.word, 0 if repeated else kind.strides[0] * size, row.low, row.high, kind.free_bytes,
        row.bytes, row.dense, operand.reads, operand.writes, kind.region.on_chip, operand.name in access.sums, size,
        row.layout, access.placed,
    )


class Access(NamedTuple):
    """The memory an operand of one instruction touches.

    Attributes:
        member: position of the instruction in its group.
        space: accesses in different spaces are apart.
        first: partition of row 0; 0 off chip.
        step: from row to row: partitions on chip (0 if they all hold the same), bytes off chip.
        low, high: bytes of row 0: in its partition on chip, in the buffer off chip.
    """

    member: int
    operand: RowOperand
    buffer: int
    space: int
    first: int
    step: int
    low: int
    high: int

    @property
    def start(self) -> int:
        """Where the first element of row 0 is."""
        return self.low - self.operand.low

    def sliced(self, slice: Slice | None) -> Access | None:
        """Some columns of it; all where it has one element for all. None where they are no loops of their own."""
        operand = self.operand
        if slice is None or not operand.free[0]:
            return self
        found = nest.take(operand.free, *slice)
        if found is None:
            return None
        offset, (shape, strides) = found
        low, high = extent(shape, strides)
        row = regions.pattern(operand.itemsize, zip(shape, strides, strict=True))
        part = operand._replace(
            low=low, high=high + operand.itemsize, bytes=operand.bytes // slice.of, row=row, free=found[1],
            dense=strides in ((), (operand.itemsize,)),
        )
        start = self.start + offset
        return self._replace(operand=part, low=start + part.low, high=start + part.high)

    @property
    def rows(self) -> regions.Rows:
        """All of it, on the line of its space."""
        return regions.Rows(self.operand.row, self.step * regions.PARTITION if self.operand.on_chip else self.step)

    @property
    def place(self) -> int:
        """Where row 0 begins on that line."""
        return self.first * regions.PARTITION + self.low


class Rows:
    """Reads accesses off the words of a program."""

    def __init__(self, schedule: Schedule) -> None:
        program = schedule.program
        self._code = program.code
        self._uniform = schedule.broadcast
        buffers = BufferColumns.of(program)
        self._bytes = np.maximum(buffers.row_bytes, 1).tolist()
        self._spaces = Spaces(program).space.tolist()
        self._addresses = list(zip(buffers.partition.tolist(), buffers.byte.tolist(), strict=True))

    def accesses(self, shape: RowShape, member: int, start: int) -> list[Access]:
        """What the instruction at a word position touches, as a member of a group."""
        found = []
        code = self._code
        for operand in shape.operands:
            buffer, offset = code[start + operand.word], code[start + operand.word + 1]
            if operand.on_chip:
                row = self._bytes[buffer]
                partition, byte = self._addresses[buffer]
                partition += offset // row
                byte += offset % row
                step = 0 if buffer in self._uniform else operand.stride // row
            else:
                partition, byte, step = 0, offset, operand.stride
            found.append(Access(
                member, operand, buffer, self._spaces[buffer], partition, step, byte + operand.low,
                byte + operand.high,
            ))
        return found

    def writes_uniform(self, accesses: list[Access]) -> bool:
        """Whether an instruction writes a tile whose partitions are one in memory: it must not run row by row."""
        return bool(self._uniform) and any(a.operand.writes and a.buffer in self._uniform for a in accesses)


def elements(access: Access) -> Hashable:
    """Equal for accesses to the same elements in the same order."""
    return access.space, access.start, access.operand.free, access.operand.itemsize, access.first, access.step


def in_order(one: Access, other: Access, rows: int, columns: bool) -> bool:
    """Whether two members may take turns at all rows: they do what they do one after another, all rows at once.

    So it is if memory that one of them writes is touched by both at the same position of the loop, or by one alone.

    Args:
        columns: they take turns at all columns, too.
    """
    if one.space != other.space or not (one.operand.writes or other.operand.writes):
        return True
    if not columns:
        return in_step(one.rows, other.rows, rows, other.place - one.place)
    return (elements(one), one.operand.sums) == (elements(other), other.operand.sums) or not meet(one, other, rows)


def sides(load: Sequence[Access]) -> tuple[Access, Access]:
    """What a load writes, and what it reads."""
    to, source = sorted(load, key=lambda a: not a.operand.writes)
    return to, source


def at_source(load: Sequence[Access], access: Access) -> Access:
    """A read of a tile as one of what is loaded to it: both are dense, of one dtype."""
    target, source = sides(load)
    shift = source.low - target.low
    return access._replace(
        operand=access.operand._replace(on_chip=source.operand.on_chip), buffer=source.buffer, space=source.space,
        first=source.first, step=source.step, low=access.low + shift, high=access.high + shift,
    )


def forwards(members: Sequence[Sequence[Access]], load: int, read: Access, rows: int) -> bool:
    """Whether a read of a tile can be one of what a member loads to it: that is as dense, and nobody changes it before.

    Args:
        members: what each of them touches.
    """
    to, source = sides(members[load])
    if (read.buffer, read.first, read.step) != (to.buffer, to.first, to.step) or read.operand.writes:
        return False
    if not (to.operand.dense and source.operand.dense and to.low <= read.low and read.high <= to.high):
        return False
    return not any(
        other.operand.writes
        and (other.buffer == to.buffer or (other.space == source.space and meet(source, other, rows)))
        for accesses in members[load + 1 : read.member + 1] for other in accesses
    )


def streamable(access: Access) -> bool:
    """Whether its rows are long runs in HBM, worth storing past the caches."""
    operand = access.operand
    return not operand.on_chip and operand.dense and operand.high - operand.low >= _STREAMED


def meet(one: Access, other: Access, rows: int) -> bool:
    """Whether two accesses in the same space may touch the same memory; True where that is hard to tell."""
    return not all_apart(one.rows, other.rows, rows, other.place - one.place)
