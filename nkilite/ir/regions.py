"""The algebra of memory: which bytes a view covers, and what the bytes of two views have to do with each other.

Memory is a set of *spaces*, each of which is one long line of bytes. A space is a buffer, or one for all tiles of a
memory whose addresses the user chose, for these may be the same memory. Partitions of a tile are `PARTITION` bytes
apart on that line, so that they are one stride among others.

A *pattern* is a set of bytes of that line, the lowest at 0: runs of equal width at the sums of multiples of strides.
Patterns are nested: what one step along a dimension repeats ends before the next step begins. What that form cannot
say exactly becomes a pattern of more bytes, which knows that it is not exact. So all questions are answered exactly or
on the safe side: bytes that are said to be apart are apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import gcd, prod
from typing import NamedTuple

import numpy as np

from nkilite.ir.types import ViewType

PARTITION = 1 << 32  # bytes from one partition to the next

_LONGEST_SEARCH = 1 << 12  # pieces of two patterns compared one by one before they count as overlapping
_ROWS_COMPARED = 64  # the same for the rows of two views


class Pattern(NamedTuple):
    """Runs of `width` bytes, the lowest at 0.

    Attributes:
        dims: (count, stride) of each dimension, the widest first; a stride is at least the span of what it repeats.
        exact: every byte is meant; otherwise some may not be.
    """

    width: int
    dims: tuple[tuple[int, int], ...] = ()
    exact: bool = True

    @property
    def span(self) -> int:
        """Bytes from the first one to the end of the last run."""
        return self.width + sum((n - 1) * stride for n, stride in self.dims)

    @property
    def size(self) -> int:
        """How many bytes it has."""
        size = self.width
        for n, _ in self.dims:
            size *= n
        return size

    @property
    def _inner(self) -> Pattern:
        """What the first dimension repeats."""
        return Pattern(self.width, self.dims[1:], self.exact)


def pattern(width: int, dims: Iterable[tuple[int, int]], exact: bool = True) -> Pattern:
    """The pattern of runs of so many bytes repeated (count, stride) times; strides of any sign and order.

    The first of the bytes is where all dimensions with a negative stride have reached their end.
    """
    found: list[tuple[int, int]] = []  # the narrowest first
    span = width
    for stride, n in sorted((abs(s), n) for n, s in dims if n > 1 and s):
        reach = stride * (n - 1)
        if not found and stride <= width:
            width += reach
        elif found and stride % found[-1][1] == 0 and stride // found[-1][1] <= found[-1][0]:
            count, step = found[-1]
            found[-1] = count + reach // step, step
        elif stride >= span:
            found.append((n, stride))
        else:  # it runs into itself in a way that takes a list
            width, found, exact = span + reach, [], False
        span += reach
    return Pattern(width, tuple(reversed(found)), exact)


def shared(one: Pattern, other: Pattern, shift: int) -> tuple[int, int] | None:
    """The lowest run of bytes [low, high) that is in both, if the other begins `shift` bytes after the first.

    None if they are apart. If one of them is not exact, or the search takes too long, there may be less.
    """
    return _first_shared(one, other, shift, _Effort())


class _Effort:
    """Counts the pieces a search has compared."""

    def __init__(self) -> None:
        self.left = _LONGEST_SEARCH


def _first_shared(one: Pattern, other: Pattern, shift: int, effort: _Effort) -> tuple[int, int] | None:
    low, high = max(0, shift), min(one.span, shift + other.span)
    if low >= high:
        return None
    effort.left -= 1
    if (not one.dims and not other.dims) or effort.left < 0:
        return low, high
    if _interleaved(one, other, shift):
        return None
    if not one.dims or (other.dims and other.dims[0][1] > one.dims[0][1]):
        found = _first_shared(other, one, -shift, effort)
        return None if found is None else (found[0] + shift, found[1] + shift)
    (count, stride), inner = one.dims[0], one._inner
    if other.dims and other.dims[0][1] == stride:
        return _in_equal_steps(one, other, shift, effort)
    for i in range(max(0, (shift - inner.span) // stride + 1), min(count, -(-(shift + other.span) // stride))):
        found = _first_shared(inner, other, shift - i * stride, effort)
        if found is not None:
            return found[0] + i * stride, found[1] + i * stride
    return None


def _interleaved(one: Pattern, other: Pattern, shift: int) -> bool:
    """Whether what all strides have in common keeps the runs of one between those of the other."""
    common = gcd(*(stride for _, stride in (*one.dims, *other.dims)))
    return other.width <= (-shift) % common and one.width <= shift % common


def _in_equal_steps(one: Pattern, other: Pattern, shift: int, effort: _Effort) -> tuple[int, int] | None:
    """Of two patterns whose first dimensions have the same stride: only few pairs of pieces can meet."""
    (count, stride), (others, _) = one.dims[0], other.dims[0]
    mine, theirs = one._inner, other._inner
    best: tuple[int, int] | None = None
    for apart in range(-((theirs.span + shift - 1) // stride), (mine.span - 1 - shift) // stride + 1):
        if -count < apart < others:  # piece i of the one and piece i + apart of the other
            found = _first_shared(mine, theirs, shift + apart * stride, effort)
            if found is not None:
                at = max(0, -apart) * stride
                found = found[0] + at, found[1] + at
                best = found if best is None else min(best, found)
    return best


class Rows(NamedTuple):
    """A view by the positions of its dimension 0: each is a row.

    Attributes:
        row: the bytes of one.
        step: from the first byte of a row to that of the next; of any sign, or 0.
    """

    row: Pattern
    step: int


@lru_cache(maxsize=1 << 14)
def in_step(one: Rows, other: Rows, count: int, shift: int) -> bool:
    """Whether row i of one and row j of the other are apart for all different i and j.

    Args:
        count: how many rows both have.
        shift: from the first byte of row 0 of one to that of row 0 of the other.
    """
    if one.step != other.step:
        return all_apart(one, other, count, shift)
    if count < 2:
        return True
    if one.step == 0:
        return apart(one.row, other.row, shift)
    step = abs(one.step)
    # Row j = i + d of the other begins shift + d * step after row i: only rows that near can meet.
    first, last = -((other.row.span + shift - 1) // step), (one.row.span - 1 - shift) // step
    first, last = max(first, 1 - count), min(last, count - 1)
    if last - first >= _ROWS_COMPARED:
        return False
    return all(d == 0 or apart(one.row, other.row, shift + d * step) for d in range(first, last + 1))


def apart(one: Pattern, other: Pattern, shift: int) -> bool:
    """Whether two patterns have no byte in common, the other beginning `shift` bytes after the first."""
    return shared(one, other, shift) is None


@lru_cache(maxsize=1 << 14)
def all_apart(one: Rows, other: Rows, count: int, shift: int) -> bool:
    """Whether no row of one meets any of the other; the arguments are those of `in_step`."""
    return apart(_all(one, count), _all(other, count), shift + _below(other, count) - _below(one, count))


def _all(rows: Rows, count: int) -> Pattern:
    return pattern(rows.row.width, ((count, rows.step), *rows.row.dims), rows.row.exact)


def _below(rows: Rows, count: int) -> int:
    """From the first byte of row 0 to that of the lowest row."""
    return min(0, rows.step * (count - 1))


class Footprint(NamedTuple):
    """The bytes of a view type in buffers with rows of equal length.

    Attributes:
        pattern: all of them.
        low: from the first element to the lowest byte; not positive.
        order: bytes of an element, and (count, stride) of as few loops as go through them in the order of the view:
            views of equal order that begin at one place are the same elements in step.
    """

    pattern: Pattern
    low: int
    order: tuple[tuple[int, int], ...]


def footprint(kind: ViewType, row_bytes: int) -> Footprint:
    """What a view type covers in a buffer with so many bytes in a partition; what an index may reach included."""
    dims = list(zip(kind.shape, line_strides(kind, row_bytes), strict=True))
    if kind.indirection is not None:
        stride = kind.indirection.stride * kind.dtype.itemsize
        across = kind.region.on_chip and row_bytes and stride % row_bytes == 0
        dims.append((kind.indirection.limit, stride // row_bytes * PARTITION if across else stride))
    found = pattern(kind.dtype.itemsize, dims, kind.indirection is None)
    low = sum((n - 1) * stride for n, stride in dims if stride < 0)
    return Footprint(found, low, ((kind.dtype.itemsize, 1), *joined(dims)))


def line_strides(kind: ViewType, row_bytes: int) -> list[int]:
    """The strides of a view along the line of bytes of its space."""
    strides = [stride * kind.dtype.itemsize for stride in kind.strides]
    if kind.region.on_chip and row_bytes:
        strides[0] = strides[0] // row_bytes * PARTITION
    return strides


def distinct(counts: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether no two elements at such strides, counted in elements, are the same one."""
    found = pattern(1, zip(counts, strides, strict=True))
    if found.exact:
        return found.size == prod(counts)
    places = np.zeros(1, np.int64)
    for n, stride in zip(counts, strides, strict=True):
        places = np.add.outer(places, np.arange(n) * stride).reshape(-1)
    return bool((np.diff(np.sort(places)) != 0).all())


def joined(dims: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same places in the same order in as few dimensions as possible."""
    found: list[tuple[int, int]] = []
    for n, stride in dims:
        if n == 1:
            continue
        if found and found[-1][1] == n * stride:
            found[-1] = found[-1][0] * n, stride
        else:
            found.append((n, stride))
    return found
