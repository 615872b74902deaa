"""Matrix multiplication C = A B over ranks that overlaps the gathering of A: each rank has rows of A and columns of B.

Layout: rank r holds rows of A as `lhsT` [K, M / ranks], transposed as `matmul` wants it, and a share of the columns of
B as `rhs` [K, N / ranks]. It needs all rows of A to make its columns of C.

An all_gather before the product would leave the Tensor Engine idle meanwhile. Here the rows go round a ring instead: at
every step a rank passes on the chunk it has to the next rank and, while that is under way, multiplies it:

    step 0        own rows            multiply them      send them on
    step i        rows of the rank i places back on the ring, which have just come

Where a chunk belongs in C is only known on the chip, because the ring is the runtime's choice: the rows are stored at
the number of the rank whose they are, a register. After ranks - 1 steps everybody has seen everything; the last chunk
is not sent on. A step hides its communication when multiplying a chunk, 2 K M N / ranks^2 FLOP, takes longer than
sending K M / ranks elements to a neighbour.

Chunks lie in HBM in BUFFERS places: with two, a chunk is only received when the product with the one before it has been
made; with more, the links may run ahead. On two cores, ``all_gather_matmul[2](...)``, each makes half of the columns;
they pass chunks on together.
"""

from __future__ import annotations

import numpy as np

import nkilite as nki
import nkilite.collectives as ncc
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case, matmul
from kernels.tiles import share_of_core

SPACE = {
    "TILES_IN_BLOCK_M": (1, 2, 4, 8, 16),
    "TILES_IN_BLOCK_N": (1, 2, 4, 8),
    "TILES_IN_BLOCK_K": (1, 2, 4, 8, 16),
    "BUFFERS": (2, 3, 4),
}


@nki.jit
def all_gather_matmul(lhsT, rhs, ranks, TILES_IN_BLOCK_M=8, TILES_IN_BLOCK_N=2, TILES_IN_BLOCK_K=8, BUFFERS=3):
    """This rank's columns of ``A B``.

    Args:
        lhsT: HBM [K, M / ranks]: this rank's rows of A, transposed; K a multiple of 128.
        rhs: HBM [K, N / ranks]: this rank's columns of B, both float32 or both 16 bits.
        ranks: how many take part.
        TILES_IN_BLOCK_M, TILES_IN_BLOCK_N, TILES_IN_BLOCK_K: blocks of the product with a chunk, as of `matmul`.
        BUFFERS: places for chunks, at least 2.

    Returns:
        HBM [M, N / ranks] of the dtype of `lhsT`, accumulated in float32.
    """
    assert BUFFERS >= 2, f"BUFFERS={BUFFERS} must be at least 2: a chunk is received while another one is in use"
    (_, rows), columns = lhsT.shape, rhs.shape[1]
    everybody = ncc.ReplicaGroup([list(range(ranks))])
    out = nl.ndarray((ranks * rows, columns), dtype=lhsT.dtype, buffer=nl.shared_hbm, name="out")
    by_rank = out.reshape((ranks, rows, columns))
    chunks = [
        nl.ndarray(lhsT.shape, dtype=lhsT.dtype, buffer=nl.shared_hbm, name=f"chunk_{i}")
        for i in range(min(BUFFERS, ranks))
    ]
    first, width = share_of_core(columns)
    if nl.program_id(0) == 0:
        nisa.dma_copy(dst=chunks[0], src=lhsT)  # arguments cannot be sent
    if nl.num_programs() > 1:
        nisa.core_barrier(chunks[0], (0, 1))
    for step in range(ranks):
        chunk, following = chunks[step % len(chunks)], chunks[(step + 1) % len(chunks)]
        whose = ncc.collective_permute_implicit_current_processing_rank_id(step, everybody)
        if step + 1 < ranks:
            ncc.collective_permute_implicit([[chunk]], [[following]], everybody)
        if width:
            matmul.multiply(
                by_rank.select(0, whose)[:, first : first + width], chunk, rhs[:, first : first + width],
                TILES_IN_BLOCK_M, TILES_IN_BLOCK_N, TILES_IN_BLOCK_K,
            )
    return out


def shards(ranks, lhsT, rhs):
    """The arguments of every rank."""
    pairs = zip(np.split(lhsT, ranks, axis=1), np.split(rhs, ranks, axis=1), strict=True)
    return [tuple(np.ascontiguousarray(half) for half in pair) for pair in pairs]


def joined(results):
    """The whole result: ranks have columns of it."""
    return np.concatenate(results, axis=1)


inputs, reference, tolerance = matmul.inputs, matmul.reference, matmul.tolerance

CASES = (
    Case({"M": 256, "N": 192, "K": 128}, "float32"),
    Case({"M": 600, "N": 264, "K": 256}, "bfloat16", {"BUFFERS": 2, "TILES_IN_BLOCK_K": 1}),
)
