"""Old spellings: accepted, with one DeprecationWarning per line of user code that uses them."""

from __future__ import annotations

from nkilite.location import here
from nkilite.notices import Notice, give


def deprecated(what: str, instead: str) -> None:
    """Warn that the user's line uses `what`: once, for tracing may run it thousands of times."""
    where = here()
    give(Notice(f"{what} is deprecated; use {instead}.", DeprecationWarning, where.file, where.line, once=True))
