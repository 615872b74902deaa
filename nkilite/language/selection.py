"""Choosing elements: by a condition, by an index.

Source: public pages nki.language.where, gather_flattened.
"""

from __future__ import annotations

import numpy as np

from nkilite import isa as nisa
from nkilite.dtypes import DType, DTypeLike, float32, int32, uint8, uint32
from nkilite.errors import InvalidOperand
from nkilite.language import elementwise
from nkilite.language.broadcasting import common_shape, output, promote, repeat, require_tile
from nkilite.language.creation import fill
from nkilite.language.memory import copy
from nkilite.trace.tensor import NkiTensor

__all__ = ["gather_flattened", "where"]


def where(
    condition: NkiTensor, x: NkiTensor | float, y: NkiTensor | float, dtype: DTypeLike | None = None
) -> NkiTensor:
    """x where the condition is nonzero, else y, as a new SBUF tile.

    Args:
        condition: a tile; its elements are compared with 0.
        x: a tile or a number.
        y: a tile or a number; shapes broadcast.
        dtype: of the result; unless given, see `chosen_dtype`.
    """
    tiles = [require_tile(condition, "condition", "where")]
    tiles += [
        require_tile(t, operand, "where") for operand, t in (("x", x), ("y", y)) if isinstance(t, NkiTensor)
    ]
    shape = tiles[0].shape
    for tile in tiles[1:]:
        shape = common_shape(shape, tile.shape, "where")
    values = [t.dtype if isinstance(t, NkiTensor) else t for t in (x, y)]
    result = output(shape, dtype, chosen_dtype(condition.dtype, *values), "where")
    if isinstance(y, NkiTensor):
        nisa.tensor_copy(result, repeat(y, shape))
    else:
        fill(result, y)
    if isinstance(x, NkiTensor):
        x = repeat(x if x.dtype == result.dtype else copy(x, result.dtype), shape)
    nisa.tensor_copy_predicated(result, x, repeat(elementwise.not_equal(condition, 0.0, uint8), shape))
    return result


def chosen_dtype(condition: DType, *values: DType | float) -> DType:
    """The dtype of what is chosen: of tiles, whose dtypes are given, that of the wider one.

    Of two numbers it is that of the condition, or int32 beside bools; and a number with a fraction needs a float.
    """
    found = [v for v in values if isinstance(v, DType)]
    if not found:
        found = [int32 if condition.kind == "b" else condition]
    default = promote(found[0], found[-1])
    if not default.is_float and any(isinstance(v, (float, np.floating)) for v in values):
        return float32
    return default


def gather_flattened(data: NkiTensor, indices: NkiTensor, axis: int = 0, dtype: DTypeLike | None = None) -> NkiTensor:
    """In every partition, the elements of `data` at positions `indices` of its flattened free dimensions.

    Args:
        data: (P, ...) SBUF tile.
        indices: (P, ...) tile of integers; its shape is the shape of the result.
        axis: 0, the only documented value.
        dtype: of the result; that of `data` unless given.

    Raises:
        InvalidOperand: data or indices is no tile, or another axis.
        IndirectOutOfBounds: (when it runs) an index is not in [0, elements per partition of data).
    """
    data, indices = (
        require_tile(data, "data", "gather_flattened"),
        require_tile(indices, "indices", "gather_flattened"),
    )
    if axis != 0:
        raise InvalidOperand(
            instruction="nl.gather_flattened", operand="axis", found=repr(axis), expected="0"
        )
    positions = indices if indices.dtype == uint32 else copy(indices, uint32)
    result = output(indices.shape, data.dtype, data.dtype, "gather_flattened")
    nisa.nc_n_gather(result, data, positions)
    return result if dtype is None else copy(result, dtype)
