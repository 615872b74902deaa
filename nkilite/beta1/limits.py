"""Limits of the chip and of dtypes under their Beta-1 names: tile_size, fp32.min, finfo."""

from __future__ import annotations

import numpy as np

from nkilite.dtypes import DTypeLike, as_dtype, float_limits
from nkilite.language.tile_size import TileSize

__all__ = ["bfp16", "finfo", "fp32", "tile_size"]


class Limits(TileSize):
    """`nl.tile_size`, with names that NKI has renamed since."""

    @property
    def psum_fmax(self) -> int:
        """float32 elements one PSUM bank holds in each partition."""
        return self.psum_bank_fmax

    @property
    def total_available_sbuf_size(self) -> int:
        """Bytes a kernel can use in each SBUF partition."""
        return self.sbuf_fmax_bytes


tile_size = Limits()


class Extremes:
    """The smallest and largest number of a float dtype."""

    def __init__(self, dtype: str) -> None:
        info = float_limits(as_dtype(dtype).numpy)
        self.min, self.max, self.eps = float(info.min), float(info.max), float(info.eps)


fp32, bfp16 = Extremes("float32"), Extremes("bfloat16")


def finfo(dtype: DTypeLike) -> Extremes:
    """The limits of a float dtype."""
    return Extremes(str(as_dtype(np.float32 if dtype is None else dtype)))
