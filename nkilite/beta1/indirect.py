"""Subscripts with values only known on the device: a tile of indices, or a tile's element plus an index tensor.

Source: indirect examples of nki.language.load, store and atomic_rmw, nki.isa.dma_copy and tensor_copy_dynamic_src.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from nkilite import isa as nisa
from nkilite.beta1 import index as indices
from nkilite.beta1 import select
from nkilite.beta1 import tile as tiles
from nkilite.beta1.functional import allocated
from nkilite.beta1.index import Grid, Index, index
from nkilite.beta1.mask import Box
from nkilite.beta1.tile import Tile
from nkilite.dtypes import int32
from nkilite.errors import InvalidView
from nkilite.ir.types import IndirectKind
from nkilite.trace.indirection import index_tensor
from nkilite.trace.tensor import NkiTensor


class DynamicIndex:
    """The value of a tile, known on the device alone, plus an index tensor."""

    __slots__ = ("index", "value")

    def __init__(self, value: Tile, index: Index) -> None:
        self.value, self.index = value, index

    def __add__(self, other: object) -> DynamicIndex:
        if isinstance(other, (int, np.integer, Index)):
            return DynamicIndex(self.value, self.index + other)
        if not isinstance(other, Tile):
            return NotImplemented
        return DynamicIndex(self.value + other, self.index)  # type: ignore[operator]

    __radd__ = __add__


def indirect(view: NkiTensor, keys: tuple[object, ...], box: Box | None) -> NkiTensor:
    """The view a subscript selects in which one item is a tile of indices, or a DynamicIndex; of a box of it, if given.

    A tile with one index moves the whole view; one with an index per partition gives every position of dimension 0 of
    what is selected its own.

    Raises:
        InvalidView: more than one such item, or one that does not fit.
    """
    at = [i for i, k in enumerate(keys) if isinstance(k, (Tile, DynamicIndex))]
    if len(at) > 1:
        raise InvalidView(
            operation="indexing with a runtime value", reason="a view has at most one runtime index",
            hint="combine the indices into one before indexing.",
        )
    item = keys[at[0]]
    static: Index | int | None = item.index if isinstance(item, DynamicIndex) else None
    tile = _whole(item.value if isinstance(item, DynamicIndex) else cast(Tile, item))
    runtime = tile.nki
    count = runtime.size
    dim = at[0] if Ellipsis not in keys[: at[0]] else view.ndim - len(keys) + at[0]
    if static is None:
        ndim = next((k.ndim for k in keys if isinstance(k, Index)), 0)
        shape = (count, *(1,) * ((ndim or 2) - 1))
        static = index(0, Grid.of(shape, (0,) * len(shape))) if ndim or count > 1 else 0  # 0 is dropped, as an int is
    items = select.normalize(view, (*keys[: at[0]], static, *keys[at[0] + 1 :]))
    if box is not None:
        items = select.narrowed(items, box)
        if count > 1:
            runtime = runtime[box[0].start : box[0].stop]
            count = runtime.size
    try:
        whole = select.select(view, items) if any(isinstance(i, Index) for i in items) else view[items]
    except select.Outside as found:
        dim, low, high = found.args
        raise InvalidView(
            operation="indexing with a runtime value", reason=f"positions {low} to {high} leave dimension "
            f"{dim} of size {view.shape[dim]}", hint="keep the index tensors inside the tensor.",
        ) from None
    offset = whole.byte_offset
    kind = IndirectKind.scalar if tile.nki.size == 1 else IndirectKind.vector
    shape, strides = whole.shape, whole.strides
    if kind is IndirectKind.vector:
        if shape[0] != count:
            raise InvalidView(
                operation="indexing with a tile", reason=f"it holds {count} indices for {shape[0]} rows",
                hint="use one index per row.",
            )
        strides = (0, *strides[1:])
    return view._indirect(
        kind, index_tensor(runtime, "the index tile"), view.strides[dim], view.shape[dim], shape, strides, offset,
        view.dtype, None,
    )


def _whole(tile: Tile) -> Tile:
    """The tile of indices; one of floats, into which public kernels copy what nc_find_index8 finds, as int32.

    DMA converts it, which begins at any partition.
    """
    if not (tile.buffer.on_chip and tile.dtype.is_float):
        return tile
    whole = allocated(tile.shape, int32)
    nisa.dma_copy(whole, tile.nki)
    return tiles.tile(whole)


def _dynamic(other: object, static: Index) -> DynamicIndex:
    return DynamicIndex(other, static) if isinstance(other, Tile) else cast(DynamicIndex, NotImplemented)


indices.dynamic[0] = _dynamic
tiles.gather[0] = indirect
