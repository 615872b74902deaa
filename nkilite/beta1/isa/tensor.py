"""Matmuls and transposes. Source: nki.isa in the public documentation of Beta 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nkilite import isa as nisa
from nkilite import language
from nkilite.beta1 import functional
from nkilite.beta1.functional import (
    PSUM,
    SBUF,
    Absent,
    allocated,
    cleared,
    dtype_or,
    fresh,
    in_sbuf,
    on_chip,
    skipped,
)
from nkilite.beta1.keywords import public
from nkilite.beta1.mask import Mask, MaskLike
from nkilite.beta1.remembered import remembered
from nkilite.beta1.selection import limited, selected
from nkilite.beta1.tile import Beyond, Tile, cut, tile
from nkilite.dtypes import DTypeLike, float32, tfloat32
from nkilite.isa.constants import dge_mode as dge_mode
from nkilite.isa.constants import (
    tensor_engine,
    unknown_engine,
    vector_engine,
)
from nkilite.trace.tensor import NkiTensor

Emit = Callable[[NkiTensor, NkiTensor, NkiTensor], object]


@remembered
def nc_matmul(
    stationary: object, moving: object, is_stationary_onezero: bool = False, is_moving_onezero: bool = False,
    is_transpose: bool = False, tile_position: Sequence[int] = (), tile_size: Sequence[int] = (), mask: MaskLike = None,
    perf_mode: object = None
) -> Tile:
    """stationary.T @ moving, as a new float32 tile in PSUM; operands in PSUM are copied to SBUF first."""
    name = "nisa.nc_matmul"
    stationary, moving = on_chip(stationary, "stationary", name), on_chip(moving, "moving", name)
    pairs = isinstance(perf_mode, str) and perf_mode.startswith("double_row")
    mode: Any = "double_row" if pairs else "none" if perf_mode is None else perf_mode

    def emit(dst: NkiTensor, x: NkiTensor, y: NkiTensor) -> None:
        nisa.nc_matmul(
            dst, x, y, is_stationary_onezero, is_moving_onezero, is_transpose, False, tile_position, tile_size, mode
        )

    return product(emit, stationary, moving, mask, 2 if pairs else 1)


def product(emit: Emit, stationary: Tile, moving: Tile, mask: MaskLike, first: int = 1) -> Tile:
    """The result of a matmul; `first` is the first dimension of its operands that is not contracted.

    Each term of a mask stands for itself, for rows of the result and its columns are columns of different operands. One
    along dimension 0 limits what is contracted. One along others belongs to the operand that needs it, or that alone
    has that many columns.
    """
    emit = _widening(emit)
    if mask is None and stationary.mask is None and moving.mask is None:
        x, y = in_sbuf(stationary.nki), in_sbuf(moving.nki)
        shape = (x.type.free_size // first, *y.type.shape[first:])
        result = allocated(shape, float32, PSUM)
        emit(result, x, y)
        return fresh(result)
    rows = int(np.prod(stationary.shape[first:]))
    shape = (rows, *(moving.shape[first:] or (1,)))
    if skipped(mask):
        return Absent(shape, float32, PSUM)
    masks = [stationary.mask, moving.mask]
    for term in mask.terms() if isinstance(mask, Mask) else ():
        for side in _sides(term, stationary, moving):
            masks[side] = term if masks[side] is None else masks[side] & term
    if masks == [None, None]:
        result = allocated(shape, float32, PSUM)
        emit(result, in_sbuf(stationary.nki), in_sbuf(moving.nki))
        return fresh(result)
    spans, operands = [], [stationary, moving]
    for side, limit in enumerate(masks):
        span = tuple(map(range, operands[side].shape))
        if limit is not None:
            found, exact = functional.box_of(limit, operands[side].shape)
            if found is None:
                return Absent(shape, float32, PSUM)
            if not exact or not functional.starts_well(found[0]):
                operands[side] = tile(selected(operands[side], limit, 0))
                found = (range(found[0].stop), *found[1:])
            span = found
        spans.append(span)
    (left, right), (stationary, moving) = spans, operands
    contracted = range(max(left[0].start, right[0].start), min(left[0].stop, right[0].stop))
    if not contracted:
        return Absent(shape, float32, PSUM)
    left, right = (contracted, *left[1:]), (contracted, *right[1:])
    box = (left[1], *right[1:]) if len(left) == 2 else (range(rows), *right[1:])
    if all(len(b) == n for b, n in zip(box, shape, strict=True)):
        result = allocated(shape, float32, PSUM)
        emit(result, in_sbuf(cut(stationary, left)), in_sbuf(cut(moving, right)))
        return fresh(result)
    result = cleared(shape, float32, PSUM)
    emit(cut(tile(result), box), in_sbuf(cut(stationary, left)), in_sbuf(cut(moving, right)))
    return tile(result)


def _widening(emit: Emit) -> Emit:
    """The pages of Beta 1 do not say that operands are float32 together: a narrower one is made float32 first."""

    def emit_alike(dst: NkiTensor, x: NkiTensor, y: NkiTensor) -> None:
        wide = [operand.type.dtype in (float32, tfloat32) for operand in (x, y)]
        if wide == [True, False]:
            y = functional.moved(y, float32)
        elif wide == [False, True]:
            x = functional.moved(x, float32)
        emit(dst, x, y)

    return emit_alike


def _sides(mask: Mask, stationary: Tile, moving: Tile) -> tuple[int, ...]:
    """Which operands a mask of a matmul limits."""
    grid = mask.numpy().shape
    if len(grid) < 2 or all(n == 1 for n in grid[1:]):
        return (0, 1)
    if isinstance(stationary, Beyond) != isinstance(moving, Beyond):
        return (0,) if isinstance(stationary, Beyond) else (1,)
    if stationary.mask is not None and moving.mask is None:
        return (0,)
    if moving.mask is not None and stationary.mask is None:
        return (1,)
    columns = int(np.prod(grid[1:]))
    fits = [int(np.prod(t.shape[1:])) == columns for t in (stationary, moving)]
    return (0,) if fits == [True, False] else (1,) if fits == [False, True] else ()


@remembered
def nc_transpose(
    data: object, mask: MaskLike = None, dtype: DTypeLike | None = None, engine: object = unknown_engine
) -> Tile:
    """The transpose of a tile: in PSUM by the Tensor Engine, in SBUF by the Vector Engine."""
    name = "nisa.nc_transpose"
    data = on_chip(data, "data", name)
    shape = data.shape
    flipped = (int(np.prod(shape[1:])), shape[0])
    kind = dtype_or(dtype, data.dtype, name)
    on_vector = engine is vector_engine
    region = SBUF if on_vector else PSUM
    if skipped(mask):
        return Absent(flipped, kind, region)
    chosen_engine = vector_engine if on_vector else tensor_engine
    found = limited(data, mask, language.add, name) if isinstance(mask, Mask) else (data.nki, None)
    if found is None:
        return Absent(flipped, kind, region)
    source, box = found
    if not on_vector:
        source = in_sbuf(source)
    whole = box is None or all(len(b) == n for b, n in zip(box, shape, strict=True))
    result = allocated(flipped, data.dtype, region) if whole else cleared(flipped, data.dtype, region)
    target = result if whole else cut(tile(result), (box[1], box[0]))  # type: ignore[index]
    nisa.nc_transpose(target, source, chosen_engine)
    if kind != data.dtype:
        return fresh(functional.moved(result, kind), mask if isinstance(mask, Mask) and whole is False else None)
    return fresh(result) if whole else tile(result)


@remembered
def matmul(x: object, y: object, transpose_x: bool = False, mask: MaskLike = None) -> Tile:
    """x @ y, or x.T @ y with `transpose_x`, as a new float32 tile in PSUM."""
    x, y = on_chip(x, "x", "nl.matmul"), on_chip(y, "y", "nl.matmul")
    if skipped(mask):
        return Absent((x.shape[1 if transpose_x else 0], *y.shape[1:]), float32, PSUM)
    if not transpose_x:
        transposed = nc_transpose(x, engine=tensor_engine)
        x = tile(functional.moved(transposed.nki))
    return product(lambda dst, a, b: nisa.nc_matmul(dst, a, b, accumulate=False), x, y, mask)


@public
def transpose(x: object, dtype: DTypeLike | None = None, mask: MaskLike = None) -> Tile:
    """The transpose of a matrix of at most 128 x 128."""
    return nc_transpose(x, mask, dtype, tensor_engine)
