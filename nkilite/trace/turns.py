"""The cores of a simulated launch take turns, as if they ran one instruction each, one after the other.

Each core runs its kernel function on a thread of its own, and only one of them runs at a time. Going from one to the
other takes longer than most instructions. So a core runs on while it touches what is its own, and lets the others catch
up before it does something whose order can be seen: an access to memory that several cores share, a look at values. At
a meeting it waits until the others have come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from nkilite.ir.meeting import Arrival, Written, complete, exchange
from nkilite.ir.rank import current
from nkilite.location import UNKNOWN, Location
from nkilite.trace.encounters import Encounters
from nkilite.trace.gates import Ended, Gates


class Turns:
    """Who runs: one of the cores that neither wait at a meeting nor have ended."""

    def __init__(self, count: int, ends: Location = UNKNOWN) -> None:
        """
        Args:
            ends: what messages say of a core that has ended.
        """
        self._count, self._ends = count, ends
        self._rank = current()  # cores run on other threads
        self._gates = Gates(count)
        self._waiting: dict[int, Arrival] = {}
        self._received: dict[int, Written] = {}
        self._done: dict[int, Location] = {}
        self._finished = [0] * count  # instructions since the last meeting
        self.encounters = Encounters()

    def run(self, bodies: list[Callable[[], object]]) -> list[object]:
        """What the functions of all cores return, called with turns; the first on this thread.

        Raises:
            BaseException: what the first of them to fail raised.
        """
        results: list[object] = [None] * self._count
        threads = [
            threading.Thread(target=self._core, args=(core, bodies[core], results), name=f"nkilite core {core}")
            for core in range(1, self._count)
        ]
        for thread in threads:
            thread.start()
        self._gates.open(0)
        try:
            self._core(0, bodies[0], results)
            for thread in threads:
                thread.join()
        except BaseException as error:  # an interrupt, while another core has its turn
            self._gates.fail(error)
            for thread in threads:
                thread.join()
        if self._gates.failed is not None:
            raise self._gates.failed
        self.encounters.end_phase()
        return results

    def in_order(self, core: int) -> None:
        """Before something that the others may see: let those catch up that have done less, the first core first."""
        while (behind := self._behind(core)) is not None:
            self._gates.open(behind)
            self._gates.wait(core)

    def finished(self, core: int) -> None:
        """After an instruction."""
        self._finished[core] += 1

    def _behind(self, core: int) -> int | None:
        """A core that would have had its turn before this one, one instruction at a time."""
        for other in range(self._count):
            done = self._finished[core] + (other < core)
            if other != core and self._goes(other) and self._finished[other] < done:
                return other
        return None

    def _goes(self, core: int) -> bool:
        """Whether it can go on without the others."""
        return core not in self._waiting and core not in self._done

    def meet(self, arrival: Arrival) -> Written:
        """Wait for the others; what the core writes.

        Raises:
            CoresDiffer, Deadlock: they do not come.
        """
        if self._count == 1 or not arrival.waits:
            return exchange([arrival], self._rank)[0]
        core = arrival.core
        self._waiting[core] = arrival
        self._let_meet()
        if core in self._waiting:
            self._hand_on(core)
            self._gates.wait(core)
        return self._received.pop(core)

    def _let_meet(self) -> None:
        for arrivals in complete(self._waiting, self._done, self._count):
            for arrival, written in zip(arrivals, exchange(arrivals, self._rank), strict=True):
                del self._waiting[arrival.core]
                self._finished[arrival.core] = 0
                self._received[arrival.core] = written
            self.encounters.end_phase()

    def _core(self, core: int, body: Callable[[], object], results: list[object]) -> None:
        try:
            with suppress(Ended):
                self._gates.wait(core)
                results[core] = body()
                self._done[core] = self._ends
                self._let_meet()
                self._hand_on(core)
        except BaseException as error:
            self._gates.fail(error)

    def _hand_on(self, core: int) -> None:
        for step in range(1, self._count + 1):
            following = (core + step) % self._count
            if self._goes(following):
                self._gates.open(following)
                return
