"""Functions of one tile, rounding, trigonometry, reductions, normalization and selection, against NumPy."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from language_testing import floats, run_both
from scipy import special

import nkilite as nki
import nkilite.language as nl
from nkilite import errors


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return x * special.ndtr(x)


def numerical_derivative(function):
    return lambda x: (function(x + 1e-5) - function(x - 1e-5)) / 2e-5


def silu(x):
    return x * sigmoid(x)


def gelu_sigmoid(x):
    return x * sigmoid(1.702 * x)


UNARY = {
    "abs": np.abs,
    "square": np.square,
    "sign": np.sign,
    "exp": np.exp,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": gelu,
    "gelu_dx": numerical_derivative(gelu),
    "gelu_apprx_tanh": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu_apprx_sigmoid": gelu_sigmoid,
    "gelu_apprx_sigmoid_dx": numerical_derivative(gelu_sigmoid),
    "silu": silu,
    "silu_dx": numerical_derivative(silu),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "erf": special.erf,
    "erf_dx": lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x),
    "reciprocal": lambda x: 1 / x,
    "arctan": np.arctan,
    "copy": lambda x: x,
}
POSITIVE = {"log": np.log, "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x)}


@pytest.mark.parametrize("name", [*UNARY, *POSITIVE])
def test_unary(name, rng):
    x = floats(rng, 24, 35)
    if name in POSITIVE:
        x = np.abs(x) + np.float32(0.1)
    if name == "arctan":
        x = np.clip(x, -1.5, 1.5)
    want = (UNARY | POSITIVE)[name](x.astype(np.float64))
    np.testing.assert_allclose(run_both(getattr(nl, name), x), want, rtol=2e-5, atol=2e-6)


def test_unary_of_another_dtype(rng):
    x = floats(rng, 24, 35).astype(ml_dtypes.bfloat16)
    assert run_both(nl.exp, x).dtype == ml_dtypes.bfloat16
    got = run_both(lambda t: nl.exp(t, dtype=nl.float32), x)
    np.testing.assert_allclose(got, np.exp(x.astype(np.float64)), rtol=1e-6)


EDGES = [
    0.0,
    -0.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    0.999,
    -7.0,
    2.0**22 + 0.5,
    -(2.0**23) - 1,
    2.0**31,
    -(2.0**40),
    np.inf,
    -np.inf,
]


@pytest.mark.parametrize("name", ["floor", "ceil", "trunc"])
def test_rounding(name, rng):
    x = np.concatenate([np.float32(EDGES), floats(rng, 33).ravel() * 100]).reshape(4, 12)
    np.testing.assert_array_equal(run_both(getattr(nl, name), x), getattr(np, name)(x))


def test_rounding_of_nan():
    assert np.isnan(run_both(nl.floor, np.full((1, 1), np.nan, np.float32))).all()


@pytest.mark.parametrize("name", ["mod", "fmod"])
@pytest.mark.parametrize("kind", ["tiles", "number", "integers"])
def test_remainders(name, kind, rng):
    function = getattr(nl, name)
    if kind == "integers":
        x = rng.integers(-99, 99, (9, 14)).astype(np.int32)
        y = rng.integers(1, 9, (9, 14)).astype(np.int32) * rng.choice([-1, 1], (9, 14)).astype(np.int32)
        np.testing.assert_array_equal(run_both(function, x, y), getattr(np, name)(x, y))
        return
    x = np.round(floats(rng, 9, 14) * 8) / 4
    y = np.float32(1.5) if kind == "number" else np.where(floats(rng, 9, 14) > 0, 0.75, -2.5).astype(np.float32)
    got = run_both(lambda t: function(t, 1.5), x) if kind == "number" else run_both(function, x, y)
    np.testing.assert_allclose(got, getattr(np, name)(x, y), atol=1e-6)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_angles_of_many_turns(name, rng):
    x = np.concatenate([floats(rng, 400), floats(rng, 400) * 100, np.float32([0, math.pi, -math.pi, 1e4])]).reshape(
        12, 67
    )
    want = getattr(np, name)(x.astype(np.float64))
    got = run_both(getattr(nl, name), x)
    np.testing.assert_allclose(got, want, atol=2e-6, rtol=2e-3 if name == "tan" else 0)


REDUCTIONS = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod, "mean": np.mean}


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("axis", [1, 2, -1, (1, 2), [2, 1]])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions(name, axis, keepdims, rng):
    if axis == 1:
        x = floats(rng, 17, 29) / 3
    else:
        x = floats(rng, 17, 3, 5)
    axes = tuple(axis) if isinstance(axis, list) else axis
    want = REDUCTIONS[name](x.astype(np.float64), axis=axes, keepdims=keepdims)
    want = want.reshape(17, -1) if want.ndim == 1 else want
    got = run_both(lambda t: getattr(nl, name)(t, axis, keepdims=keepdims), x)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)


def test_variance_keeps_dimensions(rng):
    x = floats(rng, 17, 3, 5) + 10
    got = run_both(lambda t: nl.var(t, axis=2), x)
    np.testing.assert_allclose(got, x.astype(np.float64).var(axis=2, keepdims=True), rtol=1e-4)


def test_all(rng):
    x = (floats(rng, 30, 3) > -3).astype(np.float32)
    np.testing.assert_array_equal(run_both(lambda t: nl.all(t, axis=1), x), x.all(axis=1, keepdims=True))


@pytest.mark.parametrize("axis", [0, (0, 1), 1, (1, 3), ()])
def test_axes_that_cannot_be_reduced(axis):
    @nki.jit
    def kernel():
        nl.sum(nl.zeros((4, 5, 6), nl.float32), axis=axis)

    with pytest.raises(errors.InvalidOperand, match=r"nl.sum: axis is .*\(2,\) or \(1, 2\)"):
        kernel()


@pytest.mark.parametrize("axis", [-1, (1, 2)])
def test_softmax(axis, rng):
    x = floats(rng, 12, 4, 7) * 20
    want = special.softmax(x.astype(np.float64), axis=axis)
    np.testing.assert_allclose(run_both(lambda t: nl.softmax(t, axis), x), want, rtol=2e-5, atol=1e-7)


def test_rms_norm(rng):
    x, w = floats(rng, 12, 40), floats(rng, 12, 40)
    wide = x.astype(np.float64)
    want = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-6) * w
    np.testing.assert_allclose(run_both(lambda a, b: nl.rms_norm(a, b, axis=1, n=40), x, w), want, rtol=2e-5)


def test_where(rng):
    condition, x, y = (floats(rng, 12, 21) > 0).astype(np.float32), floats(rng, 12, 21), floats(rng, 12, 1)
    np.testing.assert_array_equal(run_both(nl.where, condition, x, y), np.where(condition, x, y))
    np.testing.assert_array_equal(run_both(lambda c, t: nl.where(c, 1.5, t), condition, x), np.where(condition, 1.5, x))
    np.testing.assert_array_equal(run_both(lambda c, t: nl.where(c, t, 0), condition, x), np.where(condition, x, 0))
    got = run_both(lambda c, t: nl.where(c, t, 0.0, dtype=nl.bfloat16), condition, x)
    np.testing.assert_array_equal(got, np.where(condition, x, 0).astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.uint16])
def test_gather_flattened(kind, rng):
    x, indices = floats(rng, 12, 3, 7), rng.integers(0, 21, (12, 9)).astype(kind)
    want = np.take_along_axis(x.reshape(12, 21), indices.astype(np.int64), axis=1)
    np.testing.assert_array_equal(run_both(nl.gather_flattened, x, indices), want)
    got = run_both(lambda data, at: nl.gather_flattened(data, at, dtype=nl.bfloat16), x, indices)
    np.testing.assert_array_equal(got, want.astype(ml_dtypes.bfloat16))


def test_gather_flattened_has_one_axis(rng):
    with pytest.raises(errors.InvalidOperand, match=r"nl\.gather_flattened: axis is 1; expected 0"):
        run_both(lambda x: nl.gather_flattened(x, x, axis=1), floats(rng, 4, 4))
