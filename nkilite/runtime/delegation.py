"""Calls of kernels that a framework has to see as a whole, to trace, map or differentiate them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeAlias

from nkilite.runtime.opaque import UserValue

if TYPE_CHECKING:
    from nkilite.runtime.kernel import Kernel

#: What a kernel is called with.
Args: TypeAlias = tuple[UserValue, ...]
Kwargs: TypeAlias = dict[str, UserValue]


class Delegate(NamedTuple):
    """A framework that makes some calls itself.

    Attributes:
        wanted: whether it has to see a call with these arguments.
        call: makes the call of a kernel.
    """

    wanted: Callable[[Args, Kwargs], bool]
    call: Callable[[Kernel[...], Args, Kwargs], UserValue]


class Graphs(NamedTuple):
    """A compiler that reads the Python code around a call.

    Attributes:
        compiling: whether it is doing that now.
        call: makes the call a part of its graph.
    """

    compiling: Callable[[], bool]
    call: Callable[[Kernel[...], Args, Kwargs], UserValue]


def _never() -> bool:
    return False


def _nothing(*_: object) -> NoReturn:
    raise AssertionError("nobody is compiling")


graphs = Graphs(_never, _nothing)
delegates: list[Delegate] = []


def delegate_for(args: Args, kwargs: Kwargs) -> Delegate | None:
    """The framework that has to see a call, if any."""
    return next((d for d in delegates if d.wanted(args, kwargs)), None)
