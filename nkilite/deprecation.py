"""Old spellings: accepted, with one DeprecationWarning per line of user code that uses them."""

from __future__ import annotations

import warnings

from nkilite.location import here

_warned: set[tuple[str, int, str]] = set()


def deprecated(what: str, instead: str) -> None:
    """Warn that the user's line uses `what`: once, for tracing may run it thousands of times."""
    where = here()
    key = (where.file, where.line, what)
    if key in _warned:
        return
    _warned.add(key)
    warnings.warn_explicit(
        f"{what} is deprecated; use {instead}.", DeprecationWarning, where.file, where.line
    )
