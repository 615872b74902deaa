"""Choosing elements: by a condition, by an index.

Source: public pages nki.language.where, gather_flattened.
"""

from __future__ import annotations

from nkilite import isa as nisa
from nkilite.dtypes import DTypeLike, uint8, uint32
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
        dtype: of the result; that of the tiles among x and y (the wider of two), else of the condition.
    """
    tiles = [require_tile(condition, "condition", "where")]
    tiles += [
        require_tile(t, operand, "where") for operand, t in (("x", x), ("y", y)) if isinstance(t, NkiTensor)
    ]
    shape = tiles[0].shape
    for tile in tiles[1:]:
        shape = common_shape(shape, tile.shape, "where")
    default = promote(tiles[1 if len(tiles) > 1 else 0].dtype, tiles[-1].dtype)
    result = output(shape, dtype, default, "where")
    if isinstance(y, NkiTensor):
        nisa.tensor_copy(result, repeat(y, shape))
    else:
        fill(result, y)
    if isinstance(x, NkiTensor):
        x = repeat(x if x.dtype == result.dtype else copy(x, result.dtype), shape)
    nisa.tensor_copy_predicated(result, x, repeat(elementwise.not_equal(condition, 0.0, uint8), shape))
    return result


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
