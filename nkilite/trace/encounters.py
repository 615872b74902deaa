"""Races through runtime indices, found while two cores are simulated: what they touch between two meetings.

Which bytes such an index means is only known when the instruction runs. Everything else is compared before, from the
programs alone (nkilite/ir/races.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from nkilite import knobs
from nkilite.ir.races import Race, Side
from nkilite.location import Location
from nkilite.trace.storage import Reach
from nkilite.trace.tensor import NkiTensor

_MOST = 20  # races that are looked for


class _Touch(NamedTuple):
    """An access of a core to a shared tensor.

    Attributes:
        chosen: whether a runtime index chose the place.
        left: what it wrote, if it is known.
    """

    core: int
    reach: Reach
    side: Side
    tensor: str
    chosen: bool
    left: np.ndarray | None

    @property
    def whole(self) -> int:
        """A word of which every bit is set."""
        return int(2 ** (8 * self.reach.itemsize) - 1)


class Encounters:
    """What two cores have touched in shared memory since they last met, and the races there were.

    Attributes:
        races: in the order in which they were found, once for each pair of lines.
    """

    def __init__(self) -> None:
        self._wanted = knobs.races() != "off"
        self.races: list[Race] = []
        self._touched: dict[int, list[_Touch]] = {}  # by the address of the memory
        self._known: set[tuple[object, ...]] = set()

    def touch(self, core: int, tensor: NkiTensor, instruction: str, location: Location, writes: bool) -> None:
        """A core has accessed a tensor in shared memory."""
        if not self._wanted:
            return
        reach = Reach.of(tensor)
        chosen = tensor.index is not None
        left = reach.read(reach.memory).copy() if writes and chosen else None
        side = Side(instruction, location, writes)
        touch = _Touch(core, reach, side, tensor.storage.label, chosen, left)
        self._touched.setdefault(reach.memory.__array_interface__["data"][0], []).append(touch)

    def end_phase(self) -> None:
        """The cores meet, or have ended."""
        touched, self._touched = self._touched, {}
        for touches in touched.values():
            several = len({t.core for t in touches}) > 1 and len(self.races) < _MOST
            if several and any(t.chosen for t in touches) and any(t.side.writes for t in touches):
                self._look(touches)

    def _look(self, touches: list[_Touch]) -> None:
        """At what cores have touched in one memory."""
        touches, low = _near(touches)
        if not touches:
            return
        contested = _contested(touches)
        if not contested.any():
            return
        for one, other in _pairs(touches, contested):
            key = one.side.location, other.side.location, one.tensor
            if key in self._known:
                continue
            both = _marked([one]) & _marked([other])
            places = np.flatnonzero(both & contested)
            if places.size:
                self._known.add(key)
                begin, end = _run(both, int(places[0]))
                self.races.append(Race(one.side, other.side, one.tensor, low + begin, low + end))


def _near(touches: list[_Touch]) -> tuple[list[_Touch], int]:
    """The accesses that reach into the bytes around those of the other core, in a memory of these bytes alone.

    Returns:
        Where that memory begins, too.
    """
    spans = [t.reach.span for t in touches]
    hulls = [_hull([span for t, span in zip(touches, spans, strict=True) if t.core == core]) for core in (0, 1)]
    low, high = max(h[0] for h in hulls), min(h[1] for h in hulls)
    near = [(t, span) for t, span in zip(touches, spans, strict=True) if span[0] < high and span[1] > low]
    if low >= high or not near:
        return [], 0
    low, high = _hull([span for _, span in near])
    memory = np.empty(high - low, np.uint8)
    return [t._replace(reach=t.reach._replace(memory=memory, offset=t.reach.offset - low)) for t, _ in near], low


def _hull(spans: list[tuple[int, int]]) -> tuple[int, int]:
    return min(low for low, _ in spans), max(high for _, high in spans)


def _run(marked: np.ndarray, place: int) -> tuple[int, int]:
    """The marked bytes [low, high) around one of them."""
    outside = np.flatnonzero(marked == 0)
    at = int(np.searchsorted(outside, place))
    return int(outside[at - 1]) + 1 if at else 0, int(outside[at]) if at < outside.size else marked.size


def _pairs(touches: list[_Touch], contested: np.ndarray) -> Iterator[tuple[_Touch, _Touch]]:
    """Accesses of the first and of the second core of which one writes, and of which a runtime index chose one."""
    near = [t for t in touches if t.reach.read(contested).any()]
    for one, other in product((t for t in near if t.core == 0), (t for t in near if t.core == 1)):
        if (one.chosen or other.chosen) and (one.side.writes or other.side.writes):
            yield one, other


def _contested(touches: list[_Touch]) -> np.ndarray:
    """The bytes that one core writes and the other touches, all bits set; but not where both have left the same."""
    result = np.zeros_like(touches[0].reach.memory)
    for core in (0, 1):
        wrote = _marked([t for t in touches if t.core == core and t.side.writes], result)
        result |= wrote & _marked([t for t in touches if t.core != core], result)
    if result.any():
        (known, left), (others_known, others_left) = (_left(touches, core, result) for core in (0, 1))
        result[(known & others_known != 0) & (left == others_left)] = 0
    return result


def _left(touches: list[_Touch], core: int, like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of which bytes it is known what a core has left there, and what."""
    known, left = np.zeros_like(like), np.zeros_like(like)
    for t in touches:
        if t.core == core and t.side.writes:
            t.reach.mark(known, 0 if t.left is None else t.whole)
            if t.left is not None:
                t.reach.mark(left, t.left)
    return known, left


def _marked(touches: Sequence[_Touch], like: np.ndarray | None = None) -> np.ndarray:
    """The bytes that some accesses touch, all bits set."""
    result = np.zeros_like(touches[0].reach.memory if like is None else like)
    for t in touches:
        t.reach.mark(result, t.whole)
    return result
