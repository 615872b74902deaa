"""`python -m nkilite opt`: run passes on the text of a program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nkilite.cli.terminal import say
from nkilite.ir.parser import parse_program
from nkilite.ir.printer import print_program
from nkilite.ir.verifier import verify
from nkilite.passes.pipeline import PIPELINE

_PASSES = {kind.__name__: kind for kind in PIPELINE}


def opt(
    file: Annotated[str, typer.Argument(help="A program as `nkilite compile --dump trace` prints it; - is the input.")],
    passes: Annotated[
        list[str] | None, typer.Option("--pass", help="A pass; several run in the order given, and none means all.")
    ] = None,
) -> None:
    """Run passes on a program, verify it after each, and print it.

    What FindUniform and the passes after it decide is printed in comments, which are not read back: name them together.
    """
    chosen = list(_PASSES) if passes is None else passes
    for name in chosen:
        if name not in _PASSES:
            raise typer.BadParameter(f"no pass {name!r}; passes: {', '.join(_PASSES)}", param_hint="--pass")
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"cannot read {file}: {error}", param_hint="FILE") from None
    program = parse_program(text)
    verify(program)
    for name in chosen:
        program = _PASSES[name]().run(program)
        verify(program, after=name)
    say(print_program(program).rstrip())
