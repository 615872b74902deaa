"""Where the memory planner puts a buffer: free holes, ranges taken over time, and strategies over them.

`Sweep` goes through the buffers in order of first use and keeps the free holes; `place_by_size` takes the
largest first and looks at what overlaps each in time. `memory.plan` decides which to try.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["UNBOUNDED", "Holes", "Occupied", "Range", "Rules", "Sweep", "place_by_size"]

#: Capacity that stands for a memory without end.
UNBOUNDED = 1 << 62
#: Holes that next fit looks at before it takes the tightest, so that crumbs cannot make the sweep quadratic.
_RING_REACH = 32

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


class Holes:
    """The free ranges of a memory, disjoint and coalesced, sorted by address and by size."""

    def __init__(self, room: int) -> None:
        self.starts: list[int] = []
        self.stops: list[int] = []
        self.by_size: list[Range] = []  # (size, start)
        self.latest = 0  # start of the hole that took in the range freed last
        if room > 0:
            self._insert(0, 0, room)

    def take(self, low: int, high: int) -> None:
        """Allocate [low, high), which lies within one hole."""
        i = bisect_right(self.starts, low) - 1
        start, stop = self.starts[i], self.stops[i]
        self._delete(i)
        if high < stop:
            self._insert(i, high, stop)
        if start < low:
            self._insert(i, start, low)

    def release(self, low: int, high: int) -> None:
        """Free [low, high), merging it with the holes it touches."""
        i = bisect_left(self.starts, low)
        if i < len(self.starts) and self.starts[i] == high:
            high = self.stops[i]
            self._delete(i)
        if i and self.stops[i - 1] == low:
            i -= 1
            low = self.starts[i]
            self._delete(i)
        self._insert(i, low, high)
        self.latest = low

    def _insert(self, i: int, start: int, stop: int) -> None:
        self.starts.insert(i, start)
        self.stops.insert(i, stop)
        insort(self.by_size, (stop - start, start))

    def _delete(self, i: int) -> None:
        start, stop = self.starts.pop(i), self.stops.pop(i)
        del self.by_size[bisect_left(self.by_size, (stop - start, start))]


class Sweep:
    """One pass over the requests in order of first use, choosing holes by `policy`.

    Attributes:
        offsets: where each request went, as far as the sweep got.
        placed: indices of the placed requests, in the order they were placed.
        holes: what is free.
        extent: end of the highest byte used so far.
    """

    def __init__(
        self, requests: Sequence[tuple[int, int, int]], rules: Rules, reserved: Occupied | None, policy: str
    ) -> None:
        self.offsets = [0] * len(requests)
        self.placed: list[int] = []
        self.holes = Holes(rules.room())
        self.extent = 0
        self._requests = requests
        self._rules = rules
        self._reserved = reserved
        self._closed: list[Range] = []  # ranges reserved during the life of the request being placed
        choices = {"spread": self._next_fit, "reuse": self._latest_fit, "tight": self._tightest_fit}
        self._choose = choices[policy]
        self._rover = 0

    def run(self) -> int | None:
        """Place the requests; the index of the first that does not fit, or None."""
        requests, offsets, holes, rounded = self._requests, self.offsets, self.holes, self._rules.rounded
        order = sorted(range(len(requests)), key=lambda i: requests[i][1])
        leaving = sorted(order, key=lambda i: requests[i][2])
        bank = self._rules.bank
        gone = 0
        for index in order:
            size, start, end = requests[index]
            # A request that ended before `start` also started before it, so it has been placed.
            while requests[leaving[gone]][2] < start:
                done = leaving[gone]
                gone += 1
                if width := rounded(requests[done][0]):
                    holes.release(offsets[done], offsets[done] + width)
            size = rounded(size)
            if size:
                if self._reserved is not None:
                    self._closed = self._reserved.during(start, end)
                offset = self._choose(size)
                if offset is None:
                    return index
                stop = offset + size
                holes.take(offset, stop)
                offsets[index] = offset
                self.extent = max(self.extent, stop)
                # In a banked memory go on in the next bank, so that engines do not meet in one.
                self._rover = stop if bank is None else -(-stop // bank) * bank
            self.placed.append(index)
        return None

    def _next_fit(self, size: int) -> int | None:
        """The first fit from the rover on, once round the ring; the tightest when that is out of reach."""
        starts, stops = self.holes.starts, self.holes.stops
        count = len(starts)
        current = bisect_right(starts, self._rover) - 1
        if current >= 0 and stops[current] > self._rover:
            offset = self._fit(self._rover, stops[current], size)
            if offset is not None:
                return offset
        for step in range(1, min(count, _RING_REACH) + 1):
            i = (current + step) % count
            offset = self._fit(starts[i], stops[i], size)
            if offset is not None:
                return offset
        return self._tightest_fit(size)

    def _latest_fit(self, size: int) -> int | None:
        """The hole freed last, if that does not push the extent up; otherwise the tightest."""
        starts, stops, latest = self.holes.starts, self.holes.stops, self.holes.latest
        i = bisect_left(starts, latest)
        if i < len(starts) and starts[i] == latest:
            offset = self._fit(latest, min(stops[i], self.extent), size)
            if offset is not None:
                return offset
        return self._tightest_fit(size)

    def _tightest_fit(self, size: int) -> int | None:
        by_size = self.holes.by_size
        for i in range(bisect_left(by_size, (size, 0)), len(by_size)):
            width, start = by_size[i]
            offset = self._fit(start, start + width, size)
            if offset is not None:
                return offset
        return None

    def _fit(self, low: int, high: int, size: int) -> int | None:
        if high - low < size:
            return None
        if not self._closed:
            return self._rules.fit(low, high, size)
        for gap_low, gap_high in self._rules.gaps(low, high, self._closed):
            offset = self._rules.fit(gap_low, gap_high, size)
            if offset is not None:
                return offset
        return None


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
