"""The process's team of native threads: started on demand, asleep when idle, shared by all launches.

Workers are plain threads that run JIT-compiled code and never touch Python. What they touch (the team's memory, their
code) is never freed, so that the process may exit at any moment, and a child that fork made, which has none of the
threads, starts a team of its own. A launch that finds the team taken by another Python thread runs on its own thread.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import signal
from pathlib import Path

import numpy as np

from nkilite import forking, knobs
from nkilite.host.cpu import available
from nkilite.native import sharing, stack
from nkilite.native.interrupts import Apart

MOST = 256  # members of a team

_SPIN = 2000  # pauses: about 50 microseconds on a recent x86-64 core
_SPIN_CROWDED = 20  # with more members than cores


@functools.cache
def supported() -> bool:
    """Whether this platform can have a team: it takes Linux's futex and the thread functions of its C library."""
    return platform.system() == "Linux" and platform.machine().lower() in ("x86_64", "amd64", "aarch64", "arm64")


def limit() -> int:
    """The threads a launch may use: NKILITE_NUM_THREADS, or the cores this process may use.

    Raises:
        InvalidSetting: the variable is not a number of threads.
    """
    wanted = knobs.num_threads()
    if not supported():
        return 1
    return min(wanted or cores(), MOST)


def cores() -> int:
    """Cores in the process's affinity mask, at most what its control groups let it use at a time."""
    return max(1, min(len(os.sched_getaffinity(0)), _quota()))


@functools.cache
def _quota() -> int:
    """Cores' worth of time that the control groups of this process allow, rounded up."""
    allowed = MOST
    try:
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return allowed
    group = Path("/sys/fs/cgroup") / own.lstrip("/")
    for directory in (group, *group.parents):
        try:
            quota, period = (directory / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            allowed = min(allowed, -(-int(quota) // int(period)))
    return allowed


class Team:
    """Worker threads and the memory they share with launches.

    Attributes:
        address: of that memory.
        members: threads that can share a walk, the launching one included.
    """

    def __init__(self) -> None:
        self.members = 1
        self._lock, self._growing = forking.lock(), False
        host = next(iter(available().values()))
        self._member = Apart(host, stack.with_room(stack.COMPILER, lambda: sharing.member.address))
        self._system = ctypes.CDLL(None, use_errno=True)
        self._system.calloc.restype = ctypes.c_void_p
        size, align = sharing.team_bytes(MOST), 4096
        memory = self._system.calloc(1, ctypes.c_size_t(size + align))
        self.address = memory + -memory % align
        sharing.new_team(self.address, MOST)

    def grow(self, members: int) -> int:
        """Start workers until there are that many members, or as many as the system allows; returns how many."""
        if self.members < members:
            with self._lock:
                if not self._growing:  # else a signal handler is here: what it has to do without is being started
                    self._growing = True
                    try:
                        while self.members < members and self._start(self.members):
                            self.members += 1
                    finally:
                        self._growing = False
        return min(members, self.members)

    def _start(self, number: int) -> bool:
        """Start the thread of a member; it takes no signals, which are the interpreter's."""
        attributes, thread = (ctypes.c_uint64 * 16)(), ctypes.c_uint64()
        system = self._system
        system.pthread_attr_init(attributes)
        system.pthread_attr_setstacksize(attributes, ctypes.c_size_t(stack.LARGE))
        system.pthread_attr_setdetachstate(attributes, 1)
        member = ctypes.c_void_p(sharing.member_address(self.address, number))
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            worker = ctypes.c_void_p(self._member.address)
            return int(system.pthread_create(ctypes.byref(thread), attributes, worker, member)) == 0
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            system.pthread_attr_destroy(attributes)

    def launch(self, job: np.ndarray, start: int) -> int:
        """Run a job (the words of a `sharing.Job`) of at most `members` parts from a word position of its table on.

        Returns as the walk of a single thread does, or BUSY.
        """
        words = sharing.launch_words(self.address, job, start)
        return self._member(words.ctypes.data)


def spin(members: int) -> int:
    """Looks before a waiting member sleeps: few where the one it waits for may need its core."""
    return _SPIN if members <= cores() else _SPIN_CROWDED


_team: Team | None = None
_creation = forking.lock()


def team() -> Team:
    """The team of this process."""
    global _team
    if _team is None:
        with _creation:
            if _team is None:
                _team = Team()
    return _team


def _forget() -> None:
    global _team
    _team = None


forking.in_child(_forget)
