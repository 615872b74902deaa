"""Runs a Beta-1 kernel both ways and compares with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from nkilite import beta1 as nki


def check(kernel: Any, expected: Any, *args: Any, grid: Any = None, rtol: float = 2e-5, atol: float = 2e-5) -> None:
    """Compare what a kernel returns, simulated and compiled, with arrays."""
    launched = kernel if grid is None else kernel[grid]
    for result in (nki.simulate_kernel(launched, *args), launched(*args)):
        results = result if isinstance(result, (tuple, list)) else (result,)
        wanted = expected if isinstance(expected, (tuple, list)) else (expected,)
        assert len(results) == len(wanted)
        for found, want in zip(results, wanted, strict=True):
            assert found.shape == np.shape(want)
            np.testing.assert_allclose(
                np.asarray(found, np.float64), np.asarray(want, np.float64), rtol=rtol, atol=atol
            )


def random(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
