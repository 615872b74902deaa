"""Shows results: a table of cases and modes, the failures in full, a summary line, and a JSON file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from nkilite.cli.terminal import Terminal, styled

from .case import Case, Mode, Result, Status
from .total import print_total

_COLOURS = {
    Status.PASS: "green",
    Status.RUNS: "cyan",
    Status.REFUSED: "blue",
    Status.SKIP: "dim",
}


def print_report(console: Terminal, cases: Sequence[Case], results: Sequence[Result], *, show_skipped: bool) -> None:
    """Prints the table, then what went wrong, then the summary."""
    by_case: dict[str, dict[Mode, Result]] = {}
    for result in results:
        by_case.setdefault(result.case, {})[result.mode] = result
    rows = [case for case in cases if case.id in by_case]
    skipped = [case for case in rows if all(r.status is Status.SKIP for r in by_case[case.id].values())]
    shown = rows if show_skipped else [case for case in rows if case not in skipped]
    used = [mode for mode in Mode if any(mode in by_case[case.id] for case in shown)]
    for suite in dict.fromkeys(case.suite for case in shown):
        console.print(_table(suite, [case for case in shown if case.suite == suite], used, by_case))
    _print_failures(console, cases, results)
    print_total(console, results, list_=False)
    counts = Counter(result.status for result in results)
    summary = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
    hidden = f"; {len(skipped)} cases skipped, --show-skipped lists them" if skipped and not show_skipped else ""
    console.print(styled(f"{len(rows)} cases, {len(results)} runs: {summary}{hidden}", "bold"))


def append_json(path: Path, result: Result) -> None:
    """Adds one result to a file of JSON lines, for those who look before a run ends."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result.to_json()) + "\n")


def write_json(path: Path, cases: Sequence[Case], results: Sequence[Result]) -> None:
    """Writes every result with its case's suite, file and label."""
    known = {case.id: case for case in cases}
    records = [
        {
            "suite": known[result.case].suite,
            "file": str(known[result.case].source.path),
            "label": known[result.case].label,
            **result.to_json(),
        }
        for result in results
    ]
    path.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


def short_path(path: Path) -> str:
    """The end of a path, enough to recognize the file."""
    return "/".join(path.parts[-2:])


def _table(suite: str, cases: Sequence[Case], modes: Sequence[Mode], results: dict[str, dict[Mode, Result]]) -> Table:
    table = Table(title=suite, title_justify="left", title_style="bold")
    table.add_column("source", overflow="fold", min_width=24)
    table.add_column("kernel", overflow="fold", min_width=24)
    for mode in modes:
        table.add_column(mode.value, overflow="fold", max_width=16)
    for heading in ("max abs error", "max rel error", "s (cpu-measured)"):
        table.add_column(heading, justify="right", max_width=10)
    previous = None
    for case in cases:
        row = results[case.id]
        source = short_path(case.source.path)
        errors = [r.max_abs_error for r in row.values() if r.max_abs_error is not None]
        relative = [r.max_rel_error for r in row.values() if r.max_rel_error is not None]
        table.add_row(
            "" if source == previous else source,
            case.label,
            *(_cell(row.get(mode)) for mode in modes),
            f"{max(errors):.2g}" if errors else "",
            f"{max(relative):.2g}" if relative else "",
            f"{sum(r.seconds for r in row.values()):.2f}",
        )
        previous = source
    return table


def _cell(result: Result | None) -> str | Text:
    return "" if result is None else styled(_plain_cell(result), _COLOURS.get(result.status, "bold red"))


def _print_failures(console: Terminal, cases: Sequence[Case], results: Sequence[Result]) -> None:
    """One paragraph per distinct failure: what, then the cases and modes it happened in."""
    known = {case.id: case for case in cases}
    failures: dict[tuple[str, str], dict[str, list[Mode]]] = {}
    for result in results:
        if not result.status.good:
            kind = result.error or result.status.value
            failures.setdefault((kind, result.message), {}).setdefault(result.case, []).append(result.mode)
    for (kind, message), places in failures.items():
        console.print(styled(kind, "bold red"), message)
        for case_id, modes in places.items():
            case = known[case_id]
            where = ", ".join(mode.value for mode in modes)
            console.print(f"    {short_path(case.source.path)}  {case.label}  ({where})")


def write_markdown(path: Path, cases: Sequence[Case], results: Sequence[Result]) -> None:
    """Writes the table in Markdown, one section per repository."""
    by_case: dict[str, dict[Mode, Result]] = {}
    for result in results:
        by_case.setdefault(result.case, {})[result.mode] = result
    lines = []
    for suite in dict.fromkeys(case.suite for case in cases):
        rows = [case for case in cases if case.suite == suite and case.id in by_case]
        modes = [mode for mode in Mode if any(mode in by_case[case.id] for case in rows)]
        lines += [
            f"## {suite}",
            "",
            f"| source | kernel | {' | '.join(mode.value for mode in modes)} | note |",
        ]
        lines.append("|" + " --- |" * (len(modes) + 3))
        for case in rows:
            found = by_case[case.id]
            cells = [_plain_cell(found.get(mode)) for mode in modes]
            notes = {r.message for r in found.values() if r.status is Status.SKIP}
            note = "; ".join(sorted(notes)).replace("|", "\\|")
            lines.append(f"| {short_path(case.source.path)} | {case.label} | {' | '.join(cells)} | {note} |")
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")


def _plain_cell(result: Result | None) -> str:
    if result is None:
        return ""
    return result.error if result.status is Status.ERROR else result.status.value
