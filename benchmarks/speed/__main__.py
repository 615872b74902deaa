"""`python -m benchmarks speed [SUBJECT ...]`: race kernels against their peers, print, store and plot the ratios."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.contest import ROUNDS, Contest, race
from benchmarks.machine import describe
from benchmarks.speed import SUBJECTS
from benchmarks.speed.match import Match
from benchmarks.speed.plot import plot

COLUMNS = ("work", "size", "threads", "ours", "peer", "its time", "its time / ours", "goal")


def main(
    subjects: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(SUBJECTS)}; all by default.")] = None,
    threads: Annotated[int, typer.Option(help="Of ours and of every peer; 0 takes every core.")] = 1,
    rounds: Annotated[int, typer.Option(min=3)] = ROUNDS,
    output: Annotated[Path | None, typer.Option("--json", help="Add the figures to this file.")] = None,
    picture: Annotated[Path | None, typer.Option("--plot", help="Draw the figures of --json here (PNG).")] = None,
) -> None:
    """Race kernels against their peers, in turns in one process, and show the ratios with their spread."""
    count = threads or peers.cores()
    unknown = [s for s in subjects or () if s not in SUBJECTS]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(SUBJECTS)}")
    console = Console(width=max(Console().width, 130))
    table = Table(*COLUMNS, title="Speed (cpu-measured; ratios by round: median [20th, 80th percentile])")
    rows: list[dict[str, Any]] = []
    with peers.threads(count):
        for subject in subjects or SUBJECTS:
            module = importlib.import_module(f"benchmarks.speed.{subject}")
            for match in module.matches(count):
                contest = race({"ours": match.ours, **match.peers}, rounds)
                for row in _rows(subject, match, contest, count):
                    rows.append(row)
                    table.add_row(*_cells(row))
                    console.print(" ".join(_cells(row)))
    console.print(table)
    if output is not None:
        rows = _merged(output, rows)
        output.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n")
    if picture is not None:
        plot(rows, picture)


def _rows(subject: str, match: Match, contest: Contest, threads: int) -> list[dict[str, Any]]:
    found = []
    for peer in match.peers:
        ratio = contest.ratio(peer, over="ours")
        found.append({
            "subject": subject, "work": match.work, "size": match.size, "threads": threads, "peer": peer,
            "ours_s": contest.time("ours").median, "peer_s": contest.time(peer).median, "ratio": ratio.median,
            "p20": ratio.p20, "p80": ratio.p80, "goal": match.goals.get(peer), "date": time.strftime("%Y-%m-%d"),
        })
    return found


def _merged(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of an earlier file with those measured now in their place."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["work"], row["size"], row["threads"], row["peer"]

    known = {key(r): r for r in json.loads(path.read_text())["rows"]} if path.exists() else {}
    known.update({key(r): r for r in rows})
    return list(known.values())


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    goal = row["goal"]
    verdict = "" if goal is None else f"{'✓' if row['ratio'] >= goal else '✗'} {goal:.2f}"
    ratio = f"{row['ratio']:.2f} [{row['p20']:.2f}, {row['p80']:.2f}]"
    return (
        row["work"], row["size"], str(row["threads"]), _time(row["ours_s"]), row["peer"], _time(row["peer_s"]), ratio,
        verdict,
    )


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


if __name__ == "__main__":
    typer.run(main)
