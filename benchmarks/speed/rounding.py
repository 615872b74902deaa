"""Stochastic rounding against rounding to nearest: the same kernels, in turns."""

from __future__ import annotations

from collections.abc import Iterator

import nkilite as nki
from benchmarks.rounding import SIZE, cases
from benchmarks.speed.match import Match


def matches(threads: int) -> Iterator[Match]:
    if threads != 1:
        return
    for name, kernel, arguments in cases():
        ours, nearest = (nki.jit(kernel, stochastic_rounding=kind).launcher(*arguments) for kind in (True, False))
        step = 0.13 if "float8" in name else 2e-2  # of neighbours of the largest element
        yield Match(f"{name}, stochastic", f"{SIZE}×{SIZE}", ours.run, {"to nearest": nearest.run}, tolerance=step)
