"""Changing the shape of a tile. Source: public pages nki.language.expand_dims and broadcast_to."""

from __future__ import annotations

from collections.abc import Sequence

from nkilite import isa as nisa
from nkilite.deprecation import deprecated
from nkilite.dtypes import DType, DTypeLike, bfloat16, float16, float32
from nkilite.errors import ShapeMismatch
from nkilite.language.broadcasting import repeat, require_tile, to_partitions
from nkilite.language.creation import as_shape, element_type, ndarray, require_tensor
from nkilite.language.memory import copy
from nkilite.language.regions import psum, sbuf
from nkilite.trace import active
from nkilite.trace.tensor import NkiTensor
from nkilite.trace.view_arguments import require_ints

__all__ = ["across_partitions", "broadcast_to", "expand_dims", "par_dim"]

#: Names the instructions that move a broadcast out of PSUM; the timing model lets consumers read it there.
BROADCAST = "nl.broadcast_to"

_PRODUCTS = (float32, bfloat16, float16)  # what a product with ones carries exactly


def expand_dims(x: NkiTensor, axis: int) -> NkiTensor:
    """A view of `x` with a dimension of size 1 inserted at `axis` of the result; on chip not at 0."""
    x = require_tensor(x, "x", "expand_dims")
    require_ints("nl.expand_dims", axis=axis)
    return x.expand_dim(axis + x.ndim + 1 if axis < 0 else axis)


def broadcast_to(x: NkiTensor, shape: Sequence[int], dtype: DTypeLike | None = None) -> NkiTensor:
    """A new SBUF tile with `x` repeated to `shape`; `x` itself when neither shape nor dtype changes.

    Args:
        x: a tile in SBUF or PSUM.
        shape: as many dimensions as `x` has; each is equal, or 1 in `x`.

    Raises:
        ShapeMismatch: the shapes do not fit.
    """
    x = require_tile(x, "x", "broadcast_to")
    sizes = as_shape(shape, "broadcast_to")
    converted = x.dtype if dtype is None else element_type(dtype, "broadcast_to")
    if sizes == x.shape and converted == x.dtype:
        return x
    if len(sizes) != x.ndim or any(n not in (1, m) for n, m in zip(x.shape, sizes, strict=True)):
        raise ShapeMismatch(
            instruction="nl.broadcast_to", detail=f"x of shape {x.shape} does not broadcast to {sizes}"
        )
    if x.shape[0] != sizes[0] and converted in _PRODUCTS and _is_carried(x):
        x = _product_with_ones(x, sizes[0], converted)
        if x.shape == sizes:
            return x
    return copy(repeat(x, sizes), converted)


def across_partitions(x: NkiTensor, partitions: int) -> NkiTensor:
    """A new SBUF tile with the only partition of `x` in each of its partitions: by the Tensor Engine where that carries
    the values exactly, as the vendor's compiler does it, else by shuffles of the Vector Engine."""
    return _product_with_ones(x, partitions, x.dtype) if _is_carried(x) else to_partitions(x, partitions)


def _is_carried(x: NkiTensor) -> bool:
    return x.buffer is sbuf and x.dtype in _PRODUCTS


def _product_with_ones(x: NkiTensor, partitions: int, dtype: DType) -> NkiTensor:
    """The only partition of `x` in all of a new SBUF tile: a product with a column of ones, which the Tensor Engine
    makes a PSUM bank at a time (public tutorial fused_mamba, step 3)."""
    result = ndarray((partitions, *x.shape[1:]), dtype)
    flat, row = result.reshape((partitions, x.type.free_size)), x.reshape((1, x.type.free_size))
    ones = _ones(partitions, x.dtype)
    widest = active.builder("nl.broadcast_to").target.gemm_moving_fmax
    for start in range(0, row.shape[1], widest):
        columns = slice(start, min(start + widest, row.shape[1]))
        bank = ndarray((partitions, columns.stop - start), float32, psum)
        nisa.nc_matmul(bank, ones, row[:, columns], accumulate=False)
        nisa.activation(flat[:, columns], copy, bank, name=BROADCAST)
    return result


def _ones(columns: int, dtype: DType) -> NkiTensor:
    """A row of ones; calls with the same size and dtype share one tile."""
    builder = active.builder("nl.broadcast_to")
    key = ("ones", columns, dtype)
    found = builder.constants.get(key)
    if found is None:
        found = builder.constants[key] = ndarray((1, columns), dtype)
        nisa.memset(found, 1.0)
    return found


def par_dim(value: int) -> int:
    """The size of a partition dimension, as shapes of Beta 1 mark it; that is dimension 0, and needs no mark."""
    deprecated("nl.par_dim", "the size alone: dimension 0 of an on-chip tensor is the partition dimension")
    return value
