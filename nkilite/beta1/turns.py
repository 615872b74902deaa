"""Instances of a launch grid take turns where one needs what the others have: at `nl.all_reduce`.

An instance runs to its end before the next one begins, on the thread of the launch. Only when the first one comes to a
meeting does every other one get a thread, and then one of them runs at a time: each until it comes to the meeting, in
order, and again from there on. So what is recorded does not depend on how threads are scheduled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

from nkilite import notices
from nkilite.errors import InstancesDiffer
from nkilite.location import UNKNOWN, here
from nkilite.trace import active
from nkilite.trace.gates import Ended, Gates

A = TypeVar("A")
R = TypeVar("R")


class Turns:
    """Which instance runs."""

    def __init__(self, count: int, enter: Callable[[int], None]) -> None:
        """`enter` is called with the number of an instance that goes on after others have run."""
        self._count, self._enter = count, enter
        self._body: Callable[[int], None] = lambda number: None
        self._builder = active.builder()
        self._threads: list[threading.Thread] = []
        self._gates = Gates(count)
        self._arrivals: list[object] = []  # in order, until all are there
        self._results: list[object] = []
        self._meeting = UNKNOWN  # where the last one that came to it called it
        self._ended = 0

    def run(self, body: Callable[[int], None]) -> None:
        """Run all instances, given by number.

        Raises:
            InstancesDiffer: some end while others wait for them.
            BaseException: what the first of them to fail raised.
        """
        self._body = body
        try:
            while not self._threads and self._ended < self._count:
                self._run(self._ended)
            if self._threads:
                self._gates.open(1)
                self._wait(0)  # for the last one to end
        except BaseException as error:
            self._gates.fail(error)
        for thread in self._threads:
            thread.join()
        if self._gates.failed is not None:
            raise self._gates.failed

    def meet(self, number: int, arrival: A, exchange: Callable[[list[A]], list[R]]) -> R:
        """Wait for the others; what `exchange` makes of the arrivals of all, in order, for this instance."""
        if self._ended:
            raise InstancesDiffer(problem=f"instance {self._ended - 1} has ended and instance {number} waits for it")
        self._arrivals.append(arrival)
        self._meeting = here()
        if self._count > 1 and not self._threads:
            self._begin()
        if number == self._count - 1:
            self._results, self._arrivals = list(exchange(cast("list[A]", self._arrivals))), []
        if self._count > 1:
            self._gates.open((number + 1) % self._count)
            self._wait(number)
        return cast(R, self._results[number])

    def _begin(self) -> None:
        """Threads for all instances but the first."""
        carried = notices.carried()

        def instance(number: int) -> None:
            try:
                with suppress(Ended), carried(), active.activate(self._builder):
                    self._wait(number)
                    self._run(number)
                    self._gates.open((number + 1) % self._count)
            except BaseException as error:
                self._gates.fail(error)

        for number in range(1, self._count):
            self._threads.append(threading.Thread(target=instance, args=(number,), name=f"nkilite instance {number}"))
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        self._enter(number)
        self._body(number)
        if self._arrivals:
            problem = f"instance 0 waits for instance {number}, which has ended"
            raise InstancesDiffer(problem=problem, location=self._meeting)
        self._ended += 1

    def _wait(self, number: int) -> None:
        """Until it has the turn."""
        self._gates.wait(number)
        self._enter(number)
