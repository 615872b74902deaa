"""Communication of a launch, by line: how long it takes, and how much of it nothing else hides. All of it modelled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nkilite.location import Location
from nkilite.profiling.communication import Collective
from nkilite.profiling.profile import Profile

__all__ = ["Communication", "communication", "exposed_us"]


class Communication(NamedTuple):
    """Equal collectives of a line.

    Attributes:
        times: how many; on two cores that issue one together, one.
        busy_us: how long they take, in all.
        exposed_us: of that, while no engine computed and no other data moved.
    """

    location: Location
    collective: Collective
    times: int
    busy_us: float
    exposed_us: float


def communication(profile: Profile) -> list[Communication]:
    """The collectives of a profile, the most exposed first."""
    line = profile.timeline
    own = _members(profile)
    exposed = _exposed(profile, own)
    groups: dict[tuple[Location, int], list[int]] = {}
    for at, i in enumerate(own.tolist()):
        groups.setdefault((profile.location(i), int(profile.ids[i])), []).append(at)
    found = [
        Communication(
            place, profile.collectives[signature], len(at),
            float((line.end[own[at]] - line.start[own[at]]).sum()) / 1000, float(exposed[at].sum()) / 1000,
        )
        for (place, signature), at in groups.items()
    ]
    return sorted(found, key=lambda c: (-c.exposed_us, -c.busy_us))


def exposed_us(profile: Profile) -> float:
    """The time in which collectives ran and nothing else did."""
    return float(_exposed(profile, _members(profile)).sum()) / 1000


def _members(profile: Profile) -> np.ndarray:
    """The collectives that the first core issues; the others come to the same."""
    return np.flatnonzero(np.isin(profile.ids, list(profile.collectives)) & (profile.launch.core == 0))


def _exposed(profile: Profile, own: np.ndarray) -> np.ndarray:
    """Nanoseconds of each collective in which no core does anything else."""
    line, moves = profile.timeline, profile.dma_instructions
    others = np.flatnonzero(~np.isin(profile.ids, list(profile.collectives)))
    begin = np.concatenate([line.start[others], line.moving[moves]])
    end = np.concatenate([line.end[others], line.finish[moves]])
    return _uncovered(line.start[own], line.end[own], begin, end)


def _uncovered(
    begin: np.ndarray, end: np.ndarray, covers_from: np.ndarray, covers_to: np.ndarray
) -> np.ndarray:
    """What of each interval [begin, end) no covering interval covers."""
    if not len(covers_from):
        return end - begin
    order = np.argsort(covers_from)
    starts, stops = covers_from[order], np.maximum.accumulate(covers_to[order])
    first = np.concatenate([[True], starts[1:] > stops[:-1]])  # of what is covered without a gap
    starts, stops = starts[first], np.append(stops[np.flatnonzero(first)[1:] - 1], stops[-1])
    before = np.concatenate([[0.0], np.cumsum(stops - starts)])

    def covered(until: np.ndarray) -> np.ndarray:
        at = np.searchsorted(starts, until, "right")
        last = np.maximum(at - 1, 0)
        return before[last] + np.where(at > 0, np.minimum(until, stops[last]) - starts[last], 0.0)

    return (end - begin) - (covered(end) - covered(begin))
