"""`python -m nkilite run`: run a script or a module in which `import nki` means nkilite."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from types import TracebackType
from typing import Annotated

import typer

from nkilite import compat
from nkilite.errors import NkiError
from nkilite.location import is_internal


def run(
    program: Annotated[str, typer.Argument(help="SCRIPT.py, or with -m a module such as pytest")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Arguments of the program.")] = None,
    module: Annotated[bool, typer.Option("-m", help="PROGRAM is the name of a module.")] = False,
    force: Annotated[bool, typer.Option(help="Take the place of an installed nki package.")] = False,
    torch_xla_stub: Annotated[
        bool, typer.Option(help="Let torch_xla and torch_neuronx be stand-ins that keep tensors on the CPU.")
    ] = False,
) -> None:
    """Run an unmodified program that imports nki; options of the program follow its name."""
    sys.argv = [program, *(arguments or [])]
    sys.path[0] = os.getcwd() if module else os.path.dirname(os.path.abspath(program))
    try:
        compat.install(force=force, torch_xla=torch_xla_stub)
        if module:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(program, run_name="__main__")
    except Exception as error:
        _strip(error)
        traceback.print_exception(error)
        raise SystemExit(1) from None


def _strip(error: BaseException | None) -> None:
    """Remove the frames that led to the program from the tracebacks of an error and of what it was raised
    from, and from an nkilite error also the frames of nkilite below the user's line."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None and _is_ours(trace):
            trace = trace.tb_next
        error.__traceback__ = _user_frames(trace) if isinstance(error, NkiError) else trace
        error = error.__cause__ or error.__context__


def _user_frames(trace: TracebackType | None) -> TracebackType | None:
    kept: list[TracebackType] = []
    while trace is not None:
        if not _is_ours(trace):
            kept.append(trace)
        trace = trace.tb_next
    for outer, inner in zip(kept, [*kept[1:], None], strict=True):
        outer.tb_next = inner
    return kept[0] if kept else None


def _is_ours(trace: TracebackType) -> bool:
    file = trace.tb_frame.f_code.co_filename
    return is_internal(file) or file.startswith("<frozen ") or file == runpy.__file__
