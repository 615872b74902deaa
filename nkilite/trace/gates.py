"""Threads of which one runs at a time, each until it lets another go on: what turns are made of."""

from __future__ import annotations

import threading
from contextlib import suppress


class Ended(BaseException):
    """Unwinds a thread when another one has failed."""


class Gates:
    """One for every thread, closed but for who has the turn.

    Attributes:
        failed: what the first of them to fail raised; after that nobody waits any more.
    """

    def __init__(self, count: int) -> None:
        self._gates = [threading.Lock() for _ in range(count)]
        for gate in self._gates:
            gate.acquire()
        self.failed: BaseException | None = None

    def open(self, number: int) -> None:
        """Let one go on."""
        self._gates[number].release()

    def wait(self, number: int) -> None:
        """Until that one has the turn.

        Raises:
            Ended: another one has failed.
        """
        self._gates[number].acquire()
        if self.failed is not None:
            raise Ended

    def fail(self, error: BaseException) -> None:
        """End all that wait, and will; nothing but the first error counts."""
        if self.failed is None and not isinstance(error, Ended):
            self.failed = error
        for gate in self._gates:
            with suppress(RuntimeError):  # it is open
                gate.release()
