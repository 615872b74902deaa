"""Runs test files, each in a process of its own that is started again for as long as tests are left."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..limits import GRACE, WAITS
from .checkout import TESTS, build_dtypes, environment
from .outcomes import FAILED, FileOutcomes, path_of, read, write

_START_UP = 300.0  # seconds to import and collect
_NO_TESTS = 5  # pytest's exit code
_ENDED_BY_ITSELF = (0, 1, _NO_TESTS)


@dataclass(frozen=True)
class Settings:
    """Of a run.

    Attributes:
        checkout: of the library.
        results: the folder that outcomes are kept in.
        target: the chip.
        compiled: native code, not nki.simulate.
        seconds: of processor time that one kernel may take; on the clock a test may take WAITS times as much.
        gibibytes: of address space that a process may take.
        races: what NKILITE_RACES is.
        only: a part of the names of the tests to run.
        sample: run at most so many tests of a function; 0 for all.
    """

    checkout: Path
    results: Path
    target: str
    compiled: bool
    seconds: float
    gibibytes: float
    races: str = "warn"
    only: str = ""
    sample: int = 0


def run(files: Sequence[str], settings: Settings, jobs: int, report: Callable[[FileOutcomes], None]) -> None:
    """Runs the tests of files that have no outcome yet; `report` is called with every file when it is done."""
    with tempfile.TemporaryDirectory(prefix="nki-library-", ignore_cleanup_errors=True) as built:
        build_dtypes(Path(built))
        children = _Children(settings, Path(built))
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            try:
                for outcomes in pool.map(children.run, files):
                    report(outcomes)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                children.end()
                raise


class _Children:
    """The processes of a run."""

    def __init__(self, settings: Settings, built: Path) -> None:
        self._settings, self._built = settings, built
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def run(self, file: str) -> FileOutcomes:
        """Until a process comes to its end; one that dies is followed by another for the tests that are left."""
        while not self._ended and self._dies(file):
            pass
        return read(self._settings.results, file)

    def _dies(self, file: str) -> bool:
        """Runs one process; whether it died during a test, which then has failed."""
        results = self._settings.results
        with tempfile.TemporaryFile("w+") as output:
            child = self._start(file, output.fileno())
            why = self._wait(child, path_of(results, file))
            output.seek(0)
            printed = output.read()[-1500:].strip()
        if child.returncode in _ENDED_BY_ITSELF or self._ended:
            return False
        running = read(results, file).interrupted
        if running is None:
            write(results, file, broken=printed or why or f"the process ended with code {child.returncode}")
            return False
        why = why or f"the process ended with code {child.returncode}"
        write(results, file, test=running, outcome=FAILED, why=f"Crash: {why}")
        return True

    def _start(self, file: str, output: int) -> subprocess.Popen[bytes]:
        settings = self._settings
        kept = path_of(settings.results, file).resolve()
        kept.parent.mkdir(parents=True, exist_ok=True)
        artifacts = tempfile.mkdtemp(dir=self._built)
        command = [
            sys.executable, "-m", "pytest", "-p", "nki_library_plugin", "-p", "no:cacheprovider", "-c",
            "test/pytest.ini", "--rootdir", ".", "--test-mode", "simulation", "--platform-target", settings.target,
            "--output-directory", artifacts, "--force-local-cleanup", "-m", "fast", "-q",
            "--tb=line", "--no-header", "-o", "log_level=ERROR", "-W", "ignore", "-W",
            "always::nkilite.errors.RaceWarning", "--outcomes", str(kept), "--seconds", str(settings.seconds),
            "--waits", str(WAITS),
            *(["--compiled"] if settings.compiled else []), "--only", settings.only, "--sample", str(settings.sample),
            str(TESTS / file),
        ]
        limit = int(settings.gibibytes * 2**30)
        child = subprocess.Popen(
            command, cwd=settings.checkout, stdout=output, stderr=output, start_new_session=True,
            env=environment(settings.checkout, self._built, settings.target, settings.races),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
        self._alive.add(child)
        return child

    def _wait(self, child: subprocess.Popen[bytes], kept: Path) -> str:
        """Until the process ends, or writes no line for longer than a test may take; why it was ended, if it was."""
        patience = max(_START_UP, WAITS * self._settings.seconds + GRACE)
        since, size = time.monotonic(), -1
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(1.0)
                self._alive.discard(child)
                return ""
            now = kept.stat().st_size if kept.exists() else 0
            if now != size:
                since, size = time.monotonic(), now
            if time.monotonic() - since > patience:
                self._kill(child)
                child.wait()
                self._alive.discard(child)
                return f"no end within {patience:g} s"

    def end(self) -> None:
        """Kill all, and let no more start."""
        self._ended = True
        for child in list(self._alive):
            self._kill(child)

    @staticmethod
    def _kill(child: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
