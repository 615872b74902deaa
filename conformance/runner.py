"""Runs cases in child processes: one per source, replaced when it crashes or exceeds the time limit.

Everything temporary, in the children too, is in one folder that goes away with the run, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from .case import Case, Mode, Result, Status
from .limits import OUT_OF_TIME, on_the_clock

_START_UP = 600.0  # seconds a child may take to import nkilite and find its cases, on a busy machine
# Children run side by side, and the products of a simulated kernel are too small to share among threads.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_ROOT = Path(__file__).resolve().parent.parent

Work = list[tuple[str, Mode]]


def run(
    cases: Sequence[Case],
    folders: Iterable[Path],
    *,
    jobs: int = 1,
    timeout: float = 180.0,
    only: frozenset[Mode] | None = None,
    report: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Runs every case in each of its modes.

    Args:
        cases: what to run.
        folders: the checkouts they were found in; children find them again.
        jobs: how many children run at a time.
        timeout: seconds of processor time for one case in one mode.
        only: the modes to keep; None keeps all.
        report: called with each result as it arrives, from several threads.
    """
    groups: dict[str, Work] = {}
    for case in cases:
        for mode in case.modes:
            if only is None or mode in only:
                groups.setdefault(case.group, []).append((case.id, mode))
    found = [str(folder) for folder in folders]
    with tempfile.TemporaryDirectory(prefix="conformance-", ignore_cleanup_errors=True) as temporary:
        children = _Children(temporary)
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            try:
                batches = pool.map(lambda work: _Group(children, found, work, timeout, report).run(), groups.values())
                return [result for batch in batches for result in batch]
            except BaseException:  # Ctrl-C too: the pool waits for its threads, and these for their children
                pool.shutdown(wait=False, cancel_futures=True)
                children.end()
                raise


class _Children:
    """The processes of a run, with its temporary folder."""

    def __init__(self, temporary: str) -> None:
        self._environment = {**_ONE_THREAD, **os.environ, "TMPDIR": temporary}
        self._environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
        self._alive: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self.ended = False

    def start(self, errors: IO[str]) -> subprocess.Popen[str] | None:
        """A new child; None once the run is over."""
        with self._lock:
            if self.ended:
                return None
            child = subprocess.Popen(
                [sys.executable, "-m", "conformance.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self._environment,
                start_new_session=True,  # so that what it starts ends with it
            )
            self._alive.add(child)
            return child

    def stop(self, child: subprocess.Popen[str]) -> None:
        """Kill one, with what it started."""
        _kill(child)
        child.wait()
        with self._lock:
            self._alive.discard(child)

    def end(self) -> None:
        """Kill all, and let no more start."""
        with self._lock:
            self.ended = True
            for child in self._alive:
                _kill(child)


def _kill(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


class _Group:
    """The work of one source, carried through as many children as it takes."""

    def __init__(
        self, children: _Children, folders: list[str], work: Work, timeout: float, report: Callable[[Result], None]
    ) -> None:
        self._children = children
        self._folders = folders
        self._left = list(work)
        self._timeout = timeout
        self._report = report
        self._results: list[Result] = []
        self._started = False

    def run(self) -> list[Result]:
        while self._left and not self._children.ended:
            self._child()
        return self._results

    def _child(self) -> None:
        """Runs one child until it is done, dies or hangs; at least one piece of work is settled."""
        request = json.dumps({"folders": self._folders, "work": self._left, "timeout": self._timeout})
        with tempfile.TemporaryFile("w+") as errors:
            child = self._children.start(errors)
            if child is None:
                return
            assert child.stdin is not None
            assert child.stdout is not None
            lines: queue.Queue[str | None] = queue.Queue()
            threading.Thread(target=_drain, args=(child.stdout, lines), daemon=True).start()
            self._started = False
            try:
                with contextlib.suppress(BrokenPipeError):  # it died at once, which shows below
                    child.stdin.write(request)
                    child.stdin.close()
                self._follow(lines)
            except queue.Empty:
                waited = on_the_clock(self._timeout)
                self._settle(Status.TIMEOUT, "TimeoutError", f"no result after {waited:g} s on the clock", "")
            else:
                if self._left and child.wait() == OUT_OF_TIME:
                    used = f"no result after {self._timeout:g} s of processor time"
                    self._settle(Status.TIMEOUT, "TimeoutError", used, "")
                elif self._left:
                    errors.seek(0)
                    tail = errors.read()[-4000:].strip()
                    last = tail.splitlines()[-1] if tail else ""
                    self._settle(Status.CRASH, f"exit code {child.returncode}", last, tail)
            finally:
                self._children.stop(child)

    def _follow(self, lines: queue.Queue[str | None]) -> None:
        limit = _START_UP
        while self._left and (line := lines.get(timeout=limit)) is not None:
            record: dict[str, Any] = json.loads(line)
            limit = on_the_clock(self._timeout)
            self._started = True
            if "result" in record:
                result = Result.from_json(record["result"])
                self._left.remove((result.case, result.mode))
                self._add(result)

    def _settle(self, status: Status, error: str, message: str, detail: str) -> None:
        """Gives the running work a result: the first piece, or all of it when the child never began."""
        count = 1 if self._started else len(self._left)
        for case, mode in self._left[:count]:
            self._add(Result(case, mode, status, error=error, message=message, detail=detail))
        del self._left[:count]

    def _add(self, result: Result) -> None:
        self._results.append(result)
        self._report(result)


def _drain(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)
