"""Runs a function of tiles both ways and hands both results to the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nkilite as nki
import nkilite.language as nl


def run_both(function: Callable[..., Any], *arrays: np.ndarray, atol: float = 1e-7) -> np.ndarray:
    """`function` of the arrays loaded into SBUF, compiled; asserts that the simulated result is the same.

    Args:
        atol: what the order of summation may change.
    """

    def kernel(inputs: list[Any]) -> Any:
        result = function(*(nl.load(x) for x in inputs))
        if nl.is_psum(result.buffer):
            result = nl.copy(result)
        output = nl.ndarray(result.shape, result.dtype, buffer=nl.shared_hbm)
        nl.store(output, result)
        return output

    compiled = nki.jit(kernel)(list(arrays))
    simulated = nki.simulate(kernel)(list(arrays))
    assert compiled.dtype == simulated.dtype
    wide = np.float64
    np.testing.assert_allclose(compiled.astype(wide), simulated.astype(wide), rtol=3e-6, atol=atol)
    return compiled


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32) * 3
