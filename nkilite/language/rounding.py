"""Rounding to integers and remainders, built on the conversion to int32 that engines do when they write.

The conversion rounds to nearest even and saturates, so values of 2^23 and more, which have no fraction in
float32, are copied instead. Source: public pages nki.language.floor, ceil, trunc, mod, fmod.
"""

from __future__ import annotations

from nkilite import isa as nisa
from nkilite.dtypes import DType, DTypeLike, float32, int32, uint8
from nkilite.errors import InvalidOperand
from nkilite.language import activations, elementwise
from nkilite.language.broadcasting import common_shape, promote, require_tile
from nkilite.language.creation import full, ndarray
from nkilite.language.memory import copy
from nkilite.trace.tensor import NkiTensor

__all__ = ["ceil", "floor", "fmod", "mod", "trunc"]

_INTEGRAL = float(2**23)  # float32 of this magnitude and more are integers


def floor(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """The largest integers not above x."""
    x = require_tile(x, "x", "floor")
    whole = nearest(x)
    return _finish(x, elementwise.subtract(whole, elementwise.greater(whole, x, float32)), dtype)


def ceil(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """The smallest integers not below x."""
    x = require_tile(x, "x", "ceil")
    whole = nearest(x)
    return _finish(x, elementwise.add(whole, elementwise.less(whole, x, float32)), dtype)


def trunc(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """x without its fraction: the nearest integers toward zero."""
    x = require_tile(x, "x", "trunc")
    magnitude = floor(activations.abs(x, float32))
    return elementwise.multiply(magnitude, activations.sign(x, float32), x.dtype if dtype is None else dtype)


def mod(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """The remainder of x / y with the sign of y, as Python's %.

    Args:
        x: a tile or a number.
        y: a tile or a number; one of the two is a tile.
        dtype: of the result; that of the tile (the wider of two) unless given.
    """
    x, y, default = _operands(x, y, "mod")
    remainder = _remainder(x, y)
    apart = elementwise.logical_xor(elementwise.less(remainder, 0.0), elementwise.less(y, 0.0))
    moved = elementwise.logical_and(apart, elementwise.not_equal(remainder, 0.0))
    return elementwise.add(remainder, elementwise.multiply(moved, y), default if dtype is None else dtype)


def fmod(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """The remainder of x / y with the sign of x, as C's fmod; arguments as in `mod`."""
    x, y, default = _operands(x, y, "fmod")
    return _converted(_remainder(x, y), default if dtype is None else dtype)


def nearest(x: NkiTensor) -> NkiTensor:
    """x rounded to the nearest (even) integer, as a float32 tile; exact below 2^31."""
    integers = ndarray(x.shape, int32)
    nisa.tensor_copy(integers, x)
    rounded = ndarray(x.shape, float32)
    nisa.tensor_copy(rounded, integers)
    return rounded


def _finish(x: NkiTensor, rounded: NkiTensor, dtype: DTypeLike | None) -> NkiTensor:
    """`rounded` where |x| < 2^23, and x elsewhere: large values, infinities, NaN."""
    exact = ndarray(x.shape, float32)
    nisa.tensor_copy(exact, x)
    small = elementwise.less(activations.abs(x, float32), _INTEGRAL, uint8)
    nisa.tensor_copy_predicated(exact, rounded, small)
    return _converted(exact, x.dtype if dtype is None else dtype)


def _converted(x: NkiTensor, dtype: DTypeLike) -> NkiTensor:
    return x if x.dtype == dtype else copy(x, dtype)


def _operands(x: NkiTensor | float, y: NkiTensor | float, function: str) -> tuple[NkiTensor, NkiTensor, DType]:
    """Both operands as float32 tiles of one shape, and the dtype of the result."""
    tiles = [t for t in (x, y) if isinstance(t, NkiTensor)]
    if not tiles:
        raise InvalidOperand(
            instruction=f"nl.{function}", operand="x and y", found="two numbers", expected="a tile"
        )
    tiles = [require_tile(t, "x" if t is x else "y", function) for t in tiles]
    shape = common_shape(tiles[0].shape, tiles[-1].shape, function)
    default = promote(tiles[0].dtype, tiles[-1].dtype)
    a, b = (_spread(value, shape) for value in (x, y))
    return a, b, default


def _spread(value: NkiTensor | float, shape: tuple[int, ...]) -> NkiTensor:
    """A float32 tile of the shape, from a number or a tile that broadcasts to it."""
    return elementwise.add(full(shape, 0.0, float32), value, float32)


def _remainder(x: NkiTensor, y: NkiTensor) -> NkiTensor:
    """What is left of |x| after whole |y|s, with the sign of x.

    The quotient comes from a rounded reciprocal, so it can be one off; the remainder is put back into [0,
    |y|).
    """
    a, b = activations.abs(x), activations.abs(y)
    quotient = floor(elementwise.divide(a, b))
    left = elementwise.subtract(a, elementwise.multiply(quotient, b))
    left = elementwise.add(left, elementwise.multiply(elementwise.less(left, 0.0), b))
    left = elementwise.subtract(left, elementwise.multiply(elementwise.greater_equal(left, b), b))
    return elementwise.multiply(left, activations.sign(x))
