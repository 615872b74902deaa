"""Vector mathematics: error bounds against float64 references, special values, and no run-time library."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nkilite.codegen import transcendental
from nkilite.isa import activation_functions
from nkilite.isa.activation_functions import ActivationFunction
from nkilite.isa.error_function import erf, erfc

FUNCTIONS = [row for row in activation_functions.ALL if not row.takes_slope]

# Largest error in ulp of the result. gelu has more in its negative tail, where it is a product of four factors.
ULP = {
    "square": 0.5, "sqrt": 0.5, "reciprocal": 0.5, "copy": 0, "relu": 0, "sign": 0, "abs": 0,
    "exp": 1, "log": 1, "erf": 1.5, "arctan": 1.5, "rsqrt": 1.5, "sin": 2,
    "tanh": 2, "sigmoid": 2, "erf_dx": 2, "softplus": 2, "silu": 2, "mish": 2, "gelu": 5,
    "gelu_apprx_tanh": 2, "gelu_apprx_sigmoid": 2,
}
SPECIAL = np.array(
    [0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-39, -1e-39, 2.0**-126, 3.4e38, -3.4e38, 1, -1, 88.7],
    np.float32,
)


def _inputs() -> np.ndarray:
    random = np.random.default_rng(3)
    bits = random.integers(0, 1 << 32, 40_000, dtype=np.uint32).view(np.float32)
    grids = [np.linspace(-b, b, 30_001) for b in (1.5, 8, 120)]
    return np.concatenate([grid.astype(np.float32) for grid in grids] + [bits, SPECIAL])


INPUTS = _inputs()


def _exact(row: ActivationFunction, x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return row.exact(x.astype(np.float64))


def _ulp_error(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Error in units of the last place of the rounded result; 0 where both are the same special value."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        unit = np.spacing(np.abs(rounded)).astype(np.float64)
        error = np.abs(found.astype(np.float64) - exact) / unit
    same = (found == rounded) | (np.isnan(found) & np.isnan(rounded))
    return np.where(same & ~np.isfinite(rounded), 0.0, np.where(np.isnan(error), np.inf, error))


def _compile(elementwise, cpu, row: ActivationFunction, lanes: int):
    return elementwise(cpu, lambda e, x: row.emit(e, x), ["float"], "float", lanes)


@pytest.mark.parametrize("row", [r for r in FUNCTIONS if r.name in ULP], ids=str)
def test_relative_error(cpu, elementwise, row):
    x = INPUTS
    if row.name == "sin":
        x = x[~(np.abs(x) > math.pi)]
    found = _compile(elementwise, cpu, row, 2 * cpu.lanes)(x, out=np.float32)
    exact = _exact(row, x)
    error = _ulp_error(found, exact)
    # A factor below the smallest normal number has fewer digits than the product that contains it.
    error[np.abs(exact) < 2.0**-120] *= 0.02
    worst = int(np.argmax(error))
    assert error[worst] <= ULP[row.name], (x[worst], found[worst], exact[worst])


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        # The terms that cancel where the derivative changes sign are of magnitude Phi(x), s(x).
        ("gelu_dx", lambda x: activation_functions._phi(x) + np.abs(x) * np.exp(-x * x / 2)),
        ("silu_dx", lambda x: activation_functions._sigmoid(x) * (1 + np.abs(x))),
        ("gelu_apprx_sigmoid_dx", lambda x: activation_functions._sigmoid(1.702 * x) * (1 + x * x)),
    ],
)
def test_error_relative_to_the_terms(cpu, elementwise, name, scale):
    row = activation_functions.TABLE[name]
    x = INPUTS[np.isfinite(INPUTS)]
    found = _compile(elementwise, cpu, row, cpu.lanes)(x, out=np.float32).astype(np.float64)
    exact = _exact(row, x)
    with np.errstate(all="ignore"):
        size = np.abs(np.nan_to_num(scale(x.astype(np.float64)), posinf=0, neginf=0)) + np.abs(exact)
    error = np.abs(found - exact)
    assert np.all(error <= 4 * 2.0**-24 * size + 1e-37), x[np.argmax(error - 4 * 2.0**-24 * size)]


def test_sine_extrapolates_outside_pi(cpu, elementwise):
    """Outside [-pi, pi] the documented value of sin(9.0) is about 27.65; the code follows the same cubic."""
    row = activation_functions.TABLE["sin"]
    assert row.numpy(np.float32(9.0)) == pytest.approx(27.65, abs=0.01)
    x = np.concatenate([np.linspace(-40, 40, 20_001), [9.0, -9.0, np.inf, -np.inf]]).astype(np.float32)
    found = _compile(elementwise, cpu, row, cpu.lanes)(x, out=np.float32)
    np.testing.assert_allclose(found, row.numpy(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("row", FUNCTIONS, ids=str)
def test_special_values_without_library(cpu, elementwise, row):
    expected = row.numpy(SPECIAL)
    for lanes in (0, cpu.lanes):
        function = _compile(elementwise, cpu, row, lanes)
        assert function.library_calls() == []
        found = function(SPECIAL, out=np.float32)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-37, err_msg=f"{lanes} lanes")


def test_exp_underflows_without_delay(cpu, elementwise):
    """A masked softmax's arguments, far below the last subnormal result, give exact zeros."""
    x = np.array([-103.9, -104.1, -150, -176, -177, -1e4, -3e38, -np.inf], np.float32)
    found = _compile(elementwise, cpu, activation_functions.TABLE["exp"], cpu.lanes)(x, out=np.float32)
    assert found[0] > 0
    assert not found[1:].any()


def test_prelu_scales_negative_inputs(cpu, elementwise):
    row = activation_functions.TABLE["prelu"]
    function = elementwise(cpu, row.emit, ["float", "float"], "float", cpu.lanes)
    slopes = np.full_like(INPUTS, 0.25)
    np.testing.assert_array_equal(function(INPUTS, slopes, out=np.float32), row.numpy(INPUTS, slopes))


def test_power(cpu, elementwise):
    random = np.random.default_rng(5)
    x = np.exp(random.uniform(-20, 20, 60_000)).astype(np.float32)
    y = random.uniform(-8, 8, x.size).astype(np.float32)
    y[::7] = np.rint(y[::7])
    x[::3] *= -1
    edges = [0, -0.0, 1, -1, 0.5, -0.5, 2, -2, 3, -3, 1e10, -1e10, np.inf, -np.inf, np.nan, 1e-40, 0.999]
    pairs = np.array(np.meshgrid(edges, edges), np.float32).reshape(2, -1)
    x, y = np.concatenate([x, pairs[0]]), np.concatenate([y, pairs[1]])
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
    for lanes in (0, 1, cpu.lanes):
        function = elementwise(cpu, transcendental.power, ["float", "float"], "float", lanes)
        error = _ulp_error(function(x, y, out=np.float32), exact)
        worst = int(np.argmax(error))
        assert error[worst] <= 0.51, (x[worst], y[worst], error[worst])
    assert function.library_calls() == []


def test_error_function_reference():
    special = pytest.importorskip("scipy.special")
    x = np.linspace(-6, 26, 100_001)
    np.testing.assert_allclose(erf(x), special.erf(x), rtol=2e-15)
    near = x[x < 5]
    np.testing.assert_allclose(erfc(near), special.erfc(near), rtol=5e-15)
    np.testing.assert_allclose(erfc(x), special.erfc(x), rtol=2e-10)  # SciPy loses digits out there
    ends = np.array([np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(erf(ends), [1, -1, np.nan])
    np.testing.assert_array_equal(erfc(ends), [0, 2, np.nan])


def test_references_agree_with_scipy():
    """The float64 references, written to survive overflow, against SciPy's formulas."""
    special = pytest.importorskip("scipy.special")
    x = np.linspace(-30, 30, 10_001)
    rows = activation_functions.TABLE
    np.testing.assert_allclose(rows["sigmoid"].exact(x), special.expit(x), rtol=1e-14)
    np.testing.assert_allclose(rows["gelu"].exact(x), x * special.ndtr(x), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(rows["softplus"].exact(x), np.logaddexp(0, x), rtol=1e-14)
    for name in ("gelu", "silu", "erf", "gelu_apprx_sigmoid"):
        step = 1e-5
        slope = (rows[name].exact(x + step) - rows[name].exact(x - step)) / (2 * step)
        np.testing.assert_allclose(rows[name + "_dx"].exact(x), slope, atol=1e-8)
