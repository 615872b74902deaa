"""Matrix products and transposes on the Tensor Engine; results stay in PSUM.

Source: public pages nki.language.matmul and transpose.
"""

from __future__ import annotations

from nkilite import isa as nisa
from nkilite.dtypes import DTypeLike, float32
from nkilite.errors import InvalidOperand, ShapeMismatch
from nkilite.ir.types import MemoryRegion
from nkilite.language.broadcasting import require_tile
from nkilite.language.creation import element_type, ndarray
from nkilite.language.memory import copy
from nkilite.trace.tensor import NkiTensor

__all__ = ["matmul", "transpose"]


def matmul(x: NkiTensor, y: NkiTensor, transpose_x: bool = False) -> NkiTensor:
    """x @ y, or x.T @ y with `transpose_x`, as a new float32 PSUM tile.

    Args:
        x: SBUF tile, (M, K) with at most 128 of each; (K, M) with `transpose_x`, which saves a transpose.
        y: SBUF tile (K, N), N at most 512.

    Raises:
        InvalidOperand: an operand is not a matrix on chip.
        ShapeMismatch: the contracted sizes differ.
    """
    x, y = _require_matrix(x, "x", "matmul"), _require_matrix(y, "y", "matmul")
    if x.shape[0 if transpose_x else 1] != y.shape[0]:
        product = "x.T @ y" if transpose_x else "x @ y"
        raise ShapeMismatch(
            instruction="nl.matmul",
            detail=f"{product} of x {x.shape} and y {y.shape} contracts different sizes",
        )
    stationary = x if transpose_x else copy(transpose(x))
    result = ndarray((stationary.shape[1], y.shape[1]), float32, MemoryRegion.psum)
    nisa.nc_matmul(result, stationary, y)
    return result


def transpose(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """The transpose of a matrix of at most 128 x 128, as a new PSUM tile (in SBUF if `dtype` converts it).

    Raises:
        InvalidOperand: x is not a matrix on chip.
    """
    x = _require_matrix(x, "x", "transpose")
    if x.buffer is MemoryRegion.psum:
        x = copy(x)
    result = ndarray(x.shape[::-1], x.dtype, MemoryRegion.psum)
    nisa.nc_transpose(result, x, engine=nisa.engine.tensor)
    converted = x.dtype if dtype is None else element_type(dtype, "transpose")
    return result if converted == x.dtype else copy(result, converted)


def _require_matrix(x: object, operand: str, function: str) -> NkiTensor:
    tile: NkiTensor = require_tile(x, operand, function)
    if tile.ndim != 2:
        raise InvalidOperand(
            instruction=f"nl.{function}",
            operand=operand,
            found=f"of shape {tile.shape}",
            expected="two-dimensional",
        )
    return tile
