"""The parent's end of measuring processes: starts them, waits with a time limit, and tells a crash from a hang."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from autotune import children
from autotune.errors import NotImportable
from autotune.measure.requests import Load, Take
from nkilite.errors import NkiError

_PROGRAM = "from autotune.measure.measuring import main; main()"  # not -m: its classes must be those it is sent
START_SECONDS = 120.0  # imports and reading the workloads, on a busy machine


class Crashed(Exception):
    """The measuring process ended while it worked on a request."""


class TimedOut(Exception):
    """The measuring process did not answer in time, and was killed."""


class Measurer:
    """One measuring process, started when first asked and again after it died."""

    def __init__(self, loads: Sequence[Load | Take]) -> None:
        self._loads = loads
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._expectations: list[Any] = []
        self.ready = False  # has taken on the workloads

    def ask(self, request: Any, timeout: float) -> Any:
        """The answer to a request.

        Raises:
            Crashed, TimedOut: the process is gone; the next request starts another.
        """
        self.start()
        self.send(request)
        return self.receive(timeout)

    def remember(self, request: Any) -> None:
        """A request to repeat whenever the process is started anew."""
        self._expectations.append(request)

    def start(self) -> None:
        """Start the process unless it runs, and bring it to where the last one was.

        Raises:
            NotImportable: it cannot load the kernel.
        """
        start_all([self])

    def spawn(self) -> None:
        """Start the process unless it runs; it has taken on nothing yet."""
        if self._connection is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = children.start(
                _PROGRAM, str(theirs.fileno()), environment={}, pass_fds=[theirs.fileno()]
            )
        self._connection = Connection(ours.detach())

    @property
    def first(self) -> list[Any]:
        """The requests a new process begins with."""
        return [*self._loads, *self._expectations]

    def send(self, request: Any) -> None:
        """Begin a request, to be received before the next; a process that died is noticed then."""
        assert self._connection is not None
        with suppress(OSError):
            self._connection.send(request)

    def receive(self, timeout: float) -> Any:
        """The answer to the request that was sent.

        Raises:
            Crashed, TimedOut: the process is gone; the next request starts another.
        """
        assert self._connection is not None
        try:
            if not self._connection.poll(timeout):
                self.close()
                raise TimedOut(f"no answer within {timeout:g} s")
            return self._connection.recv()
        except (EOFError, OSError):
            raise Crashed(self._end()) from None
        except KeyboardInterrupt:
            self.close()
            raise

    def _end(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        self.close()
        if code < 0:
            return f"the measuring process was ended by {signal.Signals(-code).name}"
        return f"the measuring process ended with status {code}"

    def close(self) -> None:
        """End the process, working or not."""
        self.ready = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process = None


def start_all(measurers: Sequence[Measurer]) -> None:
    """Start those processes that do not run, at the same time, and have them take on the workloads.

    Raises:
        NotImportable: one cannot load the kernel.
        NestedSearch: this process is one, or to load the kernel runs a search.
    """
    new = [m for m in measurers if not m.ready]
    for measurer in new:
        measurer.spawn()
    try:
        for requests in zip(*(m.first for m in new), strict=True):
            for measurer, request in zip(new, requests, strict=True):
                measurer.send(request)
            for measurer in new:
                answer = measurer.receive(START_SECONDS)
                if isinstance(answer, NkiError):
                    raise answer
        for measurer in new:
            measurer.ready = True
    except NkiError:
        for measurer in new:
            measurer.close()
        raise
    except (Crashed, TimedOut) as error:
        kernel = new[0].first[0].kernel
        raise NotImportable(kernel=kernel, problem=f"{error}; its standard error says why") from None


def address(kernel: Any) -> str | None:
    """Where another process finds a kernel: MODULE:KERNEL, or FILE.py:KERNEL where no import finds the module.

    None of one that is inside something else, or in no file, as in a notebook.
    """
    name, module, file = kernel.__qualname__, kernel.__module__, kernel.location.file
    if "." in name:
        return None
    spec = None if module == "__main__" else importlib.util.find_spec(module)
    if spec is not None and spec.origin is not None and os.path.exists(file) and os.path.samefile(spec.origin, file):
        return f"{module}:{name}"
    return f"{file}:{name}" if os.path.exists(file) else None
