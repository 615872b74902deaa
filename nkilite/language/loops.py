"""Loops: Python's `range` under its NKI names, and structured loops.

A trace is straight-line code, so loops with compile-time bounds unroll. Source: public pages
nki.language.affine_range and nki.language.fori_loop.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np

from nkilite.deprecation import deprecated
from nkilite.errors import InvalidOperand, UnsupportedError, describe
from nkilite.trace.tensor import DynamicSlice

__all__ = [
    "affine_range",
    "ds",
    "dynamic_range",
    "fori_loop",
    "range",
    "sequential_range",
    "static_range",
    "while_loop",
]

range = builtins.range


def ds(start: Any, size: int) -> DynamicSlice:
    """An index of `size` elements from `start`: an int, or a runtime index (a [1, 1] tile or a register)."""
    return DynamicSlice(start, size)


def _unrolled(name: str, start: int, stop: int | None, step: int) -> builtins.range:
    deprecated(f"nl.{name}", "range")
    return _range(f"nl.{name}", start, stop, step)


def _range(name: str, start: Any, stop: Any, step: Any) -> builtins.range:
    bounds = (0, start, step) if stop is None else (start, stop, step)
    for operand, value in zip(("start", "stop", "step"), bounds, strict=True):
        if not isinstance(value, (int, np.integer)):
            if operand != "step" and hasattr(value, "register_tensor"):
                raise UnsupportedError(feature=f"{name} with a bound in a register")
            raise InvalidOperand(
                instruction=name,
                operand=operand,
                found=describe(value),
                expected="an int",
            )
    return builtins.range(*map(int, bounds))


def affine_range(start: int, stop: int | None = None, step: int = 1) -> builtins.range:
    """Python's `range` (deprecated name)."""
    return _unrolled("affine_range", start, stop, step)


def sequential_range(start: int, stop: int | None = None, step: int = 1) -> builtins.range:
    """Python's `range` (deprecated name)."""
    return _unrolled("sequential_range", start, stop, step)


def static_range(start: int, stop: int | None = None, step: int = 1) -> builtins.range:
    """Python's `range` (deprecated name)."""
    return _unrolled("static_range", start, stop, step)


def dynamic_range(start: Any, stop: Any = None, step: int = 1) -> builtins.range:
    """A counted loop on the device (deprecated name); with compile-time bounds it unrolls like `range`.

    Raises:
        UnsupportedError: a bound is in a register.
    """
    deprecated("nl.dynamic_range", "nl.fori_loop")
    return _range("nl.dynamic_range", start, stop, step)


def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any], Any], step: int = 1) -> None:
    """Call `body_fun(i)` for i in range(lower, upper, step); compile-time bounds unroll, and i is an int.

    Args:
        lower: first value.
        upper: end, exclusive.
        body_fun: the body; it returns nothing and carries state through SBUF or HBM.
        step: a positive int.

    Raises:
        InvalidOperand: the step is not positive, or the body returned a value.
        UnsupportedError: a bound is in a register.
    """
    if not isinstance(step, (int, np.integer)) or step < 1:
        raise InvalidOperand(
            instruction="nl.fori_loop", operand="step", found=repr(step), expected="a positive int"
        )
    for i in _range("nl.fori_loop", lower, upper, step):
        returned = body_fun(i)
        if returned is not None:
            raise InvalidOperand(
                instruction="nl.fori_loop",
                operand="the value returned by body_fun",
                found=repr(returned),
                expected="None: carry state through SBUF or HBM tensors",
            )


def while_loop(init: Any, body_fun: Callable[[Any], Any]) -> None:
    """Repeat `body_fun` while a register is nonzero.

    Raises:
        UnsupportedError: always; nkilite has no runtime loops yet.
    """
    raise UnsupportedError(feature="nl.while_loop")
