"""The Scalar Engine's activation functions, one row each ("Supported Activation Functions", nki.api.shared).

The hardware approximates them with piecewise polynomials; here the reference is the exact function computed
in float64 and rounded once, and the compiled code is within a few units in the last place of it. Where the
documents give a narrower valid range, values outside follow the mathematical function too, except for `sin`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nkilite.codegen import transcendental
from nkilite.codegen.emitter import Emitter, Value
from nkilite.ir import attributes
from nkilite.isa.error_function import erf, erfc
from nkilite.isa.operators import Table

Emit = Callable[[Emitter, Value], Value]

_EVERYWHERE = (-math.inf, math.inf)
_BLOCK = 1 << 14  # elements that are computed at a time: what float64 needs of them stays in the second-level cache


@dataclass(frozen=True, eq=False, repr=False)
class ActivationFunction:
    """An activation function; compared and hashed by identity.

    Attributes:
        name: its name in nki.language.
        exact: the function on float64 arrays; `prelu` takes the slope as a second argument.
        code: its LLVM code, likewise.
        valid_range: inputs for which the documents promise a valid result; symmetric for reciprocal, whose
            range is one of magnitudes.
        takes_slope: it is `prelu`, with a slope for negative inputs.
        single: `exact` gives the same on float32 arrays: what it computes is rounded once there, too.
    """

    name: str
    exact: Callable[..., object]
    code: Callable[..., Value]
    valid_range: tuple[float, float] = _EVERYWHERE
    takes_slope: bool = False
    single: bool = False

    def numpy(self, x: object, slope: object = 0.0) -> np.ndarray:
        """The function on float32 arrays: computed in float64, rounded once."""
        x = np.asarray(x, np.float32)
        with np.errstate(all="ignore"):
            if self.takes_slope:
                return np.asarray(self.exact(x, np.asarray(slope, np.float32)))
            if self.single:
                return np.asarray(self.exact(x))
            if x.size <= _BLOCK:
                return np.asarray(self.exact(x.astype(np.float64))).astype(np.float32)
            result = np.empty(x.shape, np.float32)
            source, target = x.reshape(-1), result.reshape(-1)
            for start in range(0, x.size, _BLOCK):
                part = slice(start, start + _BLOCK)
                target[part] = np.asarray(self.exact(source[part].astype(np.float64)))
            return result

    def emit(self, e: Emitter, x: Value, slope: Value | None = None) -> Value:
        """The function on float32 lanes."""
        if self.takes_slope:
            return self.code(e, x, slope if slope is not None else e.f32(0, x.lanes))
        return self.code(e, x)

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[object, ...]:
        return _row, (self.name,)


# --- exact functions ----------------------------------------------------------------------------------------

# x * s(x) tends to 0 where s does: keeping x finite there avoids -inf * 0.
_LOWEST = -1e4


def _exp(x: np.ndarray) -> np.ndarray:
    """Beyond +-150 float32 has 0 and infinity alone; where float64 ends as well, NumPy takes ten times as long."""
    result: np.ndarray = np.exp(np.clip(x, -150, 150))
    return result


def _sigmoid(x: np.ndarray) -> np.ndarray:
    decayed = np.exp(-np.abs(x))
    result: np.ndarray = np.where(x < 0, decayed, 1.0) / (1 + decayed)
    return result


def _silu(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.maximum(x, _LOWEST) * _sigmoid(x)
    return result


def _silu_dx(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, _LOWEST, -_LOWEST)
    result: np.ndarray = _sigmoid(x) * (1 + x * _sigmoid(-x))
    return result


def _softplus(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return result


def _mish(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.maximum(x, _LOWEST) * np.tanh(_softplus(x))
    return result


def _phi(x: np.ndarray) -> np.ndarray:
    """The normal distribution's cumulative function."""
    return 0.5 * erfc(-x / math.sqrt(2))


def _gelu_dx(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, _LOWEST, -_LOWEST)
    slope = _phi(x) + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return np.where((x < 0) & (slope == 0), -0.0, slope)  # below where float64 ends, from the same side


def _gelu_apprx_tanh(x: np.ndarray) -> np.ndarray:
    # 0.5 * (1 + tanh(u)) is sigmoid(2 u), which keeps the negative tail.
    result: np.ndarray = np.maximum(x, _LOWEST) * _sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return result


def _sin(x: np.ndarray) -> np.ndarray:
    """Sine in [-pi, pi]; outside, the cubic Taylor polynomial around +-pi (see transcendental.sin)."""
    beyond = np.abs(x) - math.pi
    result: np.ndarray = np.where(beyond <= 0, np.sin(x), np.sign(x) * beyond * (beyond * beyond / 6 - 1))
    return result


# --- code of the simple ones --------------------------------------------------------------------------------


def _emit_relu(e: Emitter, x: Value) -> Value:
    return _emit_prelu(e, x, None)


def _emit_prelu(e: Emitter, x: Value, slope: Value | None) -> Value:
    zero = e.f32(0, x.lanes)
    return e.select(e.compare("olt", x, zero), zero if slope is None else e.mul(x, slope), x)


# --- the table ----------------------------------------------------------------------------------------------

TABLE = Table(
    "activation function",
    (
        ActivationFunction("copy", lambda x: x, lambda e, x: x, single=True),
        ActivationFunction("square", np.square, lambda e, x: e.mul(x, x), single=True),
        ActivationFunction("sigmoid", _sigmoid, transcendental.sigmoid),
        ActivationFunction("relu", lambda x: np.where(x < 0, np.float32(0), x), _emit_relu, single=True),
        ActivationFunction(
            "prelu", lambda x, slope: np.where(x < 0, x * slope, x), _emit_prelu, takes_slope=True, single=True
        ),
        ActivationFunction("gelu", lambda x: np.maximum(x, _LOWEST) * _phi(x), transcendental.gelu),
        ActivationFunction("gelu_dx", _gelu_dx, transcendental.gelu_dx),
        ActivationFunction("gelu_apprx_tanh", _gelu_apprx_tanh, transcendental.gelu_apprx_tanh),
        ActivationFunction(
            "gelu_apprx_sigmoid",
            lambda x: np.maximum(x, _LOWEST) * _sigmoid(transcendental.GELU_SIGMOID * x),
            transcendental.gelu_apprx_sigmoid,
        ),
        ActivationFunction(
            "gelu_apprx_sigmoid_dx",
            lambda x: _silu_dx(transcendental.GELU_SIGMOID * x),
            transcendental.gelu_apprx_sigmoid_dx,
        ),
        ActivationFunction("silu", _silu, transcendental.silu),
        ActivationFunction("silu_dx", _silu_dx, transcendental.silu_dx),
        ActivationFunction("tanh", np.tanh, transcendental.tanh),
        ActivationFunction("softplus", _softplus, transcendental.softplus),
        ActivationFunction("mish", _mish, transcendental.mish),
        ActivationFunction("erf", erf, transcendental.erf),
        ActivationFunction(
            "erf_dx", lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x), transcendental.erf_dx
        ),
        ActivationFunction("exp", _exp, transcendental.exp),
        ActivationFunction("log", np.log, transcendental.log, (2.0**-64, 2.0**64)),
        ActivationFunction("sin", _sin, transcendental.sin, (-math.pi, math.pi)),
        ActivationFunction("arctan", np.arctan, transcendental.arctan, (-math.pi / 2, math.pi / 2)),
        ActivationFunction("sqrt", np.sqrt, transcendental.sqrt, (2.0**-116, 2.0**118), single=True),
        ActivationFunction("rsqrt", lambda x: 1 / np.sqrt(x), transcendental.rsqrt, (2.0**-87, 2.0**97)),
        ActivationFunction("reciprocal", lambda x: 1 / x, transcendental.reciprocal, (2.0**-42, 2.0**42)),
        ActivationFunction("sign", np.sign, transcendental.sign, single=True),
        ActivationFunction("abs", np.abs, lambda e, x: e.abs(x), single=True),
    ),
)

ALL = tuple(TABLE.rows.values())


def _row(name: str) -> ActivationFunction:
    return TABLE[name]


def lookup(op: object, instruction: str, allowed: tuple[ActivationFunction, ...] = ALL) -> ActivationFunction:
    """The row an `op` argument names: an nl function, a NumPy ufunc of the same meaning, a row, or a name.

    Raises:
        UnknownOperator: it names none of `allowed`.
    """
    return TABLE.lookup(op, instruction, allowed)


attributes.register("act", ActivationFunction, lambda name: TABLE.rows[name])
