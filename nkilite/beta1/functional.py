"""Beta-1 functions return tiles: how a result is allocated, how a mask limits an instruction, and operands.

What a mask leaves out of a result is undefined in Beta 1; here it is zero where operands leave their tensor, and
computed like the rest where they do not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, cast

import numpy as np

from nkilite import isa as nisa
from nkilite.beta1.blocks import Blocks
from nkilite.beta1.mask import Box, Mask, MaskLike
from nkilite.beta1.tile import Beyond, Tile, cut, foreign, tile
from nkilite.dtypes import DType, DTypeLike, float32
from nkilite.errors import AccessPatternExceeded, IndexOutOfBounds, InvalidOperand, UnsupportedError, describe
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.isa.operators import Op
from nkilite.language.broadcasting import FOR_NUMBERS, NUMBERS
from nkilite.language.creation import _checked_type, element_type
from nkilite.trace import active
from nkilite.trace.builder import Builder
from nkilite.trace.tensor import NkiTensor

SBUF, PSUM = MemoryRegion.sbuf, MemoryRegion.psum

Emit = Callable[..., object]


class Absent(Tile):
    """What an instruction under a false mask makes: nothing. Assigning it changes nothing."""

    __slots__ = ("_dtype", "_made", "_region", "_shape")

    def __init__(self, shape: tuple[int, ...], dtype: DType, region: MemoryRegion) -> None:
        self._shape, self._dtype, self._region = shape, dtype, region
        self._made: NkiTensor | None = None
        self.made, self.mask = -1, None

    @property
    def nki(self) -> NkiTensor:
        if self._made is None:
            self._made = cleared(self._shape, self._dtype, self._region)
        return self._made

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> DType:
        return self._dtype

    @property
    def buffer(self) -> MemoryRegion:
        return self._region


def allocated(shape: Sequence[int], dtype: DType, region: MemoryRegion = SBUF, ours: int = 1) -> NkiTensor:
    """A new tile on chip, whose line is the user's. Raises as nl.ndarray does.

    Args:
        ours: how many frames from here on are known not to be the user's.
    """
    builder = active.current.builder
    if builder is None:
        builder = active.builder("a Beta-1 function")
    kind = builder.tiles.get((region, dtype, shape)) or checked(builder, shape, dtype, region)
    return builder.tile(kind, "", builder.place(sys._getframe(ours)))


def checked(builder: Builder, shape: Sequence[int], dtype: DType, region: MemoryRegion) -> ViewType:
    """The type of new tiles. Raises as nl.ndarray does."""
    found = builder.tiles.get((region, dtype, shape))
    if found is None:
        found = builder.tiles[region, dtype, shape] = _checked_type(shape, dtype, region, "", builder.target)
    return found


def cleared(shape: Sequence[int], dtype: DType, region: MemoryRegion = SBUF) -> NkiTensor:
    """A new tile of zeros."""
    made = allocated(tuple(shape), dtype, region)
    nisa.memset(made, 0)
    return made


def wrote(view: NkiTensor) -> None:
    """Another engine than the Tensor Engine writes the view: matmuls do not add to its tile any more."""
    if view.type.region is PSUM:
        foreign(active.builder()).add(view.storage.id)


def fresh(view: NkiTensor, mask: Mask | None = None) -> Tile:
    """The tile the last instruction made."""
    made = tile(view)
    made.made = active.current.builder.program.count  # type: ignore[union-attr]
    made.mask = mask
    return made


def on_chip(x: object, operand: str, function: str) -> Tile:
    """Raise InvalidOperand unless `x` is a tile in SBUF or PSUM."""
    if isinstance(x, Blocks) and prod(x.blocks) == 1:
        return cast(Tile, x[(0,) * len(x.blocks)])
    if isinstance(x, Tile) and x.buffer.on_chip:
        return x
    if isinstance(x, Tile):
        fix = "load it first with nl.load"
    elif isinstance(x, Blocks):
        fix = "choose one of its tiles by indexing the block dimensions"
    else:
        fix = FOR_NUMBERS if isinstance(x, NUMBERS) else ""
    raise InvalidOperand(
        instruction=function, operand=operand, found=describe_operand(x), expected="a tile in SBUF or PSUM", fix=fix
    )


def describe_operand(x: object) -> str:
    """How messages describe what was passed."""
    if isinstance(x, Tile):
        return f"a tensor of shape {x.shape} in {str(x.buffer).upper()}"
    return repr(x) if isinstance(x, Blocks) else describe(x)


def dtype_or(dtype: DTypeLike | None, default: DType, function: str) -> DType:
    """The dtype of a result: what was asked for, or the default."""
    if dtype is None:
        return default
    if dtype.__class__ is DType:
        return dtype
    try:
        return _elements[dtype]
    except (KeyError, TypeError):  # new, or no dtype: explained below
        found = element_type(dtype, function)
    if isinstance(dtype, (type, np.dtype)):
        _elements[dtype] = found
    return found


_elements: dict[object, DType] = {}  # by NumPy type


def beside(x: NkiTensor, y: NkiTensor) -> NkiTensor:
    """`y`, or a copy of it in SBUF when `x` is in PSUM, too: engines read PSUM through one port."""
    if x.type.region is PSUM and y.type.region is PSUM:
        return moved(y)
    return y


def moved(x: NkiTensor, dtype: DType | None = None) -> NkiTensor:
    """A copy in SBUF."""
    made = allocated(x.type.shape, dtype or x.type.dtype)
    nisa.tensor_copy(made, x)
    return made


def in_sbuf(x: NkiTensor) -> NkiTensor:
    """The tile, or a copy of it in SBUF if it is elsewhere on chip."""
    return moved(x) if x.type.region is PSUM else x


def vector(x: object, exact: bool = False) -> Any:
    """An operand with one element per partition as instructions take it: a number, or a float32 (P, 1) tile."""
    if not isinstance(x, (Tile, Blocks)):
        return x
    view = x.nki
    if view.type.ndim != 2 and view.type.free_size == 1:
        view = view.reshape((view.type.shape[0], 1))
    if view.type.dtype is not float32 and not exact and view.type.region.on_chip:
        view = moved(view, float32)
    return view


# --- masks ----------------------------------------------------------------------------------------------------------


def pointwise(
    emit: Emit, shape: tuple[int, ...], dtype: DType, mask: MaskLike, tiles: Sequence[Tile],
    region: MemoryRegion = SBUF,
    vectors: Sequence[object] = (),
) -> Tile:
    """The result of an instruction that computes each position from the same position of its operands.

    Args:
        emit: called with the view to write, those to read, and the vectors.
        mask: None, a mask, or a bool.
        vectors: numbers, or tiles with one element per partition (`vector`).
    """
    if mask is None or mask is True:
        views = [t.nki for t in tiles]
        views += [rows_of(v, range(shape[0])) for v in vectors]
        result = allocated(shape, dtype, region)
        try:
            emit(result, *views)
        except AccessPatternExceeded:
            in_slices(emit, result, *views)
            return tile(result)
        return fresh(result)
    if not isinstance(mask, Mask):
        if not is_false(mask):
            return pointwise(emit, shape, dtype, None, tiles, region, vectors)
        return Absent(shape, dtype, region)
    if not any(isinstance(t, Beyond) for t in tiles):
        result = allocated(shape, dtype, region)
        emit(result, *[t.nki for t in tiles], *[rows_of(v, range(shape[0])) for v in vectors])
        return fresh(result, mask)
    box, _ = box_of(mask, shape)
    if box is None:
        return Absent(shape, dtype, region)
    box = reachable(box, tiles)
    result = cleared(shape, dtype, region)
    emit(cut(tile(result), box), *[cut(t, box) for t in tiles], *[rows_of(v, box[0]) for v in vectors])
    made = tile(result)
    made.mask = mask
    return made


def in_slices(emit: Emit, *views: NkiTensor) -> None:
    """Emit an instruction once per position of the first free dimension, for its access patterns have too many."""
    size = max(v.type.shape[1] for v in views)
    for position in range(size):
        parts = [v[:, min(position, v.type.shape[1] - 1)] for v in views]
        try:
            emit(*parts)
        except AccessPatternExceeded:
            if parts[0].type.ndim < 3:
                raise
            in_slices(emit, *parts)


def is_false(mask: MaskLike) -> bool:
    """Whether a mask that is no comparison of index tensors is false.

    Raises:
        InvalidOperand: it is no bool; a tile's values are none, for a mask is a predicate that the compiler knows.
    """
    if isinstance(mask, Tile):
        raise InvalidOperand(
            instruction="mask=", operand="mask", found="a tile",
            expected="a predicate that is known when the kernel is compiled",
            fix="compare index tensors; to choose by what a tile holds, use nl.where or nisa.tensor_copy_predicated",
        )
    try:
        return not bool(mask)
    except TypeError:
        raise InvalidOperand(
            instruction="mask=", operand="mask", found=describe(mask), expected="a comparison of index tensors"
        ) from None



def box_of(mask: Mask, shape: tuple[int, ...]) -> tuple[Box | None, bool]:
    """The box of a mask in a tile, None if it is empty, and whether the box is all the mask selects."""
    box, exact = mask.box(shape)
    return (None if any(not r for r in box) else box), exact


def reachable(box: Box, tiles: Sequence[Tile]) -> Box:
    """A box whose partitions compute engines can access: from the first one on, if not from where it begins.

    What a mask leaves out of a result is undefined, so that an instruction may compute more than it selects, as long as
    operands are inside of their tensors.
    """
    if starts_well(box[0]):
        return box
    wider = (range(box[0].stop), *box[1:])
    try:
        for t in tiles:
            cut(t, wider)
    except IndexOutOfBounds:
        return box
    return wider


def starts_well(partitions: range) -> bool:
    """Whether compute engines can access these partitions of a tile."""
    return partitions.start in active.builder().target.start_partitions(len(partitions))


def exact_box(mask: Mask, shape: tuple[int, ...], function: str) -> Box | None:
    """The box of a mask. Raises UnsupportedError if the mask selects other positions than those of a box."""
    box, exact = box_of(mask, shape)
    if not exact:
        raise UnsupportedError(feature=f"{function} under a mask that selects no rectangle")
    return box


_BITVEC = {"bitwise_and", "bitwise_or", "bitwise_xor", "invert", "left_shift", "right_shift"}
_INT32 = ("int32", "uint32")


def skipped(mask: MaskLike) -> bool:
    """Whether a mask is false everywhere, so that nothing is emitted."""
    return mask is not None and mask is not True and not isinstance(mask, Mask) and is_false(mask)


def alu_operand(x: object, op: Op, data: Tile) -> Any:
    """A number-or-vector operand of an ALU operator."""
    if not isinstance(x, (Tile, Blocks)):
        return x
    exact = getattr(op, "__name__", "") in _BITVEC or (data.dtype in _INT32 and x.dtype in _INT32)
    return vector(x, exact)


def rows_of(operand: object, rows: range) -> Any:
    """The vector operand of some partitions of a tile; a number, or the vector of one partition, is that of all."""
    if operand.__class__ is not NkiTensor:
        return operand
    count = operand.type.shape[0]
    return operand if count == 1 or count == len(rows) else operand[rows.start : rows.stop, 0:1]
