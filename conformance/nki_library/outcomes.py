"""What came of the tests of a file, read from the lines that the plugin and the runner keep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PASSED, FAILED, SKIPPED, STARTED = "passed", "failed", "skipped", "started"

_TIMES = "seconds", "kernel", "compiling", "running"


@dataclass
class Outcome:
    """Of one test.

    Attributes:
        outcome: passed, failed, skipped, or started when nothing is known of its end.
        why: of one that failed or was skipped.
        seconds: of processor time.
        kernel: those that its kernels took; most of the others go into what the library compares with.
        compiling, running: of these, passes, lowering and LLVM, and native code; the rest is tracing.
        races: messages about races that were reported.
    """

    test: str
    outcome: str
    why: str = ""
    seconds: float = 0.0
    kernel: float = 0.0
    compiling: float = 0.0
    running: float = 0.0
    races: list[str] = field(default_factory=list)


@dataclass
class FileOutcomes:
    """Of the tests of one file.

    Attributes:
        file: its path below the library's tests.
        collected: its tests; None while they are not known.
        tests: those that began.
        broken: why they could not be collected.
    """

    file: str
    collected: list[str] | None
    tests: dict[str, Outcome]
    broken: str = ""

    @property
    def left(self) -> list[str]:
        """Tests with no outcome yet."""
        return [t for t in self.collected or [] if t not in self.tests or self.tests[t].outcome == STARTED]

    @property
    def interrupted(self) -> str | None:
        """The test that was running when a process ended."""
        return next((t.test for t in self.tests.values() if t.outcome == STARTED), None)

    def count(self, outcome: str) -> int:
        return sum(t.outcome == outcome for t in self.tests.values())


def path_of(results: Path, file: str) -> Path:
    """Where the outcomes of a test file are kept."""
    return results / Path(file).with_suffix(".jsonl")


def read(results: Path, file: str) -> FileOutcomes:
    """The outcomes kept of a file; a later line about a test replaces an earlier one."""
    found = FileOutcomes(file, None, {})
    for record in _lines(path_of(results, file)):
        if "collected" in record:
            found.collected, found.broken = record["collected"], ""
        elif "broken" in record:
            found.broken = record["broken"]
        elif "raced" in record:
            found.tests[record["raced"]].races.append(record["race"])
        else:
            test = record["test"]
            times = [record.get(name, 0.0) for name in _TIMES]
            found.tests[test] = Outcome(test, record["outcome"], record.get("why", ""), *times)
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # the last one of a process that was killed
            continue


def write(results: Path, file: str, **record: Any) -> None:
    """Keep one more line about a file."""
    path = path_of(results, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        print(json.dumps(record), file=lines)


def forget(results: Path, file: str, *, failed_only: bool) -> None:
    """Let the tests of a file, or those that failed, run again."""
    path = path_of(results, file)
    if not path.exists():
        return
    kept = read(results, file)
    path.unlink()
    if not failed_only:
        return
    if kept.collected is not None:
        write(results, file, collected=kept.collected)
    for test in kept.tests.values():
        if test.outcome in (PASSED, SKIPPED):
            times = {name: getattr(test, name) for name in _TIMES}
            write(results, file, test=test.test, outcome=test.outcome, why=test.why, **times)
            for race in test.races:
                write(results, file, raced=test.test, race=race)
