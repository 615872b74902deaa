"""RMS normalization over the last axis, with a gain: y = x / sqrt(mean(x²) + eps) * gamma.

Layout: rows on partitions, features along the free dimension. gamma is the same for all rows and varies along
the free dimension, which no engine can broadcast across partitions; one DMA copies it to all 128 of them,
once.

Algorithm, per row, two passes over the data on two engines:

    Scalar  activation             x² into a scratch tile, its accumulator summing them in the same pass
    Scalar  activation             rsqrt(sum / D + eps), one element per row: scale and bias are free
    Vector  scalar_tensor_tensor   (x * rstd) * gamma, both products and the cast in one pass

The last of them can be taken apart into a product on the Scalar Engine and one on GpSimd (GAIN_ENGINE), where
the Vector Engine has other work. Where there are too few blocks to overlap, COLUMNS_IN_TILE cuts each: its
squares are summed while the rest is still arriving, and its results leave one by one.
"""

from __future__ import annotations

import math

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case
from kernels.tiles import ITEMSIZE, P, combine, default_depth, engine, load_broadcast, row_blocks, scale_rows, tiles
from nkilite.testing import make

SPACE = {
    "ROWS_PER_PARTITION": (1, 2, 4, 8),
    "COLUMNS_IN_TILE": (512, 1024, 2048, 4096),
    "GAIN_ENGINE": ("gpsimd", "vector"),
}


@nki.jit
def rmsnorm(x, gamma, eps=1e-6, ROWS_PER_PARTITION=None, COLUMNS_IN_TILE=None, GAIN_ENGINE="vector"):
    """RMS-normalize `x` [..., D] over its last axis, in float32.

    Args:
        x: HBM, float32 or bfloat16; any leading dimensions, any number of rows.
        gamma: HBM [D], the gain; any float dtype.
        eps: added to the mean square.
        ROWS_PER_PARTITION: rows of a block that share a partition; None sizes blocks for 2 KiB DMA runs.
        COLUMNS_IN_TILE: elements of a row per instruction; None for whole rows.
        GAIN_ENGINE: "vector" for both products at once, "gpsimd" for the second alone, the first on the Scalar
            Engine.

    Returns:
        HBM tensor of the shape and dtype of `x`.
    """
    width = x.shape[-1]
    rows = math.prod(x.shape[:-1])
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    src, dst = x.reshape((rows, width)), out.reshape((rows, width))
    pieces = [slice(c, c + n) for c, n in tiles(width, COLUMNS_IN_TILE or width)]

    gain = load_broadcast(gamma)
    eps_tile = nl.ndarray((P, 1), dtype=nl.float32, buffer=nl.sbuf)  # gen2 takes biases as vectors only
    nisa.memset(dst=eps_tile, value=eps)

    for start, p, depth in row_blocks(rows, ROWS_PER_PARTITION or default_depth(width * ITEMSIZE[x.dtype])):
        block, stop = (p, depth, width), start + p * depth
        x_rows, y_rows = src[start:stop, :].reshape(block), dst[start:stop, :].reshape(block)
        x_tile = nl.ndarray(block, dtype=x.dtype, buffer=nl.sbuf)
        sums = nl.ndarray((p, depth, len(pieces)), dtype=nl.float32, buffer=nl.sbuf)
        squares = nl.ndarray((p, width), dtype=nl.float32, buffer=nl.sbuf)
        for i, piece in enumerate(pieces):
            nisa.dma_copy(dst=x_tile[:, :, piece], src=x_rows[:, :, piece])
            for r in range(depth):
                nisa.activation(
                    dst=squares[:, piece],
                    op=nl.square,
                    data=x_tile[:, r, piece],
                    reduce_op=nl.add,
                    reduce_res=sums[:, r, i : i + 1],
                    reduce_cmd=nisa.reduce_cmd.reset_reduce,
                )
        rstd = combine(sums, nl.add)
        nisa.activation(dst=rstd, op=nl.rsqrt, data=rstd, scale=1.0 / width, bias=eps_tile[0:p, :])

        y_tile = nl.ndarray(block, dtype=x.dtype, buffer=nl.sbuf)
        for piece in pieces:
            for r in range(depth):
                _scale(y_tile[:, r, piece], x_tile[:, r, piece], rstd[:, r : r + 1], gain[0:p, piece], GAIN_ENGINE)
            nisa.dma_copy(dst=y_rows[:, :, piece], src=y_tile[:, :, piece])
    return out


def _scale(dst, data, rstd, gain, on):
    """dst = data * rstd [p, 1] * gain."""
    if engine(on) == nisa.engine.vector:
        nisa.scalar_tensor_tensor(
            dst=dst, data=data, op0=nl.multiply, operand0=rstd, op1=nl.multiply, operand1=gain
        )
        return
    scaled = nl.ndarray(data.shape, dtype=nl.float32, buffer=nl.sbuf)
    scale_rows(scaled, data, rstd, "scalar")
    nisa.tensor_tensor(dst=dst, data1=scaled, data2=gain, op=nl.multiply, engine=engine(on))


def inputs(dtype="float32", seed=0, *, rows, D):
    return make((rows, D), dtype, seed), make(D, dtype, seed + 1)


def reference(x, gamma, eps=1e-6):
    """Scale each row by sqrt(D) over the length of the row extended by sqrt(D eps), all in float64."""
    x = x.astype(np.float64)
    width = x.shape[-1]
    length = np.hypot(np.linalg.norm(x, axis=-1, keepdims=True), np.sqrt(width * eps))
    return gamma.astype(np.float64) * (x * (np.sqrt(width) / length))


def tolerance(*, rows, D):
    return {"reduction": D}


def in_numpy(x, gamma):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(1e-6)) * gamma


SHOWN = {"rows": 2048, "D": 2048}

CASES = (
    Case({"rows": 128, "D": 512}, "float32"),
    Case({"rows": 200, "D": 1000}, "float32", {"eps": 1e-2}),
    Case({"rows": 256, "D": 4096}, "bfloat16"),
    Case({"rows": 1037, "D": 64}, "bfloat16"),
    Case({"rows": 3, "D": 7}, "float32"),
    Case({"rows": 641, "D": 96}, "float32", {"ROWS_PER_PARTITION": 4}),
    Case({"rows": 300, "D": 700}, "bfloat16", {"ROWS_PER_PARTITION": 2, "COLUMNS_IN_TILE": 256}),
)
