"""Comparing outputs block by block decides and measures as comparing them whole."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from autotune.measure.correctness import BLOCK, Reference, identical, relative_error
from nkilite.testing import MismatchError, compare, tolerance

SIZE = 2 * BLOCK + 77


def judged(right: np.ndarray, got: np.ndarray, **overrides: float) -> float:
    return Reference([right], [got.dtype], 16, overrides).error([got])


def whole(right: np.ndarray, got: np.ndarray) -> float | None:
    """The error, or None where `nkilite.testing.compare` finds a mismatch."""
    rtol, per_rms = tolerance(got.dtype, inputs=[got.dtype], reduction=16)
    rms = float(np.sqrt(np.mean(right[np.isfinite(right)] ** 2)))
    try:
        compare(got, right, rtol=rtol, atol=per_rms * rms)
    except MismatchError:
        return None
    return relative_error(got, right, rms)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("special", [None, np.nan, np.inf])
@pytest.mark.parametrize("scale", [0.0, 0.5, 10.0])
def test_as_if_compared_whole(dtype, special, scale) -> None:
    rng = np.random.default_rng(0)
    right = rng.standard_normal(SIZE).reshape(-1, 5)
    step = tolerance(dtype, inputs=[dtype], reduction=16)[1]
    noise = np.zeros_like(right)
    noise[-3, 1] = scale * step
    if special is not None:
        right[7, 2] = special
    got = (right + noise).astype(dtype)
    expected = whole(right, got)
    if expected is None:
        assert scale > 1
        with pytest.raises(MismatchError, match="output 0: 1 of"):
            judged(right, got)
    else:
        assert scale < 1
        assert judged(right, got) == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 2.0])
def test_one_wrong_element_anywhere(wrong) -> None:
    right = np.ones(SIZE)
    for place in (0, BLOCK, SIZE - 1):
        got = np.ones(SIZE, np.float32)
        got[place] = wrong
        with pytest.raises(MismatchError, match=f"worst at    \\({place},\\)"):
            judged(right, got)


def test_integers_shapes_counts_zeros_and_overrides() -> None:
    whole_numbers = np.arange(SIZE, dtype=np.float64)
    assert judged(whole_numbers, whole_numbers.astype(np.int32)) == 0
    with pytest.raises(MismatchError):
        judged(whole_numbers, np.arange(SIZE, dtype=np.int32)[::-1])
    with pytest.raises(MismatchError, match="shape"):
        judged(np.zeros((4, 2)), np.zeros((2, 4), np.float32))
    with pytest.raises(MismatchError, match="1 outputs, expected 2"):
        Reference([np.zeros(3)] * 2, [np.float32], 1, {}).error([np.zeros(3, np.float32)])
    assert judged(np.zeros(9), np.zeros(9, np.float32)) == 0
    assert judged(np.zeros(9), np.full(9, 0.1, np.float32), atol=0.2) == np.inf
    assert judged(np.zeros(0), np.zeros(0, np.float32)) == 0


def test_identical_is_bit_by_bit() -> None:
    one = np.array([1.0, np.nan, 0.0], np.float32)
    assert identical(one, one.copy())
    assert not identical(one, np.array([1.0, np.nan, -0.0], np.float32))
    odd = np.arange(11, dtype=np.uint8)
    assert identical(odd, odd.copy())
    assert not identical(odd, np.where(odd == 10, 0, odd).astype(np.uint8))
    assert identical(odd.astype(ml_dtypes.bfloat16)[::2], odd.astype(ml_dtypes.bfloat16)[::2])
