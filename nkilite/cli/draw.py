"""`python -m nkilite draw`: what every instruction of a kernel reads and writes, to step through in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nkilite import knobs
from nkilite.cli.specs import load_kernel, parse_arguments
from nkilite.cli.targets import HELP
from nkilite.cli.terminal import say
from nkilite.drawing.page import draw as drawn
from nkilite.drawing.steps import STEPS


def draw(
    kernel: Annotated[str, typer.Argument(help="MODULE:KERNEL or FILE.py:KERNEL")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Arguments: 128x512:float32, x=128x512:bf16, causal=True ...")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="The page to write; KERNEL.html by default.")] = None,
    steps: Annotated[int, typer.Option(help="Instructions to draw at most.", min=1)] = STEPS,
    target: Annotated[str | None, typer.Option(help=HELP)] = None,
) -> None:
    """Simulate a kernel and draw its tiles in HBM, SBUF and PSUM, instruction by instruction, as one HTML page."""
    knobs.use_target(target)
    found = load_kernel(kernel)
    positional, named = parse_arguments(arguments or [])
    drawing = drawn(found, *positional, steps=steps, **named)
    path = html or Path(f"{found.__name__}.html")
    drawing.html(path)
    watched = drawing.watched
    say(f"written: {path} ({len(watched.steps)} of {watched.executed} instructions)")
    if watched.failure is not None:
        say(f"the kernel failed after them:\n{watched.failure}")
