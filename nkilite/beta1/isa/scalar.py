"""Activations, and instructions that also reduce. Source: nki.isa in the public documentation of Beta 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nkilite import isa as nisa
from nkilite.beta1 import functional
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
from nkilite.beta1.mask import Mask
from nkilite.beta1.operators import operator
from nkilite.beta1.remembered import remembered
from nkilite.beta1.tile import Tile, cut, tile
from nkilite.dtypes import DType
from nkilite.isa.constants import dge_mode as dge_mode
from nkilite.isa.constants import (
    reduce_cmd,
)
from nkilite.trace.tensor import NkiTensor

_NUMBERS = (int, float, np.integer, np.floating, np.bool_)


@remembered
def activation(
    op: Any, data: Any, bias: Any = None, scale: Any = 1.0, reduce_op: Any = None, reduce_res: Any = None,
    reduce_cmd: Any = reduce_cmd.idle, mask: Any = None, dtype: Any = None, **_: Any,
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

        def emit(dst: NkiTensor, x: NkiTensor) -> None:
            rows = x.type.shape[0]
            nisa.activation(dst, function, x, rows_of(bias, rows), rows_of(scale, rows))

        return pointwise(emit, data.shape, kind, mask, (data,))
    return summed(
        lambda dst, x, total, rows: nisa.activation(
            dst, function, x, rows_of(bias, rows), rows_of(scale, rows), operator(reduce_op), total, reduce_cmd
        ),
        data, kind, mask, reduce_res, name,
    )


@remembered
def activation_reduce(
    op: Any, data: Any, reduce_op: Any, reduce_res: Any, bias: Any = None, scale: Any = 1.0, mask: Any = None,
    dtype: Any = None, **_: Any,
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
        data, kind, mask, reduce_res, name,
    )


@remembered
def tensor_scalar_reduce(
    data: Any, op0: Any, operand0: Any, reduce_op: Any, reduce_res: Any, reverse0: bool = False, dtype: Any = None,
    mask: Any = None, **_: Any,
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
        data, kind, mask, reduce_res, name,
    )


def summed(
    emit: Callable[[NkiTensor, NkiTensor, NkiTensor | None, int], Any], data: Tile, dtype: DType, mask: Any,
    reduce_res: Any, function: str,
) -> Tile:
    """The result of an instruction that also reduces every partition into reduce_res."""
    total = None
    if reduce_res is not None:
        total = reduce_res.nki
        if total.type.ndim > 2 and total.type.free_size == 1:
            total = total.reshape((total.type.shape[0], 1))
    if not isinstance(mask, Mask):
        result = allocated(data.shape, dtype)
        emit(result, data.nki, total, data.shape[0])
        return fresh(result)
    box = functional.exact_box(mask, data.shape, function)
    if box is None:
        return Absent(data.shape, dtype, SBUF)
    result = cleared(data.shape, dtype)
    rows = len(box[0])
    emit(cut(tile(result), box), cut(data, box), rows_of(total, rows), rows)
    made = tile(result)
    made.mask = mask
    return made
