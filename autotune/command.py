"""`autotune`: the command line of the tuner."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autotune.api import objective_named
from autotune.database import DEFAULT_PATH, Database, open_any
from autotune.errors import InvalidDatabase
from autotune.present import Bar, console, show_comparison, show_database, show_result
from autotune.samplers import NAMES
from autotune.sources import space_from, workload_from
from autotune.study import TRIALS, Study
from autotune.timing import Protocol
from nkilite.cli.specs import load_kernel
from nkilite.errors import NkiError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find the tile sizes of NKI kernels: modelled on trn1, trn2 and trn3, or measured on this CPU.",
)

DatabaseOption = Annotated[Path, typer.Option("--database", "-d", help="Where trials are kept.")]


@app.command()
def run(
    kernel: Annotated[str, typer.Argument(help="MODULE:KERNEL or FILE.py:KERNEL")],
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
    objective: Annotated[str, typer.Option(help="trn1, trn2, trn3 (modelled) or cpu (measured).")] = "trn2",
    sampler: Annotated[str, typer.Option(help=", ".join(NAMES))] = "tpe",
    seed: Annotated[int, typer.Option()] = 0,
    trials: Annotated[int, typer.Option(min=1, help="Budget of accepted configurations.")] = TRIALS,
    seconds: Annotated[float | None, typer.Option(help="Budget of time.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds a measured configuration may take.")] = Protocol.timeout,
    resume: Annotated[bool, typer.Option("--resume", help="Begin with every trial the database holds.")] = False,
    database: DatabaseOption = Path(DEFAULT_PATH),
) -> None:
    """Search for the best configuration of a kernel."""
    terminal = console()
    found = load_kernel(kernel)
    workloads = [workload_from(found, s, dtype, fixed=argument or ()) for s in shapes]
    space = space_from(found, param or (), constraint or ())
    chosen = objective_named(objective, seed, Protocol(timeout=timeout))
    try:
        with Database(database) as trials_kept:
            study = Study(workloads, chosen, space, sampler, seed, trials, seconds, trials_kept, resume)
            with Bar(terminal, chosen.label) as bar:
                result = study.run(bar)
    finally:
        chosen.close()
    show_result(terminal, result)


@app.command()
def show(
    kernel: Annotated[str, typer.Argument(help="Part of a kernel's name; all by default.")] = "",
    database: DatabaseOption = Path(DEFAULT_PATH),
) -> None:
    """What a database holds: trials, best configurations, speed-ups."""
    held = _existing(database)
    show_database(console(), held, held.of_kernel(kernel))


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
    typer.echo(f"{count} configuration(s) written to {path}")


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="An export.")],
    database: DatabaseOption = Path(DEFAULT_PATH),
) -> None:
    """Add the configurations of an export to a database."""
    with Database(database) as held:
        count = held.load(path)
    typer.echo(f"{count} new configuration(s) from {path}")


def _existing(path: Path) -> Database:
    if not path.exists():
        raise InvalidDatabase(path=path, problem="there is no such file")
    return open_any(path)


def main() -> None:
    """Entry point of the `autotune` command."""
    try:
        app(prog_name="autotune")
    except NkiError as error:
        Console(stderr=True, soft_wrap=True).print(f"{type(error).__name__}: {error}", markup=False, highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
