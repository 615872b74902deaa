"""`autotune`: the command line of the tuner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.joining import STORAGE_HELP, dashboard, proxy, worker
from autotune.cli.present import Bar, console, show_comparison, show_database, show_files, show_result
from autotune.database import DEFAULT_PATH, Database, open_any
from autotune.errors import InvalidDatabase
from autotune.explore.offered import NAMES, require
from autotune.explore.study import TRIALS
from autotune.figures import CHIPS
from autotune.measure.timing import Protocol
from autotune.plots import FORMATS
from autotune.plots import require as require_plots
from autotune.plots import write as write_plots
from autotune.shared.addresses import hidden
from autotune.shared.claims import LEASE
from autotune.shared.coordinator import distribute
from autotune.shared.specification import Specification
from autotune.shared.worker import URL_VARIABLE
from nkilite.cli.failure import run_command
from nkilite.cli.terminal import Terminal, say, version_option

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find the tile sizes of NKI kernels: modelled on Trainium chips, or measured on this CPU.",
)

app.callback()(version_option("nkilite (autotune)"))

INTERRUPTED = 130  # the exit status of what Ctrl-C ended

DatabaseOption = Annotated[Path, typer.Option("--database", "-d", help="Where trials are kept.")]


@app.command()
def run(
    kernel: Annotated[str, typer.Argument(help="MODULE:KERNEL or FILE.py:KERNEL, on two cores KERNEL[2]")],
    shapes: Annotated[
        list[str],
        typer.Option(
            help="One workload: '512x128:bf16 512x512:bf16', or M=512,N=512,K=128 where the module has `inputs`. "
            "Several make one configuration serve all."
        ),
    ],
    dtype: Annotated[str, typer.Option(help="Element type with named sizes.")] = "float32",
    argument: Annotated[list[str] | None, typer.Option("--arg", help="NAME=VALUE of a compile-time argument.")] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="NAME=1,2,4 or NAME=1..16 or NAME=2..64:2 or NAME=pow2:1..64.")
    ] = None,
    constraint: Annotated[list[str] | None, typer.Option(help="An expression over parameters: 'A * B <= 32'.")] = None,
    objective: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(CHIPS)}, mychip.toml (modelled latency), cpu (measured), sbuf (modelled peak), error "
            "(numerical, measured); several for their Pareto front, the best in the first is chosen: trn2,sbuf."
        ),
    ] = "trn2",
    sampler: Annotated[str, typer.Option(help=", ".join(NAMES))] = "tpe",
    seed: Annotated[int, typer.Option()] = 0,
    trials: Annotated[int, typer.Option(min=1, help="Budget of accepted configurations.")] = TRIALS,
    seconds: Annotated[float | None, typer.Option(help="Budget of time.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds a measured configuration may take.")] = Protocol.timeout,
    resume: Annotated[bool, typer.Option("--resume", help="Begin with every trial the database holds.")] = False,
    model: Annotated[
        bool, typer.Option("--model/--no-model", help="Begin a search for CPU time with what the model favours.")
    ] = True,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes to try configurations here; 0 leaves it to autotune worker.")
    ] = None,
    storage: Annotated[str | None, typer.Option(envvar=URL_VARIABLE, help=STORAGE_HELP)] = None,
    study: Annotated[str | None, typer.Option(help="Its name in the storage; derived from the search.")] = None,
    lease: Annotated[
        float, typer.Option(help="Seconds without a sign of life after which a worker counts as lost.")
    ] = LEASE,
    plots: Annotated[Path | None, typer.Option(help="A folder for pictures of the search.")] = None,
    database: DatabaseOption = Path(DEFAULT_PATH),
) -> None:
    """Search for the best configuration of a kernel."""
    terminal = console()
    require(sampler, objective.count(",") + 1)
    if plots is not None:
        require_plots()
    specification = Specification(
        kernel, tuple(shapes), dtype, tuple(argument or ()), tuple(param or ()), tuple(constraint or ()), objective,
        sampler, seed, trials, seconds, timeout, lease, model,
    )
    with Database(database) as kept:
        with _told_of_interrupts(terminal), Bar(terminal, specification.label) as bar:
            alone = storage is None and workers is None
            result = specification.search(kept, resume, bar) if alone else distribute(
                specification, storage, study=study, workers=1 if workers is None else workers, database=kept,
                resume=resume, on_trial=bar,
            )
        show_result(terminal, result)
        if plots is not None:
            show_files(write_plots(kept, plots, contexts=result.contexts))


@contextmanager
def _told_of_interrupts(terminal: Terminal) -> Iterator[None]:
    """Ends the command where Ctrl-C ends a search that has found nothing."""
    try:
        yield
    except KeyboardInterrupt:
        terminal.print("interrupted before any configuration was accepted")
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def show(
    kernel: Annotated[str, typer.Argument(help="Part of a kernel's name; all by default.")] = "",
    database: DatabaseOption = Path(DEFAULT_PATH),
) -> None:
    """What a database holds: trials, best configurations, speed-ups."""
    held = _existing(database)
    show_database(console(), held, held.of_kernel(kernel))


@app.command()
def plot(
    database: Annotated[Path, typer.Argument(help="A database.")] = Path(DEFAULT_PATH),
    kernel: Annotated[str, typer.Option(help="Part of a kernel's name; all by default.")] = "",
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("plots"),
    formats: Annotated[str, typer.Option("--format", help="html, png or both.")] = ",".join(FORMATS),
    axes: Annotated[str, typer.Option(help="A,B: the parameters of the heat map; the most important by default.")] = "",
) -> None:
    """Pictures of finished trials: history, parallel coordinates, importance, Pareto front, heat map."""
    names = [a for a in axes.split(",") if a]
    show_files(write_plots(_existing(database), out, kernel=kernel, formats=formats.split(","), axes=names))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A database or an export.")],
    second: Annotated[Path, typer.Argument(help="Another.")],
    kernel: Annotated[str, typer.Option(help="Part of a kernel's name.")] = "",
) -> None:
    """Best configurations of two databases side by side, where both tuned the same."""
    ours, theirs = _existing(first), _existing(second)
    shared = [c for c in ours.of_kernel(kernel) if any(c.id == o.id for o in theirs.of_kernel(kernel))]
    pairs = [(a, b) for c in shared if (a := ours.best(c)) is not None and (b := theirs.best(c)) is not None]
    show_comparison(console(), (first.name, second.name), pairs)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="The JSON file to write.")],
    kernel: Annotated[str, typer.Option(help="Part of a kernel's name.")] = "",
    database: DatabaseOption = Path(DEFAULT_PATH),
) -> None:
    """Write the best configurations as JSON, to be checked into a repository and read by NKILITE_TUNED."""
    count = _existing(database).export(path, kernel)
    say(f"{count} configuration(s) written to {path}")


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="An export.")],
    database: DatabaseOption = Path(DEFAULT_PATH),
) -> None:
    """Add the configurations of an export to a database."""
    with Database(database) as held:
        count = held.load(path)
    say(f"{count} new configuration(s) from {path}")


app.command()(worker)
app.command()(proxy)
app.command()(dashboard)


def _existing(path: Path) -> Database:
    if not path.exists():
        raise InvalidDatabase(path=path, problem="there is no such file")
    return open_any(path)


def main() -> None:
    """Entry point of the `autotune` command."""
    run_command(app, "autotune", hidden)


if __name__ == "__main__":
    main()
