"""Which of several points no other is better than in every respect; smaller is better."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")


def dominates(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Whether `ours` is nowhere worse and somewhere better."""
    return all(a <= b for a, b in zip(ours, theirs, strict=True)) and tuple(ours) != tuple(theirs)


def front(
    items: Iterable[Item], values: Callable[[Item], tuple[float, ...]], order: Callable[[Item], Any]
) -> list[Item]:
    """The items that none dominates, by their values and, among equal ones, the first in `order` alone.

    The result is sorted by values, the first figure before the second, so it does not depend on the order of `items`.
    """
    leading: list[Item] = []
    # Sorted so, what dominates an item stands before it.
    for item in sorted(items, key=lambda i: (values(i), order(i))):
        mine = values(item)
        if not any(all(a <= b for a, b in zip(values(kept), mine, strict=True)) for kept in leading):
            leading.append(item)
    return leading
