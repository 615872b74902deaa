"""Compiled kernels run in slow motion: the parts of every entry one after the other, in an order as bad as can be.

Whatever a schedule of real threads might do by accident, such as a part running far ahead of the others or the last
part going first, happens here on purpose, so that a missing meeting shows as a wrong result every time.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from nkilite.native import meetings
from nkilite.native.executable import Executable
from nkilite.native.walker import LEAD, MEET, SPLIT

_MICRO_KERNEL = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
)

SCHEDULES = ("last part first", "shuffled", "first part first")


def every_program_has_a_team(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let programs of any size use threads, and compile them anew."""
    monkeypatch.setattr(meetings, "WAKE_NS", 0)
    monkeypatch.setattr(meetings, "MEETING_NS", 0)
    monkeypatch.setenv("NKILITE_CACHE", "0")


def flags(executable: Executable) -> np.ndarray:
    """The flags of every entry."""
    lowered = executable.image.lowered
    return lowered.table[lowered.entries + 1] >> 32


def run_slowly(
    executable: Executable, arrays: Sequence[np.ndarray], parts: int, schedule: str, meet: bool = True
) -> None:
    """Run a program without control instructions as `parts` threads might; `meet` False leaves out meetings."""
    assert not (flags(executable) & LEAD).any()
    workspace = executable._enter(arrays)
    ctypes.memset(int(workspace.bases[0]), 0xA5, executable.image.arena_bytes)
    workspace.clear()
    for phase in _phases(executable, meet):
        for part, at in _steps(phase, parts, schedule):
            split = int(executable.table[at + 1]) >> 32 & SPLIT
            if split or part == 0:
                function = _MICRO_KERNEL(int(executable.table[at]))
                words = executable.table.ctypes.data + 8 * (at + 2)
                assert function(words, workspace.address, part, parts if split else 1) == 0


def _phases(executable: Executable, meet: bool) -> Iterator[list[int]]:
    """The word positions of the entries between meetings."""
    phase: list[int] = []
    for at in executable.image.lowered.entries.tolist():
        if meet and int(executable.table[at + 1]) >> 32 & MEET:
            yield phase
            phase = []
        phase.append(at)
    yield phase


def _steps(phase: list[int], parts: int, schedule: str) -> Iterator[tuple[int, int]]:
    """(part, entry) for every part of a phase, each part's entries in order."""
    if schedule == "first part first":
        turns = [part for part in range(parts) for _ in phase]
    elif schedule == "last part first":
        turns = [part for part in reversed(range(parts)) for _ in phase]
    else:
        turns = [part for part in range(parts) for _ in phase]
        random.Random(len(phase)).shuffle(turns)
    done = [0] * parts
    for part in turns:
        yield part, phase[done[part]]
        done[part] += 1
