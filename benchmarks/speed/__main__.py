"""`python -m benchmarks speed [SUBJECT ...]`: race kernels against their peers, print, store and plot the ratios."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from statistics import geometric_mean
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.contest import ROUNDS, Contest, race
from benchmarks.machine import describe
from benchmarks.speed import SUBJECTS
from benchmarks.speed.agreement import check
from benchmarks.speed.match import Match
from benchmarks.speed.page import COLUMNS, cells, page
from benchmarks.speed.plot import plot
from kernels.__main__ import PAUSE


def main(
    subjects: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(SUBJECTS)}; all by default.")] = None,
    threads: Annotated[int, typer.Option(help="Of ours and of every peer; 0 takes every core.")] = 1,
    rounds: Annotated[int, typer.Option(min=3)] = ROUNDS,
    output: Annotated[Path | None, typer.Option("--json", help="Add the figures to this file.")] = None,
    document: Annotated[Path | None, typer.Option("--page", help="Write all of --json here, with a picture.")] = None,
) -> None:
    """Race kernels against their peers, in turns in one process, and show the ratios with their spread."""
    count = threads or peers.cores()
    unknown = [s for s in subjects or () if s not in SUBJECTS]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(SUBJECTS)}")
    console = Console(width=max(Console().width, 130))
    title = f"Speed on {count} thread(s) (cpu-measured; ratios by round: median [20th, 80th percentile])"
    table = Table(*COLUMNS, title=title)
    rows: list[dict[str, Any]] = []
    with peers.threads(count):
        for subject in subjects or SUBJECTS:
            module = importlib.import_module(f"benchmarks.speed.{subject}")
            for match in module.matches(count):
                check(match.ours, match.peers, match.tolerance)
                contest = race({"ours": match.ours, **match.peers}, rounds, PAUSE if count > 1 else 0.0)
                for row in _rows(subject, match, contest, count):
                    rows.append(row)
                    table.add_row(*cells(row))
                    console.print(" ".join(cells(row)))
                if output is not None:
                    _store(output, rows)
    console.print(table)
    for subject, peer in dict.fromkeys((row["subject"], row["peer"]) for row in rows):
        ratios = [row["ratio"] for row in rows if (row["subject"], row["peer"]) == (subject, peer)]
        console.print(f"{subject}, {peer} / ours: {geometric_mean(ratios):.2f} in the geometric mean of {len(ratios)}")
    if document is not None and output is not None:
        figures = json.loads(output.read_text())
        document.write_text(page(figures))
        plot(figures["rows"], document.parent / "images" / f"{document.stem}.png")


def _rows(subject: str, match: Match, contest: Contest, threads: int) -> list[dict[str, Any]]:
    found = []
    for peer in match.peers:
        ratio = contest.ratio(peer, over="ours")
        found.append({
            "subject": subject, "work": match.work, "size": match.size, "threads": threads, "peer": peer,
            "ours_s": contest.time("ours").median, "peer_s": contest.time(peer).median, "ratio": ratio.median,
            "p20": ratio.low, "p80": ratio.high, "goal": match.goals.get(peer), "date": time.strftime("%Y-%m-%d"),
        })
    return found


def _store(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put rows into a file of figures, in the place of earlier ones of the same work, size, threads and peer."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["work"], row["size"], row["threads"], row["peer"]

    known = {key(r): r for r in json.loads(path.read_text())["rows"]} if path.exists() else {}
    known.update({key(r): r for r in rows})
    document = {"machine": describe(), "rows": list(known.values())}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
