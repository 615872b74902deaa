"""Softmax over the last axis.

Layout: rows on partitions, the softmax axis along the free dimension, so no step crosses partitions. A whole
row stays in SBUF from load to store: the input is read once and the output written once, which is all a
memory-bound operation can do.

Algorithm, per row: m = max x; e = exp(x - m); y = e / sum e. The work is three passes over the data, on two
engines that overlap from block to block:

    Vector  tensor_reduce    -m, the negation is free
    Scalar  activation       exp(x + (-m)), -m as per-partition bias; the accumulator sums e in the same pass
    Vector  tensor_scalar    e * (1 / sum); the reciprocal touches one element per row, and the cast to the
                             output type happens on write

SCALE_ENGINE moves the last of them: a row that DMA delivers faster than one engine passes over it twice wants
it elsewhere. Short rows make short DMA descriptors, so up to `ROWS_PER_PARTITION` consecutive rows share a
partition. Where there are too few blocks to overlap, COLUMNS_IN_TILE cuts each: its maxima are found while the
rest is still arriving, and its results leave one by one; what is lost is the fixed cost of more instructions.
"""

from __future__ import annotations

import math

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case
from kernels.tiles import ITEMSIZE, combine, default_depth, row_blocks, scale_rows, tiles
from nkilite.testing import make

SPACE = {
    "ROWS_PER_PARTITION": (1, 2, 4, 8),
    "COLUMNS_IN_TILE": (512, 1024, 2048, 4096),
    "SCALE_ENGINE": ("gpsimd", "scalar", "vector"),
}


@nki.jit
def softmax(x, ROWS_PER_PARTITION=None, COLUMNS_IN_TILE=None, SCALE_ENGINE="vector"):
    """Softmax of `x` [..., D] over its last axis, computed in float32.

    Args:
        x: HBM, float32 or bfloat16; any leading dimensions, any number of rows. The row must fit a partition
            of SBUF three times over (about 10,000 elements in double buffered float32).
        ROWS_PER_PARTITION: rows of a block that share a partition; None sizes blocks for 2 KiB DMA runs.
        COLUMNS_IN_TILE: elements of a row per instruction; None for whole rows.
        SCALE_ENGINE: "gpsimd", "scalar" or "vector", which divides by the sum.

    Returns:
        HBM tensor of the shape and dtype of `x`.
    """
    width = x.shape[-1]
    rows = math.prod(x.shape[:-1])
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    src, dst = x.reshape((rows, width)), out.reshape((rows, width))
    pieces = [slice(c, c + n) for c, n in tiles(width, COLUMNS_IN_TILE or width)]

    for start, p, depth in row_blocks(rows, ROWS_PER_PARTITION or default_depth(width * ITEMSIZE[x.dtype])):
        block, stop = (p, depth, width), start + p * depth
        x_rows, y_rows = src[start:stop, :].reshape(block), dst[start:stop, :].reshape(block)
        x_tile = nl.ndarray(block, dtype=x.dtype, buffer=nl.sbuf)
        maxima = nl.ndarray((p, depth, len(pieces)), dtype=nl.float32, buffer=nl.sbuf)
        for i, piece in enumerate(pieces):
            nisa.dma_copy(dst=x_tile[:, :, piece], src=x_rows[:, :, piece])
            nisa.tensor_reduce(
                dst=maxima[:, :, i], op=nl.maximum, data=x_tile[:, :, piece], axis=2, negate=len(pieces) == 1
            )
        neg_max = combine(maxima, nl.maximum, negate=True)

        exps = nl.ndarray(block, dtype=nl.float32, buffer=nl.sbuf)
        sums = nl.ndarray((p, depth, len(pieces)), dtype=nl.float32, buffer=nl.sbuf)
        for r in range(depth):
            for i, piece in enumerate(pieces):
                nisa.activation(
                    dst=exps[:, r, piece],
                    op=nl.exp,
                    data=x_tile[:, r, piece],
                    bias=neg_max[:, r : r + 1],
                    reduce_op=nl.add,
                    reduce_res=sums[:, r, i : i + 1],
                    reduce_cmd=nisa.reduce_cmd.reset_reduce,
                )
        total = combine(sums, nl.add)
        nisa.reciprocal(dst=total, data=total)

        y_tile = nl.ndarray(block, dtype=x.dtype, buffer=nl.sbuf)
        for piece in pieces:
            for r in range(depth):
                scale_rows(y_tile[:, r, piece], exps[:, r, piece], total[:, r : r + 1], SCALE_ENGINE)
            nisa.dma_copy(dst=y_rows[:, :, piece], src=y_tile[:, :, piece])
    return out


def inputs(dtype="float32", seed=0, *, rows, D):
    """Rows neither flat nor one-hot, at levels where exp overflows unless the maximum is subtracted."""
    x = 3 * make((rows, D), "float32", seed) + 100 * make((rows, 1), "float32", seed + 1)
    return (x.astype(make(1, dtype).dtype),)


def reference(x):
    """exp(x - logsumexp(x)) in float64, the normalizer folded pairwise in the log domain."""
    x = x.astype(np.float64)
    return np.exp(x - np.logaddexp.reduce(x, axis=-1, keepdims=True))


def tolerance(*, rows, D):
    return {"reduction": D}


def in_numpy(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


SHOWN = {"rows": 2048, "D": 2048}

CASES = (
    Case({"rows": 128, "D": 512}, "float32"),
    Case({"rows": 300, "D": 1000}, "float32"),
    Case({"rows": 256, "D": 4096}, "bfloat16"),
    Case({"rows": 1037, "D": 64}, "bfloat16"),
    Case({"rows": 5, "D": 33}, "float32"),
    Case({"rows": 641, "D": 96}, "float32", {"ROWS_PER_PARTITION": 4}),
    Case({"rows": 300, "D": 700}, "bfloat16", {"ROWS_PER_PARTITION": 2, "COLUMNS_IN_TILE": 256}),
)
