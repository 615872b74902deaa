"""Conversions of 8-bit floats go by tables: the same bits as ml_dtypes computes."""

from __future__ import annotations

import numpy as np
import pytest

from nkilite import dtypes

KINDS = [dtypes.float8_e4m3, dtypes.float8_e4m3fn, dtypes.float8_e5m2, dtypes.float8_e3m4, dtypes.float8_e8m0fnu]


def same(found, expected):
    assert found.dtype == expected.dtype
    assert np.array_equal(found.view(f"u{found.itemsize}"), expected.view(f"u{found.itemsize}"))


@pytest.mark.parametrize("kind", KINDS)
def test_all_bytes_as_float32(kind):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16).T.view(kind.numpy)
    same(dtypes.single(values), values.astype(np.float32))
    same(dtypes.cast(values, dtypes.float32), values.astype(np.float32))


def _samples() -> np.ndarray:
    random = np.random.default_rng(1)
    bits = random.integers(0, 1 << 32, (4, 1 << 15), dtype=np.uint32)
    bits[1] = bits[1] & 0x807FFFFF | random.integers(100, 150, 1 << 15).astype(np.uint32) << 23  # where it has numbers
    bits[2] = bits[1] & 0xFFF80000  # ties
    bits[3] = bits[2] + random.integers(-1, 2, 1 << 15).astype(np.uint32)  # and beside them
    return bits.view(np.float32)


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_rounding_of_float32(kind):
    values = _samples()
    with np.errstate(all="ignore"):
        same(dtypes.cast(values, kind), values.astype(kind.numpy))
        same(dtypes.cast(values[:, ::3], kind), values[:, ::3].astype(kind.numpy))
        same(np.asarray(dtypes.cast(values[1, 0], kind)), np.asarray(values[1, 0].astype(kind.numpy)))


def test_rounding_to_powers_of_two():
    """To the nearest, half up, those of subnormals, too; what has no power near it is NaN."""
    powers = 2.0 ** (np.arange(255) - 127)
    ends = np.array([0, -0.0, 2**-126, 1.5 * 2**-127, 1.5 * 2.0**127, np.inf, np.nan, -1, 1e-45, 2**-127], np.float32)
    tiny = np.arange(0, 1 << 23, 997, dtype=np.uint32).view(np.float32)
    values = np.concatenate([_samples().reshape(-1), ends, tiny])
    with np.errstate(invalid="ignore"):
        nearest = np.searchsorted((powers[1:] + powers[:-1]) / 2, values.astype(np.float64), side="right")
    expected = np.where((values > 0) & (values < 1.5 * 2.0**127), nearest, 255).astype(np.uint8)
    found = dtypes.cast(values, dtypes.float8_e8m0fnu)
    same(found, expected.view(dtypes.float8_e8m0fnu.numpy))
    assert dtypes.cast(values[5], dtypes.float8_e8m0fnu).view(np.uint8) == expected[5]
