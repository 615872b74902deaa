"""Arithmetic, comparisons, bits, logic: operand kinds, broadcasting, result dtypes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from language_testing import floats, run_both

import nkilite as nki
import nkilite.language as nl
from nkilite import errors

ARITHMETIC = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum,
    "divide": np.divide, "equal": np.equal, "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal,
    "greater": np.greater, "greater_equal": np.greater_equal, "logical_and": np.logical_and,
    "logical_or": np.logical_or, "logical_xor": np.logical_xor,
}  # fmt: skip
BITS = {
    "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor,
    "left_shift": np.left_shift,
}  # fmt: skip


def rounded(rng, *shape):
    """Quarters, so that comparisons meet equal values."""
    return np.round(floats(rng, *shape) * 4) / 4


@pytest.mark.parametrize("name", ARITHMETIC)
def test_two_tiles(name, rng):
    x, y = rounded(rng, 40, 37), rounded(rng, 40, 37)
    y[y == 0] = 1 if name == "divide" else 0
    got = run_both(getattr(nl, name), x, y)
    np.testing.assert_allclose(got, ARITHMETIC[name](x, y).astype(np.float32), rtol=2e-7)


@pytest.mark.parametrize("name", ["subtract", "divide", "less", "maximum"])
@pytest.mark.parametrize("kind", ["tile-number", "number-tile", "tile-vector", "vector-tile"])
def test_operand_kinds(name, kind, rng):
    x = floats(rng, 16, 33) + 10
    vector = floats(rng, 16, 1) + 10
    reference = ARITHMETIC[name]
    if kind == "tile-number":
        got, want = run_both(lambda t: getattr(nl, name)(t, 2.5), x), reference(x, np.float32(2.5))
    elif kind == "number-tile":
        got, want = run_both(lambda t: getattr(nl, name)(2.5, t), x), reference(np.float32(2.5), x)
    elif kind == "tile-vector":
        got, want = run_both(getattr(nl, name), x, vector), reference(x, vector)
    else:
        got, want = run_both(getattr(nl, name), vector, x), reference(vector, x)
    np.testing.assert_allclose(got, want.astype(np.float32), rtol=3e-7)


@pytest.mark.parametrize(
    ("a", "b"), [((8, 5), (8, 4, 5)), ((8, 1, 5), (8, 4, 1)), ((8, 4, 5), (8, 1)), ((1, 5), (40, 5)), ((1, 1), (70, 6))]
)
def test_broadcasting(a, b, rng):
    x, y = floats(rng, *a), floats(rng, *b)

    def aligned(value):
        return value.reshape(value.shape[:1] + (1,) * (max(len(a), len(b)) - value.ndim) + value.shape[1:])

    np.testing.assert_array_equal(run_both(nl.add, x, y), aligned(x) + aligned(y))


@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint32])
def test_bits(name, dtype, rng):
    x = rng.integers(0, 100, (20, 19)).astype(dtype)
    y = rng.integers(0, 7, (20, 19)).astype(dtype)
    np.testing.assert_array_equal(run_both(getattr(nl, name), x, y), BITS[name](x, y))


def test_right_shift_and_invert(rng):
    x = rng.integers(0, 2**32, (20, 19), dtype=np.uint32)
    np.testing.assert_array_equal(run_both(lambda t: nl.right_shift(t, 3), x), x >> 3)
    np.testing.assert_array_equal(run_both(nl.invert, x), ~x)


def test_unary_arithmetic(rng):
    x = np.round(floats(rng, 20, 19))
    np.testing.assert_array_equal(run_both(nl.negative, x), -x)
    np.testing.assert_array_equal(run_both(nl.logical_not, x), (x == 0).astype(np.float32))


def test_power(rng):
    x, y = np.abs(floats(rng, 20, 19)) + 0.1, floats(rng, 20, 19)
    np.testing.assert_allclose(run_both(nl.power, x, y), np.power(x.astype(np.float64), y), rtol=1e-5)


def test_magnitudes_need_trn3(rng, monkeypatch):
    x, y = rounded(rng, 20, 19), rounded(rng, 20, 19)
    with pytest.raises(errors.UnsupportedOnTarget):
        run_both(nl.abs_max, x, y)
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")
    np.testing.assert_array_equal(run_both(nl.abs_max, x, y), np.where(abs(x) > abs(y), x, y))
    np.testing.assert_array_equal(run_both(nl.abs_min, x, y), np.where(abs(x) < abs(y), x, y))


@pytest.mark.parametrize(
    ("a", "b", "result"),
    [
        (np.float32, ml_dtypes.bfloat16, np.float32),
        (ml_dtypes.bfloat16, np.float16, np.float32),
        (np.int32, ml_dtypes.bfloat16, ml_dtypes.bfloat16),
        (np.int8, np.int32, np.int32),
        (np.int8, np.uint8, np.int16),
        (np.float16, np.float16, np.float16),
    ],
)
def test_result_dtype(a, b, result, rng):
    x, y = (rng.integers(0, 9, (8, 8)).astype(t) for t in (a, b))
    for got in (run_both(nl.add, x, y), run_both(nl.add, y, x)):
        assert got.dtype == result
        np.testing.assert_array_equal(got.astype(np.float32), x.astype(np.float32) + y.astype(np.float32))


def test_dtype_argument(rng):
    x = floats(rng, 8, 8)
    assert run_both(lambda t: nl.greater(t, 0.0, dtype=nl.uint8), x).dtype == np.uint8
    got = run_both(lambda t: nl.multiply(t, t, dtype="bfloat16"), x)
    np.testing.assert_array_equal(got, (x * x).astype(ml_dtypes.bfloat16))


def test_two_psum_tiles(rng):
    def double(x):
        a, b = nl.ndarray(x.shape, nl.float32, nl.psum), nl.ndarray(x.shape, nl.float32, nl.psum)
        a[...] = x
        b[...] = x
        return nl.add(a, b)

    x = floats(rng, 8, 8)
    np.testing.assert_array_equal(run_both(double, x), x + x)


def test_shapes_that_do_not_meet():
    @nki.jit
    def kernel():
        a = nl.zeros((8, 5), nl.float32)
        b = nl.zeros((8, 4), nl.float32)
        nl.add(a, b)  # line 4 of the kernel

    with pytest.raises(errors.ShapeMismatch, match=r"nl.add: shapes \(8, 5\) and \(8, 4\)") as caught:
        kernel()
    assert caught.value.location.line == kernel.function.__code__.co_firstlineno + 4


@pytest.mark.parametrize("wrong", ["text", None, [1, 2]])
def test_operands_that_are_no_tiles(wrong):
    @nki.jit
    def kernel():
        nl.multiply(nl.zeros((8, 5), nl.float32), wrong)

    with pytest.raises(errors.InvalidOperand, match=r"nl.multiply: y is .*a tile in SBUF or PSUM"):
        kernel()


def test_hbm_operand():
    @nki.jit
    def kernel(x):
        nl.add(x, 1.0)

    with pytest.raises(errors.InvalidOperand, match=r"(?s)x is a tensor .* in SHARED_HBM.*nl.load"):
        kernel(np.zeros((4, 4), np.float32))
