"""The builder that receives instructions now: one per thread, set while a kernel is traced or simulated."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nkilite.errors import NotInKernel

if TYPE_CHECKING:
    from nkilite.trace.builder import Builder


class _Local(threading.local):
    builder: Builder | None = None


local = _Local()


def builder(what: str = "an nki function") -> Builder:
    """The active builder.

    Raises:
        NotInKernel: no kernel is being traced or simulated in this thread.
    """
    found = local.builder
    if found is None:
        raise NotInKernel(what=what)
    return found


def builder_or_none() -> Builder | None:
    """The active builder, or None outside a kernel."""
    return local.builder


@contextmanager
def activate(new: Builder) -> Iterator[Builder]:
    """Make `new` the active builder of this thread for the duration of a with block."""
    previous = local.builder
    local.builder = new
    try:
        yield new
    finally:
        local.builder = previous


@contextmanager
def suspended() -> Iterator[None]:
    """For the duration of a with block, this thread is outside of kernels: nothing can be recorded."""
    previous, local.builder = local.builder, None
    try:
        yield
    finally:
        local.builder = previous
