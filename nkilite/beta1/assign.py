"""`tile[...] = value` and `tile += value`: one copy, or none where the instruction that made the value can write there.

Source: "nki.language.store", the block dimension guide and the release notes of 2.24 on `+=`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from sys import getrefcount
from types import FrameType
from typing import cast

import numpy as np

from nkilite import isa as nisa
from nkilite import language
from nkilite.beta1 import functional, select
from nkilite.beta1 import tile as tiles
from nkilite.beta1.arithmetic import join
from nkilite.beta1.blocks import Blocks
from nkilite.beta1.functional import Absent, allocated
from nkilite.beta1.index import Index
from nkilite.beta1.indirect import DynamicIndex
from nkilite.beta1.last_use import is_last_use
from nkilite.beta1.mask import Mask, boxes
from nkilite.beta1.repeated import repeated
from nkilite.beta1.selection import predicate
from nkilite.beta1.tile import (
    IN_IADD,
    LOCAL_IN_IADD,
    Beyond,
    Gathered,
    Tile,
    Unplaced,
    cut,
    has_other_views,
    is_local,
    tile,
)
from nkilite.beta1.zeros import Zeros
from nkilite.dtypes import float32
from nkilite.errors import InvalidOperand, ShapeMismatch, describe
from nkilite.ir.types import MemoryRegion
from nkilite.language.creation import fill
from nkilite.language.elementwise import is_number
from nkilite.trace import active
from nkilite.trace.tensor import NkiTensor

# --- subscripts that are not ints, slices and index tensors alone ---------------------------------------------------


def subscript(x: Tile, key: object) -> Tile:
    """What `x[key]` is for any key; see `Tile.__getitem__`."""
    if isinstance(key, Mask):
        return _masked(x, key)
    if isinstance(key, (bool, np.bool_)):  # a mask that is the same at every position
        return x if key else Absent(x.shape, x.dtype, x.buffer)
    keys = key if isinstance(key, tuple) else (key,)
    if any(isinstance(k, (Tile, DynamicIndex)) for k in keys):
        return Gathered(x.nki, keys)
    if any(k is None for k in keys):
        return _with_new_axes(x, keys)
    view = x.nki
    items = select.normalize(view, keys)
    if any(i.__class__ is Index for i in items):
        try:
            return tile(select.select(view, items))
        except select.Outside:
            return Beyond(view, items)
    return tile(view[tuple(slice(i.start, _stop(i), i.step) if isinstance(i, range) else i for i in items)])


def _stop(positions: range) -> int | None:
    return positions.stop if positions.stop >= 0 else None


def _masked(x: Tile, mask: Mask) -> Tile:
    """A tile of which only the positions of a mask are meant."""
    if isinstance(x, Beyond):
        made: Tile = Beyond(x.base, x.key)
    else:
        made = tile(x.nki)
    made.mask = mask if x.mask is None else x.mask & mask
    return made


def _with_new_axes(x: Tile, keys: tuple[object, ...]) -> Tile:
    found = subscript(x, tuple(k for k in keys if k is not None))
    view = found.nki
    dim = 0
    for k in keys:
        if k is None:
            view = view.expand_dim(dim)
        dim += k is None or not isinstance(k, (int, np.integer))
    return tile(view)


# --- assignment -----------------------------------------------------------------------------------------------------


def assign(dst: Tile, value: object) -> None:
    """Copy `value`, a tile or a number, into a view; free dimensions of size 1 are repeated.

    Raises:
        InvalidOperand: the value is neither.
        ShapeMismatch: it has another shape.
    """
    if value.__class__ is Unplaced and dst.__class__ is Tile and dst.mask is None and _placed(dst.nki, value):
        return
    if isinstance(value, Blocks):
        value = functional.on_chip(value, "value", "assignment")
    if isinstance(value, Tile):
        if value.__class__ is dst.__class__ is Tile and value.mask is dst.mask is None:
            copy(dst.nki, value)
        elif value.mask is not None or dst.mask is not None:
            _assign_masked(dst, value)
        elif isinstance(dst, Zeros) and dst.pending() and value.size == dst.size:
            if value.__class__ is not Unplaced or not _placed(dst.part, value):
                copy(dst.part, value)
            dst.wrote()
        elif not isinstance(value, Absent):
            copy(dst.nki, value)
    elif is_number(value):
        functional.wrote(dst.nki)
        fill(dst.nki, value)
    elif isinstance(value, Index):
        fill_from_index[0](dst, value)
    else:
        raise InvalidOperand(
            instruction="t[...] = value", operand="value", found=describe(value), expected="a tile or a number"
        )


def copy(dst: NkiTensor, value: Tile) -> None:
    """Copy a tile, or let the instruction that has just made it write to `dst`."""
    if value.nki.storage is dst.storage and value.nki.byte_offset == dst.byte_offset and value.nki.type is dst.type:
        return  # what `t[i] += x` assigns has been added in place
    if value.made >= 0 and _redirected(dst, value):
        return
    source = value.nki
    functional.wrote(dst)
    fitted = _fitted(source, dst)
    if not (dst.type.region.on_chip and source.type.region.on_chip):
        if source.type.region is MemoryRegion.psum:
            fitted = functional.moved(fitted, dst.type.dtype)
        nisa.dma_copy(dst, fitted)
    else:
        nisa.tensor_copy(dst, fitted)


def _placed(dst: NkiTensor, value: Unplaced, accumulate: bool = False) -> bool:
    """Let the instruction that has just made `value`, which nothing else can see, write, or add, to a view."""
    return dst.index is None and value.placed(dst.storage, dst.type, dst.byte_offset, accumulate)


def _redirected(dst: NkiTensor, value: Tile) -> bool:
    """Let the last instruction, if it is the one that made `value`, write to `dst` instead of a tile of its own."""
    builder = active.current.builder
    if builder is None or builder.program.count != value.made or not dst.type.region.on_chip:
        return False
    if has_other_views(value, builder.holders(value.nki.storage)):
        return False
    source = value.nki.type
    if source.shape[0] != dst.type.shape[0] or source.free_size != dst.type.free_size:
        return False
    if source.dtype is not dst.type.dtype and source.dtype is not float32:
        return False
    if value.nki.type.region is not MemoryRegion.psum:
        functional.wrote(dst)
    return builder.redirect(value.nki, dst)


def _fitted(source: NkiTensor, dst: NkiTensor) -> NkiTensor:
    """`source`, repeated along free dimensions of size 1 to the elements of `dst`.

    Raises:
        ShapeMismatch: the shapes do not fit.
    """
    one, other = source.type, dst.type
    if one.size == other.size:
        return source
    shape = other.shape
    missing = len(shape) - len(one.shape)
    padded = (one.shape[0], *(1,) * missing, *one.shape[1:]) if missing >= 0 else one.shape
    if missing < 0 or any(n not in (1, m) for n, m in zip(padded, shape, strict=True)):
        raise ShapeMismatch(
            instruction="assignment", detail=f"a tile of shape {one.shape} does not fit a view of shape {shape}"
        )
    return repeated(source, shape) if one.region.on_chip else source


def _assign_masked(dst: Tile, value: Tile) -> None:
    """Copy the positions of the masks alone."""
    mask = value.mask if dst.mask is None else dst.mask if value.mask is None else value.mask & dst.mask
    assert isinstance(mask, Mask)
    shape = dst.shape
    box, exact = functional.box_of(mask, shape)
    if box is None:
        return
    if not shape_fits(value.shape, shape):
        raise ShapeMismatch(
            instruction="assignment", detail=f"a tile of shape {value.shape} does not fit a view of shape {shape}"
        )
    if exact and (not dst.buffer.on_chip or box[0].start % 32 == 0):
        target, source = cut(dst, box), tile(cut(value, box) if value.shape == shape else value.nki)
        copy(target, source)
    elif dst.buffer.on_chip:
        where = predicate(mask.positions(shape), shape)
        fitted = _fitted(value.nki, dst.nki)
        fitted = fitted if fitted.type.dtype is dst.dtype else functional.moved(fitted, dst.dtype)
        nisa.tensor_copy_predicated(dst.nki, fitted, where)
    else:
        for piece in boxes(mask.positions(shape)):
            copy(cut(dst, piece), tile(cut(value, piece)))


def shape_fits(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether a tile of shape `one` can be assigned to a view of shape `other`."""
    size = int(np.prod(one)), int(np.prod(other))
    return size[0] == size[1] or len(one) <= len(other)


# --- in place -------------------------------------------------------------------------------------------------------


def in_place(op: Callable[..., object]) -> Callable[[Tile, object], Tile]:
    """`tile <op>= value`, which changes the tile that all its names see."""

    adds = op is language.add

    def operator(self: Tile, other: object) -> Tile:
        if isinstance(other, Tile) and other.made >= 0:
            references = getrefcount(other) - (other.__class__ is Unplaced)  # which its builder has, too
            if references > IN_IADD and not _is_done_with(other, references, sys._getframe(1)):
                if other.__class__ is Unplaced:
                    other.settle()
                other.made = -1
            elif adds and _accumulated(self, other):
                return self
        if isinstance(other, Blocks):
            other = functional.on_chip(other, "the right side", "an assignment in place")
        if isinstance(other, Absent):
            return self
        if is_number(other):
            functional.wrote(self.nki)
            nisa.tensor_scalar(self.nki, self.nki, op, other)
            return self
        if not isinstance(other, Tile):
            return cast(Tile, NotImplemented)
        functional.wrote(self.nki)
        _join(op, self, other)
        return self

    return operator


def _join(op: Callable[..., object], dst: Tile, value: Tile) -> None:
    """`dst <op>= value`, as far as its mask reaches."""
    if value.mask is None:
        join(op, dst.nki, dst.nki, value.nki)
        return
    box, exact = functional.box_of(value.mask, dst.shape)
    if box is not None and exact:
        view = cut(dst, box)
        join(op, view, view, cut(value, box))
    elif box is not None:
        _join_within(op, dst, value, value.mask)


def _is_done_with(value: Tile, references: int, frame: FrameType) -> bool:
    """Whether nothing can read a tile after the addition that a frame is at."""
    if references > LOCAL_IN_IADD:
        return False
    return is_last_use(frame) or (not IN_IADD and not is_local(value, frame))


def _join_within(op: Callable[..., object], dst: Tile, value: Tile, mask: Mask) -> None:
    """`dst <op>= value` at the positions of a mask that selects no rectangle."""
    shape = dst.shape
    result = allocated(shape, dst.dtype)
    join(op, result, dst.nki, value.nki)
    nisa.tensor_copy_predicated(dst.nki, result, predicate(mask.positions(shape), shape))


def _accumulated(dst: Tile, value: Tile) -> bool:
    """Let the matmul that has just made `value` add to `dst` in PSUM."""
    if value.__class__ is Unplaced:
        waits = isinstance(dst, Zeros) and dst.pending()
        added = _placed(dst.part if waits else dst.nki, value, accumulate=True)  # type: ignore[attr-defined]
        if added and waits:
            dst.wrote()  # type: ignore[attr-defined]
        return added
    builder = active.current.builder
    if builder is None or builder.program.count != value.made or value.mask is not None:
        return False
    target = dst.part if isinstance(dst, Zeros) and dst.pending() else dst.nki
    one, other = value.nki.type, target.type
    if other.region is not MemoryRegion.psum or one.dtype is not float32 or other.dtype is not float32:
        return False
    if one.shape[0] != other.shape[0] or one.free_size != other.free_size:
        return False
    if target.storage.id in tiles.foreign(builder) or builder.program.count != value.made:
        return False
    if has_other_views(value, builder.holders(value.nki.storage)):
        return False
    done = builder.redirect(value.nki, target, accumulate=True)
    if done and isinstance(dst, Zeros):
        dst.wrote()
    return done


def _divided(self: Tile, other: object) -> Tile:
    if is_number(other):
        nisa.tensor_scalar(self.nki, self.nki, language.multiply, float(np.float64(1) / other))
        return self
    assign(self, self / other)  # type: ignore[operator]
    return self


Tile.__iadd__ = in_place(language.add)  # type: ignore[attr-defined]
Tile.__isub__ = in_place(language.subtract)  # type: ignore[attr-defined]
Tile.__imul__ = in_place(language.multiply)  # type: ignore[attr-defined]
Tile.__itruediv__ = _divided  # type: ignore[attr-defined]


# `tile[...] = index tensor`, set by nkilite/beta1/memory.py.
fill_from_index: list[Callable[[Tile, Index], None]] = [lambda tile, index: None]
tiles.subscript[0] = subscript
tiles.assign[0] = assign
