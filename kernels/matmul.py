"""Matrix multiplication C[M, N] = A[M, K] @ B[K, N], with A given transposed.

Layout: the Tensor Engine contracts over partitions and takes both operands with K there, the stationary one
as [K 128, M 128] and the moving one as [K 128, N 512]. So A arrives as `lhsT` [K, M], B as `rhs` [K, N], and
neither is ever transposed on the chip. A product tile [128, 512] in float32 is exactly one PSUM bank.

`matmul_tiled` is the readable form: for every output tile, load and multiply K / 128 pairs of operand tiles,
let PSUM add them up, copy out. Each operand tile is used once per load, about 100 FLOP per byte of HBM in
bfloat16, which is half of what the Tensor Engine needs to stay busy. `matmul_on_cores` is the same on the cores of a
launch.

`matmul` blocks all three dimensions. A block of C, BM x BN, stays in SBUF in float32 while K streams past in
panels of BK; per panel one DMA brings lhsT[BK, BM], one brings rhs[BK, BN], and BM/128 * BN/512 accumulation
groups of BK/128 matmuls consume them:

    HBM traffic     A is read N/BN times, B is read M/BM times, C is written once
    intensity       2 BM BN / (BM + BN) FLOP per element read: 1024 by default, well past the roofline's knee
    SBUF            (BK/128) (BM + BN) elements per partition for the panels, (BM/128) BN float32 for C
    PSUM            one bank per group; the other seven let the Vector Engine drain while the next group runs

K is innermost so that a group finishes in one go and its bank turns over at once. The first panel is copied
out of PSUM, later ones are added to the block, and the last addition writes the output dtype: no pass over C
is spent on zeroing or converting.
"""

from __future__ import annotations

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case
from kernels.tiles import BANK, P, load_stacked, tiles
from nkilite.testing import make

SPACE = {
    "TILES_IN_BLOCK_M": (1, 2, 4, 8, 16),
    "TILES_IN_BLOCK_N": (1, 2, 4, 8),
    "TILES_IN_BLOCK_K": (1, 2, 4, 8, 16),
}


@nki.jit
def matmul_tiled(lhsT, rhs):
    """``lhsT.T @ rhs``, one output tile at a time, nothing reused.

    Args:
        lhsT: HBM [K, M], K a multiple of 128, any M.
        rhs: HBM [K, N], any N, both float32 or both 16 bits.

    Returns:
        HBM [M, N] of the dtype of `lhsT`, accumulated in float32.
    """
    _, M, N = _sizes(lhsT, rhs)
    out = nl.ndarray((M, N), dtype=lhsT.dtype, buffer=nl.shared_hbm)
    _multiply_tiles(out, lhsT, rhs, list(tiles(M, P)))
    return out


@nki.jit
def matmul_on_cores(lhsT, rhs):
    """``lhsT.T @ rhs`` on the cores of a launch, ``matmul_on_cores[2](...)``: each makes every other row of tiles.

    Args and result: as matmul_tiled. Cores share the operands and the result and never write the same rows, so that
    they need not meet.
    """
    _, M, N = _sizes(lhsT, rhs)
    out = nl.ndarray((M, N), dtype=lhsT.dtype, buffer=nl.shared_hbm)
    _multiply_tiles(out, lhsT, rhs, list(tiles(M, P))[nl.program_id(0) :: nl.num_programs()])
    return out


def _multiply_tiles(out, lhsT, rhs, rows_of_tiles):
    """Some rows of tiles of the product: for every tile, load and multiply its operand tiles, add up, copy out."""
    K, _, N = _sizes(lhsT, rhs)
    for m, rows in rows_of_tiles:
        for n, columns in tiles(N, BANK):
            product = nl.ndarray((rows, columns), dtype=nl.float32, buffer=nl.psum)
            for k in range(0, K, P):
                stationary = nl.ndarray((P, rows), dtype=lhsT.dtype, buffer=nl.sbuf)
                moving = nl.ndarray((P, columns), dtype=rhs.dtype, buffer=nl.sbuf)
                nisa.dma_copy(dst=stationary, src=lhsT[k : k + P, m : m + rows])
                nisa.dma_copy(dst=moving, src=rhs[k : k + P, n : n + columns])
                nisa.nc_matmul(dst=product, stationary=stationary, moving=moving, accumulate=k > 0)
            # DMA cannot read PSUM, and the copy out converts for free.
            result = nl.ndarray((rows, columns), dtype=out.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=result, src=product)
            nisa.dma_copy(dst=out[m : m + rows, n : n + columns], src=result)


@nki.jit
def matmul(lhsT, rhs, TILES_IN_BLOCK_M=8, TILES_IN_BLOCK_N=2, TILES_IN_BLOCK_K=8):
    """``lhsT.T @ rhs``, blocked over M, N and K.

    Args:
        lhsT: HBM [K, M], K a multiple of 128, any M.
        rhs: HBM [K, N], any N, both float32 or both 16 bits.
        TILES_IN_BLOCK_M: BM in tiles of 128.
        TILES_IN_BLOCK_N: BN in tiles of 512.
        TILES_IN_BLOCK_K: BK in tiles of 128.

    Returns:
        HBM [M, N] of the dtype of `lhsT`, accumulated in float32.
    """
    _, M, N = _sizes(lhsT, rhs)
    out = nl.ndarray((M, N), dtype=lhsT.dtype, buffer=nl.shared_hbm)
    multiply(out, lhsT, rhs, TILES_IN_BLOCK_M, TILES_IN_BLOCK_N, TILES_IN_BLOCK_K)
    return out


def multiply(out, lhsT, rhs, TILES_IN_BLOCK_M, TILES_IN_BLOCK_N, TILES_IN_BLOCK_K):
    """Write the blocked product to `out`, HBM [M, N]."""
    K, M, N = _sizes(lhsT, rhs)
    for n, block_n in tiles(N, BANK * TILES_IN_BLOCK_N):
        for m, block_m in tiles(M, P * TILES_IN_BLOCK_M):
            partial = _result_tiles(block_m, block_n, nl.float32) if K > P * TILES_IN_BLOCK_K else []
            results = _result_tiles(block_m, block_n, out.dtype)
            for k, block_k in tiles(K, P * TILES_IN_BLOCK_K):
                lhs_panel = load_stacked(lhsT[k : k + block_k, m : m + block_m])
                rhs_panel = load_stacked(rhs[k : k + block_k, n : n + block_n])
                first, last = k == 0, k + block_k == K
                for i, (row, rows) in enumerate(tiles(block_m, P)):
                    for column, columns in tiles(block_n, BANK):
                        here = slice(column, column + columns)
                        product = nl.ndarray((rows, columns), dtype=nl.float32, buffer=nl.psum)
                        for j in range(block_k // P):
                            nisa.nc_matmul(
                                dst=product,
                                stationary=lhs_panel[:, j, row : row + rows],
                                moving=rhs_panel[:, j, here],
                                accumulate=j > 0,
                            )
                        sink = (results if last else partial)[i][:, here]
                        if first:
                            nisa.tensor_copy(dst=sink, src=product)
                        else:
                            nisa.tensor_tensor(dst=sink, data1=partial[i][:, here], data2=product, op=nl.add)
            for i, (row, rows) in enumerate(tiles(block_m, P)):
                nisa.dma_copy(dst=out[m + row : m + row + rows, n : n + block_n], src=results[i])


def _sizes(lhsT, rhs):
    K, M = lhsT.shape
    assert rhs.shape[0] == K, f"lhsT is [K={K}, M={M}] but rhs is {list(rhs.shape)}: they must agree in K"
    assert K % P == 0, (
        f"K={K} must be a multiple of {P}, the rows of the systolic array: pad both operands with zeros"
    )
    return K, M, rhs.shape[1]


def _result_tiles(rows, columns, dtype):
    """One tile per 128 rows, so that each is stored as soon as it is complete."""
    return [nl.ndarray((p, columns), dtype=dtype, buffer=nl.sbuf) for _, p in tiles(rows, P)]


def inputs(dtype="float32", seed=0, *, M, N, K):
    return make((K, M), dtype, seed), make((K, N), dtype, seed + 1)


def reference(lhsT, rhs):
    """One float64 product."""
    return lhsT.astype(np.float64).T @ rhs.astype(np.float64)


def tolerance(*, M, N, K):
    return {"reduction": K}


def in_numpy(lhsT, rhs):
    return lhsT.T @ rhs


SHOWN = {"M": 1024, "N": 1024, "K": 1024}

CASES = (
    Case({"M": 128, "N": 512, "K": 128}, "float32"),
    Case({"M": 256, "N": 512, "K": 512}, "bfloat16"),
    Case({"M": 200, "N": 700, "K": 384}, "float32", {"TILES_IN_BLOCK_K": 1}),
    Case({"M": 384, "N": 1100, "K": 640}, "bfloat16", {"TILES_IN_BLOCK_M": 2, "TILES_IN_BLOCK_K": 2}),
    Case({"M": 64, "N": 96, "K": 256}, "float32", {"TILES_IN_BLOCK_N": 2}),
)
