"""``python -m conformance total LOG...``: what is right simulated and compiled, in all, and why the rest is not.

A case is right in a way of running when all its modes of that way are. Cases that were skipped in all of them, because
they need what is not installed or are unfinished, do not count. reasons.toml says why known cases are not right.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from nkilite.cli.terminal import Terminal, styled, terminal

from .case import Result, Status

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REASONS = Path(__file__).with_name("reasons.toml")


@dataclass(frozen=True)
class Reason:
    """Why cases are not right.

    Attributes:
        case: a pattern found in "suite:path:label".
        why: in a sentence.
        simulated: the way of running it is about; None for both.
    """

    case: str
    why: str
    simulated: bool | None = None

    def covers(self, result: Result) -> bool:
        way = self.simulated is None or self.simulated is result.mode.simulated
        return way and re.search(self.case, result.case) is not None


@dataclass
class Share:
    """Of the cases that ran one way, those that are right."""

    right: int = 0
    ran: int = 0

    def add(self, results: Sequence[Result]) -> None:
        ran = [result for result in results if result.status is not Status.SKIP]
        self.ran += bool(ran)
        self.right += bool(ran) and all(result.status.good for result in ran)

    def __str__(self) -> str:
        return f"{self.right} of {self.ran} ({100 * self.right / self.ran:.1f} %)" if self.ran else ""


def main(
    logs: Annotated[list[Path], typer.Argument(help="Files that --log has written.", exists=True)],
    list_: Annotated[bool, typer.Option("--list", help="Name every case that is not right.")] = False,
) -> None:
    """Print what share of the cases in these logs is right, with the reasons of the others."""
    print_total(terminal(160), latest(read(logs)), list_=list_)


def read(logs: Iterable[Path]) -> list[Result]:
    """The results in files of JSON lines."""
    lines = [line for path in logs for line in path.read_text(encoding="utf-8").splitlines()]
    return [Result.from_json(json.loads(line)) for line in lines if line.strip()]


def latest(results: Iterable[Result]) -> list[Result]:
    """The last result of each case in each mode."""
    return list({(result.case, result.mode): result for result in results}.values())


def shares(results: Iterable[Result]) -> dict[str, tuple[Share, Share]]:
    """Per suite, what is right simulated and compiled; cases that ran in neither way add nothing."""
    ways: dict[tuple[str, bool], list[Result]] = {}
    for result in results:
        ways.setdefault((result.case, result.mode.simulated), []).append(result)
    found: dict[str, tuple[Share, Share]] = {}
    for (case, simulated), outcomes in ways.items():
        pair = found.setdefault(case.split(":", 1)[0], (Share(), Share()))
        pair[0 if simulated else 1].add(outcomes)
    return found


def reasons(path: Path = REASONS) -> list[Reason]:
    """The known reasons, the more particular first as they stand in the file."""
    return [Reason(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("reason", [])]


def explained(results: Iterable[Result], known: Sequence[Reason]) -> dict[str, list[Result]]:
    """The results that are not right, by their reason; those nobody has explained are under what they raised."""
    found: dict[str, list[Result]] = {}
    for result in results:
        if not result.status.good:
            reason = next((r.why for r in known if r.covers(result)), "")
            found.setdefault(reason or f"unexplained: {_said(result)}", []).append(result)
    return found


def _said(result: Result) -> str:
    first = (result.message or result.status.value).splitlines()[0]
    return f"{result.error}: {first}" if result.error else first


def print_total(console: Terminal, results: Sequence[Result], *, list_: bool) -> None:
    """Prints the shares and the reasons."""
    found = shares(results)
    table = Table(title="right, of what ran", title_justify="left", title_style="bold")
    for heading in ("suite", "simulated", "compiled"):
        table.add_column(heading, justify="left" if heading == "suite" else "right")
    for suite, (simulated, compiled) in sorted(found.items()):
        table.add_row(suite, str(simulated), str(compiled))
    table.add_section()
    table.add_row("all", *(str(_sum(pair[way] for pair in found.values())) for way in (0, 1)))
    console.print(table)
    for why, places in sorted(explained(results, reasons()).items(), key=lambda item: -len(item[1])):
        console.print(styled(f"{len(places)}", "bold"), why)
        for place in places if list_ else ():
            console.print(f"    {_where(place.case)}  ({place.mode.value})")


def _sum(parts: Iterable[Share]) -> Share:
    total = Share()
    for part in parts:
        total.right, total.ran = total.right + part.right, total.ran + part.ran
    return total


def _where(case: str) -> str:
    suite, path, label = case.split(":", 2)
    return f"{suite}  {'/'.join(Path(path).parts[-2:])}  {label}"
