"""Data embedded in a kernel: arrays in HBM, identity matrices in SBUF.

Source: public pages nki.language.shared_constant and shared_identity_matrix.
"""

from __future__ import annotations

import os

import numpy as np

from nkilite import isa as nisa
from nkilite.dtypes import DTypeLike, cast, from_numpy, uint8
from nkilite.errors import InvalidOperand, describe
from nkilite.ir.types import BufferKind, MemoryRegion
from nkilite.language.creation import element_type, ndarray
from nkilite.trace import active
from nkilite.trace.eager import EagerBuilder
from nkilite.trace.storage import Placement
from nkilite.trace.tensor import NkiTensor

__all__ = ["shared_constant", "shared_identity_matrix"]


def shared_constant(constant: np.ndarray | str | os.PathLike[str]) -> NkiTensor:
    """An HBM tensor with constant data; equal data in one kernel is stored once.

    Args:
        constant: a NumPy array, or the path of a .npy file.

    Raises:
        InvalidOperand: it is neither, the file cannot be read as one, or the chip lacks its element type.
    """
    array = _loaded(constant) if isinstance(constant, (str, os.PathLike)) else constant
    if not isinstance(array, np.ndarray) or array.ndim == 0:
        raise _invalid(
            describe(constant), "a NumPy array with dimensions, or the path of one"
        )
    try:
        dtype = from_numpy(array.dtype)
    except KeyError:
        raise _invalid(f"of dtype {array.dtype}", "an array of a NeuronCore dtype") from None
    array = np.array(
        array, order="C"
    )  # a copy: what the caller does with his array later is not part of the kernel
    builder = active.builder("nl.shared_constant")
    key = (array.shape, dtype, array.tobytes())
    found = builder.constants.get(key)
    if found is None:
        eager = isinstance(builder, EagerBuilder)
        data = Placement(array.reshape(-1).view(np.uint8), 0, 0) if eager else array
        found = builder.constants[key] = builder.allocate(
            MemoryRegion.shared_hbm, array.shape, dtype, kind=BufferKind.constant, data=data
        )
    return found


def shared_identity_matrix(n: int, dtype: DTypeLike = uint8, dst: NkiTensor | None = None) -> NkiTensor:
    """The n x n identity in SBUF; calls with the same size and dtype share one tile.

    Args:
        n: rows and columns, at most 128.
        dtype: of the new tile; ignored with `dst`.
        dst: an (n, n) SBUF tile to load the identity into instead; it is returned.

    Raises:
        InvalidOperand: n is not an int in range, or dst has another shape.
    """
    builder = active.builder("nl.shared_identity_matrix")
    limit = builder.target.num_partitions
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= limit:
        raise InvalidOperand(
            instruction="nl.shared_identity_matrix",
            operand="n",
            found=repr(n),
            expected=f"an int from 1 to {limit}",
        )
    if dst is not None and dst.shape != (n, n):
        raise InvalidOperand(
            instruction="nl.shared_identity_matrix",
            operand="dst",
            found=f"of shape {dst.shape}",
            expected=f"a tile of shape {(n, n)}",
        )
    element = element_type(dtype, "shared_identity_matrix") if dst is None else dst.dtype
    key = ("identity", n, element)
    if dst is None and key in builder.constants:
        return builder.constants[key]
    tile = ndarray((n, n), element) if dst is None else dst
    nisa.dma_copy(tile, shared_constant(cast(np.eye(n, dtype=np.float32), element)))
    if dst is None:
        builder.constants[key] = tile
    return tile


def _loaded(path: str | os.PathLike[str]) -> np.ndarray:
    try:
        result: np.ndarray = np.load(path)
        return result
    except (OSError, ValueError, EOFError) as error:
        raise _invalid(f"{os.fspath(path)!r}, which cannot be loaded ({error})", "the path of a .npy file") from None


def _invalid(found: str, expected: str) -> InvalidOperand:
    return InvalidOperand(
        instruction="nl.shared_constant", operand="constant", found=found, expected=expected
    )
