"""Text of others (names, values, messages, source lines) made safe to show: it can tell a terminal nothing."""

from __future__ import annotations

from typing import Any


def plain(text: str) -> str:
    """`text` with every character that is not printed, but for newlines and tabs, as the escape of a Python string.

    Besides control characters these are marks that reverse the order of what follows, and halves of surrogate pairs,
    which no encoding can write.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def plain_json(value: object) -> Any:
    """JSON data with all of its strings plain."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {plain_json(k): plain_json(v) for k, v in value.items()}
    return [plain_json(v) for v in value] if isinstance(value, (list, tuple)) else value
