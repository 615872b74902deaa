"""Kernels for testing one instruction: tiles in, tiles out, simulated and compiled results side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.host.cpu import available

CPU_LEVELS = list(available())
MODES = [pytest.param(nki.jit, id="compiled"), pytest.param(nki.simulate, id="simulate")]
#: Of counted loops: lower, upper, step.
BOUNDS = [(0, 5, 1), (0, 1, 1), (3, 3, 1), (7, 2, 1), (-4, 6, 3), (1, 8, 7), (1, 9, 7), (0, 8, 100)]


def tile(x: Any, buffer: Any = None) -> Any:
    """In a kernel: an on-chip copy of an HBM tensor."""
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(result, x)
    if buffer in (None, nl.sbuf):
        return result
    moved = nl.ndarray(x.shape, dtype=x.dtype, buffer=buffer)
    nisa.tensor_copy(moved, result)
    return moved


def element(value: int) -> np.ndarray:
    """A (1, 1) array."""
    return np.array([[value]], np.int32)


def new(shape: Any, dtype: Any = "float32", buffer: Any = None) -> Any:
    """In a kernel: an on-chip tile."""
    return nl.ndarray(shape, dtype=dtype, buffer=buffer or nl.sbuf)


def outputs(*tiles: Any) -> Any:
    """In a kernel: HBM copies of tiles, to return."""
    results = []
    for source in tiles:
        if source.buffer is nl.psum:
            moved = nl.ndarray(source.shape, dtype=source.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(moved, source)
            source = moved
        result = nl.ndarray(source.shape, dtype=source.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(result, source)
        results.append(result)
    return tuple(results)


def both(
    kernel: Callable, *arrays: np.ndarray, rtol: float = 0.0, atol: float = 0.0
) -> tuple[np.ndarray, ...]:
    """Run a kernel simulated and compiled, require equal results, and return the simulated ones.

    Without tolerances, results must agree bit by bit, NaN matching any NaN.
    """
    expected = _results(nki.simulate(kernel)(*(a.copy() for a in arrays)))
    got = _results(nki.jit(kernel)(*(a.copy() for a in arrays)))
    assert len(got) == len(expected)
    for index, (left, right) in enumerate(zip(got, expected, strict=True)):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        same(left, right, rtol, atol, f"compiled output {index} against simulated")
    return expected


def same(
    got: np.ndarray, expected: np.ndarray, rtol: float = 0.0, atol: float = 0.0, what: str = "result"
) -> None:
    """Require equal bits (NaN matching NaN), or float64 values within tolerances where some are given."""
    left, right = got.astype(np.float64), np.asarray(expected).astype(np.float64)
    if rtol or atol:
        np.testing.assert_allclose(left, right, rtol=rtol, atol=atol, err_msg=what)
        return
    np.testing.assert_array_equal(left, right, err_msg=what)
    zeros = left == 0
    np.testing.assert_array_equal(np.signbit(left[zeros]), np.signbit(right[zeros]), err_msg=f"{what}: zeros")


def _results(returned: Any) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(r) for r in (returned if isinstance(returned, (tuple, list)) else (returned,)))


def raises(
    error: type[Exception], match: str, body: Callable, target: str | None = None, shape: tuple = (8, 16)
) -> None:
    """Require that a one-line body, given a float32 tile, fails at its own line, traced and simulated alike."""

    def kernel(x: Any) -> Any:
        body(tile(x))
        return x

    with pytest.MonkeyPatch.context() as patch:
        if target is not None:
            patch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)
        for run in (nki.jit, nki.simulate):
            with pytest.raises(error, match=match) as caught:
                run(kernel)(np.zeros(shape, np.float32))
            assert caught.value.location.line == body.__code__.co_firstlineno  # type: ignore[attr-defined]
