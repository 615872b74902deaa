"""Moving tiles: between HBM and SBUF, out of PSUM, and by assignment (`t[...] = value`).

Source: public pages nki.language.load, store, load_transpose2d, copy.
"""

from __future__ import annotations

import numpy as np

from nkilite import isa as nisa
from nkilite.dtypes import DTypeLike
from nkilite.errors import InvalidOperand, describe
from nkilite.language.broadcasting import output, require_tile
from nkilite.language.creation import fill
from nkilite.trace import tensor as tensors
from nkilite.trace.tensor import PASS_DATA, NkiTensor, is_grid

__all__ = ["copy", "load", "load_transpose2d", "store"]


def load(src: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """A new SBUF tile with the values of an HBM tensor, converted to `dtype` if given.

    Args:
        src: at most 128 rows; a tensor of one dimension becomes a tile of one column.

    Raises:
        InvalidOperand: `src` is not in HBM.
        PartitionLimitExceeded: it has more than 128 rows.
    """
    src = _require_hbm(src, "src", "load")
    result = output(src.shape if src.ndim > 1 else (*src.shape, 1), dtype, src.dtype, "load")
    nisa.dma_copy(result, src)
    return result


def store(dst: NkiTensor, value: NkiTensor) -> None:
    """Copy an SBUF tile to an HBM tensor with the same number of elements, converted to its dtype.

    Raises:
        InvalidOperand: `dst` is not in HBM, or `value` not on chip.
    """
    nisa.dma_copy(_require_hbm(dst, "dst", "store"), require_tile(value, "value", "store"))


def load_transpose2d(src: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """A new SBUF tile with the transpose of an HBM matrix, converted to `dtype` if given.

    Args:
        src: a tensor of two dimensions; others may follow if they have one element, which the tile has not.

    Raises:
        InvalidOperand: `src` is not a matrix in HBM.
    """
    src = _require_hbm(src, "src", "load_transpose2d")
    while src.ndim > 2 and src.shape[-1] == 1:
        src = src.squeeze_dim(src.ndim - 1)
    if src.ndim != 2:
        raise InvalidOperand(
            instruction="nl.load_transpose2d",
            operand="src",
            found=f"of shape {src.shape}",
            expected="two-dimensional, but for dimensions of one element at the end",
        )
    result = output(src.shape[::-1], dtype, src.dtype, "load_transpose2d")
    nisa.dma_copy(result, src.permute((1, 0)))
    return result


def copy(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """A new SBUF tile with the values of a tile in SBUF or PSUM, converted to `dtype` if given."""
    x = require_tile(x, "x", "copy")
    result = output(x.shape, dtype, x.dtype, "copy")
    nisa.tensor_copy(result, x)
    return result


def assign(view: NkiTensor, value: object) -> None:
    """What `t[...] = value` does: DMA when HBM is involved, an engine copy on chip, memset for a number.

    Raises:
        InvalidOperand: the value is neither a tensor nor a number.
    """
    if isinstance(value, NkiTensor):
        if view.buffer.on_chip and value.buffer.on_chip:
            nisa.tensor_copy(view, value)
        else:
            nisa.dma_copy(view, value)
    elif isinstance(value, (int, float, np.integer, np.floating, np.bool_)):
        fill(view, value)  # type: ignore[arg-type]
    else:
        raise InvalidOperand(
            instruction="t[...] = value",
            operand="value",
            found=describe(value),
            expected="a tensor or a number",
        )


tensors.assign[0] = assign


def _require_hbm(x: object, operand: str, function: str) -> NkiTensor:
    if isinstance(x, NkiTensor) and not x.buffer.on_chip:
        return x
    on_chip = isinstance(x, NkiTensor)
    fix = "use nl.copy or nisa.tensor_copy between tiles" if on_chip else "pass arrays as arguments of the kernel"
    raise InvalidOperand(
        instruction=f"nl.{function}", operand=operand, found=describe(x), expected="a tensor in HBM",
        fix=PASS_DATA if is_grid(x) else fix,
    )
