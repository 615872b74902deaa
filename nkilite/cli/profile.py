"""`python -m nkilite profile`: where the time of a kernel goes on the modelled chip."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nkilite.cli.specs import load_kernel, parse_arguments
from nkilite.cli.targets import HELP
from nkilite.cli.terminal import say, terminal
from nkilite.machine.timeline import ORDERS
from nkilite.profiling import Profile, text
from nkilite.profiling import profile as model
from nkilite.profiling.difference import difference_table
from nkilite.profiling.html import write_page
from nkilite.profiling.meetings import meeting_waits
from nkilite.profiling.perfetto import write_trace
from nkilite.profiling.record import write_record


def profile(
    kernels: Annotated[
        list[str], typer.Argument(help="MODULE:KERNEL or FILE.py:KERNEL, on two cores KERNEL[2]; several are compared.")
    ],
    shapes: Annotated[
        str, typer.Option(help="Arguments: 4096x8192:bf16,8192x8192:bf16 or x=128x512:float32,causal=True")
    ] = "",
    target: Annotated[str, typer.Option(help=f"{HELP} Several: trn2,trn3,mychip.toml")] = "trn2",
    order: Annotated[str, typer.Option(help="compiler: list-scheduled; program: queues in source order.")] = "compiler",
    trace: Annotated[Path | None, typer.Option(help="Write a Chrome trace (JSON) for ui.perfetto.dev.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a self-contained HTML report, one page for all profiles.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option("--json", help="Write the figures as JSON (nkilite/profiling/profile.schema.json).")
    ] = None,
    against: Annotated[
        str, typer.Option(help="Another version, MODULE:KERNEL: what made the difference to it, by line.")
    ] = "",
    lines: Annotated[int, typer.Option(help="Source lines to show.")] = 10,
    topology: Annotated[
        str | None, typer.Option(help="How ranks are joined: a name that nkilite topologies lists, or mine.toml.")
    ] = None,
    disable_dge: Annotated[
        bool, typer.Option("--disable-dge", help="As compiled with this option: descriptors of DMAs are ready-made.")
    ] = False,
    trips: Annotated[
        str, typer.Option(help="Iterations of loops with a runtime trip count: 8, or one number for each: 8,16.")
    ] = "",
) -> None:
    """Model a launch of kernels on targets and show where the time goes. Nothing is run; all times are modelled."""
    if order not in ORDERS:
        raise typer.BadParameter(f"{order!r} is not one of {', '.join(ORDERS)}", param_hint="--order")
    specs = [s for s in re.split(r"[\s,]+(?![^(\[]*[)\]])", shapes) if s]
    positional, named = parse_arguments(specs, fill=False)
    told = _trips(trips)
    profiles: list[Profile] = []
    for spec in [against, *kernels] if against else kernels:
        kernel = load_kernel(spec)
        profiles += [
            model(
                kernel, *positional, target=t, order=order, trips=told, topology=topology, disable_dge=disable_dge,
                **named,
            )
            for t in target.split(",")
        ]
    console = terminal()
    console.print(text.comparison(profiles))
    chips = len(target.split(","))
    for i, found in enumerate(profiles[chips:] if against else ()):
        console.print(difference_table(profiles[i % chips], found, lines))
    for found in profiles:
        _show(console, found, lines)
        for path, write in ((trace, write_trace), (record, write_record)):
            if path is not None:
                place = _numbered(path, found, profiles)
                write(found, place)
                say(f"written: {place}")
    if html is not None:
        write_page(profiles, html)
        say(f"written: {html}")


def _trips(said: str) -> int | list[int] | None:
    """The iterations of loops with a runtime trip count, if any are told."""
    if not re.fullmatch(r"(\d+(,\d+)*)?", said):
        raise typer.BadParameter(f"{said!r} is not a list of numbers", param_hint="--trips")
    counts = [int(n) for n in said.split(",")] if said else []
    return counts[0] if len(counts) == 1 else counts or None


def _show(console: Console, found: Profile, lines: int) -> None:
    """The tables of one profile, and advice."""
    console.print(text.line_table(found, lines))
    console.print(text.wait_table(found))
    if found.collectives:
        console.print(text.communication_table(found))
    if found.cores > 1 and meeting_waits(found):
        console.print(text.meeting_table(found))
    console.print(text.advice_text(found), soft_wrap=True)


def _numbered(path: Path, found: Profile, profiles: list[Profile]) -> Path:
    """The path itself for a single profile, else with kernel and target before the suffix."""
    if len(profiles) == 1:
        return path
    return path.with_stem(f"{path.stem}-{found.name}-{found.target.name}")
