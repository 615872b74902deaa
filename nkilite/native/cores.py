"""A launch on several cores: every core runs its own program on a CPU thread, from meeting to meeting.

The launching thread is the conductor. It lets all cores run until each has come to a meeting or to its end, lets those
meet who can, and goes on; so no thread ever waits for another inside native code, and results do not depend on how many
threads there are: with one, cores run one after the other, phase by phase.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nkilite import forking
from nkilite.ir.meeting import Arrival, complete, exchange
from nkilite.ir.rank import current
from nkilite.later import later
from nkilite.location import UNKNOWN
from nkilite.native import stack, threads
from nkilite.native.executable import Executable, receive
from nkilite.native.image import Image
from nkilite.native.workspace import address
from nkilite.once import cached_property

if TYPE_CHECKING:
    from concurrent import futures
else:
    futures = later("concurrent.futures")  # launches on one core do without


def launchable(executables: Sequence[Executable]) -> Executable | Cores:
    """What runs a launch of these programs, one per core."""
    return executables[0] if len(executables) == 1 else Cores(executables)


class Run:
    """A core's program while it runs: stopped at a meeting, or at its end."""

    def __init__(self, executable: Executable, arrays: Sequence[np.ndarray], core: int, alone: bool) -> None:
        """
        Args:
            alone: on one thread, because the other cores run beside it.
        """
        self._executable, self._core, self._at = executable, core, 0
        self._rank = current()  # a core may run on another thread
        self._workspace = executable.begin(arrays)
        self._walk = executable.walk.alone if alone else executable.walk
        self.done = False

    def proceed(self) -> Arrival | None:
        """Run to the next meeting; None at the end of the program.

        Raises:
            IndirectOutOfBounds: an index read by an indirect access is outside its tensor.
        """
        if self._executable.scratch and not stack.fits(self._executable.scratch):
            return stack.with_room(self._executable.scratch, self.proceed)
        executable, workspace = self._executable, self._workspace
        table = executable.table
        while True:
            stopped = self._walk(address(table), self._at, len(table), workspace.address)
            if not stopped:
                self.done = True
                executable.look(workspace)
                return None
            stop, word = executable.handle(stopped, workspace)
            self._at = executable.following(word)
            if stop.meets:
                arrival = executable.arrival(stop, word, workspace, self._core)
                if arrival.waits:
                    return arrival
                receive(arrival, exchange([arrival], self._rank)[0])

    def end(self) -> None:
        """Have the core's thread come back soon, wherever it is."""
        self._workspace.end()

    def close(self) -> None:
        self._executable.leave(self._workspace)


class Cores:
    """Runs one executable per core; like an `Executable`, for whoever launches it.

    Attributes:
        quick: there is no entry that takes addresses.
        image: the first core's, which says what arrays a launch is given; inputs that any core writes count as written.
    """

    quick = False

    def __init__(self, executables: Sequence[Executable]) -> None:
        self.executables = list(executables)

    @cached_property
    def image(self) -> Image:
        images = [e.image for e in self.executables]
        inputs = tuple(
            same[0]._replace(written=next((a.written for a in same if a.written is not None), None))
            for same in zip(*(i.inputs for i in images), strict=True)
        )
        return images[0]._replace(inputs=inputs)

    def optimize(self) -> None:
        """Compile again what was compiled quickly, for programs that are launched often."""
        for executable in self.executables:
            executable.optimize()

    def enter(self, *arrays: np.ndarray) -> bool:
        """Run with the memory for the inputs and then the outputs; False, and nothing was run, as `Executable.enter`.

        Raises:
            IndirectOutOfBounds: as `run`.
        """
        fit = all(e.fit(arrays) for e in self.executables)
        if fit:
            self.run(arrays)
        return fit

    def time(self, arrays: Sequence[np.ndarray], launches: int) -> list[int]:
        """Nanoseconds (cpu-measured) of each of several runs, meetings included.

        Raises:
            IndirectOutOfBounds: as `run`.
        """
        self.optimize()
        elapsed = []
        for _ in range(launches):
            started = time.perf_counter_ns()
            self.run(arrays)
            elapsed.append(time.perf_counter_ns() - started)
        return elapsed

    def run(self, arrays: Sequence[np.ndarray]) -> None:
        """Run with the given memory for the inputs and then the outputs.

        Raises:
            IndirectOutOfBounds: an index read by an indirect access is outside its tensor.
            CoresDiffer, Deadlock: loops that only the device counts led the cores to different meetings.
        """
        for output, array in zip(self.image.outputs, arrays[len(self.image.inputs) :], strict=True):
            if output.filled is not None:
                array.reshape(-1).view(np.uint8).fill(output.filled)
        # As many threads as cores: each has one of its own. More: one core after the other, each with all of them.
        beside = len(self.executables) <= threads.limit() < 2 * len(self.executables)
        runs = [Run(e, arrays, core, alone=beside) for core, e in enumerate(self.executables)]
        try:
            conduct(runs, beside)
        finally:
            for run in runs:
                run.close()


def conduct(runs: Sequence[Run], beside: bool) -> None:
    """Let cores run from meeting to meeting until all have ended, side by side on threads or one after the other."""
    going = list(range(len(runs)))
    waiting: dict[int, Arrival] = {}
    while going:
        arrivals = _side_by_side([runs[i] for i in going]) if beside else [runs[i].proceed() for i in going]
        waiting.update({core: a for core, a in zip(going, arrivals, strict=True) if a is not None})
        ended = {core: UNKNOWN for core, run in enumerate(runs) if run.done}
        going = []
        for met in complete(waiting, ended, len(runs)):
            for arrival, written in zip(met, exchange(met, current()), strict=True):
                receive(arrival, written)
                del waiting[arrival.core]
                going.append(arrival.core)


def _side_by_side(runs: Sequence[Run]) -> list[Arrival | None]:
    """Let several cores run at the same time, the first on this thread.

    Raises:
        IndirectOutOfBounds: that of the first core that has one; all have come to rest.
    """
    first, *others = runs
    begun: list[futures.Future[Arrival | None]] = [_crew().submit(run.proceed) for run in others]
    try:
        return [first.proceed(), *(future.result() for future in begun)]
    except BaseException:
        for run in others:
            run.end()
        raise
    finally:
        for future in begun:
            future.exception()  # waits: nobody may be at work in memory that a caller is about to free


_pool: futures.ThreadPoolExecutor | None = None


def _crew() -> futures.ThreadPoolExecutor:
    """Threads for the cores of all launches of this process; a launch never waits for one to begin another."""
    global _pool
    if _pool is None:
        _pool = futures.ThreadPoolExecutor(threads.MOST, thread_name_prefix="nkilite core")
    return _pool


def _forget() -> None:
    global _pool
    _pool = None


forking.in_child(_forget)
