"""What people see: a progress bar while a study runs, and tables of what it found or of what a database holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from autotune.context import Context
from autotune.database import Choice, Database
from autotune.explore import study
from autotune.explore.study import Result
from autotune.figures import CPU_MEASURED, SBUF, Figure, figure_named
from autotune.objective import Candidate
from autotune.outcome import Outcome
from nkilite.cli.terminal import Terminal, say
from nkilite.cli.terminal import terminal as wide_terminal

SHOWN = 5
FRONT_SHOWN = 20
WIDTH = 160


class Bar:
    """A progress bar with the best figure so far and the time left; a context manager and a study's `on_trial`."""

    def __init__(self, console: Terminal, label: str) -> None:
        self._label = label
        self._progress = Progress(
            _column("description"), BarColumn(), _column("completed"), _column("fields[best]"),
            _column("fields[left]"), console=console, auto_refresh=False,
        )
        self._task = self._progress.add_task("tuning", total=None, visible=False, best="", left="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, at: study.Progress) -> None:
        best = "nothing legal yet"
        if at.best is not None:
            best = f"best {quantity(at.best.figures[0], at.best.value)} {self._label}"
        if at.front:
            best += f", {at.front} on the front"
        left = "" if at.left is None else f"{at.rejected} rejected, {at.left:.0f} s left"
        self._progress.update(
            self._task, completed=at.done, total=at.budget, best=best, left=left, visible=True, refresh=True
        )


def _column(name: str) -> TextColumn:
    shown = "{task.completed}/{task.total}" if name == "completed" else f"{{task.{name}}}"
    return TextColumn(shown, markup=False)


def console() -> Terminal:
    """The terminal; wide enough for tables where there is none."""
    return wide_terminal(WIDTH)


def show_result(console: Terminal, result: Result) -> None:
    """The final table: best, front, default, speed-up, ties; and the histogram of rejections."""
    title = f"{result.kernel} on {'; '.join(result.workloads)}: {result.objective}, {result.label}"
    figures = result.best.figures
    spread = ("p20..p80",) if figures[0].label == CPU_MEASURED else ()
    table = Table("", figures[0].heading, *spread, *(f.heading for f in figures[1:]), "configuration", title=title,
                  title_justify="left")
    _add(table, "best", result.best)
    for candidate in result.front[1 : FRONT_SHOWN + 1]:
        _add(table, "front", candidate)
    if result.default is not None:
        _add(table, "default", result.default)
    else:
        gap = [""] * (len(figures) - 1 + len(spread))
        why = "not tried" if result.default_reason is None else f"rejected: {result.default_reason.value}"
        table.add_row("default", why, *gap, format_configuration(result.default_configuration))
    named = [result.default_configuration, *result.ties, *(c.configuration for c in result.front)]
    runners = [c for c in result.ranking[1:] if c.configuration not in named]
    for candidate in runners[: 0 if result.front else SHOWN]:
        _add(table, "", candidate)
    console.print(table)
    if result.front:
        unseen = len(result.front) - 1 - FRONT_SHOWN
        hidden = f" ({unseen} of them not shown)" if unseen > 0 else ""
        chosen = f"chosen: the best in {figures[0].name}"
        console.print(f"{len(result.front)} configurations on the Pareto front{hidden}; {chosen}")
    if result.speedup is not None:
        console.print(f"speed-up over the default: {result.speedup:.2f}x ({figures[0].label})")
    if result.ties:
        shown = "; ".join(format_configuration(c) for c in result.ties[:SHOWN])
        more = f" and {len(result.ties) - SHOWN} more" if len(result.ties) > SHOWN else ""
        console.print(f"tied with the best: {shown}{more}")
    if result.remark:
        console.print(result.remark)
    show_rejections(console, result.rejections.counts, result.rejections.examples)
    known = f", {result.answered} known from the database" if result.answered else ""
    extent = "; the whole space" if result.exhausted else ""
    counts = f"{len(result.ranking)} accepted and {result.rejections.total} rejected"
    console.print(f"{counts} in {result.seconds:.1f} s{known}{extent}")
    if result.interrupted:
        console.print("interrupted; run again with --resume to continue")


def show_rejections(console: Terminal, counts: Mapping[Any, int], examples: Mapping[Any, str]) -> None:
    """The histogram of reasons, with an example of each."""
    if not counts:
        return
    table = Table("rejected because of", "", "", "for example", title="rejections", title_justify="left")
    longest = max(counts.values())
    for reason, count in counts.items():
        bar = "█" * max(1, round(20 * count / longest))
        table.add_row(reason.value, str(count), bar, (examples[reason].splitlines() or [""])[0])
    console.print(table)


def show_files(paths: Iterable[Path]) -> None:
    """Names of files written, one per line."""
    for path in paths:
        say(f"written: {path}")


def show_database(console: Terminal, database: Database, contexts: Iterable[Context]) -> None:
    """One row per context: trials, best, default."""
    table = Table("kernel", "arguments", "objective", "trials", "best", "default", "speed-up", "configuration")
    for context in contexts:
        trials = [t for t in database.trials.values() if t.context.id == context.id]
        best = database.best(context)
        usual = best.default_value if best is not None else None
        table.add_row(
            context.kernel, format_arguments(context), context.objective, str(len(trials)),
            "" if best is None else quantity(first(context), best.value),
            "" if usual is None else quantity(first(context), usual),
            "" if best is None or usual is None or first(context).unit != "µs" else f"{usual / best.value:.2f}x",
            "" if best is None else format_configuration(best.configuration),
        )
    console.print(table)
    if database.damaged:
        console.print(f"{database.damaged} damaged line(s) skipped: the end of a run that was killed")


def show_comparison(console: Terminal, names: tuple[str, str], pairs: Iterable[tuple[Choice, Choice]]) -> int:
    """Best configurations of two databases side by side; returns how many contexts they share."""
    table = Table("kernel", "arguments", "objective", *names, "ratio", "configurations")
    count = 0
    for one, two in pairs:
        count += 1
        figure = first(one.context)
        same = one.configuration == two.configuration
        both = format_configuration(one.configuration)
        if not same:
            both += "\n" + format_configuration(two.configuration)
        table.add_row(
            one.context.kernel, format_arguments(one.context), one.context.objective, quantity(figure, one.value),
            quantity(figure, two.value), f"{two.value / one.value:.3f}" if one.value else "", both,
        )
    console.print(table)
    return count


def _add(table: Table, name: str, candidate: Candidate) -> None:
    first, *others = candidate.figures
    cells = [quantity(first, candidate.value)]
    if first.label == CPU_MEASURED:
        only = candidate.outcomes[0] if len(candidate.outcomes) == 1 else Outcome()
        known = only.low is not None and only.high is not None
        cells.append(f"{microseconds(only.low or 0)}..{microseconds(only.high or 0)}" if known else "")
    cells += [quantity(f, v) for f, v in zip(others, candidate.values[1:], strict=True)]
    table.add_row(name, *cells, format_configuration(candidate.configuration))


def first(context: Context) -> Figure:
    """The figure that configurations of a context are chosen by."""
    return figure_named(context.objective.partition(",")[0])


def quantity(figure: Figure, value: float) -> str:
    """A figure with its unit, as short as its meaning allows."""
    if figure.unit == "µs":
        return microseconds(value)
    return f"{value / 1024:.4g} KiB" if figure is SBUF else f"{value:.3g}"


def microseconds(value: float) -> str:
    """Four significant digits of a time."""
    return f"{value / 1000:.4g} ms" if value >= 1000 else f"{value:.4g} µs"


def format_configuration(configuration: Mapping[str, Any]) -> str:
    """NAME=value ..."""
    return " ".join(f"{name}={value}" for name, value in configuration.items())


def format_arguments(context: Context) -> str:
    """The arguments of a context as `--shapes` takes them: x=128x512:float32 causal=True."""
    parts = []
    for name, (kind, *found) in context.arguments.items():
        if kind == "array":
            shape, dtype = found
            parts.append(f"{name}={'x'.join(map(str, shape))}:{dtype}")
        elif re.fullmatch(r"[\w.+-]+", found[0].strip("'")):  # what one word can say
            parts.append(f"{name}={found[0].strip(chr(39))}")
    return " ".join(parts)
