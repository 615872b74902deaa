"""Conversions agree with dtypes.cast bit for bit, at every CPU level and vector width."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from nkilite import dtypes
from nkilite.codegen import convert

LANES = [0, 1, 4, 16, 32]
ELEMENTS = [d for d in dtypes.ALL.values() if d.kind != "x" and not d.is_wide] + [dtypes.biased(dtypes.float8_e4m3, 12)]
INTEGERS = [d for d in ELEMENTS if d.is_integer]
FLOATS = [d for d in ELEMENTS if d.is_float]


def _float32_samples() -> np.ndarray:
    """Random bits, every format's values, their midpoints and neighbours, and the edges of the integers."""
    random = np.random.default_rng(7)
    bits = random.integers(0, 1 << 32, 60_000, dtype=np.uint32)
    bits = np.concatenate([bits, np.arange(0, 1 << 32, 65_521, dtype=np.uint32)])
    groups = [bits.view(np.float32), np.arange(-70_000, 70_000, 0.5, dtype=np.float32)]
    groups.append(random.normal(0, 300, 20_000).astype(np.float32))
    for dtype in (np.float16, ml_dtypes.bfloat16):
        values = np.arange(1 << 16, dtype=np.uint16)[::3].view(dtype).astype(np.float32)
        groups.append(_with_midpoints(np.sort(values[np.isfinite(values)])))
    for name in ("float8_e3m4", "float8_e4m3", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"):
        values = np.arange(256, dtype=np.uint8).view(dtypes.ALL[name].numpy).astype(np.float32)
        groups.append(_with_midpoints(np.sort(values[np.isfinite(values)])))
    powers = np.float32(2.0) ** np.arange(-149, 128, dtype=np.float32)
    edges = np.concatenate([powers, powers * np.float32(1.5), powers * np.float32(1.25)])
    groups.append(_neighbours(np.concatenate([edges, -edges])))
    groups.append(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan], np.float32))
    nan_bits = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FBFFFFF], np.uint32)
    groups.append(nan_bits.view(np.float32))
    return np.concatenate(groups)


def _neighbours(values: np.ndarray) -> np.ndarray:
    below, above = np.nextafter(values, np.float32(-np.inf)), np.nextafter(values, np.float32(np.inf))
    return np.concatenate([values, below, above])


def _with_midpoints(values: np.ndarray) -> np.ndarray:
    middle = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    return np.concatenate([_neighbours(values), _neighbours(middle)])


with np.errstate(all="ignore"):
    SAMPLES = _float32_samples()


def _bits(values: np.ndarray) -> np.ndarray:
    return values.view(f"u{values.dtype.itemsize}")


def _assert_same(found: np.ndarray, expected: np.ndarray, inputs: np.ndarray, any_nan: bool) -> None:
    """Equal bits; with `any_nan`, one NaN is as good as another."""
    different = _bits(found) != _bits(expected)
    if any_nan:
        with np.errstate(invalid="ignore"):
            different &= ~(np.isnan(found) & np.isnan(expected))
    at = np.flatnonzero(different)
    detail = [(hex(_bits(inputs)[i]), hex(_bits(found)[i]), hex(_bits(expected)[i])) for i in at[:5]]
    assert at.size == 0, f"{at.size} differ; input, found, expected: {detail}"


def _all_patterns(dtype: dtypes.DType) -> np.ndarray:
    if dtype is dtypes.bool_:
        return np.array([False, True])
    if dtype.itemsize == 4:
        return _bits(SAMPLES).view(dtype.numpy)
    return np.arange(1 << 8 * dtype.itemsize, dtype=f"u{dtype.itemsize}").view(dtype.numpy)


@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
def test_widen_every_pattern(cpu, elementwise, dtype):
    patterns = _all_patterns(dtype)
    with np.errstate(invalid="ignore"):
        expected = dtypes.elements(patterns, dtype).astype(np.float32)
    for lanes in (0, 4, 32):
        function = elementwise(
            cpu, lambda e, raw: convert.widen(e, dtype, raw), [convert.raw_scalar(dtype)], "float", lanes
        )
        _assert_same(function(patterns, out=np.float32), expected, patterns, any_nan=True)
        assert lanes != 4 or function.library_calls() == []


@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
def test_narrow_rounds_as_cast(cpu, elementwise, dtype):
    with np.errstate(invalid="ignore"):
        expected = dtypes.stored(dtypes.cast(SAMPLES, dtype), dtype)
    for lanes in LANES:
        function = elementwise(
            cpu, lambda e, value: convert.narrow(e, dtype, value), ["float"], convert.raw_scalar(dtype), lanes
        )
        # NumPy keeps signalling NaNs in float16 where the hardware makes them quiet.
        found = function(SAMPLES, out=dtype.numpy)
        _assert_same(found, expected, SAMPLES, any_nan=dtype is dtypes.float16)
        assert lanes > 4 or function.library_calls() == []


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_round_trip_is_identity(cpu, elementwise, dtype):
    patterns = _all_patterns(dtype)
    if dtype is dtypes.tfloat32:
        patterns = dtypes.cast(patterns, dtype)
    scalar = convert.raw_scalar(dtype)
    function = elementwise(
        cpu, lambda e, raw: convert.narrow(e, dtype, convert.widen(e, dtype, raw)), [scalar], scalar, 16
    )
    if dtype.is_biased:  # whose NaN NumPy does not know
        patterns = patterns[~np.isnan(dtypes.elements(patterns, dtype))]
    _assert_same(function(patterns, out=dtype.numpy), patterns, patterns, any_nan=True)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_native_integers_extend_and_truncate(cpu, elementwise, dtype):
    scalar = convert.raw_scalar(dtype)
    patterns = _all_patterns(dtype)
    numbers = _bits(SAMPLES).view(np.int32)
    for lanes in (0, 1, 16):
        extend = elementwise(cpu, lambda e, raw: convert.to_i32(e, dtype, raw), [scalar], "i32", lanes)
        np.testing.assert_array_equal(extend(patterns, out=np.int32), patterns.astype(np.int32))
        truncate = elementwise(cpu, lambda e, bits: convert.from_i32(e, dtype, bits), ["i32"], scalar, lanes)
        np.testing.assert_array_equal(truncate(numbers, out=dtype.numpy), numbers.astype(dtype.numpy))


def test_raw_scalars():
    scalars = {str(d): convert.raw_scalar(d) for d in dtypes.ALL.values()}
    assert scalars["float32"] == scalars["tfloat32"] == "float"
    assert scalars["bfloat16"] == scalars["float4_e2m1fn_x4"] == "i16"
    assert scalars["int32"] == scalars["float8_e5m2_x4"] == "i32"
    assert scalars["bool"] == scalars["float8_e8m0fnu"] == "i8"
