"""The native search for meetings against pairs of touches, looked at one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nkilite.compiled import function
from nkilite.native import meetings
from nkilite.native.meeting_scan import ALONE, ANYBODY, scan
from nkilite.native.walker import LEAD


def conflict(one: tuple, other: tuple) -> bool:
    """Whether touches (first, last, owner, writes, low) by different threads may be of the same bytes."""
    (a, b, p, writes, low), (c, d, q, also, high) = one, other
    if max(a, c) >= min(b, d) or not (writes or also):
        return False
    same = p[:3] == q[:3] and max(low + p[3], high + q[3]) - min(low, high) <= p[1]
    if same or not p[2] or p[2] != q[2]:
        return not same
    widths = [(o[0] - 1) * o[1] + o[3] for o in (p, q)]
    return (high - low) % p[2] < widths[0] or (low - high) % p[2] < widths[1]


def random_touches(generator: np.random.Generator, owners: list[tuple], entries: int) -> list[list[tuple]]:
    """For every entry: some touches."""
    found = []
    for _ in range(entries):
        owner = owners[generator.integers(len(owners))]
        touches = []
        for _ in range(generator.integers(1, 4)):
            first = int(generator.integers(6))
            low = int(generator.integers(4)) * 16 if owner[0] > 0 else 0
            last = first + int(generator.integers(1, 3))
            touches.append((first, last, owner, bool(generator.integers(2)), low))
        found.append(touches)
    return found


def met(program: list[list[tuple]], flags: np.ndarray) -> list[int]:
    owners = list(dict.fromkeys(t[2] for touches in program for t in touches))
    rows = [(a, b, 2 * owners.index(o) + w, low) for touches in program for a, b, o, w, low in touches]
    ends = np.cumsum([len(touches) for touches in program])
    return scan(flags, ends, np.array(rows, np.int64), np.array(owners, np.int64), 8).tolist()


OWNERS = [ALONE, ANYBODY, (4, 64, 0, 32), (4, 64, 0, 64), (4, 16, 512, 16), (4, 16, 512, 8), (2, 64, 512, 64)]


@pytest.mark.parametrize("seed", range(60))
def test_no_two_touches_that_conflict_are_in_one_phase(seed) -> None:
    generator = np.random.default_rng(seed)
    program = random_touches(generator, OWNERS, 40)
    flags = np.where(generator.random(40) < 0.05, LEAD, 0)
    found = met(program, flags)
    assert set(np.flatnonzero(flags & LEAD)) <= set(found)
    bounds = [0, *found, len(program)]
    for begin, end in itertools.pairwise(bounds):
        phase = [i for i in range(begin, end) if not flags[i] & LEAD]
        for i, j in itertools.combinations(phase, 2):
            assert not any(conflict(a, b) for a in program[i] for b in program[j]), (i, j)


@pytest.mark.parametrize("seed", range(20))
def test_there_are_no_more_meetings_than_needed(seed) -> None:
    """Where no owners are joined."""
    program = random_touches(np.random.default_rng(seed), [ALONE, ANYBODY], 40)
    expected, begin = [], 0
    for i, touches in enumerate(program):
        before = [t for j in range(begin, i) for t in program[j]]
        if any(conflict(a, b) for a in before for b in touches):
            expected.append(i)
            begin = i
    assert met(program, np.zeros(40, np.int64)) == expected


def test_machine_code_finds_the_same(monkeypatch) -> None:
    program = random_touches(np.random.default_rng(0), OWNERS, 3000)
    flags = np.where(np.arange(3000) % 100 == 7, LEAD, 0)
    found = []
    for least in (float("inf"), 0):
        monkeypatch.setattr(function, "WORTH_LOADING", least)
        monkeypatch.setattr(function, "COMPILING_A_BYTE", least)
        found.append(met(program, flags))
    assert found[0] == found[1]


@pytest.mark.parametrize("crowd", [1, 3, 1000])
def test_intervals_are_atoms(crowd, monkeypatch) -> None:
    monkeypatch.setattr(meetings, "_CROWD", crowd)
    generator = np.random.default_rng(crowd)
    for _ in range(50):
        start = generator.integers(0, generator.integers(5, 400), generator.integers(1, 60))
        end = start + generator.integers(1, generator.integers(2, 200), len(start))
        first, last, count = meetings._numbered(start, end)
        assert (first >= 0).all() and (first < last).all() and (last <= count).all()
        for i, j in itertools.combinations(range(len(start)), 2):
            if max(start[i], start[j]) < min(end[i], end[j]):
                assert max(first[i], first[j]) < min(last[i], last[j])
            elif crowd == 1000:
                assert max(first[i], first[j]) >= min(last[i], last[j])
