"""A hash of what a kernel computes: its source, the Python helpers it calls, and the global values both read.

Comments, layout, docstrings and the decorators on the kernel do not change it. Modules, library code and nkilite are
taken as constant: whoever stores a fingerprint stores versions beside it.
"""

from __future__ import annotations

import ast
import enum
import hashlib
import inspect
import textwrap
import types
from collections.abc import Callable
from typing import Any

from nkilite.runtime.globals import MISSING, content, global_names, is_library

_DIGITS = 16


def fingerprint(function: Callable[..., Any]) -> str:
    """Hexadecimal digits that stay the same across processes and machines."""
    parts: list[str] = []
    _describe(function, parts, set())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_DIGITS]


def _describe(value: Any, parts: list[str], seen: set[int]) -> None:
    function = inspect.unwrap(getattr(value, "function", value)) if callable(value) else value
    if isinstance(function, type):
        members = [m for m in vars(function).values() if isinstance(m, types.FunctionType)]
        parts.append(f"class {function.__qualname__}")
        for member in members:
            _describe(member, parts, seen)
    elif isinstance(function, types.FunctionType):
        if id(function) in seen:
            return
        seen.add(id(function))
        parts.append(f"def {function.__qualname__}")
        if is_library(function):
            return
        parts.append(_source(function))
        for cell in function.__closure__ or ():
            _describe(content(cell), parts, seen)
        for name in sorted(global_names(function.__code__)):
            found = function.__globals__.get(name, MISSING)
            if found is not MISSING and not isinstance(found, types.ModuleType):
                parts.append(name)
                _describe(found, parts, seen)
    elif isinstance(function, (tuple, list, dict)):
        items = function.items() if isinstance(function, dict) else function
        parts.append(f"{type(function).__name__} of {len(function)}")
        for item in items:
            _describe(item, parts, seen)
    elif isinstance(function, (bool, int, float, str, bytes, enum.Enum, type(None))):
        parts.append(repr(function))
    else:
        parts.append(type(function).__qualname__)


def _source(function: types.FunctionType) -> str:
    """The syntax of a function without docstring and decorators; its bytecode when there is no source to read."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):
        return function.__code__.co_code.hex() + repr(function.__code__.co_consts)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.decorator_list = []
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
