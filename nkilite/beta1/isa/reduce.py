"""Reductions, scans, statistics and searches. Source: nki.isa in the public documentation of Beta 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nkilite import isa as nisa
from nkilite import language
from nkilite.beta1 import functional
from nkilite.beta1.arithmetic import reduced
from nkilite.beta1.functional import (
    SBUF,
    Absent,
    allocated,
    beside,
    cleared,
    dtype_or,
    fresh,
    in_sbuf,
    on_chip,
    pointwise,
    rows_of,
    skipped,
    vector,
)
from nkilite.beta1.keywords import public
from nkilite.beta1.mask import Mask, MaskLike
from nkilite.beta1.operators import operator
from nkilite.beta1.remembered import remembered
from nkilite.beta1.repeated import repeated
from nkilite.beta1.selection import filled, limited
from nkilite.beta1.tile import Tile, cut, tile
from nkilite.dtypes import DType, DTypeLike, uint32
from nkilite.errors import UnsupportedError
from nkilite.isa.constants import dge_mode as dge_mode
from nkilite.isa.constants import reduce_cmd
from nkilite.isa.operators import Op
from nkilite.language import broadcasting
from nkilite.trace.tensor import NkiTensor


@remembered
def tensor_reduce(
    op: Op, data: object, axis: object, mask: MaskLike = None, dtype: DTypeLike | None = None, negate: bool = False,
    keepdims: bool = False
) -> Tile:
    """data combined along free dimensions."""
    name = "nisa.tensor_reduce"
    data = on_chip(data, "data", name)
    chosen = operator(op)

    def emit(dst: NkiTensor, x: NkiTensor, axes: tuple[int, ...]) -> None:
        nisa.tensor_reduce(dst, chosen, x, axes, negate)

    return reduced(emit, chosen, data, axis, dtype_or(dtype, data.dtype, name), mask, keepdims, name)


@public
def tensor_partition_reduce(
    op: Op, data: object, mask: MaskLike = None, dtype: DTypeLike | None = None
) -> Tile:
    """data combined over its partitions."""
    name = "nisa.tensor_partition_reduce"
    data = on_chip(data, "data", name)
    shape = (1, *data.shape[1:])
    kind = dtype_or(dtype, data.dtype, name)
    if skipped(mask):
        return Absent(shape, kind, SBUF)
    chosen = operator(op)
    view = data.nki
    if isinstance(mask, Mask):
        box, exact = functional.box_of(mask, data.shape)
        if box is None:
            return Absent(shape, kind, SBUF)
        if not exact or not functional.starts_well(box[0]):
            data, box = filled(data, mask, chosen, name), (range(box[0].stop), *box[1:])
        view = cut(data, (box[0], *map(range, data.shape[1:])))
    result = allocated(shape, kind)
    nisa.tensor_partition_reduce(result, chosen, in_sbuf(view))
    return fresh(result)


@remembered
def tensor_tensor_scan(
    data0: object, data1: object, initial: object, op0: Op, op1: Op, reverse0: bool = False, reverse1: bool = False,
    dtype: DTypeLike | None = None, mask: MaskLike = None
) -> Tile:
    """The running result of state = (data0 <op0> state) <op1> data1 along the free dimension."""
    name = "nisa.tensor_tensor_scan"
    data0, data1 = on_chip(data0, "data0", name), on_chip(data1, "data1", name)
    kind = dtype_or(dtype, broadcasting.promote(data0.dtype, data1.dtype), name)
    shape = data0.shape
    if skipped(mask):
        return Absent(shape, kind, SBUF)
    start = vector(initial, exact=True)

    def emit(dst: NkiTensor, x: NkiTensor, y: NkiTensor, first: float | NkiTensor) -> None:
        if y.type.size != x.type.size:
            whole = broadcasting.common_shape(x.type.shape, y.type.shape, name)
            x, y = repeated(x, whole), repeated(y, whole)
        nisa.tensor_tensor_scan(
            dst, x, beside(x, y), first, operator(op0), operator(op1), reverse0, reverse1
        )

    if not isinstance(mask, Mask):
        shape = broadcasting.common_shape(shape, data1.shape, name)
        return pointwise(emit, shape, kind, None, (data0, data1), vectors=(start,))
    box, exact = functional.box_of(mask, shape)
    if box is None:
        return Absent(shape, kind, SBUF)
    if not exact:
        _require_prefixes(mask, shape, name)
    box = functional.reachable(box, (data0, data1))
    made = tile(cleared(shape, kind))
    emit(cut(made, box), cut(data0, box), cut(data1, box), rows_of(start, box[0]))
    made.mask = mask
    return made


@public
def tensor_scalar_cumulative(
    dst: object, src: object, op0: Op, op1: Op, imm0: object, imm1: object = None,
    reduce_cmd: reduce_cmd = reduce_cmd.reset_reduce, mask: MaskLike = None
) -> None:
    """dst = the running result of (src <op0> imm0) <op1> the result before, along the free dimension."""
    name = "nisa.tensor_scalar_cumulative"
    if skipped(mask):
        return
    dst, src = on_chip(dst, "dst", name), on_chip(src, "src", name)
    rows, to, x = range(dst.shape[0]), dst.nki, src.nki
    if isinstance(mask, Mask):
        box = functional.exact_box(mask, dst.shape, name)
        if box is None:
            return
        rows, to, x = box[0], cut(dst, box), cut(src, box)
    first, start = vector(imm0), vector(imm1)
    nisa.tensor_scalar_cumulative(
        to, x, operator(op0), operator(op1), rows_of(first, rows), rows_of(start, rows), reduce_cmd
    )
    functional.wrote(to)


def _require_prefixes(mask: Mask, shape: tuple[int, ...], function: str) -> None:
    """Raise UnsupportedError unless a mask selects the first elements of each partition: later ones change nothing."""
    rows = mask.positions(shape).reshape(shape[0], -1)
    if np.any(rows[:, 1:] & ~rows[:, :-1]):
        raise UnsupportedError(feature=f"{function} under a mask that skips elements before others of a partition")


def _per_row(
    emit: Callable[..., object], data: Tile, columns: tuple[int, ...], dtype: DType, mask: MaskLike, function: str,
    neutral: Op | None = None, others: Sequence[Tile] = (),
) -> Tile:
    """A result with some numbers for each partition of `data`, limited by a mask on `data`.

    Under a mask of no rectangle, results are those among elements that `neutral` passes over.

    Args:
        emit: called with the view to write, that of `data`, and those of the others.
        others: further operands with the partitions of `data`.
    """
    shape = (data.shape[0], *columns)
    if skipped(mask):
        return Absent(shape, dtype, SBUF)
    if not isinstance(mask, Mask):
        result = allocated(shape, dtype)
        emit(result, data.nki, *(_rows(t, range(data.shape[0])) for t in others))
        return fresh(result)
    found = limited(data, mask, neutral, function)
    if found is None:
        return Absent(shape, dtype, SBUF)
    view, box = found
    whole = len(box[0]) == shape[0]
    result = allocated(shape, dtype) if whole else cleared(shape, dtype)
    emit(cut(tile(result), (box[0], *map(range, columns))), view, *(_rows(t, box[0]) for t in others))
    return fresh(result) if whole else tile(result)


@public
def bn_stats(data: object, mask: MaskLike = None, dtype: DTypeLike | None = None) -> Tile:
    """Statistics of each partition, for bn_aggr."""
    data = on_chip(data, "data", "nisa.bn_stats")
    return _per_row(nisa.bn_stats, data, (6,), dtype_or(dtype, data.dtype, "nisa.bn_stats"), mask, "nisa.bn_stats")


@public
def bn_aggr(data: object, mask: MaskLike = None, dtype: DTypeLike | None = None) -> Tile:
    """Mean and variance of each partition, from results of bn_stats."""
    data = on_chip(data, "data", "nisa.bn_aggr")
    return _per_row(nisa.bn_aggr, data, (2,), dtype_or(dtype, data.dtype, "nisa.bn_aggr"), mask, "nisa.bn_aggr")


@public
def max8(src: object, mask: MaskLike = None, dtype: DTypeLike | None = None) -> Tile:
    """The eight largest elements of each partition, in descending order."""
    src = on_chip(src, "src", "nisa.max8")
    return _per_row(nisa.max8, src, (8,), dtype_or(dtype, src.dtype, "nisa.max8"), mask, "nisa.max8", language.max)


@public
def nc_find_index8(
    data: object, vals: object, mask: MaskLike = None, dtype: DTypeLike | None = None
) -> Tile:
    """Where each of eight values first stands in each partition."""
    name = "nisa.nc_find_index8"
    data, vals = on_chip(data, "data", name), on_chip(vals, "vals", name)
    kind = dtype_or(dtype, uint32, name)
    return _per_row(nisa.nc_find_index8, data, (8,), kind, mask, name, others=(vals,))


def _rows(x: Tile, rows: range) -> NkiTensor:
    """What of another operand belongs to some partitions of `data`."""
    view = x.nki
    return view if view.type.shape[0] == len(rows) else view[rows.start : rows.stop]


@remembered
def nc_match_replace8(
    data: object, vals: object, imm: float, dst_idx: object = None, mask: MaskLike = None,
    dtype: DTypeLike | None = None
) -> Tile:
    """`data` with the first match of each of eight values replaced by `imm`; their positions in dst_idx."""
    name = "nisa.nc_match_replace8"
    data, vals = on_chip(data, "data", name), on_chip(vals, "vals", name)
    kind = dtype_or(dtype, data.dtype, name)
    found = None if dst_idx is None else on_chip(dst_idx, "dst_idx", name)
    number = float(imm)
    if skipped(mask):
        return Absent(data.shape, kind, SBUF)

    def emit(dst: NkiTensor, x: NkiTensor, rows: range) -> None:
        index = None if found is None else _rows(found, rows)
        nisa.nc_match_replace8(dst, x, _rows(vals, rows), number, index)

    if not isinstance(mask, Mask):
        result = allocated(data.shape, kind)
        emit(result, data.nki, range(data.shape[0]))
        return tile(result)
    box = functional.exact_box(mask, data.shape, name)
    if box is None:
        return Absent(data.shape, kind, SBUF)
    made = tile(cleared(data.shape, kind))
    emit(cut(made, box), cut(data, box), box[0])
    made.mask = mask
    return made


@public
def sequence_bounds(segment_ids: object, dtype: DTypeLike | None = None) -> Tile:
    """Where each element's segment begins and ends."""
    segment_ids = on_chip(segment_ids, "segment_ids", "nisa.sequence_bounds")
    rows, *columns = segment_ids.shape
    result = allocated((rows, 2, *columns), dtype_or(dtype, segment_ids.dtype, "nisa.sequence_bounds"))
    nisa.sequence_bounds(result, segment_ids.nki)
    return tile(result)
