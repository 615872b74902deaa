"""Where the cores of a launch wait for each other, and how evenly they share the work. All of it modelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nkilite.location import Location
from nkilite.machine.timeline import Timeline
from nkilite.profiling.result import Profile, union_ns

__all__ = ["MeetingWait", "active_us", "barriers", "meeting_waits", "waiting_us"]


class MeetingWait(NamedTuple):
    """How long a core waited for another at the meetings of a line.

    Attributes:
        location: the line of the meetings.
        core, other: who waited for whom.
        waited_us: in all.
        meetings: how often.
        cause: what the other core did meanwhile: the longest instruction of the line that took most of the time.
    """

    location: Location
    core: int
    other: int
    waited_us: float
    meetings: int
    cause: int


def meeting_waits(profile: Profile) -> list[MeetingWait]:
    """Where cores waited for each other, the longest in all first."""
    line = profile.timeline
    waited: dict[tuple[Location, int, int], list[float]] = defaultdict(list)
    spent: dict[tuple[Location, int, int], dict[int, float]] = defaultdict(dict)
    for i in np.flatnonzero(line.start > line.arrival).tolist():
        partner = int(line.partner[i])
        key = profile.location(i), int(profile.launch.core[i]), int(profile.launch.core[partner])
        waited[key].append(float(line.start[i] - line.arrival[i]) / 1000)
        for cause, time in _meanwhile(profile.timeline, partner, float(line.arrival[i])):
            spent[key][cause] = spent[key].get(cause, 0.0) + time
    waits = []
    for key, times in waited.items():
        by_line: dict[Location, float] = defaultdict(float)
        for instruction, time in spent[key].items():
            by_line[profile.location(instruction)] += time
        worst = max(by_line, key=lambda where: by_line[where])
        cause = max((i for i in spent[key] if profile.location(i) == worst), key=lambda i: spent[key][i])
        waits.append(MeetingWait(*key, sum(times), len(times), cause))
    return sorted(waits, key=lambda wait: -wait.waited_us)


def _meanwhile(line: Timeline, meeting: int, since: float) -> Iterator[tuple[int, float]]:
    """What kept a core from a meeting from some time on: instructions, and the nanoseconds of each."""
    at = meeting
    while line.start[at] > since:
        before = line.allowed(at)
        if before < 0:
            break
        yield before, float(line.start[at]) - max(float(line.start[before]), since)
        at = before


def active_us(profile: Profile) -> list[float]:
    """By core, the time in which an engine worked or data moved."""
    return [union_ns(*_active(profile, core)) / 1000 for core in range(profile.cores)]


def barriers(profile: Profile) -> np.ndarray:
    """Of every instruction, whether it is one at which cores meet and that does nothing else."""
    found = np.zeros(len(profile.workload), bool)
    meetings = np.asarray(profile.workload.meetings, np.int64)
    found[[i for i in np.flatnonzero(meetings >= 0).tolist() if profile.opcode(i) == "core_barrier"]] = True
    return found


def waiting_us(profile: Profile) -> list[float]:
    """By core, the time in which it waited at meetings or passed a barrier, and did nothing else."""
    line, barrier = profile.timeline, barriers(profile)
    until = np.where(barrier, line.end, line.start)
    found = []
    for core in range(profile.cores):
        mine = profile.launch.core == core
        begin, end = _active(profile, core, ~barrier)
        both = [np.concatenate(pair) for pair in ((begin, line.arrival[mine]), (end, until[mine]))]
        found.append((union_ns(*both) - union_ns(begin, end)) / 1000)
    return found


def _active(profile: Profile, core: int, chosen: np.ndarray | bool = True) -> tuple[np.ndarray, np.ndarray]:
    """When instructions of a core began and ended to work, transfers included."""
    line, mine = profile.timeline, (profile.launch.core == core) & chosen
    moves = profile.dma_instructions
    moves = moves[profile.launch.core[moves] == core]
    return np.concatenate([line.start[mine], line.moving[moves]]), np.concatenate([line.end[mine], line.finish[moves]])
