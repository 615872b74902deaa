"""Random tiles: uniform values, seeding, and dropout.

The numbers are those of the Vector Engine's generators (nisa.rng); the streams are nkilite's own, not the hardware's.
Source: public pages nki.language.rand, random_seed, dropout.
"""

from __future__ import annotations

from collections.abc import Sequence

from nkilite import isa as nisa
from nkilite.dtypes import DTypeLike, uint32
from nkilite.ir.types import MemoryRegion
from nkilite.language.broadcasting import output, require_tile
from nkilite.language.creation import ndarray, pieces, require_tensor
from nkilite.language.elementwise import multiply, right_shift
from nkilite.language.memory import copy
from nkilite.trace.tensor import NkiTensor

__all__ = ["dropout", "rand", "random_seed"]

_SHIFT, _UNIT = 8, 2.0**-24  # of 32 random bits, float32 holds 24


def rand(
    shape: Sequence[int], dtype: DTypeLike, buffer: MemoryRegion = MemoryRegion.sbuf, name: str = ""
) -> NkiTensor:
    """A new tensor of uniform random values in [0, 1), made of 24 random bits each.

    Rounding to a dtype narrower than float32 can give 1. Arguments and errors as in `nl.ndarray`. Without
    `nl.random_seed` a kernel gives the same values at each launch.
    """
    tensor = ndarray(shape, dtype, buffer, name)
    if tensor.buffer.on_chip:
        _fill(tensor)
        return tensor
    for piece in pieces(tensor):
        tile = ndarray(piece.shape, tensor.dtype)
        _fill(tile)
        nisa.dma_copy(piece, tile)
    return tensor


def _fill(tile: NkiTensor) -> None:
    """Fill a tile with uniform values, with what every generation of chips has."""
    bits = ndarray(tile.shape, uint32)
    nisa.rng(bits)
    nisa.tensor_scalar(bits, bits, right_shift, _SHIFT)
    nisa.tensor_scalar(tile, bits, multiply, _UNIT)


def random_seed(seed: NkiTensor) -> None:
    """Seed the generators behind `nl.rand` and `nl.dropout`: the same seed gives the same values.

    Args:
        seed: tile of shape (1, 1) in SBUF or PSUM with a 32-bit value.

    Raises:
        InvalidOperand: seed is no tensor.
        WrongMemory, ShapeMismatch, UnsupportedDtype: see nisa.set_rng_seed.
    """
    nisa.set_rng_seed(require_tensor(seed, "seed", "random_seed"))


def dropout(x: NkiTensor, rate: float | NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """`x` with zeros in the place of elements chosen at random, as a new SBUF tile; the others are not scaled.

    Args:
        x: a tile.
        rate: probability of zero: a number from 0 to 1, or a tile of shape (P, 1).
        dtype: of the result; that of `x` unless given.

    Raises:
        InvalidOperand: x is no tile, or rate is outside [0, 1].
        ShapeMismatch, UnsupportedDtype: see nisa.dropout.
    """
    x = require_tile(x, "x", "dropout")
    result = output(x.shape, x.dtype, x.dtype, "dropout")
    nisa.dropout(result, x, rate)
    return result if dtype is None else copy(result, dtype)
