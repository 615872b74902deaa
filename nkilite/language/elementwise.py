"""What the ALUs of the Vector and GpSimd Engines compute: arithmetic, comparisons, bits and logic.

Every function is also the operator of that name for nki.isa (`op=nl.add`). At least one operand is a tile in
SBUF or PSUM, the other a tile or a number; shapes broadcast, so a (P, 1) tile goes with a (P, F) one. The
result is a new SBUF tile: of `dtype` if given, else of the tile's dtype (of two dtypes the wider, floats
before integers). Engines compute in float32, except that bit operations, and int32 arithmetic between two
tiles, are exact.

Source: the public pages nki.language.<function>.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

import numpy as np

from nkilite import isa as nisa
from nkilite.dtypes import DTypeLike, float32
from nkilite.ir.types import MemoryRegion
from nkilite.language.broadcasting import NUMBERS, common_shape, output, promote, repeat, require_tile
from nkilite.trace.tensor import NkiTensor

__all__ = [
    "abs_max",
    "abs_min",
    "add",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "divide",
    "equal",
    "greater",
    "greater_equal",
    "invert",
    "left_shift",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "power",
    "right_shift",
    "subtract",
]


def is_number(value: object) -> TypeGuard[float]:
    """Whether an operand is a number of Python's, or of NumPy's, which computes like one."""
    return isinstance(value, NUMBERS)


def binary(op: Callable[..., object], x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None) -> NkiTensor:
    """A new SBUF tile `op(x, y)`, by tensor_scalar if one side is a number or a float32 (P, 1) tile.

    Raises:
        InvalidOperand: an operand is neither a tile nor a number, or both are numbers.
        ShapeMismatch: the shapes do not broadcast.
    """
    function = op.__name__
    if is_number(y) and not is_number(x):
        x = require_tile(x, "x", function)
        result = output(x.shape, dtype, x.dtype, function)
        nisa.tensor_scalar(result, x, op0=op, operand0=y)
        return result
    if is_number(x):
        y = require_tile(y, "y", function)
        result = output(y.shape, dtype, y.dtype, function)
        nisa.tensor_scalar(result, y, op0=op, operand0=x, reverse0=True)
        return result
    x, y = require_tile(x, "x", function), require_tile(y, "y", function)
    shape = common_shape(x.shape, y.shape, function)
    result = output(shape, dtype, promote(x.dtype, y.dtype), function)
    if x.shape == shape and _is_vector(y, shape):
        nisa.tensor_scalar(result, x, op0=op, operand0=y.reshape((shape[0], 1)))
    elif y.shape == shape and _is_vector(x, shape):
        nisa.tensor_scalar(result, y, op0=op, operand0=x.reshape((shape[0], 1)), reverse0=True)
    else:
        nisa.tensor_tensor(result, repeat(x, shape), repeat(_beside(op, x, y), shape), op=op)
    return result


def _beside(op: Callable[..., object], x: NkiTensor, y: NkiTensor) -> NkiTensor:
    """`y`, or a copy in SBUF when `x` is in PSUM too: engines read PSUM through one port."""
    if not x.buffer is y.buffer is MemoryRegion.psum:
        return y
    moved = output(y.shape, y.dtype, y.dtype, op.__name__)
    nisa.tensor_copy(moved, y)
    return moved


def _is_vector(x: NkiTensor, shape: tuple[int, ...]) -> bool:
    """Whether `x` can be the vector operand of tensor_scalar for data of a shape."""
    return x.dtype is float32 and x.shape[0] == shape[0] and x.type.free_size == 1


def add(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """x + y."""
    return binary(add, x, y, dtype)


def subtract(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """x - y."""
    return binary(subtract, x, y, dtype)


def multiply(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """x * y."""
    return binary(multiply, x, y, dtype)


def divide(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """x / y, as x times the reciprocal of y: the ALUs do not divide."""
    if is_number(y):
        with np.errstate(all="ignore"):
            return multiply(x, float(np.float64(1) / y), dtype)
    y = require_tile(y, "y", "divide")
    inverse = output(y.shape, float32, float32, "divide")
    nisa.reciprocal(inverse, y)
    default = promote(x.dtype, y.dtype) if isinstance(x, NkiTensor) else y.dtype
    return multiply(x, inverse, default if dtype is None else dtype)


def negative(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """-x."""
    return multiply(require_tile(x, "x", "negative"), -1.0, dtype)


def maximum(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """The larger of x and y."""
    return binary(maximum, x, y, dtype)


def minimum(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """The smaller of x and y."""
    return binary(minimum, x, y, dtype)


def abs_max(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """x where |x| > |y|, else y: the sign is kept. trn3 and newer."""
    return binary(abs_max, x, y, dtype)


def abs_min(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """x where |x| < |y|, else y: the sign is kept. trn3 and newer."""
    return binary(abs_min, x, y, dtype)


def power(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """x to the power of y."""
    return binary(power, x, y, dtype)


def equal(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """1 where x == y, else 0, in the dtype of the tile unless given."""
    return binary(equal, x, y, dtype)


def not_equal(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """1 where x != y, else 0, in the dtype of the tile unless given."""
    return binary(not_equal, x, y, dtype)


def less(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """1 where x < y, else 0, in the dtype of the tile unless given."""
    return binary(less, x, y, dtype)


def less_equal(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """1 where x <= y, else 0, in the dtype of the tile unless given."""
    return binary(less_equal, x, y, dtype)


def greater(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """1 where x > y, else 0, in the dtype of the tile unless given."""
    return binary(greater, x, y, dtype)


def greater_equal(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """1 where x >= y, else 0, in the dtype of the tile unless given."""
    return binary(greater_equal, x, y, dtype)


def bitwise_and(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """x & y of integer tiles."""
    return binary(bitwise_and, x, y, dtype)


def bitwise_or(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """x | y of integer tiles."""
    return binary(bitwise_or, x, y, dtype)


def bitwise_xor(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """x ^ y of integer tiles."""
    return binary(bitwise_xor, x, y, dtype)


def invert(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """~x of an integer tile."""
    return binary(invert, x, 0, dtype)


def left_shift(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """x << y of integer tiles."""
    return binary(left_shift, x, y, dtype)


def right_shift(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """x >> y of integer tiles, filling with zero bits."""
    return binary(right_shift, x, y, dtype)


def logical_and(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """1 where x and y are both nonzero, else 0."""
    return binary(logical_and, x, y, dtype)


def logical_or(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """1 where x or y is nonzero, else 0."""
    return binary(logical_or, x, y, dtype)


def logical_xor(x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None) -> NkiTensor:
    """1 where exactly one of x and y is nonzero, else 0."""
    return binary(logical_xor, x, y, dtype)


def logical_not(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """1 where x is zero, else 0."""
    return binary(logical_xor, require_tile(x, "x", "logical_not"), 1, dtype)
