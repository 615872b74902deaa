"""Selection, patterns, gathers and shuffles. Source: nki.isa in the public documentation of Beta 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsFloat, SupportsInt, cast

import numpy as np

from nkilite import isa as nisa
from nkilite import language
from nkilite.beta1 import functional
from nkilite.beta1.blocks import Blocks
from nkilite.beta1.creation import new_tensor
from nkilite.beta1.functional import (
    SBUF,
    Absent,
    allocated,
    dtype_or,
    fresh,
    in_sbuf,
    on_chip,
    pointwise,
    rows_of,
    skipped,
    vector,
)
from nkilite.beta1.index import Grid, Index, index
from nkilite.beta1.isa.elementwise import tensor_copy
from nkilite.beta1.isa.scalar import summed
from nkilite.beta1.keywords import public
from nkilite.beta1.mask import Mask, MaskLike
from nkilite.beta1.operators import operator
from nkilite.beta1.remembered import remembered
from nkilite.beta1.selection import predicate as predicate_of
from nkilite.beta1.tile import Tile, cut, tile
from nkilite.dtypes import DTypeLike, as_dtype
from nkilite.errors import InvalidOperand
from nkilite.isa.constants import dge_mode as dge_mode
from nkilite.isa.constants import (
    reduce_cmd,
)
from nkilite.isa.operators import Op


@public
def iota(expr: object, dtype: DTypeLike, mask: MaskLike = None) -> Tile:
    """A tile of the values of an index tensor; of one element for an int, such as the position in a launch grid."""
    if isinstance(expr, (int, np.integer)) and not isinstance(expr, bool):
        expr = index(int(expr), Grid.of((1, 1), (0, 0)))
    if not isinstance(expr, Index):
        raise InvalidOperand(
            instruction="nisa.iota", operand="expr", found=functional.describe_operand(expr),
            expected="an index tensor of nl.arange or nl.mgrid",
        )
    shape, strides = expr.grid.shape, expr.grid.strides
    if len(shape) < 2:
        shape, strides = (1, *shape), (0, *strides)
    kind = as_dtype(dtype)
    if skipped(mask):
        return Absent(shape, kind, SBUF)
    result = allocated(shape, kind)
    pattern = [[s, n] for s, n in zip(strides[1:], shape[1:], strict=True)]
    nisa.iota(result, pattern, expr.offset, strides[0])
    return fresh(result)


@remembered
def affine_select(
    pred: MaskLike, on_true_tile: object, on_false_value: float, mask: MaskLike = None, dtype: DTypeLike | None = None
) -> Tile:
    """`on_true_tile` where a comparison of index tensors holds, else a number."""
    name = "nisa.affine_select"
    on_true_tile = on_chip(on_true_tile, "on_true_tile", name)
    shape = on_true_tile.shape
    kind = dtype_or(dtype, on_true_tile.dtype, name)
    if skipped(mask):
        return Absent(shape, kind, SBUF)
    if not isinstance(pred, Mask):
        if skipped(pred):
            return cast(Tile, new_tensor(shape, kind, None, "", "affine_select", on_false_value))
        whole: Tile = tensor_copy(on_true_tile, mask, kind)
        return whole
    conditions = _conjunction(pred)
    source = in_sbuf(on_true_tile.nki)
    if conditions is None:
        result = allocated(shape, kind)
        nisa.memset(result, on_false_value)
        source = source if source.type.dtype is kind else functional.moved(source, kind)
        nisa.tensor_copy_predicated(result, source, predicate_of(pred.positions(shape), shape))
        made = tile(result)
    else:
        for condition in conditions:
            expression = condition.expression
            assert expression is not None, "a comparison"
            result = allocated(shape, kind)
            strides = expression.grid._padded(len(shape))[1]
            nisa.affine_select(
                result, [[s, n] for s, n in zip(strides[1:], shape[1:], strict=True)], strides[0], source,
                on_false_value, _COMPARISONS[condition.condition.name], expression.offset,
            )
            source = result
        made = fresh(source)
    made.mask = mask if isinstance(mask, Mask) else None
    return made


_COMPARISONS = {
    "nonnegative": language.greater_equal, "zero": language.equal, "nonzero": language.not_equal,
}


def _conjunction(mask: Mask) -> list[Mask] | None:
    """The comparisons that all have to hold, or None if the mask is no conjunction."""
    if mask.expression is not None:
        return [mask]
    if mask.condition.name != "all":
        return None
    parts = [_conjunction(p) for p in mask.parts]
    if any(p is None for p in parts):
        return None
    return [c for p in parts if p is not None for c in p]


@remembered
def range_select(
    on_true_tile: object, comp_op0: Op, comp_op1: Op, bound0: object, bound1: object,
    reduce_cmd: reduce_cmd = reduce_cmd.idle,
    reduce_res: Tile | Blocks | None = None, reduce_op: Op = np.max, range_start: SupportsInt = 0,
    on_false_value: SupportsFloat = -3.4028235e38, mask: MaskLike = None, dtype: DTypeLike | None = None
) -> Tile:
    """Elements whose position is within the bounds of their partition, else a number."""
    name = "nisa.range_select"
    on_true_tile = on_chip(on_true_tile, "on_true_tile", name)
    kind = dtype_or(dtype, on_true_tile.dtype, name)
    if skipped(mask):
        return Absent(on_true_tile.shape, kind, SBUF)
    low, high = vector(bound0), vector(bound1)
    made = summed(
        lambda dst, x, total, rows: nisa.range_select(
            dst, x, operator(comp_op0), operator(comp_op1), rows_of(low, rows), rows_of(high, rows), reduce_cmd, total,
            operator(reduce_op), int(range_start), float(on_false_value),
        ),
        on_true_tile, kind, mask, reduce_res, name,
    )
    made.made = -1
    return made


@remembered
def select_reduce(
    dst: object, predicate: object, on_true: object, on_false: object, reduce_res: object = None,
    reduce_cmd: reduce_cmd = reduce_cmd.idle,
    reduce_op: Op = np.max, reverse_pred: bool = False, mask: MaskLike = None, dtype: DTypeLike | None = None
) -> None:
    """dst = on_true where the predicate is nonzero, else on_false; optionally the maximum of each partition."""
    name = "nisa.select_reduce"
    if skipped(mask):
        return
    dst, predicate, on_true = (
        on_chip(t, o, name) for o, t in (("dst", dst), ("predicate", predicate), ("on_true", on_true))
    )
    to, which, true = (t.nki for t in (dst, predicate, on_true))
    rows = range(to.type.shape[0])
    if isinstance(mask, Mask):
        box = functional.exact_box(mask, dst.shape, name)
        if box is None:
            return
        to, which, true = (cut(t, box) for t in (dst, predicate, on_true))
        rows = box[0]
    false = vector(on_false, exact=True)
    total = None if reduce_res is None else vector(reduce_res, exact=True)
    nisa.select_reduce(
        to, which, true, rows_of(false, rows), rows_of(total, rows), reduce_cmd, operator(reduce_op), reverse_pred
    )


@public
def dropout(data: object, prob: object, mask: MaskLike = None, dtype: DTypeLike | None = None) -> Tile:
    """`data` with zeros in the place of elements chosen at random."""
    data = on_chip(data, "data", "nisa.dropout")
    rate = vector(prob)
    kind = dtype_or(dtype, data.dtype, "nisa.dropout")
    made = pointwise(nisa.dropout, data.shape, kind, mask, (data,), vectors=(rate,))
    made.made = -1
    return made


@remembered
def local_gather(
    src_buffer: object, index: object, num_elem_per_idx: int = 1, num_valid_indices: int | None = None,
    mask: MaskLike = None
) -> Tile:
    """Elements of `src_buffer` at indices that 16 partitions share."""
    name = "nisa.local_gather"
    src_buffer, index = on_chip(src_buffer, "src_buffer", name), on_chip(index, "index", name)
    count = index.nki.type.free_size * 16 if num_valid_indices is None else int(num_valid_indices)
    shape = (src_buffer.shape[0], count) if num_elem_per_idx == 1 else (src_buffer.shape[0], count, num_elem_per_idx)
    result = allocated(shape, src_buffer.dtype)
    nisa.local_gather(result, in_sbuf(src_buffer.nki), in_sbuf(index.nki), num_elem_per_idx, num_valid_indices)
    return fresh(result)


@remembered
def nc_stream_shuffle(
    src: object, dst: object, shuffle_mask: Sequence[int], dtype: DTypeLike | None = None, mask: MaskLike = None
) -> None:
    """Move partitions within quadrants of 32."""
    src, dst = on_chip(src, "src", "nisa.nc_stream_shuffle"), on_chip(dst, "dst", "nisa.nc_stream_shuffle")
    if not skipped(mask):
        nisa.nc_stream_shuffle(dst.nki, src.nki, list(shuffle_mask))
