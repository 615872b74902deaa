"""`python -m nkilite run`: run a script or a module in which `import nki` means nkilite."""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
from typing import Annotated

import typer

from nkilite import compat
from nkilite.cli.failure import fail
from nkilite.cli.specs import CommandLineError
from nkilite.runtime.processes import attend


class UnknownProgram(CommandLineError):
    template = "there is no {what} {program!r}."
    remedy = "name a Python file, or with -m a module that can be imported from here."


def run(
    program: Annotated[str, typer.Argument(help="SCRIPT.py, or with -m a module such as pytest")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Arguments of the program.")] = None,
    module: Annotated[bool, typer.Option("-m", help="PROGRAM is the name of a module.")] = False,
    force: Annotated[bool, typer.Option(help="Take the place of an installed nki package.")] = False,
    torch_xla_stub: Annotated[
        bool, typer.Option(help="Let torch_xla and torch_neuronx be stand-ins that keep tensors on the CPU.")
    ] = False,
) -> None:
    """Run an unmodified program that imports nki; options of the program follow its name.

    Raises:
        UnknownProgram.
    """
    sys.argv = [program, *(arguments or [])]
    sys.path[0] = os.getcwd() if module else os.path.dirname(os.path.abspath(program))
    if not module and not os.path.exists(program):
        raise UnknownProgram(what="file", program=program)
    attend()
    try:
        compat.install(force=force, torch_xla=torch_xla_stub)
        if module:
            if importlib.util.find_spec(program) is None:
                raise UnknownProgram(what="module", program=program)
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(program, run_name="__main__")
    except UnknownProgram:
        raise
    except Exception as error:
        fail(error)
