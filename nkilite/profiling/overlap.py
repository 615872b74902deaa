"""Communication of a launch, by line: how long it takes, and how much of it nothing else hides. All of it modelled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nkilite.location import Location
from nkilite.profiling.communication import Collective
from nkilite.profiling.result import Profile

__all__ = ["Communication", "communication", "exposed_us"]


class Communication(NamedTuple):
    """Equal collectives of a line.

    Attributes:
        times: how many; on two cores that issue one together, one.
        busy_us: how long they take, in all.
        exposed_us: what they add to the critical path; the rest is hidden behind other work.
        delayed_us: how much later they end than alone, because DMA engines and memory serve the kernel, too.
    """

    location: Location
    collective: Collective
    times: int
    busy_us: float
    exposed_us: float
    delayed_us: float


def communication(profile: Profile) -> list[Communication]:
    """The collectives of a profile, the most exposed first."""
    line = profile.timeline
    groups: dict[tuple[Location, int], list[int]] = {}
    for i in np.flatnonzero(np.isin(profile.ids, list(profile.collectives))).tolist():
        groups.setdefault((profile.location(i), int(profile.ids[i])), []).append(i)
    found = []
    for (place, signature), members in groups.items():
        own = [i for i in members if profile.launch.core[i] == 0]  # the other core comes to the same
        busy = float((line.end[own] - line.start[own]).sum()) / 1000
        exposed = float(profile.critical_us[members].sum())
        late = line.finish[own] - line.end[own] - np.asarray(profile.workload.latency_ns)[own]
        delayed = float(np.maximum(late, 0.0).sum()) / 1000
        exposed = min(busy + delayed, exposed)
        found.append(Communication(place, profile.collectives[signature], len(own), busy, exposed, delayed))
    return sorted(found, key=lambda c: (-c.exposed_us, -c.busy_us))


def exposed_us(profile: Profile) -> float:
    """What all of them add to the critical path."""
    return sum(found.exposed_us for found in communication(profile))
