"""Moving tiles between HBM and SBUF under Beta-1 signatures: load, store, copy and their relatives.

Source: nki.language.load, store, load_transpose2d, copy, atomic_rmw, where, gather_flattened, transpose.
"""

from __future__ import annotations

import typing

import numpy as np

from nkilite import isa as nisa
from nkilite import language
from nkilite.beta1 import functional
from nkilite.beta1 import tile as tiles
from nkilite.beta1.arithmetic import functions_of_numpy
from nkilite.beta1.assign import fill_from_index
from nkilite.beta1.blocks import Blocks
from nkilite.beta1.functional import Absent, allocated, dtype_or, fresh, on_chip, pointwise
from nkilite.beta1.index import Index
from nkilite.beta1.keywords import public
from nkilite.beta1.mask import Box, Mask, MaskLike, boxes
from nkilite.beta1.operators import operator
from nkilite.beta1.remembered import remembered
from nkilite.beta1.selection import predicate
from nkilite.beta1.tile import Beyond, Tile, cut, tile
from nkilite.dtypes import DType, DTypeLike, cast
from nkilite.errors import IndexOutOfBounds, InvalidOperand, UnknownOperator
from nkilite.ir.types import MemoryRegion, OobMode
from nkilite.isa.operators import Op
from nkilite.language import broadcasting
from nkilite.language.creation import element_type
from nkilite.language.elementwise import is_number
from nkilite.language.selection import chosen_dtype
from nkilite.trace.tensor import NkiTensor


def in_hbm(x: object, operand: str, function: str) -> Tile:
    """Raise InvalidOperand unless `x` is a tensor in HBM."""
    if isinstance(x, Tile) and not x.buffer.on_chip:
        return x
    fix = "use nl.copy or nisa.tensor_copy between tiles" if isinstance(x, Tile) else "pass arrays as arguments"
    raise InvalidOperand(
        instruction=function, operand=operand, found=functional.describe_operand(x), expected="a tensor in HBM",
        fix=fix,
    )


@remembered
def load(src: object, mask: MaskLike = None, dtype: DTypeLike | None = None, mode: object = None) -> Tile:
    """A new SBUF tile with the values of an HBM tensor, converted to `dtype` if given.

    Raises:
        InvalidOperand: `src` is not in HBM.
        IndexOutOfBounds: index tensors leave it where the mask does not say otherwise.
        PartitionLimitExceeded: more than 128 rows.
    """
    src = in_hbm(src, "src", "nl.load")
    shape = src.shape
    if isinstance(src, Absent):
        mask = False
    shape = shape if len(shape) > 1 else (*shape, 1)
    kind = dtype_or(dtype, src.dtype, "nl.load")
    mask = src.mask if mask is None else mask if src.mask is None else src.mask & mask
    if mask is None:
        view = src.nki
        if view.index is None or mode is None:
            result = allocated(shape, kind)
            nisa.dma_copy(result, view)
            return fresh(result)
        result = functional.cleared(shape, kind)
        nisa.dma_copy(result, view, oob_mode=_oob(mode))
        return tile(result)
    return _load_masked(src, mask, shape, kind)


def _oob(mode: object) -> OobMode:
    return OobMode[mode.name] if hasattr(mode, "name") else OobMode.error


def _load_masked(src: Tile, mask: MaskLike, shape: tuple[int, ...], dtype: DType) -> Tile:
    if not isinstance(mask, Mask):
        return Absent(shape, dtype, functional.SBUF) if functional.is_false(mask) else load(src, dtype=dtype)
    if not isinstance(src, Beyond):
        result = allocated(shape, dtype)
        nisa.dma_copy(result, src.nki)
        return fresh(result, mask)
    box, exact = functional.box_of(mask, src.shape)
    if box is None:
        return Absent(shape, dtype, functional.SBUF)
    made = tile(functional.cleared(shape, dtype))
    made.mask = mask
    pieces = [box]
    if not exact:
        try:
            src.cut(box)
        except IndexOutOfBounds:
            pieces = list(boxes(mask.positions(src.shape)))
    for piece in pieces:
        nisa.dma_copy(_piece(made, piece, src.shape), cut(src, piece))
    return made


def _piece(x: Tile, box: Box, shape: tuple[int, ...]) -> NkiTensor:
    """The positions of a box over `shape` in a tile that may have one more dimension, of size 1."""
    return cut(x, box if len(box) == x.ndim else (*box, range(1)))


def _filled(value: float, shape: tuple[int, ...], dtype: DType) -> Tile:
    """A new tile that holds a number."""
    made = allocated(shape, dtype)
    nisa.memset(made, value)
    return tile(made)


def _of_one_width(source: DType, dst: DType) -> bool:
    """Whether bits are stored as they are: public kernels store what searches find as int32, and -1 is none."""
    return source is not dst and source.is_integer and dst.is_integer and source.itemsize == dst.itemsize


@remembered
def store(dst: object, value: object, mask: MaskLike = None, mode: object = None) -> None:
    """Copy a tile, or a number, to an HBM tensor, converted to its dtype; with a mask, to its positions alone.

    Raises:
        InvalidOperand: `dst` is not in HBM, or `value` no tile.
        IndexOutOfBounds: index tensors leave it where the mask does not say otherwise.
    """
    dst = in_hbm(dst, "dst", "nl.store")
    if isinstance(dst, Absent):
        return
    mask = dst.mask if mask is None else mask if dst.mask is None else dst.mask & mask
    if mask is not None and not isinstance(mask, Mask):
        if functional.is_false(mask):
            return
        mask = None
    if is_number(value):
        value = _filled(value, dst.shape if dst.ndim > 1 else (*dst.shape, 1), dst.dtype)
    value = on_chip(value, "value", "nl.store")
    if isinstance(value, Absent):
        return
    source = value.nki
    if source.type.region is MemoryRegion.psum:
        source = functional.moved(source, dst.dtype)
    if _of_one_width(source.type.dtype, dst.dtype):
        source = source.view(dst.dtype)
    if mask is None:
        view = dst.nki
        if view.index is not None and mode is not None:
            nisa.dma_copy(view, source, oob_mode=_oob(mode))
        else:
            nisa.dma_copy(view, _repeated(source, view))
        return
    shape = dst.shape
    box, exact = functional.box_of(mask, shape)
    if box is None:
        return
    moved = tile(source)
    for piece in [box] if exact else boxes(mask.positions(shape)):
        nisa.dma_copy(cut(dst, piece), _piece(moved, piece, shape))


def _repeated(source: NkiTensor, dst: NkiTensor) -> NkiTensor:
    """`source` with free dimensions of size 1 repeated to the shape of an HBM view."""
    one, other = source.type.shape, dst.type.shape
    if source.type.size == dst.type.size or len(one) != len(other) or one[0] != other[0]:
        return source
    if any(n not in (1, m) for n, m in zip(one, other, strict=True)):
        return source
    return broadcasting.repeat(source, other)


@remembered
def load_transpose2d(src: object, mask: MaskLike = None, dtype: DTypeLike | None = None) -> Tile:
    """A new SBUF tile with the transpose of an HBM matrix; further dimensions of size 1 are left out."""
    src = in_hbm(src, "src", "nl.load_transpose2d")
    shape = src.shape
    if len(shape) < 2 or any(n != 1 for n in shape[2:]):
        raise InvalidOperand(
            instruction="nl.load_transpose2d", operand="src", found=f"of shape {shape}", expected="two-dimensional"
        )
    kind = dtype_or(dtype, src.dtype, "nl.load_transpose2d")
    flipped = (shape[1], shape[0])
    if mask is None or mask is True:
        result = allocated(flipped, kind)
        nisa.dma_copy(result, _flipped(src.nki))
        return fresh(result)
    if not isinstance(mask, Mask):
        absent = functional.is_false(mask)
        return Absent(flipped, kind, functional.SBUF) if absent else load_transpose2d(src, dtype=kind)
    made = tile(functional.cleared(flipped, kind))
    for box in boxes(mask.positions(shape)):
        nisa.dma_copy(cut(made, (box[1], box[0])), _flipped(cut(src, box)))
    return made


def _flipped(view: NkiTensor) -> NkiTensor:
    while view.ndim > 2:
        view = view.squeeze_dim(view.ndim - 1)
    return view.permute((1, 0))


@remembered
def copy(src: object, mask: MaskLike = None, dtype: DTypeLike | None = None) -> Tile:
    """A new SBUF tile with the values of a tile in SBUF or PSUM, converted to `dtype` if given."""
    src = on_chip(src, "src", "nl.copy")
    kind = dtype_or(dtype, src.dtype, "nl.copy")
    mask = src.mask if mask is None and not isinstance(src, Beyond) else mask
    return pointwise(nisa.tensor_copy, src.shape, kind, mask, (src,))


def static_cast(input_data: object, dtype: DTypeLike) -> Tile:
    """A copy of a tile with another dtype; of a NumPy array, too, as callers of kernels use it."""
    if isinstance(input_data, np.ndarray):
        return cast(input_data.astype(np.float32), element_type(dtype, "static_cast"))  # type: ignore[return-value]
    return copy(input_data, dtype=dtype)


@public
def atomic_rmw(dst: object, value: object, op: Op, mask: MaskLike = None) -> None:
    """dst = dst <op> value in HBM, where dst may be indexed by a tile; `op` is an addition.

    Raises:
        UnknownOperator: another operator.
    """
    dst, value = in_hbm(dst, "dst", "nl.atomic_rmw"), on_chip(value, "value", "nl.atomic_rmw")
    if operator(op) is not language.add:
        raise UnknownOperator(
            instruction="nl.atomic_rmw", found=getattr(op, "__name__", op), kind="operator", allowed="add",
            example="add",
        )
    if mask is not None and not isinstance(mask, Mask) and functional.is_false(mask):
        return
    pieces: list[Box | None] = [None]
    if isinstance(mask, Mask):
        pieces = list(boxes(mask.positions(dst.shape)))
    for piece in pieces:
        target = dst.nki if piece is None else cut(dst, piece)
        source = value.nki if piece is None else cut(value, piece)
        source = functional.in_sbuf(source)
        nisa.dma_compute(target, [source, target], language.add)


@public
def where(
    condition: object, x: object, y: object, dtype: DTypeLike | None = None, mask: MaskLike = None
) -> Tile:
    """x where the condition is nonzero, else y; the condition is a tile, or a comparison of index tensors."""
    if isinstance(condition, Mask):
        shape = next((t.shape for t in (x, y) if isinstance(t, Tile)), condition.grid)
        condition = tile(predicate(condition.positions(shape), shape))
    elif isinstance(condition, (bool, np.bool_)):
        chosen, other = (x, y) if condition else (y, x)
        if is_number(chosen) and isinstance(other, Tile):  # everywhere
            chosen = _filled(chosen, other.shape, chosen_dtype(other.dtype, chosen, other.dtype))
        return copy(chosen, dtype=dtype)
    condition = on_chip(condition, "condition", "nl.where")
    x, y = (on_chip(t, o, "nl.where") if isinstance(t, (Tile, Blocks)) else t for o, t in (("x", x), ("y", y)))
    operands = tuple(t for t in (condition, x, y) if isinstance(t, Tile))
    if mask is not None and mask is not True and not isinstance(mask, Mask) and functional.is_false(mask):
        return Absent(operands[-1].shape, dtype_or(dtype, operands[-1].dtype, "nl.where"), functional.SBUF)
    if isinstance(mask, Mask):

        def emit(dst: NkiTensor, which: NkiTensor, *views: NkiTensor) -> None:
            left = iter(views)
            one, other = (next(left) if isinstance(t, Tile) else typing.cast(float, t) for t in (x, y))
            nisa.tensor_copy(dst, language.where(which, one, other, dst.type.dtype))

        values = [t.dtype if isinstance(t, Tile) else typing.cast(float, t) for t in (x, y)]
        kind = dtype_or(dtype, chosen_dtype(condition.dtype, *values), "nl.where")
        return pointwise(emit, operands[-1].shape, kind, mask, operands)
    one, other = (t.nki if isinstance(t, Tile) else typing.cast(float, t) for t in (x, y))
    made = fresh(language.where(condition.nki, one, other, dtype))
    made.made = -1  # two instructions made it
    return made


functions_of_numpy[np.where] = where


@public
def gather_flattened(
    data: object, indices: object, mask: MaskLike = None, dtype: DTypeLike | None = None
) -> Tile:
    """In every partition, the elements of `data` at the positions `indices` of its flattened free dimensions."""
    data, indices = on_chip(data, "data", "nl.gather_flattened"), on_chip(indices, "indices", "nl.gather_flattened")
    return fresh(language.gather_flattened(functional.in_sbuf(data.nki), functional.in_sbuf(indices.nki), dtype=dtype))


def expand_dims(data: object, axis: int) -> Tile:
    """A view with a dimension of size 1 inserted at `axis`."""
    return on_chip(data, "data", "nl.expand_dims").expand_dims(axis)


@public
def device_print(prefix: str, x: Tile, mask: MaskLike = None) -> None:
    """Print a tile when the kernel runs."""
    language.device_print(prefix, x.nki)


@public
def random_seed(seed: object, mask: MaskLike = None) -> None:
    """Seed the generators behind nl.rand and nl.dropout."""
    if mask is not None and not isinstance(mask, Mask) and functional.is_false(mask):
        return
    if is_number(seed):
        filled = allocated((1, 1), language.int32)
        nisa.memset(filled, seed)
        seed = tile(filled)
    view = on_chip(seed, "seed", "nl.random_seed").nki
    language.random_seed(view)


@public
def dropout(x: object, rate: object, dtype: DTypeLike | None = None, mask: MaskLike = None) -> Tile:
    """`x` with zeros in the place of elements chosen at random; the others are not scaled."""
    x = on_chip(x, "x", "nl.dropout")
    kind = dtype_or(dtype, x.dtype, "nl.dropout")
    probability = functional.vector(rate)
    made = pointwise(nisa.dropout, x.shape, kind, mask, (x,), vectors=(probability,))
    made.made = -1  # it has used the generators
    return made


def assigned(x: Tile, value: Index) -> None:
    """`tile[...] = index tensor`."""
    shape = x.shape
    _, strides = value.grid._padded(len(shape))
    nisa.iota(
        x.nki, [[s, n] for s, n in zip(strides[1:], shape[1:], strict=True)], value.offset, strides[0]
    )


fill_from_index[0] = assigned
tiles.convert[0] = static_cast
