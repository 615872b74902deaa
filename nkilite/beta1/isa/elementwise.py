"""Elementwise instructions and copies. Source: nki.isa in the public documentation of Beta 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from nkilite import isa as nisa
from nkilite import language
from nkilite.beta1 import functional
from nkilite.beta1.blocks import Blocks
from nkilite.beta1.creation import new_tensor
from nkilite.beta1.functional import (
    SBUF,
    Absent,
    allocated,
    alu_operand,
    beside,
    dtype_or,
    on_chip,
    pointwise,
    skipped,
)
from nkilite.beta1.keywords import public
from nkilite.beta1.mask import Mask, MaskLike, boxes
from nkilite.beta1.operators import operator
from nkilite.beta1.remembered import remembered
from nkilite.beta1.repeated import repeated
from nkilite.beta1.tile import Tile, cut, tile
from nkilite.dtypes import DTypeLike, uint8
from nkilite.isa.constants import dge_mode as dge_mode
from nkilite.isa.constants import (
    unknown_engine,
)
from nkilite.isa.operators import Op
from nkilite.language import broadcasting
from nkilite.language.creation import element_type
from nkilite.machine.engine import Engine
from nkilite.trace.tensor import NkiTensor


@remembered
def tensor_tensor(
    data1: object, data2: object, op: Op, dtype: DTypeLike | None = None, mask: MaskLike = None,
    engine: Engine = unknown_engine
) -> Tile:
    """data1 <op> data2; free dimensions of size 1 repeat."""
    name = "nisa.tensor_tensor"
    data1, data2 = on_chip(data1, "data1", name), on_chip(data2, "data2", name)
    one, other = data1.shape, data2.shape
    shape = one if one == other else broadcasting.common_shape(one, other, name)
    a, b = data1.dtype, data2.dtype
    kind = dtype_or(dtype, a if a is b else broadcasting.promote(a, b), name)
    chosen = operator(op)

    def emit(dst: NkiTensor, x: NkiTensor, y: NkiTensor) -> None:
        if x.type.shape != y.type.shape:
            x, y = repeated(x, dst.type.shape), repeated(y, dst.type.shape)
        nisa.tensor_tensor(dst, x, beside(x, y), chosen, engine)

    return pointwise(emit, shape, kind, mask, (data1, data2))


@remembered
def tensor_scalar(
    data: object, op0: Op, operand0: object, reverse0: bool = False, op1: Op | None = None, operand1: object = None,
    reverse1: bool = False, dtype: DTypeLike | None = None, mask: MaskLike = None, engine: Engine = unknown_engine
) -> Tile:
    """(data <op0> operand0) <op1> operand1 with numbers, or one value per partition."""
    name = "nisa.tensor_scalar"
    data = on_chip(data, "data", name)
    first, second = operator(op0), operator(op1)
    kind = dtype_or(dtype, data.dtype, name)
    if skipped(mask):
        return Absent(data.shape, kind, SBUF)
    x0, x1 = alu_operand(operand0, first, data), alu_operand(operand1, second, data)

    def emit(dst: NkiTensor, x: NkiTensor, y0: float | NkiTensor, y1: float | NkiTensor | None) -> None:
        nisa.tensor_scalar(dst, x, first, y0, reverse0, second, y1, reverse1, engine)

    return pointwise(emit, data.shape, kind, mask, (data,), vectors=(x0, x1))


@remembered
def scalar_tensor_tensor(
    data: object, op0: Op, operand0: object, op1: Op, operand1: object, reverse0: bool = False, reverse1: bool = False,
    dtype: DTypeLike | None = None, mask: MaskLike = None
) -> Tile:
    """(data <op0> operand0) <op1> operand1, where operand1 is a whole tile."""
    name = "nisa.scalar_tensor_tensor"
    data = on_chip(data, "data", name)
    first, second = operator(op0), operator(op1)
    if not isinstance(operand1, (Tile, Blocks)):
        return tensor_scalar(data, op0, operand0, reverse0, op1, operand1, reverse1, dtype, mask)
    operand1 = on_chip(operand1, "operand1", name)
    kind = dtype_or(dtype, broadcasting.promote(data.dtype, operand1.dtype), name)
    if skipped(mask):
        return Absent(data.shape, kind, SBUF)
    if isinstance(operand0, Tile) and operand0.shape == data.shape and operand0.nki.type.free_size > 1:
        return tensor_tensor(tensor_tensor(data, operand0, op0, mask=mask), operand1, op1, kind, mask)
    x0 = alu_operand(operand0, first, data)

    def emit(dst: NkiTensor, x: NkiTensor, y: NkiTensor, scalar: float | NkiTensor) -> None:
        y = beside(x, repeated(y, x.type.shape) if y.type.size != x.type.size else y)
        nisa.scalar_tensor_tensor(dst, x, first, scalar, second, y, reverse0, reverse1)

    return pointwise(emit, data.shape, kind, mask, (data, operand1), vectors=(x0,))


@remembered
def reciprocal(data: object, dtype: DTypeLike | None = None, mask: MaskLike = None) -> Tile:
    """1 / data."""
    data = on_chip(data, "data", "nisa.reciprocal")
    return pointwise(nisa.reciprocal, data.shape, dtype_or(dtype, data.dtype, "nisa.reciprocal"), mask, (data,))


@remembered
def tensor_copy(
    src: object, mask: MaskLike = None, dtype: DTypeLike | None = None, engine: Engine = unknown_engine
) -> Tile:
    """A copy in SBUF."""
    src = on_chip(src, "src", "nisa.tensor_copy")
    kind = dtype_or(dtype, src.dtype, "nisa.tensor_copy")
    if engine in (unknown_engine, None):
        return pointwise(nisa.tensor_copy, src.shape, kind, mask, (src,))
    return pointwise(lambda dst, x: nisa.tensor_copy(dst, x, engine), src.shape, kind, mask, (src,))


tensor_copy_dynamic_src = tensor_copy


@remembered
def tensor_copy_dynamic_dst(
    dst: object, src: object, mask: MaskLike = None, dtype: DTypeLike | None = None, engine: Engine = unknown_engine
) -> None:
    """Copy to a view that begins where a tile says."""
    dst, src = on_chip(dst, "dst", "nisa.tensor_copy_dynamic_dst"), on_chip(src, "src", "nisa.tensor_copy_dynamic_dst")
    if not skipped(mask):
        nisa.tensor_copy(dst.nki, src.nki, engine)


@public
def memset(
    shape: Sequence[int], value: float, dtype: DTypeLike, mask: MaskLike = None, engine: object = unknown_engine
) -> Tile | Blocks:
    """A new tile with every element `value`."""
    if skipped(mask):
        return Absent(tuple(shape), element_type(dtype, "nisa.memset"), SBUF)
    made = new_tensor(shape, dtype, None, "", "memset", value)
    if isinstance(mask, Mask):
        cast(Tile, made).mask = mask
    return made


@remembered
def tensor_copy_predicated(
    src: object, dst: object, predicate: object, mask: MaskLike = None, dtype: DTypeLike | None = None,
    reverse_pred: bool = False
) -> None:
    """Copy elements of `src`, a tile or a number, to `dst` where the predicate is nonzero."""
    name = "nisa.tensor_copy_predicated"
    dst = on_chip(dst, "dst", name)
    predicate = on_chip(predicate, "predicate", name).nki
    if skipped(mask):
        return
    if predicate.type.dtype not in ("uint8", "uint16", "uint32"):
        chosen = allocated(predicate.type.shape, uint8)
        nisa.tensor_scalar(chosen, predicate, language.not_equal, 0)
        predicate = chosen
    if isinstance(src, (Tile, Blocks)):
        source = on_chip(src, "src", name).nki
        source = source if source.type.dtype is dst.dtype else functional.moved(source, dst.dtype)
    else:
        source = cast(NkiTensor, src)  # or a number, which the instruction takes, too
    if not isinstance(mask, Mask):
        nisa.tensor_copy_predicated(dst.nki, source, predicate, reverse_pred)
        return
    for piece in boxes(mask.positions(dst.shape)):
        part = cut(tile(source), piece) if isinstance(source, NkiTensor) else source
        nisa.tensor_copy_predicated(cut(dst, piece), part, cut(tile(predicate), piece), reverse_pred)
