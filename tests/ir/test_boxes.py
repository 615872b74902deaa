"""Regions without a common cell are apart; rows and columns of one array that are apart have none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nkilite.ir.boxes import cells
from nkilite.ir.regions import Pattern, pattern

DIMS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 24, 48])), max_size=3)
REGIONS = st.lists(st.tuples(st.integers(1, 9), DIMS, st.integers(0, 60)), min_size=1, max_size=6)


def bytes_of(one: Pattern, start: int) -> set[int]:
    places = {start}
    for count, stride in one.dims:
        places = {place + i * stride for place in places for i in range(count)}
    return {place + i for place in places for i in range(one.width)}


def covered(regions: list[tuple[Pattern, int]]) -> list[set[int]] | None:
    found = cells([one for one, _ in regions], np.arange(len(regions)), np.array([start for _, start in regions]))
    if found is None:
        return None
    assert (np.bincount(found[0], minlength=len(regions)) > 0).all()
    return [set(found[1][found[0] == i].tolist()) for i in range(len(regions))]


@given(REGIONS)
def test_regions_that_share_bytes_share_a_cell(drawn) -> None:
    regions = [(pattern(width, dims), start) for width, dims, start in drawn]
    found = covered(regions)
    for i, j in itertools.combinations(range(len(regions)), 2):
        if found is not None and bytes_of(*regions[i]) & bytes_of(*regions[j]):
            assert found[i] & found[j]


@pytest.mark.parametrize(
    "dims", [[(8, 96)], [(2, 960), (8, 96)], [(8, 96), (3, 4)]], ids=["columns", "images", "every fourth"]
)
def test_columns_of_the_same_rows_are_apart(dims) -> None:
    one = pattern(4 if len(dims) == 2 and dims[1][1] == 4 else 12, dims)
    starts = [4 * i if one.width == 4 else 12 * i for i in range(3)]
    found = covered([(one, start) for start in starts])
    assert found is not None
    assert all(not a & b for a, b in itertools.combinations(found, 2))
    whole = covered([(one, starts[0]), (Pattern(2000), 0)])
    assert whole is not None and whole[0] & whole[1]


def test_many_thin_columns_beside_the_whole_are_too_many_cells() -> None:
    thin = [(pattern(1, [(4, 1000)]), i) for i in range(900)]
    assert covered(thin) is not None
    assert covered([*thin, *[(Pattern(4000), 0)] * 900]) is None
