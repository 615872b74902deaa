"""A kernel that multiplies by what it reads, and changes of what it reads between two launches of one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl

X = np.ones((4, 8), np.float32)


def times(x, factor):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)
    nisa.tensor_scalar(tile, tile, nl.multiply, float(factor))
    nl.store(out, tile)
    return out


def value(result) -> float:
    return float(np.asarray(result).flat[0])


Change = Callable[[], tuple[Callable[[], Any], Callable[[], Any]]]


class Changes(dict[str, Change]):
    """Functions that return (factor, change), by name: the kernel multiplies by factor(), which is 2 and after change()
    3. What the functions made there close over stands for globals, too, which are guarded alike.
    """

    def add(self, function: Change) -> Change:
        self[function.__name__] = function
        return function


def require_seen(changes: Changes, name: str) -> None:
    """Check that a kernel notices a change."""
    factor, update = changes[name]()

    @nki.jit
    def kernel(x):
        return times(x, factor())

    assert value(kernel(X)) == 2.0
    update()
    assert value(kernel(X)) == pytest.approx(3.0)
    if name not in ("iterator", "trace_that_counts"):
        assert value(kernel(X)) == value(nki.simulate(kernel)(X)) == pytest.approx(3.0)
