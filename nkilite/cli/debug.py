"""`python -m nkilite debug`: run a kernel one instruction at a time, stop, and look at its tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nkilite import knobs
from nkilite.cli.specs import load_kernel, parse_arguments
from nkilite.cli.targets import HELP
from nkilite.cli.terminal import say
from nkilite.debugger import Debugger, Quit
from nkilite.runtime.kernel import simulate


def debug(
    kernel: Annotated[str, typer.Argument(help="MODULE:KERNEL or FILE.py:KERNEL, on two cores KERNEL[2]")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Arguments: 128x512:float32, x=128x512:bf16, causal=True ...")
    ] = None,
    command: Annotated[
        list[str] | None, typer.Option("-c", "--command", help="A command instead of the terminal's; may be repeated.")
    ] = None,
    commands: Annotated[
        Path | None, typer.Option(help="A file of such commands, one a line.", exists=True, dir_okay=False)
    ] = None,
    target: Annotated[str | None, typer.Option(help=HELP)] = None,
) -> None:
    """Simulate a kernel, stopping where you say; `help` lists the commands."""
    knobs.use_target(target)
    scripted = [] if commands is None else commands.read_text(encoding="utf-8").splitlines()
    scripted += command or []
    found = load_kernel(kernel)
    positional, named = parse_arguments(arguments or [])
    debugger = Debugger(scripted if command or commands else None, say)
    try:
        simulate(found, watch=debugger)(*positional, **named)
    except Quit:
        raise typer.Exit from None
    say("the kernel has ended")
