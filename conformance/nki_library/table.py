"""The table of files, modes and targets, with what did not pass and why, in Markdown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .outcomes import FAILED, PASSED, SKIPPED, FileOutcomes

_SHOWN = 160  # characters of a reason
Run = Mapping[str, FileOutcomes]  # by file


def markdown(runs: Mapping[str, Run]) -> str:
    """A table with a column per run, by its name, the time that it took, and lists of what did not pass."""
    files = sorted({file for run in runs.values() for file, outcomes in run.items() if _shown(outcomes)})
    lines = ["| tests | " + " | ".join(runs) + " |", "| --- |" + " --- |" * len(runs)]
    for file in files:
        cells = [cell(run[file]) if file in run else "" for run in runs.values()]
        lines.append(f"| {_short(file)} | " + " | ".join(cells) + " |")
    lines.append("| all | " + " | ".join(total(run.values()) for run in runs.values()) + " |")
    lines.append("| processor time | " + " | ".join(_time(run.values()) for run in runs.values()) + " |")
    for name, run in runs.items():
        reasons = [line for file in files if file in run for line in _reasons(run[file])]
        if reasons:
            lines += ["", f"{name}:", "", *reasons]
    return "\n".join(lines) + "\n"


def cell(outcomes: FileOutcomes) -> str:
    """Counts of a file, in words: those that passed first, zeros left out; nothing for one without tests."""
    if outcomes.broken:
        return "not collected"
    return _counted([outcomes]) if outcomes.collected else ""


def total(run: Iterable[FileOutcomes]) -> str:
    """Counts of all files of a run."""
    return _counted(list(run))


def _counted(several: Sequence[FileOutcomes]) -> str:
    counts = {
        "": sum(o.count(PASSED) for o in several), "failed": sum(o.count(FAILED) for o in several),
        "not run": sum(len(o.left) for o in several), "skipped": sum(o.count(SKIPPED) for o in several),
    }
    parts = [f"{count} {word}".strip() for word, count in counts.items() if count or not word]
    return ", ".join(parts)


def _time(run: Iterable[FileOutcomes]) -> str:
    """Of all tests, and of their kernels, which is nkilite's."""
    tests = [test for outcomes in run for test in outcomes.tests.values()]
    all, kernels, compiling, running = (
        sum(getattr(t, name) for t in tests) for name in ("seconds", "kernel", "compiling", "running")
    )
    parts = f" (compiling {compiling:.1f} s, running {running:.1f} s)" if compiling else ""
    return f"{all:.0f} s, kernels {kernels:.0f} s{parts}"


def _shown(outcomes: FileOutcomes) -> bool:
    return bool(outcomes.collected or outcomes.broken)


def _short(file: str) -> str:
    """`core/cumsum/test_cumsum.py` as `core/cumsum`, and a file among several with its name."""
    path = Path(file)
    name = path.stem.removeprefix("test_")
    return str(path.parent) if name == path.parent.name else f"{path.parent}/{name}"


def _reasons(outcomes: FileOutcomes) -> list[str]:
    """A line for every group of tests of a file with one reason."""
    groups: Counter[tuple[str, str]] = Counter()
    for test in outcomes.tests.values():
        function = test.test.partition("[")[0].rsplit("::", 1)[-1]
        if test.outcome == FAILED:
            groups[function, _reason(test.why)] += 1
        if test.races:
            groups[function, f"race reported: {_reason(test.races[0])}"] += 1
    lines = [
        f"- {_short(outcomes.file)}, `{function}` ({count}): {why}" for (function, why), count in groups.items()
    ]
    if outcomes.broken:
        lines.append(f"- {_short(outcomes.file)}: {_reason(outcomes.broken.splitlines()[-1])}")
    return lines


def _reason(why: str) -> str:
    """The first line of a message, without what differs from test to test."""
    first = re.sub(r"\s+", " ", why.strip().splitlines()[0] if why.strip() else "")
    return first[:_SHOWN].replace("|", "/")
