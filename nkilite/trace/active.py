"""The builder that receives instructions now, while a kernel is traced or simulated: one for each thread.

It is no context variable, which is read faster: other threads may run in a copy of a context, as `asyncio.to_thread`
lets them, and tasks and callbacks after the kernel has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nkilite.errors import NotInKernel

if TYPE_CHECKING:
    from nkilite.trace.builder import Builder


class _Current(threading.local):
    """
    Attributes:
        builder: that of this thread.
    """

    builder: Builder | None = None


current = _Current()


def builder(what: str = "an nki function") -> Builder:
    """The active builder.

    Raises:
        NotInKernel: no kernel is being traced or simulated in this thread.
    """
    found = current.builder
    if found is None:
        raise NotInKernel(what=what)
    return found


def builder_or_none() -> Builder | None:
    """The active builder, or None outside a kernel."""
    return current.builder


@contextmanager
def activate(new: Builder) -> Iterator[Builder]:
    """Make `new` the active builder of this thread for the duration of a with block."""
    with _changed(new):
        yield new


@contextmanager
def suspended() -> Iterator[None]:
    """For the duration of a with block, this thread is outside of kernels: nothing can be recorded."""
    with _changed(None):
        yield


@contextmanager
def _changed(builder: Builder | None) -> Iterator[None]:
    before, current.builder = current.builder, builder
    try:
        yield
    finally:
        current.builder = before
