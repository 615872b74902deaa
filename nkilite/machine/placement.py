"""Where the memory planner puts a buffer: free holes, ranges taken over time, and strategies over them.

`Sweep` goes through the buffers in order of first use and keeps the free holes; `place_by_size` takes the
largest first and looks at what overlaps each in time. `memory.plan` decides which to try.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nkilite.machine import sweep

__all__ = ["UNBOUNDED", "Occupied", "Range", "Rules", "Sweep", "place_by_size"]

#: Capacity that stands for a memory without end.
UNBOUNDED = 1 << 62

Range = tuple[int, int]  # [low, high) in bytes


@dataclass(frozen=True, slots=True)
class Rules:
    """How buffers may lie in a memory: its size, their alignment, and the banks they may not straddle."""

    capacity: int
    align: int
    bank: int | None

    def rounded(self, size: int) -> int:
        """Bytes a buffer of `size` occupies: whole alignment units, and whole banks beyond one bank."""
        size = -(-size // self.align) * self.align
        if self.bank is not None and size > self.bank:
            size = -(-size // self.bank) * self.bank
        return size

    def rounded_all(self, sizes: np.ndarray) -> np.ndarray:
        """`rounded` of every size."""
        sizes = -(-sizes // self.align) * self.align
        if self.bank is not None:
            sizes = np.where(sizes > self.bank, -(-sizes // self.bank) * self.bank, sizes)
        return sizes

    def fit(self, low: int, high: int, size: int) -> int | None:
        """Lowest legal offset for `size` rounded bytes in the aligned free range [low, high), or None."""
        bank = self.bank
        if bank is not None and low % bank + size > bank:
            low = -(-low // bank) * bank
        return low if low + size <= high else None

    def gaps(self, low: int, high: int, taken: Sequence[Range]) -> list[Range]:
        """What the disjoint, sorted ranges `taken` leave of [low, high), cut to whole alignment units."""
        align = self.align
        left: list[Range] = []
        for taken_low, taken_high in taken[bisect_right(taken, low, key=_high) :]:
            if taken_low >= high:
                break
            if taken_low // align * align > low:
                left.append((low, taken_low // align * align))
            low = max(low, -(-taken_high // align) * align)
        if low < high:
            left.append((low, high))
        return left

    def room(self) -> int:
        """Capacity in whole alignment units: every hole starts and ends on one."""
        return self.capacity // self.align * self.align


def _high(taken: Range) -> int:
    return taken[1]


class Occupied:
    """Address ranges taken during intervals of instructions, found by interval.

    Level k holds the intervals of at most 2**k instructions, by ``start >> k``; the ones that meet [start,
    end] therefore start in the buckets of that interval or in the one before.
    """

    def __init__(self) -> None:
        self._levels: dict[int, dict[int, list[tuple[int, int, int, int]]]] = {}

    def add(self, low: int, high: int, start: int, end: int) -> None:
        """Take [low, high) from instruction `start` to `end`, both included."""
        level = (end - start).bit_length()
        self._levels.setdefault(level, {}).setdefault(start >> level, []).append((low, high, start, end))

    def during(self, start: int, end: int) -> list[Range]:
        """Disjoint, sorted ranges taken at some time in [start, end]."""
        found: set[Range] = set()
        for level, buckets in self._levels.items():
            first, last = (start >> level) - 1, end >> level
            chosen = range(first, last + 1) if last - first < len(buckets) else list(buckets)
            for bucket in chosen:
                for low, high, begins, ends in buckets.get(bucket, ()):
                    if begins <= end and ends >= start:
                        found.add((low, high))
        merged: list[Range] = []
        for low, high in sorted(found):
            if merged and low <= merged[-1][1]:
                if high > merged[-1][1]:
                    merged[-1] = (merged[-1][0], high)
            else:
                merged.append((low, high))
        return merged


class Sweep:
    """One pass over the requests in order of first use, choosing holes by `policy`.

    Attributes:
        offsets: where each request went, as far as the sweep got.
        placed: indices of the placed requests, in the order they were placed.
        holes: the free ranges, in order.
        extent: end of the highest byte used so far.
    """

    def __init__(
        self, requests: Sequence[tuple[int, int, int]] | np.ndarray, rules: Rules, reserved: Occupied | None,
        policy: str,
    ) -> None:
        self._table = np.array(requests, np.int64).reshape(-1, 3)
        self._rules, self._reserved, self._policy = rules, reserved, sweep.POLICIES[policy]

    def run(self) -> int | None:
        """Place the requests; the index of the first that does not fit, or None."""
        table, rules = self._table.copy(), self._rules
        count, room = len(table), rules.room()
        table[:, 0] = rules.rounded_all(table[:, 0])
        order = np.argsort(table[:, 1], kind="stable")
        leaving = order[np.argsort(table[order, 2], kind="stable")]
        closed, closed_from = self._closed()
        holes = np.zeros(2 * (2 * count + 3), np.int64)
        holes[1] = room
        offsets, state = np.zeros(count, np.int64), np.zeros(sweep.STATE, np.int64)
        state[sweep.HOLES] = room > 0
        failed = sweep.sweep.run(
            10 * count, table.reshape(-1), order, leaving, closed, closed_from,
            np.array([rules.align, rules.bank or 0, self._policy]), holes, np.zeros_like(holes), offsets, state, count,
        )
        self.offsets: list[int] = offsets.tolist()
        self.placed: list[int] = order[:state[sweep.PLACED]].tolist()
        self.holes: list[Range] = [(low, high) for low, high in holes[:2 * state[sweep.HOLES]].reshape(-1, 2).tolist()]
        self.extent = int(state[sweep.EXTENT])
        return None if failed < 0 else failed

    def _closed(self) -> tuple[np.ndarray, np.ndarray]:
        """The ranges that are reserved during the life of each request, and where those of each begin."""
        if self._reserved is None:
            return np.zeros(0, np.int64), np.zeros(len(self._table) + 1, np.int64)
        found = [self._reserved.during(start, end) for _, start, end in self._table.tolist()]
        ranges = np.array([r for each in found for r in each], np.int64).reshape(-1)
        return ranges, np.cumsum([0, *(len(each) for each in found)])


def place_by_size(
    requests: Sequence[tuple[int, int, int]], rules: Rules, occupied: Occupied
) -> list[int] | None:
    """Offsets with the largest buffers placed first, each in its lifetime's tightest gap; None on failure.

    Wastes a few percent where a sweep wastes ten or twenty, at a cost that follows the number of pairs of
    buffers alive together. Adds the placed buffers to `occupied`.
    """
    offsets = [0] * len(requests)
    room = rules.room()
    for index in sorted(
        range(len(requests)), key=lambda i: (-requests[i][0], requests[i][1] - requests[i][2])
    ):
        size, start, end = requests[index]
        size = rules.rounded(size)
        if not size:
            break  # sorted by size: only empty buffers are left
        # The gap under the end of the memory is the last resort, however tight: it raises the waterline.
        best: tuple[bool, int, int] | None = None  # (is it that gap, its width, the offset in it)
        for low, high in rules.gaps(0, room, occupied.during(start, end)):
            offset = rules.fit(low, high, size)
            if offset is not None and (best is None or (high == room, high - low) < best[:2]):
                best = (high == room, high - low, offset)
        if best is None:
            return None
        offsets[index] = best[2]
        occupied.add(best[2], best[2] + size, start, end)
    return offsets
