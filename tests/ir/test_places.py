"""Of places that were written, those that share bytes with another one are found, the latest first."""

from __future__ import annotations

import numpy as np
import pytest

from nkilite.ir.places import Numbered, Place
from nkilite.ir.regions import PARTITION, apart, pattern


def drawn(rng: np.random.Generator, rows: bool) -> Place:
    """A place in partitions, or on a line across the border of one, contiguous or not, small or as wide as all."""
    width = int(rng.choice([1, 4, 64, 1000, 1 << 20]))
    stride = PARTITION if rows else int(rng.choice([width, 3 * width, PARTITION // 2 + 5]))
    dims = [(stride, int(rng.integers(1, 5))), (2 * width, int(rng.integers(1, 3)))]
    top = int(rng.integers(4)) * PARTITION if rows else PARTITION - (1 << 20)
    return Place(top + int(rng.integers(1 << 21)), pattern(width, dims))


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_all_that_share_bytes_are_near(seed: int, rows: bool) -> None:
    rng = np.random.default_rng(seed)
    numbered, latest = Numbered(), {}
    for number in range(120):
        place = drawn(rng, rows)
        latest.pop(place, None)
        latest[place] = number
        numbered.put(place, number)
        if number % 7 == 0:
            gone = list(latest)[int(rng.integers(len(latest)))]
            del latest[gone]
            numbered.drop(gone)
        looked_for = drawn(rng, rows)
        found = numbered.near(looked_for)
        assert [n for _, n in found] == sorted((n for _, n in found), reverse=True)
        meets = {o: n for o, n in latest.items() if not apart(looked_for.pattern, o.pattern, o.low - looked_for.low)}
        assert meets.items() <= dict(found).items() <= latest.items()
    assert all(numbered.get(place) == number for place, number in latest.items())
