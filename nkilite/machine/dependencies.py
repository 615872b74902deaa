"""Which instruction has to wait for which: read-after-write, write-after-read and write-after-write hazards.

An access is a rectangle of a memory (rows are partitions, or rows of an HBM tensor; columns are bytes) of which a
strided pattern may leave gaps. The rectangles of a program cut each memory into cells; a walk in program order keeps
for every cell the last writers and the readers since. The cost is linear in the number of accesses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

import numpy as np

__all__ = ["ACCUMULATE", "DATA", "ORDER", "READ", "WRITE", "Accesses", "Edges", "Region", "hazards"]

#: Edge kinds: the consumer waits until the producer's result has landed, or only until it leaves its engine.
DATA, ORDER = 0, 1

#: What an access does.
READ, WRITE, ACCUMULATE = 1, 2, 4

_DENSE_TOUCHES = 24  # cells per access, on average, up to which a memory is cut exactly
_COARSE = 64  # rows and columns of cells of a memory that exact cutting would shatter


class Region(NamedTuple):
    """Bytes [left, right) of rows [top, bottom) of a memory.

    `step` is 0 when every byte is touched; otherwise only runs of `width` bytes are, each beginning a multiple of
    `step` bytes after `left`.
    """

    space: int
    top: int
    bottom: int
    left: int
    right: int
    step: int = 0
    width: int = 0

    def overlaps(self, other: Region) -> bool:
        """Whether a byte may belong to both; exact for dense regions and equal steps, else conservative."""
        if self.space != other.space or self.top >= other.bottom or other.top >= self.bottom:
            return False
        if self.left >= other.right or other.left >= self.right:
            return False
        if not self.step and not other.step:
            return True
        step = gcd(self.step, other.step)
        mine = self.width if self.step else self.right - self.left
        theirs = other.width if other.step else other.right - other.left
        if mine >= step or theirs >= step:
            return True
        apart = (other.left - self.left) % step
        return apart < mine or apart + theirs > step

    def covers(self, other: Region) -> bool:
        """Whether every byte of `other` surely belongs to this region."""
        if self == other:
            return True
        inside = self.top <= other.top and other.bottom <= self.bottom
        return not self.step and inside and self.left <= other.left and other.right <= self.right


class Accesses(NamedTuple):
    """What instructions do to regions: equally long arrays in program order, the reads of an instruction first.

    `flags` adds READ, WRITE and ACCUMULATE; the last says that the engine adds in place, in order, at full rate.
    """

    instruction: np.ndarray
    region: np.ndarray
    flags: np.ndarray


@dataclass(frozen=True)
class Edges:
    """`consumer[k]` waits for `producer[k]`; `kind[k]` is DATA or ORDER."""

    producer: np.ndarray
    consumer: np.ndarray
    kind: np.ndarray

    def __len__(self) -> int:
        return len(self.producer)


def hazards(regions: np.ndarray, accesses: Accesses, queues: Sequence[int]) -> Edges:
    """The hazards between instructions.

    Args:
        regions: int64, a row of the fields of a `Region` for every number in `accesses.region`.
        accesses: in program order.
        queues: the engine queue of every instruction: a queue keeps the order of its own writes.
    """
    cells, n_cells, exact = _cells(regions, accesses)
    plain = (exact & (regions[:, 5] == 0)).tolist()
    n = max(len(regions), 1)
    # Writers and readers of a cell are kept as instruction * n + region: the writers since (and including) the last
    # that covered all earlier ones, and the readers since then.
    writers: list[list[int]] = [[] for _ in range(n_cells)]
    readers: list[list[int]] = [[] for _ in range(n_cells)]
    producers: list[int] = []
    consumers: list[int] = []
    kinds: list[int] = []
    test = _Overlaps(regions)
    for instruction, region, flags in zip(*(a.tolist() for a in accesses), strict=True):
        mine, queue, code = plain[region], queues[instruction], instruction * n + region
        # A queue keeps its own writes in order, and the Tensor Engine its own sums.
        keeps_order = flags & ACCUMULATE or not flags & READ
        found: dict[int, int] = {}
        for cell in cells[region]:
            for entry in writers[cell]:
                earlier, place = divmod(entry, n)
                if earlier == instruction or not ((mine and plain[place]) or test.overlap(region, place)):
                    continue
                kind = ORDER if keeps_order and queues[earlier] == queue else DATA
                if found.get(earlier, ORDER) == ORDER:
                    found[earlier] = kind
            if not flags & WRITE:
                readers[cell].append(code)
                continue
            for entry in readers[cell]:
                earlier, place = divmod(entry, n)
                if earlier != instruction and ((mine and plain[place]) or test.overlap(region, place)):
                    found.setdefault(earlier, ORDER)
            if mine:
                writers[cell] = [code]
                if readers[cell]:
                    readers[cell] = []
            else:
                writers[cell] = [w for w in writers[cell] if not test.covers(region, w % n)] + [code]
                readers[cell] = [r for r in readers[cell] if not test.covers(region, r % n)]
        if found:
            producers += found
            consumers += [instruction] * len(found)
            kinds += found.values()
    return Edges(np.array(producers, np.int64), np.array(consumers, np.int64), np.array(kinds, np.int8))


class _Overlaps:
    """Remembers which pairs of regions overlap."""

    def __init__(self, table: np.ndarray) -> None:
        self._table = table
        self._regions: dict[int, Region] = {}
        self._known: dict[tuple[int, int], bool] = {}

    def overlap(self, a: int, b: int) -> bool:
        key = (a, b) if a < b else (b, a)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._region(a).overlaps(self._region(b))
        return found

    def covers(self, a: int, b: int) -> bool:
        return self._region(a).covers(self._region(b))

    def _region(self, number: int) -> Region:
        found = self._regions.get(number)
        if found is None:
            found = self._regions[number] = Region._make(self._table[number].tolist())
        return found


def _cells(table: np.ndarray, accesses: Accesses) -> tuple[list[Sequence[int]], int, np.ndarray]:
    """Cut every memory at the edges of its regions: the cells of each region, their number, and whether a region
    fills its cells (it does not where cutting exactly would make too many)."""
    uses = np.bincount(accesses.region, minlength=len(table))
    cells: list[Sequence[int]] = [()] * len(table)
    exact = np.ones(len(table), bool)
    total = 0
    for space in np.unique(table[:, 0]):
        members = np.flatnonzero(table[:, 0] == space)
        _, top, bottom, left, right = table[members, :5].T
        rows, columns = np.unique(np.r_[top, bottom]), np.unique(np.r_[left, right])
        spans = _spans(rows, columns, top, bottom, left, right)
        touches = ((spans[1] - spans[0]) * (spans[3] - spans[2]) * uses[members]).sum()
        fine = bool(touches <= _DENSE_TOUCHES * max(uses[members].sum(), 64))
        if not fine:
            rows, columns = (_thinned(edges) for edges in (rows, columns))
            spans = _spans(rows, columns, top, bottom, left, right)
            exact[members] = False
        wide = len(columns)
        for member, y0, y1, x0, x1 in zip(members.tolist(), *(s.tolist() for s in spans), strict=True):
            if y1 - y0 == 1:
                cells[member] = range(total + y0 * wide + x0, total + y0 * wide + x1)
            else:
                cells[member] = [total + y * wide + x for y in range(y0, y1) for x in range(x0, x1)]
        total += len(rows) * wide
    return cells, total, exact


def _spans(rows, columns, top, bottom, left, right) -> tuple[np.ndarray, ...]:
    """First and past-the-end row and column of cells of every rectangle."""
    return (
        np.searchsorted(rows, top, "right") - 1, np.searchsorted(rows, bottom, "left"),
        np.searchsorted(columns, left, "right") - 1, np.searchsorted(columns, right, "left"),
    )


def _thinned(edges: np.ndarray) -> np.ndarray:
    """At most `_COARSE` of the sorted edges, with the first and the last."""
    if len(edges) <= _COARSE:
        return edges
    return edges[np.linspace(0, len(edges) - 1, _COARSE).astype(int)]
