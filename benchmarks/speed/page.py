"""The speed figures as a page of the documentation: table, picture, and what they were taken on."""

from __future__ import annotations

from itertools import groupby
from typing import Any

HEAD = """# Speed on the CPU

Kernels of the gallery, written for a NeuronCore, called as a user calls them, against what others do for the same
result. All figures are cpu-measured. Contestants run in turns in one process, in random order; a ratio is the peer's
time over ours, taken round by round: median [20th, 80th percentile]. Above 1 we are faster. Where we set ourselves a
goal, the last column has it.

Made by `python -m benchmarks speed --threads N --json docs/speed.json --page docs/speed.md` on {processor},
{cores} cores, level {level}, load average {load}, with
{versions}.

![Ratios](images/speed.png)
"""
COLUMNS = ("work", "size", "ours", "peer", "peer's time", "peer / ours", "goal")


def page(document: dict[str, Any]) -> str:
    """Markdown of a file of figures."""
    machine = dict(document["machine"])
    machine["versions"] = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    machine["load"] = ", ".join(map(str, machine["load"]))
    text = HEAD.format(**machine)
    rows = sorted(document["rows"], key=lambda row: row["threads"])  # stable: by threads, then as measured
    for threads, group in groupby(rows, key=lambda row: row["threads"]):
        text += f"\n## {threads} thread{'s' if threads > 1 else ''}\n\n"
        text += f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
        for row in group:
            text += f"| {' | '.join(cells(row))} |\n"
    return text


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """The text of a row, as in COLUMNS."""
    goal = row["goal"]
    verdict = "" if goal is None else f"{'✓' if row['ratio'] >= goal else '✗'} {goal:.2f}"
    ratio = f"{row['ratio']:.2f} [{row['p20']:.2f}, {row['p80']:.2f}]"
    return row["work"], row["size"], _time(row["ours_s"]), row["peer"], _time(row["peer_s"]), ratio, verdict


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"

