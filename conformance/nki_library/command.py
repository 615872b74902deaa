"""``python -m conformance nki-library``: the command line."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from nkilite.cli.terminal import terminal

from . import outcomes, processes, table
from .checkout import COMMIT, URL, Unprepared, fetch, files, require_packages


class Target(str, Enum):
    TRN2 = "trn2"
    TRN3 = "trn3"


class Way(str, Enum):
    SIMULATE = "simulate"
    COMPILED = "compiled"


def main(
    folder: Annotated[
        list[str] | None, typer.Option(help="Test folders or files below test/integration/nkilib; repeatable.")
    ] = None,
    target: Annotated[Target, typer.Option(help="The chip.")] = Target.TRN2,
    mode: Annotated[Way, typer.Option(help="nki.simulate, or native code.")] = Way.SIMULATE,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 2,
    limit: Annotated[float, typer.Option(min=1, help="Seconds of processor time for one kernel.")] = 400.0,
    memory: Annotated[float, typer.Option(min=1, help="GiB of address space for one process.")] = 12.0,
    races: Annotated[str, typer.Option(help="NKILITE_RACES of the tests: warn, error or off.")] = "warn",
    only: Annotated[str, typer.Option(help="Run only tests whose name contains this.")] = "",
    sample: Annotated[int, typer.Option(min=0, help="Run at most so many tests of a function.")] = 0,
    retry: Annotated[bool, typer.Option(help="Run tests again that failed.")] = False,
    fresh: Annotated[bool, typer.Option(help="Run all tests again.")] = False,
    work: Annotated[Path, typer.Option(help="Where the checkout and the outcomes are kept.")] = Path(
        "build/nki-library"
    ),
    checkout: Annotated[Path | None, typer.Option(help="A checkout to use as it is.")] = None,
    url: Annotated[str, typer.Option(help="Where to fetch it from.")] = URL,
    commit: Annotated[str, typer.Option(help="What to fetch.")] = COMMIT,
    only_table: Annotated[bool, typer.Option("--table", help="Run nothing; write the table of all outcomes.")] = False,
) -> None:
    """Run the test suite of AWS's nki-library on nkilite, resumably, and write its table.

    Outcomes are kept by target and mode. A run that was ended is gone on with by the same command.
    """
    console = terminal(160)
    if only_table:
        print(table.markdown(_kept(work)), end="")
        return
    try:
        require_packages()
        place = fetch(checkout or work / "checkout", url, commit)
        found = files(place, folder or [])
    except Unprepared as error:
        console.print(str(error), markup=False)
        raise typer.Exit(2) from None
    settings = processes.Settings(
        place, work / _name(target, mode), target.value, mode is Way.COMPILED, limit, memory, races, only,
        sample,
    )
    for file in found if retry or fresh else []:
        outcomes.forget(settings.results, file, failed_only=not fresh)
    good = True

    def report(done: outcomes.FileOutcomes) -> None:
        nonlocal good
        good = good and not done.broken and not done.count(outcomes.FAILED)
        if done.collected or done.broken:
            console.print(f"{done.file}: {table.cell(done)}", markup=False, highlight=False)

    processes.run(found, settings, jobs, report)
    raise typer.Exit(0 if good else 1)


def _name(target: Target, mode: Way) -> str:
    return f"{target.value} {mode.value}"


def _kept(work: Path) -> dict[str, dict[str, outcomes.FileOutcomes]]:
    """By target and mode, what is known of every file."""
    found = {}
    for name in (_name(target, mode) for target in Target for mode in Way):
        results = work / name
        kept = [str(p.relative_to(results).with_suffix(".py")) for p in sorted(results.rglob("*.jsonl"))]
        if kept:
            found[name] = {file: outcomes.read(results, file) for file in kept}
    return found
