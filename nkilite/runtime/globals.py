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
        self._values: list[tuple[dict[str, Any], str, Any]] = []
        self._cells: list[tuple[Any, Any]] = []
        self._copies: list[tuple[Any, Any]] = []
        self._follow(function)

    def unchanged(self) -> bool:
        """Whether every value is still what it was; asked at every launch."""
        for namespace, name, value in self._values:
            if namespace.get(name, MISSING) is not value:
                return False
        for cell, value in self._cells:
            if content(cell) is not value:
                return False
        return not self._copies or all(value == copy for value, copy in self._copies)

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
            self._cells.append((cell, held))
            self._held(held)
        for name in global_names(function.__code__):
            found = function.__globals__.get(name, MISSING)
            if found is MISSING or isinstance(found, types.ModuleType):
                continue
            self._values.append((function.__globals__, name, found))
            self._held(found)

    def _held(self, value: Any) -> None:
        """Look into a value that a function refers to."""
        if isinstance(value, (list, dict, set)):
            self._copies.append((value, type(value)(value)))
        self._follow(value)


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


def content(cell: Any) -> Any:
    """What a closure cell holds, or MISSING while it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING
