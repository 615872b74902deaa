"""What a command says when it fails: errors of nkilite without a traceback, others with that of user code alone."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from itertools import pairwise
from types import TracebackType
from typing import Any, NoReturn

import typer

from nkilite.cli.terminal import say
from nkilite.errors import InternalError, NkiError
from nkilite.location import is_internal
from nkilite.plain import plain

_MISUSE: Any = typer.BadParameter.__mro__[2]  # what all errors about a command line derive from
_INTERRUPTED = 130  # the exit status of what Ctrl-C ended
_CALLERS = {"click", "typer", "runpy", "autotune", "importlib"}  # between the command and the user's code


def run_command(app: Callable[..., object], name: str, shown: Callable[[str], str] = str) -> None:
    """Run a command line.

    Args:
        shown: what may be shown of a message.
    """
    try:
        status = app(prog_name=name, standalone_mode=False)
    except _MISUSE as error:  # names what was typed, which may be a URL with a password
        context: Any = getattr(error, "ctx", None)
        usage = "" if context is None else f"{context.get_usage()}\n"
        say(shown(f"{usage}{error.format_message()}"), error=True)
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(_INTERRUPTED)
    except Exception as error:
        if not isinstance(error, NkiError) or isinstance(error, InternalError):
            fail(error, shown)
        sys.exit(plain(shown(f"{type(error).__name__}: {error}")))
    if isinstance(status, int) and status:
        sys.exit(status)


def fail(error: Exception, shown: Callable[[str], str] = str) -> NoReturn:
    """End the process with the traceback of an error of the user's code; of a mistake of ours, the whole one."""
    one: BaseException | None = None if isinstance(error, InternalError) else error
    while one is not None:
        one.__traceback__ = _of_user(one.__traceback__)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    say(shown("".join(traceback.format_exception(error)).rstrip()), error=True)
    sys.exit(1)


def _of_user(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of nkilite and of what it was called by; the whole one if nothing is left."""
    kept = []
    at = trace
    while at is not None:
        frame = at.tb_frame
        module = frame.f_globals.get("__name__", "").partition(".")[0]
        if not is_internal(frame.f_code.co_filename) and module not in _CALLERS:
            kept.append(at)
        at = at.tb_next
    if not kept:
        return trace
    for outer, inner in pairwise(kept):
        outer.tb_next = inner
    kept[-1].tb_next = None
    return kept[0]
