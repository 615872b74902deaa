"""Compiled kernels run in slow motion: the parts of every entry one after the other, in an order as bad as can be.

Whatever a schedule of real threads might do by accident, such as a part running far ahead of the others or the last
part going first, happens here on purpose, so that a missing meeting shows as a wrong result every time.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import nkilite as nki
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
    workspace = executable.begin(arrays)
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


def _bits(arrays: Sequence[np.ndarray]) -> list[bytes]:
    return [a.tobytes() for a in arrays]


class Trial:
    """A kernel compiled for some arguments, and what one thread makes of them."""

    def __init__(self, kernel: Any, *args: Any, **options: Any) -> None:
        kernel = nki.jit(getattr(kernel, "function", kernel))
        launcher = kernel.launcher(*args, **options)
        self.launcher = launcher
        self.executable = launcher._executable
        self._before = [np.array(a) for a in launcher._arrays]
        launcher.run()
        self.expected = _bits(launcher._arrays)

    @property
    def loops(self) -> bool:
        """Whether it has loops of the device, which `slowly` does not follow."""
        return bool((flags(self.executable) & LEAD).any())

    def _reset(self) -> None:
        for array, before in zip(self.launcher._arrays, self._before):
            array[...] = before

    def slowly(self, parts: int, schedule: str, meet: bool = True) -> bool:
        """Whether parts that take turns get the same bits."""
        self._reset()
        run_slowly(self.executable, self.launcher._arrays, parts, schedule, meet)
        return _bits(self.launcher._arrays) == self.expected

    def threaded(self, parts: int, monkeypatch: pytest.MonkeyPatch) -> bool:
        """Whether real threads do."""
        self._reset()
        monkeypatch.setenv("NKILITE_NUM_THREADS", str(parts))
        self.launcher.run()
        return _bits(self.launcher._arrays) == self.expected
