"""Result dtypes and shapes of nl functions, and operands repeated to them.

Free dimensions of size 1 are repeated by a view; one partition is copied to the others, because partitions
are separate memories.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nkilite import isa as nisa
from nkilite.dtypes import DType, DTypeLike, float32
from nkilite.errors import InvalidOperand, ShapeMismatch, describe
from nkilite.language.creation import element_type, ndarray
from nkilite.trace.tensor import PASS_DATA, NkiTensor, is_grid

_SHUFFLED = 32  # partitions one nc_stream_shuffle reaches

#: Classes of numbers that are operands: Python's, and NumPy's, which compute like them.
NUMBERS = (int, float, np.integer, np.floating, np.bool_)

_TO_A_TILE = "pass arrays as arguments of the kernel and nl.load them; make a tile of a number with nl.full"
# What to do with a number instead of a tile: `1 / nl.sqrt(d)` of a compile-time d is what kernels often try.
FOR_NUMBERS = "compute with numbers by Python's math or NumPy, or make a tile of one with nl.full"


def require_tile(x: object, operand: str, function: str) -> NkiTensor:
    """Raise InvalidOperand unless `x` is a tensor on chip."""
    if isinstance(x, NkiTensor) and x.buffer.on_chip:
        return x
    if isinstance(x, NkiTensor):
        fix = "bring it on chip first, for example with nl.load"
    else:
        fix = FOR_NUMBERS if isinstance(x, NUMBERS) else _TO_A_TILE
    raise InvalidOperand(
        instruction=f"nl.{function}", operand=operand, found=describe(x), expected="a tile in SBUF or PSUM",
        fix=PASS_DATA if is_grid(x) else fix,
    )


def output(shape: Sequence[int], dtype: DTypeLike | None, default: DType, function: str) -> NkiTensor:
    """A new SBUF tile for a result, of the dtype asked for or the default."""
    return ndarray(shape, default if dtype is None else element_type(dtype, function))


def promote(a: DType, b: DType) -> DType:
    """The dtype of a result computed from two dtypes: floats win over integers, then the wider one.

    Two different types of the same kind and size meet in the next type that holds both: float32, or the
    signed integer of twice the size (int32 at most).
    """
    if a == b:
        return a
    if a.is_float != b.is_float:
        return a if a.is_float else b
    if a.itemsize != b.itemsize:
        return a if a.itemsize > b.itemsize else b
    if a.is_float:
        return float32
    wider = {1: "int16", 2: "int32", 4: "int32"}
    return a if b.kind == "b" else b if a.kind == "b" else element_type(wider[a.itemsize], "promote")


def common_shape(x: tuple[int, ...], y: tuple[int, ...], function: str) -> tuple[int, ...]:
    """The shape two operands broadcast to; a missing free dimension counts as one of size 1.

    Unlike in NumPy the partition dimensions always meet: (P, F) goes with (P, 1, F) only by its last
    dimension.

    Raises:
        ShapeMismatch: a dimension differs and neither is 1.
    """
    ndim = max(len(x), len(y))
    a, b = aligned(x, ndim), aligned(y, ndim)
    if any(m != n and 1 not in (m, n) for m, n in zip(a, b, strict=True)):
        raise ShapeMismatch(instruction=f"nl.{function}", detail=f"shapes {x} and {y} do not broadcast")
    return tuple(max(m, n) for m, n in zip(a, b, strict=True))


def aligned(shape: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """`shape` with free dimensions of size 1 inserted after the partition dimension."""
    return (shape[0], *(1,) * (ndim - len(shape)), *shape[1:])


def repeat(x: NkiTensor, shape: tuple[int, ...]) -> NkiTensor:
    """`x` with the given (broadcast) shape: a view, after a copy to all partitions if it has only one."""
    if x.shape == shape:
        return x
    while x.ndim < len(shape):
        x = x.expand_dim(1)
    if x.shape[0] != shape[0]:
        x = to_partitions(x, shape[0])
    for dim in range(1, len(shape)):
        if x.shape[dim] != shape[dim]:
            x = x.broadcast(dim, shape[dim])
    return x


def to_partitions(x: NkiTensor, partitions: int) -> NkiTensor:
    """A new SBUF tile holding the only partition of `x` in each of its partitions."""
    result = ndarray((partitions, *x.shape[1:]), x.dtype)
    for start in range(0, partitions, _SHUFFLED):
        count = min(_SHUFFLED, partitions - start)
        nisa.nc_stream_shuffle(result[start : start + count], x, shuffle_mask=[0] * _SHUFFLED)
    return result
