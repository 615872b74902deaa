"""Launches of nki-library's kernels that quantize to microscaling formats or add rows by DMA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ..case import Launch, Tolerance
from . import references as ref
from .files import Variant
from .mx import quantize

_TOKENS, _CHOSEN, _HIDDEN, _PADDING = 16, 4, 64, 6
_NO_TOKEN = 1 << 30
_EXACT = Tolerance(0.0, 0.0)


def _rows() -> tuple[np.ndarray, ...]:
    return (ref.uniform("rows", 128, 1024, dtype=ref.BFLOAT16, low=-8, high=8),)


def _quantized(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of four columns go to partitions, block by block of 512; elements, and biased exponents."""
    blocks = rows.reshape(128, -1, 128, 4).transpose(2, 1, 0, 3).reshape(128, -1)
    elements, exponents = quantize(blocks, "float8_e4m3fn_x4")
    return elements.astype(np.float32), exponents + 127


def _unpacked(outputs: Sequence[Any]) -> list[np.ndarray]:
    """Elements, and the four rows of every 32 that hold scales."""
    words, scales = (np.asarray(output) for output in outputs)
    elements = words.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return [elements, scales.reshape(4, 32, -1)[:, :4].reshape(16, -1)]


def _contributions() -> tuple[np.ndarray, int, int]:
    """Rows in any order, each followed by the number of its token in the bits of two elements; some are padding."""
    rng = np.random.default_rng(17)
    tokens = np.full(_TOKENS * _CHOSEN + _PADDING, _NO_TOKEN, np.int32)
    tokens[rng.permutation(len(tokens))[: _TOKENS * _CHOSEN]] = np.repeat(np.arange(_TOKENS), _CHOSEN)
    values = rng.integers(-8, 9, (len(tokens), _HIDDEN)).astype(ref.BFLOAT16)
    return np.hstack([values, tokens.view(np.uint16).reshape(-1, 2).view(ref.BFLOAT16)]), _TOKENS, _CHOSEN


def _summed(rows: np.ndarray, tokens: int, _: int) -> np.ndarray:
    """The sum of the rows of each token."""
    numbers = np.ascontiguousarray(rows[:, _HIDDEN:]).view(np.int32)[:, 0]
    return np.stack([ref.wide(rows[numbers == token, :_HIDDEN]).sum(axis=0) for token in range(tokens)])


VARIANTS: dict[str, list[Variant]] = {
    "experimental/mxfp_subkernels/mxfp_load_utils.py": [
        Variant(
            Launch("mxfp_load_performance_wrapper", _rows, _quantized, _EXACT, read=_unpacked),
            refused_on=frozenset({"trn2"}),
        )
    ],
    "experimental/collectives/topk_reduce.py": [Variant(Launch("topk_reduce", _contributions, _summed, _EXACT))],
}
