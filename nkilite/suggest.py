"""What to say about a name that one of our modules or classes does not have: what replaced it, or close matches."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from nkilite.errors import UnknownName

_ELSEWHERE = "see docs/compatibility.md for what runs."
_BETA1 = ": it belongs to the Beta-1 dialect of NKI"


def unknown_name(
    owner: str, prefix: str, name: str, known: Iterable[str], hints: dict[str, str], why: str = _BETA1
) -> UnknownName:
    """The error for `<prefix>.<name>`.

    Args:
        owner: how the message names the module or class.
        prefix: how users write it.
        known: the names it has.
        hints: remedies for some names it does not have.
        why: the reason those are absent.
    """
    if name in hints:
        return UnknownName(module=owner, name=name, why=why, hint=hints[name])
    public = [] if name.startswith("_") else list(known)  # who inspects any module asks for many of the others
    close = [f"{prefix}.{match}" for match in difflib.get_close_matches(name, public, n=3)]
    hint = f"did you mean {' or '.join(close)}?" if close else _ELSEWHERE
    return UnknownName(module=owner, name=name, why="", hint=hint)


def unknown_attribute(kind: type, what: str, name: str, hints: dict[str, str]) -> UnknownName:
    """The error for an attribute that objects of one of our classes do not have; users call them `what`."""
    known = [n for n in dir(kind) if not n.startswith("_")]
    return unknown_name(f"a {what}", what, name, known, hints, why="")
