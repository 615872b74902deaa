"""Two-dimensional transpose, out[N, M] = x[M, N].T.

Left to DMA, a transpose moves elements one by one, a descriptor each. The Tensor Engine does it a 128 x 128
tile at a time: the tile is loaded as the stationary operand and an identity streams past it, leaving the
transpose in PSUM, bit for bit (gen3 on).

Layout: a block of rows is loaded as [128, n, columns], wide contiguous reads; its tiles are transposed into
PSUM until a bank is full, four float32 or eight 16-bit tiles, and one copy moves the bank to a row of output
tiles. Blocks should be wide in *both* dimensions, since a block's width is the length of the DMA runs read
and its height the length of the runs written:

    read     TILES_IN_BLOCK_N * 128 elements per run
    write    TILES_IN_BLOCK_M * 128 elements per run
"""

from __future__ import annotations

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case
from kernels.tiles import P, load_stacked, tiles, transpose_chunks
from nkilite.testing import make

SPACE = {"TILES_IN_BLOCK_M": (1, 2, 4, 8, 16), "TILES_IN_BLOCK_N": (1, 2, 4, 8, 16)}


@nki.jit
def transpose(x, TILES_IN_BLOCK_M=8, TILES_IN_BLOCK_N=8):
    """Transpose `x` [M, N] into a new HBM tensor [N, M].

    Args:
        x: HBM, float32, bfloat16 or float16, any sizes.
        TILES_IN_BLOCK_M: height of a block in tiles of 128.
        TILES_IN_BLOCK_N: width of a block in tiles of 128.

    Returns:
        HBM [N, M] of the dtype of `x`, exact.
    """
    M, N = x.shape
    out = nl.ndarray((N, M), dtype=x.dtype, buffer=nl.shared_hbm)
    for m, block_m in tiles(M, P * TILES_IN_BLOCK_M):
        for n, block_n in tiles(N, P * TILES_IN_BLOCK_N):
            stacks = _load_rows(x[m : m + block_m, n : n + block_n])
            for column, columns in tiles(block_n, P):
                result = nl.ndarray((columns, block_m), dtype=x.dtype, buffer=nl.sbuf)
                start = 0
                for stack in stacks:
                    p, count, _ = stack.shape
                    chunks = [stack[:, i, column : column + columns] for i in range(count)]
                    part = result[:, start : start + count * p]
                    transpose_chunks(part.reshape_dim(1, (count, p)), chunks)
                    start += count * p
                nisa.dma_copy(dst=out[n + column : n + column + columns, m : m + block_m], src=result)
    return out


def _load_rows(block):
    """An HBM block [rows, W] as SBUF tiles [p, n, W]: the whole tiles of 128 rows, then the rest."""
    rows, width = block.shape
    full = rows // P * P
    stacks = [load_stacked(block[0:full, :])] if full else []
    if full < rows:
        rest = nl.ndarray((rows - full, 1, width), dtype=block.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=rest, src=block[full:rows, :].expand_dim(1))
        stacks.append(rest)
    return stacks


def inputs(dtype="float32", seed=0, *, M, N):
    return (make((M, N), dtype, seed),)


def reference(x):
    """Element by element: row j of the result gathers every N-th element of the flat input from j on."""
    rows, columns = x.shape
    return np.stack([x.ravel()[j::columns][:rows] for j in range(columns)])


def tolerance(*, M, N):
    return {"rtol": 0.0, "atol": 0.0}


def in_numpy(x):
    return np.ascontiguousarray(x.T)


SHOWN = {"M": 2048, "N": 2048}

CASES = (
    Case({"M": 128, "N": 128}, "float32"),
    Case({"M": 512, "N": 768}, "bfloat16"),
    Case({"M": 300, "N": 200}, "float32", {"TILES_IN_BLOCK_M": 2, "TILES_IN_BLOCK_N": 1}),
    Case({"M": 1200, "N": 130}, "bfloat16", {"TILES_IN_BLOCK_M": 4}),
    Case({"M": 7, "N": 1030}, "float32"),
    Case({"M": 640, "N": 3}, "float16"),
)
