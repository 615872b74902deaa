"""The builder that receives instructions now, while a kernel is traced or simulated: one for each thread and task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from nkilite.errors import NotInKernel

if TYPE_CHECKING:
    from nkilite.trace.builder import Builder


current: ContextVar[Builder | None] = ContextVar("builder", default=None)  # a third of the cost of a threading.local


def builder(what: str = "an nki function") -> Builder:
    """The active builder.

    Raises:
        NotInKernel: no kernel is being traced or simulated in this thread.
    """
    found = current.get()
    if found is None:
        raise NotInKernel(what=what)
    return found


def builder_or_none() -> Builder | None:
    """The active builder, or None outside a kernel."""
    return current.get()


@contextmanager
def activate(new: Builder) -> Iterator[Builder]:
    """Make `new` the active builder of this thread for the duration of a with block."""
    token = current.set(new)
    try:
        yield new
    finally:
        current.reset(token)


@contextmanager
def suspended() -> Iterator[None]:
    """For the duration of a with block, this thread is outside of kernels: nothing can be recorded."""
    token = current.set(None)
    try:
        yield
    finally:
        current.reset(token)
