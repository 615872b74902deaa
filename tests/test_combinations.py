"""Which combinations of parameters run: enough."""

from __future__ import annotations

from itertools import combinations, product

from combinations import enough

WIDTHS = {"best": 512, "narrow": 256, "without tiles": 512}
ROWS = list(product(WIDTHS, "abcd", "xyz", "12"))


def with_level(rows, size, level):
    """Values that are together there, the level among them."""
    return {one for row in rows for one in combinations(enumerate(row), size) if one[0] == (0, level)}


def test_as_many_values_are_together_as_the_level_needs():
    chosen = [ROWS[number] for number in enough(ROWS, WIDTHS)]
    assert [row for row in chosen if row[0] == "best"] == [row for row in ROWS if row[0] == "best"]
    for level, size in (("narrow", 3), ("without tiles", 2)):
        assert with_level(chosen, size, level) == with_level(ROWS, size, level)
        assert sum(row[0] == level for row in chosen) < 24


def test_the_best_level_is_that_of_the_grid():
    lower = [row for row in ROWS if row[0] == "narrow"]
    assert len(enough(lower, WIDTHS)) == len(lower)
    without = [row[1:] for row in ROWS[:24]]
    assert len(enough(without, WIDTHS)) == len(without)
