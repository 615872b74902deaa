"""Distinct rows of a table, against a dict, and distinct numbers, against a set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nkilite.machine.rows import distinct, ranked


@pytest.mark.parametrize("worth_compiling", [0, 1 << 60])
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.sampled_from([0, 1, 1 << 33, -(1 << 40)])), max_size=40))
def test_every_row_has_the_number_of_its_equals(worth_compiling: int, rows: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for worth in ("WORTH_LOADING", "COMPILING_A_BYTE"):
            patch.setattr(f"nkilite.compiled.function.{worth}", worth_compiling)
        found, numbers = distinct(np.array(rows, np.int64).reshape(-1, 2))
    known: dict[tuple[int, int], int] = {}
    assert numbers.tolist() == [known.setdefault(row, len(known)) for row in rows]
    assert found.tolist() == [list(row) for row in known]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.integers(-5, 5), st.sampled_from([1 << 40, -(1 << 40)])), max_size=40))
def test_numbers_that_are_close_or_far_apart_are_ranked(numbers: list[int]) -> None:
    ranks, found = ranked(np.array(numbers, np.int64))
    assert found.tolist() == sorted(set(numbers))
    assert [found[rank] for rank in ranks] == numbers
