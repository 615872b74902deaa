"""The global values a kernel depends on, so that a cached specialization is dropped when one of them changes."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from nkilite.location import is_internal

MISSING = object()


class Globals:
    """Global names that a function and its Python helpers read, with the values they had.

    Functions and classes are followed into their own globals; modules and library code are taken as constant.
    Mutable containers are compared by a copy made when the kernel was specialized.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._seen: set[int] = set()
        self._values: list[tuple[dict[str, Any], str, Any, Any]] = []
        self._cells: list[tuple[Any, Any, Any]] = []
        self._follow(function)

    def unchanged(self) -> bool:
        """Whether every value is still what it was."""
        for namespace, name, value, copy in self._values:
            now = namespace.get(name, MISSING)
            if now is not value or (copy is not None and now != copy):
                return False
        return all(
            content(cell) is value and (copy is None or content(cell) == copy) for cell, value, copy in self._cells
        )

    def _follow(self, value: Any) -> None:
        function = getattr(value, "function", value)
        function = getattr(function, "__wrapped__", function)
        if isinstance(function, type):
            for member in vars(function).values():
                if isinstance(member, types.FunctionType):
                    self._follow(member)
            return
        if not isinstance(function, types.FunctionType) or id(function) in self._seen:
            return
        self._seen.add(id(function))
        if is_library(function):
            return
        for cell in function.__closure__ or ():
            held = content(cell)
            self._cells.append((cell, held, _copy(held)))
            self._follow(held)
        for name in global_names(function.__code__):
            found = function.__globals__.get(name, MISSING)
            if found is MISSING or isinstance(found, types.ModuleType):
                continue
            self._values.append((function.__globals__, name, found, _copy(found)))
            self._follow(found)


def is_library(function: types.FunctionType) -> bool:
    """Whether a function is nkilite's or an installed package's, which are taken as constant."""
    file = function.__code__.co_filename
    return is_internal(file) or "site-packages" in file


def global_names(code: types.CodeType) -> set[str]:
    """Global names used by a code object and the functions nested in it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= global_names(constant)
    return names


def _copy(value: Any) -> Any:
    return type(value)(value) if isinstance(value, (list, dict, set)) else None


def content(cell: Any) -> Any:
    """What a closure cell holds, or MISSING while it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING
