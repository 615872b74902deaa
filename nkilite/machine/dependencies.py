"""Which instruction has to wait for which: read-after-write, write-after-read and write-after-write hazards.

An access is a rectangle of a memory (rows are partitions, or rows of an HBM tensor; columns are bytes) of which a
strided pattern may leave gaps. A walk in program order keeps, for every part of every memory, the last writers and the
readers since. The cost is linear in the number of accesses.
"""

from __future__ import annotations

from bisect import bisect_right
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
    places = _Places(regions)
    by_space = {space: _Memory(places) for space in set(places.space)}
    memories = [by_space[space] for space in places.space]
    producers: list[int] = []
    consumers: list[int] = []
    kinds: list[int] = []
    for instruction, region, flags in zip(*(a.tolist() for a in accesses), strict=True):
        if not flags & WRITE:
            met = memories[region].read(instruction, region)
            if met:
                found = dict.fromkeys(met, DATA) if len(met) > 1 else met
                producers += found
                consumers += [instruction] * len(found)
                kinds += [DATA] * len(found)
            continue
        written, read = memories[region].write(instruction, region)
        # A queue keeps its own writes in order, and the Tensor Engine its own sums.
        in_order = queues[instruction] if flags & ACCUMULATE or not flags & READ else None
        if not read and len(written) == 1:
            if written[0] != instruction:
                producers += written
                consumers.append(instruction)
                kinds.append(DATA if queues[written[0]] != in_order else ORDER)
            continue
        waits: dict[int, int] = dict.fromkeys(read, ORDER)
        for earlier in written:
            if queues[earlier] != in_order:
                waits[earlier] = DATA
            else:
                waits.setdefault(earlier, ORDER)
        waits.pop(instruction, None)
        if waits:
            producers += waits
            consumers += [instruction] * len(waits)
            kinds += waits.values()
    return Edges(np.array(producers, np.int64), np.array(consumers, np.int64), np.array(kinds, np.int8))


class _Places:
    """The regions as lists, seen along the axis that tells most of a memory's regions apart.

    `start`, `stop` are along that axis (bytes of a partition, or rows of an HBM tensor) and `low`, `high` across it.
    `full` are the dense regions that reach as far across as any in their memory.
    """

    def __init__(self, table: np.ndarray) -> None:
        self._table = table
        self._known: dict[tuple[int, int], bool] = {}
        along, across = table[:, 3:5].copy(), table[:, 1:3].copy()
        full = table[:, 5] == 0
        for space in np.unique(table[:, 0]):
            members = table[:, 0] == space
            rows, columns = table[members, 1], table[members, 3]
            if len(np.unique(rows)) > len(np.unique(columns)):
                along[members], across[members] = table[members, 1:3], table[members, 3:5]
            low, high = across[members].T
            full[members] &= (low == low.min()) & (high == high.max())
        self.space: list[int] = table[:, 0].tolist()
        self.start, self.stop = along.T.tolist() if len(table) else ([], [])
        self.low, self.high = across.T.tolist() if len(table) else ([], [])
        self.dense: list[bool] = (table[:, 5] == 0).tolist()
        self.full: list[bool] = full.tolist()

    def overlap(self, a: int, b: int) -> bool:
        """Whether two regions of one memory may share a byte."""
        if self.start[a] >= self.stop[b] or self.start[b] >= self.stop[a]:
            return False
        if self.low[a] >= self.high[b] or self.low[b] >= self.high[a]:
            return False
        if self.dense[a] and self.dense[b]:
            return True
        key = (a, b) if a < b else (b, a)
        found = self._known.get(key)
        if found is None:
            one, other = (Region._make(self._table[r].tolist()) for r in key)
            found = self._known[key] = one.overlaps(other)
        return found


class _Memory:
    """Who wrote and who read each part of a memory: an interval map whose segments split at the edges of writes.

    An entry is (instruction, region). A segment keeps the writers that no later write covers, and the readers since.
    """

    def __init__(self, places: _Places) -> None:
        self._places = places
        self._starts: list[int] = [-_FAR, _FAR]  # of the segments; the last one is beyond the end
        self._writers: list[list[tuple[int, int]]] = [[], []]
        self._readers: list[list[tuple[int, int]]] = [[], []]

    def read(self, instruction: int, region: int) -> list[int]:
        """Add a reader; returns the writers it meets."""
        places, starts = self._places, self._starts
        full, dense, stop = places.full, places.dense[region], places.stop[region]
        segment = bisect_right(starts, places.start[region]) - 1
        met = []
        while True:
            # A writer covers all of a segment: a dense one that goes all across meets every dense reader.
            for earlier, r in self._writers[segment]:
                if r == region or (dense and full[r]) or places.overlap(r, region):
                    met.append(earlier)
            readers = self._readers[segment]
            readers.append((instruction, region))
            segment += 1
            if len(readers) >= _CROWD and not len(readers) & (len(readers) - 1):
                segment += self._disperse(segment - 1)
            if starts[segment] >= stop:
                return met

    def write(self, instruction: int, region: int) -> tuple[list[int], list[int]]:
        """Add a writer; returns the writers and the readers it meets."""
        places = self._places
        overlap, begin, end = places.overlap, places.start[region], places.stop[region]
        entry = (instruction, region)
        first = bisect_right(self._starts, begin) - 1
        if self._starts[first] == begin and self._starts[first + 1] == end:
            writers, readers = self._writers[first], self._readers[first]
            if not readers and len(writers) == 1 and writers[0][1] == region:  # sums onto the same tile
                written = [writers[0][0]]
                writers[0] = entry
                return written, []
            last = first + 1
        else:
            first, last = self._split(begin), self._split(end)
        written, read = [], []
        alone = True
        if places.full[region]:  # nothing of what was before it is left
            starts, stops, dense = places.start, places.stop, places.dense
            for segment in range(first, last):
                for i, r in self._writers[segment]:
                    if dense[r] or overlap(r, region):
                        written.append(i)
                for i, r in self._readers[segment]:
                    if (starts[r] < end and begin < stops[r]) if dense[r] else overlap(r, region):
                        read.append(i)
        else:
            for segment in range(first, last):
                writers, readers = self._writers[segment], self._readers[segment]
                written += [i for i, r in writers if r == region or overlap(r, region)]
                read += [i for i, r in readers if r == region or overlap(r, region)]
                left = [w for w in writers if w[1] != region and not self._hidden(w[1], region)]
                self._writers[segment] = [*left, entry]
                self._readers[segment] = [w for w in readers if w[1] != region and not self._hidden(w[1], region)]
                alone = alone and not left and not self._readers[segment]
        if alone and last - first > 1:
            del self._starts[first + 1:last], self._writers[first + 1:last], self._readers[first + 1:last]
        if alone:
            self._writers[first], self._readers[first] = [entry], []
        return written, read

    def _hidden(self, earlier: int, region: int) -> bool:
        """Whether, within a segment it covers, a write to `region` leaves nothing of another one."""
        places = self._places
        return places.dense[region] and places.low[region] <= places.low[earlier] <= places.high[earlier] <= (
            places.high[region]
        )

    def _disperse(self, segment: int) -> int:
        """Cut a segment with many readers of parts of it, so that a write to a part only looks at its own; how often.

        Without it, a large tile that is read in small pieces costs all of them at each of the writes that reuse it.
        """
        begin, end = self._starts[segment], self._starts[segment + 1]
        edges = sorted(edge for _, r in self._readers[segment] if begin < (edge := self._places.start[r]) < end)
        if len(edges) < _CROWD // 2:
            return 0
        self._split(edges[len(edges) // 2])
        return 1

    def _split(self, at: int) -> int:
        """The segment that starts at `at`, made by cutting one in two if need be."""
        segment = bisect_right(self._starts, at) - 1
        if self._starts[segment] == at:
            return segment
        starts, stops = self._places.start, self._places.stop
        readers = self._readers[segment]
        self._starts.insert(segment + 1, at)
        self._writers.insert(segment + 1, list(self._writers[segment]))
        self._readers.insert(segment + 1, [entry for entry in readers if stops[entry[1]] > at])
        self._readers[segment] = [entry for entry in readers if starts[entry[1]] < at]
        return segment + 1


_FAR = 1 << 60
_CROWD = 32  # readers of a segment that are better kept apart, if they read different parts of it
