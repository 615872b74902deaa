"""How one launch walks a table: on the calling thread, or with the process's team where the program gains from it."""

from __future__ import annotations

import ctypes

import numpy as np

from nkilite.codegen.kernel import FAULT_WORDS, HEAD_WORDS
from nkilite.host.cpu import Host
from nkilite.native import threads
from nkilite.native.interrupts import Apart
from nkilite.native.library import library
from nkilite.native.sharing import BUSY, STATE_WORDS, Job
from nkilite.native.walker import WALK
from nkilite.native.workspace import aligned, new_memory
from nkilite.schedule.place import ARENA

_WORD = 8


class Walk:
    """Calls the native loop: `walk(table, start, count, bases)` with addresses and word positions.

    Returns 0, or what stopped it (nkilite/native/walker.py), with the words of a fault in front of the bases.

    Attributes:
        alone: the same, on the calling thread.
        most: threads that such tables gain from.
    """

    def __init__(self, host: Host, bases: int, most: int, arena: int = 0) -> None:
        """For tables that use so many bases; `arena` is the bytes of the arena, if every thread needs one."""
        self.alone = Apart(host, library(host).addresses([WALK])[WALK.name])
        self.most, self._bases, self._arena = most, bases, arena
        self._idle: list[np.ndarray] = []  # arenas of threads other than the launching one

    def __call__(self, table: int, start: int, count: int, bases: int) -> int:
        if self.most > 1:
            members = min(self.most, threads.limit())
            if members > 1:
                stopped = self._together(members, table, start, count, bases)
                if stopped != BUSY:
                    return stopped
        return self.alone(table, start, count, bases)

    def _together(self, members: int, table: int, start: int, count: int, bases: int) -> int:
        """Walk with the team; every part has a copy of the bases, with room for its own fault in front."""
        team = threads.team()
        members = team.grow(members)
        words = np.zeros((members, STATE_WORDS + self._bases), np.int64)
        first, stride, head = words.ctypes.data + STATE_WORDS * _WORD, words.strides[0], HEAD_WORDS * _WORD
        for part in range(members):
            ctypes.memmove(first + part * stride - head, bases - head, head + self._bases * _WORD)
        arenas = [self._idle_arena() for _ in range(1, members)] if self._arena else []
        for part, arena in enumerate(arenas, start=1):
            words[part, STATE_WORDS + ARENA] = aligned(arena)
        job = Job(table, count, first, stride, members, threads.spin(members))
        stopped = team.launch(np.array(job, np.int64), start)
        self._idle += arenas
        if stopped > 0:
            ctypes.memmove(bases - FAULT_WORDS * _WORD, first - FAULT_WORDS * _WORD, FAULT_WORDS * _WORD)
        return stopped

    def _idle_arena(self) -> np.ndarray:
        try:
            return self._idle.pop()
        except IndexError:
            return new_memory(self._arena)
