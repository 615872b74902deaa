"""Circular functions: sin, cos and tan of any angle by range reduction, and arctan.

The Scalar Engine evaluates sin on [-pi, pi] only, so whole turns are subtracted first, in three steps whose
products with the number of turns are exact up to 2^15 turns. Source: public pages nki.language.sin, cos, tan,
arctan.
"""

from __future__ import annotations

import math

import numpy as np

from nkilite import isa as nisa
from nkilite.dtypes import DTypeLike, float32
from nkilite.language import activations, elementwise
from nkilite.language.broadcasting import output, require_tile
from nkilite.language.creation import ndarray
from nkilite.language.rounding import nearest
from nkilite.trace.tensor import NkiTensor

__all__ = ["arctan", "cos", "sin", "tan"]

_TURN = 2 * math.pi
_PI = float(np.nextafter(np.float32(math.pi), np.float32(0)))  # the largest float32 not above pi


def _parts(bits: int) -> tuple[float, float, float]:
    """A full turn as a sum of three floats, the first two of `bits` significant bits."""

    def head(value: float) -> float:
        unit = 2.0 ** (math.floor(math.log2(value)) + 1 - bits)
        return math.floor(value / unit) * unit

    high = head(_TURN)
    middle = head(_TURN - high)
    return high, middle, _TURN - high - middle


_PARTS = _parts(8)


def sin(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """Sine of x in radians."""
    x = require_tile(x, "x", "sin")
    return _sine(_reduced(x), x.dtype if dtype is None else dtype)


def cos(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """Cosine of x in radians."""
    x = require_tile(x, "x", "cos")
    return _cosine(_reduced(x), x.dtype if dtype is None else dtype)


def tan(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """Tangent of x in radians."""
    x = require_tile(x, "x", "tan")
    angle = _reduced(x)
    return elementwise.divide(
        _sine(angle, float32), _cosine(angle, float32), x.dtype if dtype is None else dtype
    )


def arctan(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """Inverse tangent, in radians."""
    return activations.unary(arctan, x, dtype)


def _reduced(x: NkiTensor) -> NkiTensor:
    """x minus whole turns, in [-pi, pi]."""
    turns = nearest(elementwise.multiply(x, 1 / _TURN, float32))
    angle = x
    for part in _PARTS:
        reduced = ndarray(x.shape, float32)
        nisa.scalar_tensor_tensor(
            reduced, turns, op0=elementwise.multiply, operand0=-part, op1=elementwise.add, operand1=angle
        )
        angle = reduced
    clamped = ndarray(x.shape, float32)
    nisa.tensor_scalar(
        clamped, angle, op0=elementwise.minimum, operand0=_PI, op1=elementwise.maximum, operand1=-_PI
    )
    return clamped


def _sine(angle: NkiTensor, dtype: DTypeLike | None) -> NkiTensor:
    result = output(angle.shape, dtype, float32, "sin")
    nisa.activation(result, op=sin, data=angle)
    return result


def _cosine(angle: NkiTensor, dtype: DTypeLike | None) -> NkiTensor:
    """sin(pi/2 - |angle|)."""
    complement = ndarray(angle.shape, float32)
    nisa.tensor_scalar(
        complement,
        activations.abs(angle),
        op0=elementwise.multiply,
        operand0=-1.0,
        op1=elementwise.add,
        operand1=math.pi / 2,
    )
    return _sine(complement, dtype)
