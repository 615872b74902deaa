"""Layer normalization over the last axis: y = (x - mean) / sqrt(var + eps) * gamma + beta.

Layout: rows on partitions, features along the free dimension; gamma and beta are copied to all partitions
once.

Algorithm, per row, three passes over the data, none of which needs an intermediate as wide as a second copy
of x:

    Vector  bn_stats               count, mean and count * variance of even and of odd elements, 512 at most;
                                   numerically safe, no E[x²] - E[x]²
    Vector  bn_aggr                merges those of all chunks into mean and variance, six numbers per chunk
    Scalar  activation             rstd = rsqrt(var + eps), one element per row
    Vector  scalar_tensor_tensor   t = (x - mean) * gamma
    Vector  scalar_tensor_tensor   y = (t * rstd) + beta

Multiplying by gamma before rstd is what lets four operations fit the two scalar-then-tensor slots of two
passes.
"""

from __future__ import annotations

import math

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case
from kernels.tiles import ITEMSIZE, P, default_depth, load_broadcast, row_blocks, tiles
from nkilite.testing import make

STATS = 6  # numbers bn_stats writes per chunk
STATS_FMAX = 512  # most elements per partition bn_stats reads

SPACE = {"ROWS_PER_PARTITION": (1, 2, 4, 8)}


@nki.jit
def layernorm(x, gamma, beta, eps=1e-5, ROWS_PER_PARTITION=None):
    """Layer-normalize `x` [..., D] over its last axis, in float32.

    Args:
        x: HBM, float32 or bfloat16; any leading dimensions, any number of rows, D >= 2.
        gamma: HBM [D], the gain; any float dtype.
        beta: HBM [D], the offset; any float dtype.
        eps: added to the (biased) variance.
        ROWS_PER_PARTITION: rows of a block that share a partition; None sizes blocks for 2 KiB DMA runs.

    Returns:
        HBM tensor of the shape and dtype of `x`.
    """
    width = x.shape[-1]
    rows = math.prod(x.shape[:-1])
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    src, dst = x.reshape((rows, width)), out.reshape((rows, width))

    gain, offset = load_broadcast(gamma), load_broadcast(beta)
    eps_tile = nl.ndarray((P, 1), dtype=nl.float32, buffer=nl.sbuf)  # gen2 takes biases as vectors only
    nisa.memset(dst=eps_tile, value=eps)

    # Chunks of even size: a leftover of one element would have no odd elements to take statistics of.
    chunks = math.ceil(width / STATS_FMAX)
    chunk = math.ceil(width / chunks)

    for start, p, depth in row_blocks(rows, ROWS_PER_PARTITION or default_depth(width * ITEMSIZE[x.dtype])):
        block, stop = (p, depth, width), start + p * depth
        x_tile = nl.ndarray(block, dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=x_tile, src=src[start:stop, :].reshape(block))

        moments = nl.ndarray((p, depth, 2), dtype=nl.float32, buffer=nl.sbuf)  # mean, variance
        for r in range(depth):
            stats = nl.ndarray((p, chunks * STATS), dtype=nl.float32, buffer=nl.sbuf)
            for i, (first, length) in enumerate(tiles(width, chunk)):
                nisa.bn_stats(
                    dst=stats[:, i * STATS : (i + 1) * STATS], data=x_tile[:, r, first : first + length]
                )
            nisa.bn_aggr(dst=moments[:, r, :], data=stats)
        rstd = nl.ndarray((p, depth), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=rstd, op=nl.rsqrt, data=moments[:, :, 1], bias=eps_tile[0:p, :])

        y_tile = nl.ndarray(block, dtype=x.dtype, buffer=nl.sbuf)
        for r in range(depth):
            scaled = nl.ndarray((p, width), dtype=nl.float32, buffer=nl.sbuf)
            nisa.scalar_tensor_tensor(
                dst=scaled,
                data=x_tile[:, r, :],
                op0=nl.subtract,
                operand0=moments[:, r, 0:1],
                op1=nl.multiply,
                operand1=gain[0:p, :],
            )
            nisa.scalar_tensor_tensor(
                dst=y_tile[:, r, :],
                data=scaled,
                op0=nl.multiply,
                operand0=rstd[:, r : r + 1],
                op1=nl.add,
                operand1=offset[0:p, :],
            )
        nisa.dma_copy(dst=dst[start:stop, :].reshape(block), src=y_tile)
    return out


def inputs(dtype="float32", seed=0, *, rows, D):
    """Rows with means of their own, so that subtracting the wrong one shows."""
    x = make((rows, D), "float32", seed) + 2 * make((rows, 1), "float32", seed + 1)
    return x.astype(make(1, dtype).dtype), make(D, dtype, seed + 2), make(D, dtype, seed + 3)


def reference(x, gamma, beta, eps=1e-5):
    """Two-pass mean and variance in float64."""
    x = x.astype(np.float64)
    centred = x - x.mean(axis=-1, keepdims=True)
    normalized = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return normalized * gamma.astype(np.float64) + beta.astype(np.float64)


def tolerance(*, rows, D):
    return {"reduction": D}


def in_numpy(x, gamma, beta):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + np.float32(1e-5)) * gamma + beta


SHOWN = {"rows": 2048, "D": 2048}

CASES = (
    Case({"rows": 128, "D": 512}, "float32"),
    Case({"rows": 200, "D": 1000}, "float32", {"eps": 1e-2}),
    Case({"rows": 130, "D": 513}, "float32"),
    Case({"rows": 256, "D": 2048}, "bfloat16"),
    Case({"rows": 1037, "D": 64}, "bfloat16"),
    Case({"rows": 641, "D": 96}, "float32", {"ROWS_PER_PARTITION": 4}),
)
