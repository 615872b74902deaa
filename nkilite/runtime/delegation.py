"""Calls of kernels that a framework has to see as a whole, to trace, map or differentiate them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Delegate(NamedTuple):
    """What a framework does with calls.

    Attributes:
        compiling: whether it is reading the code that calls, so that the call becomes a part of its graph.
        in_graph: makes the call such a part.
        wanted: whether it has to see a call with these arguments.
        call: makes the call.
    """

    compiling: Callable[[], bool]
    in_graph: Callable[[Any, tuple, dict[str, Any]], Any]
    wanted: Callable[[tuple, dict[str, Any]], bool]
    call: Callable[[Any, tuple, dict[str, Any]], Any]


def _never(*_: Any) -> bool:
    return False


def _nothing(*_: Any) -> Any:
    raise AssertionError("no framework wants calls")


delegate = Delegate(_never, _nothing, _never, _nothing)
