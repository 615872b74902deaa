"""Reductions along the free dimensions of a tile.

`axis` is an int or a tuple of ints naming the last dimensions of the tile, never the partition dimension.
Results are new SBUF tiles of `dtype` if given, else of the dtype of `x`; the reduction itself runs in
float32. Since on-chip tensors keep two dimensions, a tile whose free dimensions are all reduced gives (P, 1)
with and without `keepdims`. Source: the public pages nki.language.sum, max, min, mean, prod, var, all.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from math import prod as product

import numpy as np

from nkilite import isa as nisa
from nkilite.dtypes import DTypeLike, float32
from nkilite.errors import InvalidOperand, describe
from nkilite.language import elementwise
from nkilite.language.broadcasting import output, require_tile
from nkilite.trace.tensor import NkiTensor

__all__ = ["all", "max", "mean", "min", "prod", "sum", "var"]

Axis = int | Sequence[int]


def sum(x: NkiTensor, axis: Axis, dtype: DTypeLike | None = None, keepdims: bool = False) -> NkiTensor:
    """Sum along `axis`."""
    return _reduce("sum", elementwise.add, x, axis, dtype, keepdims)


def max(x: NkiTensor, axis: Axis, dtype: DTypeLike | None = None, keepdims: bool = False) -> NkiTensor:
    """Largest element along `axis`."""
    return _reduce("max", elementwise.maximum, x, axis, dtype, keepdims)


def min(x: NkiTensor, axis: Axis, dtype: DTypeLike | None = None, keepdims: bool = False) -> NkiTensor:
    """Smallest element along `axis`."""
    return _reduce("min", elementwise.minimum, x, axis, dtype, keepdims)


def prod(x: NkiTensor, axis: Axis, dtype: DTypeLike | None = None, keepdims: bool = False) -> NkiTensor:
    """Product along `axis`."""
    return _reduce("prod", elementwise.multiply, x, axis, dtype, keepdims)


def all(x: NkiTensor, axis: Axis = -1, dtype: DTypeLike | None = None) -> NkiTensor:
    """1 where every element along `axis` is nonzero, else 0."""
    return _reduce("all", elementwise.logical_and, x, axis, dtype, False)


def mean(x: NkiTensor, axis: Axis, dtype: DTypeLike | None = None, keepdims: bool = False) -> NkiTensor:
    """Arithmetic mean along `axis`, summed and divided in float32."""
    x = require_tile(x, "x", "mean")
    axes = last_axes(x, axis, "mean")
    total = sum(x, axes, float32, keepdims)
    result = output(total.shape, dtype, x.dtype, "mean")
    nisa.tensor_scalar(
        result, total, op0=elementwise.multiply, operand0=1.0 / product(x.shape[a] for a in axes)
    )
    return result


def var(x: NkiTensor, axis: Axis, dtype: DTypeLike | None = None, keepdims: bool = False) -> NkiTensor:
    """Population variance along `axis`; reduced dimensions are kept whatever `keepdims` is, as documented."""
    x = require_tile(x, "x", "var")
    axes = last_axes(x, axis, "var")
    center = mean(x, axes, float32, keepdims=True)
    distance = elementwise.subtract(x, center, float32)
    return mean(
        elementwise.multiply(distance, distance), axes, x.dtype if dtype is None else dtype, keepdims=True
    )


def _reduce(
    function: str, op: Callable[..., object], x: NkiTensor, axis: Axis, dtype: DTypeLike | None, keepdims: bool
) -> NkiTensor:
    x = require_tile(x, "x", function)
    axes = last_axes(x, axis, function)
    kept = x.shape[: axes[0]]
    full = kept + (1,) * len(axes)
    shape = full if keepdims else kept if len(kept) > 1 else (*kept, 1)
    result = output(shape, dtype, x.dtype, function)
    nisa.tensor_reduce(result.reshape(full), op, x, axis=axes, keepdims=True)
    return result


def last_axes(x: NkiTensor, axis: Axis, function: str) -> tuple[int, ...]:
    """The axes as ascending nonnegative ints.

    Raises:
        InvalidOperand: they are not the last free dimensions of the tile.
    """
    given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    whole = builtins.all(isinstance(a, (int, np.integer)) for a in given)
    axes = tuple(sorted(a + x.ndim if a < 0 else a for a in given)) if whole else ()
    if not axes or axes[0] < 1 or axes != tuple(range(axes[0], x.ndim)):
        names = " or ".join(str(tuple(range(i, x.ndim))) for i in builtins.range(x.ndim - 1, 0, -1))
        raise InvalidOperand(
            instruction=f"nl.{function}",
            operand="axis",
            found=describe(axis),
            expected=f"the last dimensions of a tile of shape {x.shape}: {names}",
        )
    return axes
