"""Operands under masks that select no rectangle: copies that hold what an instruction passes over elsewhere."""

from __future__ import annotations

import math

import numpy as np

from nkilite import isa as nisa
from nkilite import language
from nkilite.beta1.functional import allocated, box_of, reachable
from nkilite.beta1.mask import Box, Mask, boxes
from nkilite.beta1.tile import Beyond, Tile, cut, tile
from nkilite.dtypes import DType, uint8
from nkilite.errors import UnsupportedError
from nkilite.isa.operators import Op
from nkilite.trace.tensor import NkiTensor

_NEUTRAL = {
    language.add: 0.0, language.multiply: 1.0, language.max: -math.inf, language.maximum: -math.inf,
    language.min: math.inf, language.minimum: math.inf, language.logical_or: 0.0, language.logical_and: 1.0,
    language.bitwise_or: 0.0, language.bitwise_xor: 0.0, language.logical_xor: 0.0,
}


def limited(x: Tile, mask: Mask, op: Op | None, function: str) -> tuple[NkiTensor, Box] | None:
    """What a mask selects of a tile, and where; None if that is nothing.

    A rectangle is a view. Of anything else it is a copy, in which `op` passes over the other elements.

    Raises:
        UnsupportedError: see `filled`.
    """
    box, exact = box_of(mask, x.shape)
    if box is None:
        return None
    if exact:
        box = reachable(box, (x,))
        return cut(x, box), box
    made = filled(x, mask, op, function)
    box = reachable(box, (made,))
    return cut(made, box), box


def filled(x: Tile, mask: Mask, op: Op | None, function: str) -> Tile:
    """A copy in SBUF of what a mask selects of a tile, in which `op` passes over the other elements.

    Raises:
        UnsupportedError: no element leaves the results of `op` as they are.
    """
    if op is None or op not in _NEUTRAL:
        raise UnsupportedError(feature=f"{function} under a mask that selects no rectangle")
    return tile(selected(x, mask, _within(_NEUTRAL[op], x.dtype)))


def selected(x: Tile, mask: Mask, fill: float) -> NkiTensor:
    """A copy in SBUF of what a mask selects of a tile, with `fill` elsewhere."""
    shape = x.shape
    positions = mask.positions(shape)
    made = allocated(shape, x.dtype)
    nisa.memset(made, fill)
    if not isinstance(x, Beyond):
        nisa.tensor_copy_predicated(made, x.nki, predicate(positions, shape))
        return made
    for box in boxes(positions):  # by DMA, which reaches partitions that engines cannot begin with
        nisa.dma_copy(cut(tile(made), box), cut(x, box))
    return made


def _within(number: float, dtype: DType) -> float:
    """The number, or what comes closest to it among integers of a type."""
    if not math.isinf(number) or not dtype.is_integer:
        return number
    info = np.iinfo(dtype.numpy)
    return int(info.min if number < 0 else info.max)


def predicate(positions: np.ndarray, shape: tuple[int, ...]) -> NkiTensor:
    """A tile of 1 where positions are selected, else 0."""
    where = allocated(shape, uint8)
    nisa.dma_copy(where, language.shared_constant(np.ascontiguousarray(positions, np.uint8)))
    return where
