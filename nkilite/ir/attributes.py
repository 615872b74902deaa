"""Compile-time attribute values as IR text: literals, enum members and rows of operator tables."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from enum import Enum
from typing import Any

from nkilite.dtypes import ALL, DType
from nkilite.errors import IrError

_types: dict[str, tuple[type, Callable[[str], object]]] = {}


def register(prefix: str, kind: type, parse: Callable[[str], object]) -> None:
    """Let values of a type be printed as ``prefix.name`` (by `str` or the enum member's name) and read back."""
    _types[prefix] = (kind, parse)


def register_enum(kind: type[Enum]) -> None:
    """Let members of an enum be attributes."""
    register(kind.__name__, kind, lambda name: kind[name])


def text(value: object) -> str:
    """The text of an attribute value.

    Raises:
        IrError: a value of a type that was never registered.
    """
    if isinstance(value, DType):
        return f"dtype.{value}"
    for prefix, (kind, _) in _types.items():
        if isinstance(value, kind):
            return f"{prefix}.{value.name if isinstance(value, Enum) else value}"
    if value is None or isinstance(value, (bool, int, str)):
        return repr(value)
    if isinstance(value, float):
        number, sign = float(value), "-" if math.copysign(1, value) < 0 else ""
        return repr(number) if math.isfinite(number) else f"float({sign}{abs(number)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(text, value))}{',' if len(value) == 1 else ''})"
    raise IrError(f"attribute {value!r} of type {type(value).__name__} has no text form")


def parse(source: str) -> Any:
    """Read back what `text` wrote.

    Raises:
        IrError: malformed text or an unknown name.
    """
    try:
        return _value(ast.parse(source, mode="eval").body)
    except (LookupError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        raise IrError(f"cannot read attribute {source!r}: {error}") from None


def _value(node: ast.expr) -> object:
    if isinstance(node, ast.Tuple):
        return tuple(_value(e) for e in node.elts)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        prefix = node.value.id
        if prefix == "dtype":
            return ALL[node.attr]
        return _types[prefix][1](node.attr)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float":
        return float(ast.unparse(node.args[0]))
    return ast.literal_eval(node)
