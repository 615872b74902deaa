"""``python -m conformance FOLDER...``, and ``fuzz``, ``names``, ``nki-library`` and ``total``: the command line."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from nkilite.cli.terminal import terminal

from .case import Case, Mode, Result
from .discover import discover
from .fuzz.command import main as fuzz
from .names import main as names
from .nki_library.command import main as nki_library
from .report import append_json, print_report, short_path, write_json, write_markdown
from .runner import run
from .total import main as total


def main(
    folders: Annotated[list[Path], typer.Argument(help="Checkouts, or folders that hold checkouts.", exists=True)],
    filter_: Annotated[
        str, typer.Option("--filter", help="Keep cases whose suite, path or label contains this text.")
    ] = "",
    mode: Annotated[list[str] | None, typer.Option(help="Keep these modes (column headings); repeatable.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 2,
    timeout: Annotated[float, typer.Option(help="Seconds of processor time for one case in one mode.")] = 180.0,
    json: Annotated[Path | None, typer.Option(help="Write all results to this file.")] = None,
    log: Annotated[
        Path | None, typer.Option(help="Append each result to this file of JSON lines as it comes.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table in Markdown to this file.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the cases instead of running them.")] = False,
    show_skipped: Annotated[bool, typer.Option(help="Show the cases that are skipped, too.")] = False,
) -> None:
    """Run unmodified public NKI kernels on nkilite and compare them with independent references."""
    console = terminal(160)
    cases = [case for case in discover(folders) if _matches(case, filter_)]
    if list_:
        for case in cases:
            note = f"  (skipped: {case.skip})" if case.skip else ""
            console.print(
                f"{case.suite}  {short_path(case.source.path)}  {case.label}{note}",
                markup=False,
                highlight=False,
            )
        raise typer.Exit()
    if not cases:
        console.print("no known kernels found")
        raise typer.Exit(1)
    only = frozenset(Mode(name) for name in mode) if mode else None
    with console.status("") as status:

        def report(result: Result) -> None:
            status.update(f"{result.mode.value}: {result.case.rsplit(':', 1)[-1]}")
            if log is not None:
                append_json(log, result)

        results = run(cases, folders, jobs=jobs, timeout=timeout, only=only, report=report)
    print_report(console, cases, results, show_skipped=show_skipped)
    if json is not None:
        write_json(json, cases, results)
    if markdown is not None:
        write_markdown(markdown, cases, results)
    raise typer.Exit(0 if all(result.status.good for result in results) else 1)


def _matches(case: Case, text: str) -> bool:
    return text in f"{case.suite} {case.source.path} {case.label}"


def _terminate(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)  # an ordinary end, which leaves nothing behind
    others = {"fuzz": fuzz, "names": names, "nki-library": nki_library, "total": total}
    if sys.argv[1:2] and sys.argv[1] in others:
        typer.run(others[sys.argv.pop(1)])
    else:
        typer.run(main)
