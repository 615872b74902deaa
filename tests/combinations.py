"""Which combinations of parameters run where one of them is a level of the CPU.

All at the best level. At levels with other vectors, every three values (the level, a dtype and a shape) are somewhere
together: tails and blocks depend on all three. Levels with the vectors of a better one differ from it in how they
multiply and round, and every two values will do. `--all-combinations` runs all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import pytest

from nkilite.host.cpu import available


def enough(rows: Sequence[Sequence[str]], widths: Mapping[str, int]) -> set[int]:
    """Of combinations of values, those that run; `widths` are those of vectors, of the better levels first."""
    together = {}  # how many values, by level
    for level in widths:
        if any(level in row for row in rows):
            known = {widths[better] for better in together}
            together[level] = (2 if widths[level] in known else 3) if known else max(map(len, rows))
    values = [set(enumerate(row)) for row in rows]
    wanted: set[frozenset[tuple[int, str]]] = set()
    for row, own in zip(rows, values, strict=True):
        number = next((together[value] for value in row if value in together), len(row))
        wanted.update(map(frozenset, combinations(own, min(number, len(row)))))
    has = [
        {one for size in range(2, len(own) + 1) for one in map(frozenset, combinations(own, size)) if one in wanted}
        for own in values
    ]
    chosen = set()
    for least in range(max(map(len, has)), 0, -1):  # those that bring most first
        for number, one in enumerate(has):
            if len(one & wanted) >= least:
                chosen.add(number)
                wanted -= one
    return chosen


def left_out(items: Iterable[pytest.Item]) -> set[pytest.Item]:
    """The tests that need not run."""
    grids: dict[str, list[pytest.Item]] = {}
    for item in items:
        if hasattr(item, "callspec") and not item.get_closest_marker("all_combinations"):
            grids.setdefault(item.nodeid.partition("[")[0], []).append(item)
    widths = {level: host.vector_bits for level, host in available().items()}
    found = set()
    for grid in grids.values():
        rows = [item.callspec._idlist for item in grid]  # type: ignore[attr-defined]
        if len(rows[0]) > 2 and any(value in widths for value in rows[0]):
            found |= {grid[number] for number in set(range(len(grid))) - enough(rows, widths)}
    return found
