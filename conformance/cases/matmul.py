"""The five matrix multiplications that the documentation and nki-samples both carry."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..case import Launch
from . import references as ref


def matmul_launches(dtype: np.dtype[Any]) -> list[Launch]:
    """One launch per kernel, on the smallest operands that use every loop of it more than once."""
    shapes = {
        "nki_matmul_basic_": (128, 64, 512),
        "nki_matmul_tiled_": (256, 256, 1024),
        "nki_matmul_hoist_load_": (256, 256, 1024),
        "nki_matmul_block_free_dimension_": (256, 512, 2048),
        "nki_matmul_fully_optimized_": (2048, 2048, 1024),
    }
    return [_launch(kernel, *shape, dtype) for kernel, shape in shapes.items()]


def _launch(kernel: str, k: int, m: int, n: int, dtype: np.dtype[Any]) -> Launch:
    def arguments() -> tuple[np.ndarray, ...]:
        return ref.uniform("lhs", k, m, dtype=dtype), ref.uniform("rhs", k, n, dtype=dtype)

    # The blocked kernel keeps its partial sums in the operand's type, one rounding per block of K.
    return Launch(kernel, arguments, ref.matmul_transposed, ref.rounding(dtype, scale=k**0.5))
