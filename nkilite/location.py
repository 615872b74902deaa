"""Where in the user's source something happened: file, line and function of the innermost frame outside nkilite."""

from __future__ import annotations

import inspect
import linecache
import os
import sys
from contextlib import suppress
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_COMMANDS = os.path.join(_PACKAGE, "cli", "failure.py")  # where every command is called
_CALLERS = {"autotune", "click", "optuna", "typer"}  # between that and the user's code
_NUMPY = os.path.dirname(os.path.abspath(np.__file__)) + os.sep
_PYTHON = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = "site-packages", "dist-packages"  # folders of the user's packages among Python's own
_internal: dict[str, bool] = {}
_passing: dict[str, bool] = {}
_DECORATOR_LINES = 50  # looked through for the def below them
_CALL = "__call__"
_WRAPPERS = 100  # looked through for the code below them


class Location(NamedTuple):
    """A line of user code."""

    file: str
    line: int
    function: str = ""

    @property
    def source(self) -> str:
        """The text of the line, stripped; empty when the file cannot be read."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


UNKNOWN = Location("<unknown>", 0)


def is_internal(file: str) -> bool:
    """Whether a source file belongs to nkilite itself (its frames are hidden from users)."""
    known = _internal.get(file)
    if known is None:
        known = _internal[file] = file.startswith((_PACKAGE, "<nkilite", "<frozen importlib"))
    return known


def _passes_on(file: str) -> bool:
    """Whether the user's line is further out: NumPy's functions and Python's own, too, call what they are given."""
    known = _passing.get(file)
    if known is None:
        own = file.startswith(_PYTHON) and not file.removeprefix(_PYTHON).startswith(_INSTALLED)
        known = _passing[file] = is_internal(file) or file.startswith((_NUMPY, "<frozen ")) or own
    return known


def user_frame(depth: int = 1) -> FrameType | None:
    """The innermost frame of the user's, or None when there is none: a command has none around it."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        if frame.f_code.co_filename == _COMMANDS:
            return None
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if not _passes_on(frame.f_code.co_filename) and package not in _CALLERS:
            return frame
        frame = frame.f_back
    return None


def code_of(function: object) -> CodeType | None:
    """The Python code a call runs: of a function, below decorators, partials and methods, or of a callable object."""
    for _ in range(_WRAPPERS):
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            return code
        inner = [v for name in ("__wrapped__", "__func__", "func") if (v := getattr(function, name, None)) is not None]
        if inner:
            function = inner[0]
        elif isinstance(function, type):
            return None
        else:
            function = getattr(type(function), _CALL, None)
    return None


def defined_at(function: Any) -> Location:
    """The line of a function's `def`, which stands below its decorators."""
    with suppress(ValueError):  # wrapped in itself
        function = inspect.unwrap(function)
    code = code_of(function)
    if code is None:
        return UNKNOWN
    line = code.co_firstlineno
    for below in range(line, line + _DECORATOR_LINES):
        if linecache.getline(code.co_filename, below).lstrip().startswith(("def ", "async def ")):
            line = below
            break
    return Location(code.co_filename, line, code.co_name)


def here() -> Location:
    """The user's line that is executing now."""
    frame = user_frame(2)
    if frame is None:
        return UNKNOWN
    return Location(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
