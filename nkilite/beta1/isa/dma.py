"""DMA copies and transposes. Source: nki.isa in the public documentation of Beta 1."""

from __future__ import annotations

from collections.abc import Sequence

from nkilite import isa as nisa
from nkilite import language
from nkilite.beta1.functional import (
    Absent,
    allocated,
    dtype_or,
    fresh,
    in_sbuf,
    skipped,
)
from nkilite.beta1.keywords import public
from nkilite.beta1.mask import Mask, MaskLike, boxes
from nkilite.beta1.operators import operator
from nkilite.beta1.remembered import remembered
from nkilite.beta1.tile import Tile, cut
from nkilite.dtypes import DTypeLike
from nkilite.errors import InvalidOperand, UnknownOperator
from nkilite.ir.types import OobMode
from nkilite.isa.constants import dge_mode as dge_mode
from nkilite.isa.operators import Op
from nkilite.trace.tensor import NkiTensor


@remembered
def dma_copy(
    dst: Tile, src: Tile, mask: MaskLike = None, dst_rmw_op: Op | None = None, oob_mode: OobMode = OobMode.error,
    dge_mode: dge_mode = dge_mode.unknown
) -> None:
    """Copy between HBM and SBUF, or within them; with dst_rmw_op, add to `dst`."""
    if skipped(mask) or isinstance(src, Absent):
        return
    if dst_rmw_op is not None and operator(dst_rmw_op) is not language.add:
        raise UnknownOperator(
            instruction="nisa.dma_copy", found=getattr(dst_rmw_op, "__name__", dst_rmw_op), kind="operator",
            allowed="add", example="add",
        )
    pairs: list[tuple[NkiTensor, NkiTensor]] = []
    if isinstance(mask, Mask):
        for piece in boxes(mask.positions(dst.shape)):
            pairs.append((cut(dst, piece), cut(src, piece)))
    else:
        pairs.append((dst.nki, src.nki))
    for target, source in pairs:
        source = in_sbuf(source)
        if dst_rmw_op is not None:
            nisa.dma_compute(target, [source, target], language.add, oob_mode=oob_mode)
        else:
            nisa.dma_copy(target, source, oob_mode=oob_mode, dge_mode=_generated(target, source, dge_mode))


def _generated(dst: NkiTensor, src: NkiTensor, mode: dge_mode) -> dge_mode:
    """Where descriptors are made. Conversions are not made by hardware, which moves bytes."""
    hardware = getattr(mode, "name", "") == "hwdge"
    return globals()["dge_mode"].unknown if hardware and dst.dtype != src.dtype else mode


@public
def dma_transpose(
    src: Tile, axes: Sequence[int] | None = None, mask: MaskLike = None, dtype: DTypeLike | None = None
) -> Tile:
    """The transpose of a tensor in HBM or SBUF, as a new SBUF tile."""
    name = "nisa.dma_transpose"
    shape = src.shape
    order = tuple(axes) if axes is not None else {2: (1, 0), 3: (2, 1, 0), 4: (3, 1, 2, 0)}.get(len(shape), ())
    if len(order) != len(shape):
        raise InvalidOperand(
            instruction=name, operand="src", found=f"of shape {shape}", expected="two to four dimensions"
        )
    result = allocated(tuple(shape[d] for d in order), dtype_or(dtype, src.dtype, name))
    nisa.dma_transpose(result, in_sbuf(src.nki), axes=order)
    return fresh(result)
