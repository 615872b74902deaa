"""Gated MLP over ranks: each holds a share of the hidden units, and what they make of the tokens is summed up.

Layout: the weights are cut along F. Rank r has F / ranks columns of Wg and Wu and the same rows of Wd, so that the
elementwise part needs nobody else, and the second product gives a part of every output:

    y = sum over ranks of (act(x Wg_r) * (x Wu_r)) Wd_r

All ranks have all tokens. On each of them the kernel is `mlp`, block by block of up to 512 tokens, whose results go to
HBM, and a collective adds up the block over the ranks. Nothing waits for it but the copy of its sums into the result:
while one block is reduced, the engines compute the next. A block is a trade: small ones hide more of the
communication, and read the weights more often; at 2 bytes an element a rank computes 6 tokens H F / ranks FLOP for the
2 tokens H bytes that are reduced, which the collective moves about twice.

On two cores, ``tensor_parallel_mlp[2](...)``, each takes half of the tokens of a block; they meet before they ask for
the reduction, which happens once. Partial results are rounded to the input type before they are added up, in float32.
"""

from __future__ import annotations

import numpy as np

import nkilite as nki
import nkilite.collectives as ncc
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case, mlp
from kernels.tiles import share_of_core, tiles

SPACE = {
    "TOKENS_IN_BLOCK": (128, 256, 512),
    "F_TILES_IN_BLOCK": (1, 2, 4, 8),
    "H_TILES_IN_BLOCK": (1, 2, 4),
}


@nki.jit
def tensor_parallel_mlp(
    x, w_gate, w_up, w_down, ranks, act="silu", TOKENS_IN_BLOCK=256, F_TILES_IN_BLOCK=4, H_TILES_IN_BLOCK=1
):
    """Gated MLP of `x` [tokens, H] through F hidden units, of which this rank has a share.

    Args:
        x: HBM [tokens, H], float32 or bfloat16; any number of tokens, H a multiple of 128.
        w_gate: HBM [H, F / ranks] of the same dtype: this rank's columns; a multiple of 128.
        w_up: HBM [H, F / ranks].
        w_down: HBM [F / ranks, H]: this rank's rows.
        ranks: how many take part.
        act: "silu", "gelu" (by erf) or "gelu_tanh".
        TOKENS_IN_BLOCK: tokens whose results are reduced together, at most 512.
        F_TILES_IN_BLOCK: width of a panel of w_gate and w_up, in tiles of 128.
        H_TILES_IN_BLOCK: width of a panel of w_down, in tiles of 512.

    Returns:
        HBM [tokens, H] of the dtype of `x`, the same on all ranks.
    """
    mlp.validate(x, w_gate, w_up, w_down, act, TOKENS_IN_BLOCK)
    everybody = ncc.ReplicaGroup([list(range(ranks))])
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="out")
    for t, count in tiles(x.shape[0], TOKENS_IN_BLOCK):
        partial = nl.ndarray((count, x.shape[1]), dtype=x.dtype, buffer=nl.shared_hbm, name=f"partial_{t}")
        total = nl.ndarray(partial.shape, dtype=x.dtype, buffer=nl.shared_hbm, name=f"total_{t}")
        first, rows = share_of_core(count)
        mine = slice(first, first + rows)
        if rows:
            block = x[t + first : t + first + rows, :]
            mlp.feed_forward(
                partial[mine, :], block, w_gate, w_up, w_down, act, F_TILES_IN_BLOCK, H_TILES_IN_BLOCK
            )
        if nl.num_programs() > 1:
            nisa.core_barrier(partial, (0, 1))
        ncc.all_reduce([partial], [total], everybody, nl.add)
        if rows:
            nisa.dma_copy(dst=out[t + first : t + first + rows, :], src=total[mine, :])
    return out


def shards(ranks, x, w_gate, w_up, w_down):
    """The arguments of every rank."""
    columns = zip(np.split(w_gate, ranks, axis=1), np.split(w_up, ranks, axis=1), np.split(w_down, ranks), strict=True)
    return [(x, *(np.ascontiguousarray(w) for w in weights)) for weights in columns]


def joined(results):
    """The whole result, of which every rank has a copy."""
    assert all(np.array_equal(result, results[0]) for result in results)
    return results[0]


def inputs(dtype="float32", seed=0, *, tokens, H, F):
    return mlp.inputs(dtype, seed, tokens=tokens, H=H, F=F)


reference = mlp.reference


def tolerance(*, tokens, H, F):
    return {"reduction": H + F}


CASES = (
    Case({"tokens": 40, "H": 128, "F": 1024}, "float32"),
    Case({"tokens": 200, "H": 128, "F": 1024}, "bfloat16", {"act": "gelu_tanh", "TOKENS_IN_BLOCK": 128}),
)
