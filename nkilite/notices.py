"""Warnings about the user's lines, recorded while a kernel is traced so that a cached kernel gives them again."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple


class RetraceWarning(UserWarning):
    """A kernel is traced at every launch: it cannot be told at less cost whether what it reads has changed."""


class GridIgnored(UserWarning):
    """A kernel called within another is part of it, and runs on its cores, whatever its brackets say."""


class Notice(NamedTuple):
    """A warning; one to be given `once` is given once per process for its line."""

    message: str
    category: type[Warning]
    file: str
    line: int
    once: bool = False


_local = threading.local()
_given: set[Notice] = set()


def give(notice: Notice) -> None:
    """Warn, and add the notice to those recorded in this thread."""
    recorded = getattr(_local, "recorded", None)
    if recorded is not None:
        recorded.append(notice)
    if notice.once:
        if notice in _given:
            return
        _given.add(notice)
    warnings.warn_explicit(notice.message, notice.category, notice.file, max(notice.line, 1))


def carried() -> Callable[[], AbstractContextManager[None]]:
    """What makes another thread record notices where this one does now."""
    found: list[Notice] | None = getattr(_local, "recorded", None)

    @contextmanager
    def there() -> Iterator[None]:
        _local.recorded = found
        yield

    return there


@contextmanager
def recorded() -> Iterator[list[Notice]]:
    """The notices given in this thread inside a `with` block."""
    before = getattr(_local, "recorded", None)
    found: list[Notice] = []
    _local.recorded = found
    try:
        yield found
    finally:
        _local.recorded = before
        if before is not None:
            before.extend(found)
