"""Activations, and instructions that also reduce. Source: nki.isa in the public documentation of Beta 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nkilite import isa as nisa
from nkilite.beta1 import functional
from nkilite.beta1.blocks import Blocks
from nkilite.beta1.functional import (
    SBUF,
    Absent,
    allocated,
    alu_operand,
    cleared,
    dtype_or,
    fresh,
    on_chip,
    pointwise,
    rows_of,
    skipped,
    vector,
)
from nkilite.beta1.mask import Mask, MaskLike, boxes
from nkilite.beta1.operators import operator
from nkilite.beta1.remembered import remembered
from nkilite.beta1.selection import filled
from nkilite.beta1.tile import Tile, cut, tile
from nkilite.dtypes import DType, DTypeLike
from nkilite.errors import UnsupportedError
from nkilite.isa.constants import dge_mode as dge_mode
from nkilite.isa.constants import (
    reduce_cmd,
)
from nkilite.isa.operators import Op
from nkilite.trace.tensor import NkiTensor


@remembered
def activation(
    op: Op, data: object, bias: object = None, scale: object = 1.0, reduce_op: Op | None = None,
    reduce_res: Tile | Blocks | None = None, reduce_cmd: reduce_cmd = reduce_cmd.idle,
    mask: MaskLike = None, dtype: DTypeLike | None = None
) -> Tile:
    """op(data * scale + bias) on the Scalar Engine, optionally with the sum of each partition."""
    name = "nisa.activation"
    data = on_chip(data, "data", name)
    kind = dtype_or(dtype, data.dtype, name)
    if skipped(mask):
        return Absent(data.shape, kind, SBUF)
    function = operator(op)
    bias = vector(bias, exact=True)
    scale = vector(scale)
    if reduce_res is None and reduce_op is None:

        def emit(dst: NkiTensor, x: NkiTensor, added: NkiTensor | None, factor: float | NkiTensor) -> None:
            nisa.activation(dst, function, x, added, factor)

        return pointwise(emit, data.shape, kind, mask, (data,), vectors=(bias, scale))
    return summed(
        lambda dst, x, total, rows: nisa.activation(
            dst, function, x, rows_of(bias, rows), rows_of(scale, rows), operator(reduce_op), total, reduce_cmd
        ),
        data, kind, mask, reduce_res, name,
    )


@remembered
def activation_reduce(
    op: Op, data: object, reduce_op: Op, reduce_res: Tile | Blocks | None, bias: object = None, scale: object = 1.0,
    mask: MaskLike = None,
    dtype: DTypeLike | None = None
) -> Tile:
    """op(data * scale + bias), and in reduce_res the sum of each partition."""
    name = "nisa.activation_reduce"
    data = on_chip(data, "data", name)
    kind = dtype_or(dtype, data.dtype, name)
    if skipped(mask):
        return Absent(data.shape, kind, SBUF)
    function, bias, scale = operator(op), vector(bias, exact=True), vector(scale)
    return summed(
        lambda dst, x, total, rows: nisa.activation_reduce(
            dst, function, x, operator(reduce_op), total, rows_of(bias, rows), rows_of(scale, rows)
        ),
        data, kind, mask, reduce_res, name, reduce_op,
    )


@remembered
def tensor_scalar_reduce(
    data: object, op0: Op, operand0: object, reduce_op: Op, reduce_res: Tile | Blocks | None, reverse0: bool = False,
    dtype: DTypeLike | None = None,
    mask: MaskLike = None
) -> Tile:
    """data <op0> operand0, and in reduce_res the reduction of each partition."""
    name = "nisa.tensor_scalar_reduce"
    data = on_chip(data, "data", name)
    kind = dtype_or(dtype, data.dtype, name)
    if skipped(mask):
        return Absent(data.shape, kind, SBUF)
    first = operator(op0)
    operand0 = alu_operand(operand0, first, data)
    return summed(
        lambda dst, x, total, rows: nisa.tensor_scalar_reduce(
            dst, x, first, rows_of(operand0, rows), operator(reduce_op), total, reverse0
        ),
        data, kind, mask, reduce_res, name, reduce_op,
    )


def summed(
    emit: Callable[[NkiTensor, NkiTensor, NkiTensor | None, range], object], data: Tile, dtype: DType, mask: MaskLike,
    reduce_res: Tile | Blocks | None, function: str, reduce_op: Op | None = None,
) -> Tile:
    """The result of an instruction that also reduces every partition into reduce_res.

    Under a mask of no rectangle it computes without reducing, and what `reduce_op` passes over stands for what is left
    out.

    Args:
        emit: called with the view to write, that to read, the sums, and the partitions.
    """
    total = None
    if reduce_res is not None:
        total = reduce_res.nki
        if total.type.ndim > 2 and total.type.free_size == 1:
            total = total.reshape((total.type.shape[0], 1))
    if not isinstance(mask, Mask):
        result = allocated(data.shape, dtype)
        emit(result, data.nki, total, range(data.shape[0]))
        return fresh(result)
    box, exact = functional.box_of(mask, data.shape)
    if box is None:
        return Absent(data.shape, dtype, SBUF)
    if not exact and (total is None or reduce_op is None):
        raise UnsupportedError(feature=f"{function} under a mask that selects no rectangle")
    wider = functional.reachable(box, (data,))
    result = cleared(data.shape, dtype)
    sums = total if total is None or (exact and wider == box) else allocated((wider[0].stop, 1), total.type.dtype)
    rows = rows_of(sums, wider[0])
    emit(cut(tile(result), wider), cut(data, wider), rows if exact else None, wider[0])
    if not exact:
        chosen = filled(tile(result), mask, operator(reduce_op), function)
        nisa.tensor_reduce(rows, operator(reduce_op), cut(chosen, wider), tuple(range(1, data.ndim)))
    if sums is not total:
        for (taken,) in boxes(np.atleast_1d(mask.positions(data.shape).any(tuple(range(1, data.ndim))))):
            nisa.dma_copy(rows_of(total, taken), rows_of(sums, taken))
    made = tile(result)
    made.mask = mask
    return made
