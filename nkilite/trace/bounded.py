"""Tensors with dynamic dimensions as operands: an instruction gets views of them that are checked against the size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from nkilite.ir.definition import Definition
from nkilite.ir.types import BOUNDED


def bounded(operands: tuple[object, ...]) -> bool:
    """Whether one of some operands has a dynamic dimension."""
    return any(getattr(getattr(o, "type", None), "problem", None) is BOUNDED for o in operands)


def checked(definition: Definition, function: Callable[..., Any], values: tuple[object, ...], name: Any) -> Any:
    """Call an instruction with its bounded operands checked."""
    return check[0](definition, function, values, name)


def _not_known(*_: Any) -> NoReturn:
    raise AssertionError("nkilite.isa was not imported")


# How a call is checked, how runtime indices become one, and what an instruction that is told how much it may touch has
# touched: set by nkilite.isa, which knows the instructions.
check: list[Callable[[Definition, Callable[..., Any], tuple[object, ...], Any], Any]] = [_not_known]
combine: list[Callable[[Any, Any], Any]] = [_not_known]
touched: list[Callable[[Any, dict[str, Any]], dict[str, Any]]] = [_not_known]
CUT = "dma_copy_within"  # the instruction that is told
