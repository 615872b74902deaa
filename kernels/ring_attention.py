"""Attention of a long sequence over ranks: each has a part of the queries, and keys and values go round a ring.

Layout: rank r holds S / ranks consecutive queries, keys and values of every head. Scores of 128 queries and a chunk of
keys are those of `flash_attention`, and so is the online softmax that takes one block of keys after the other into
account: nothing about it says that the blocks have to come from the same rank. So at every step a rank passes the keys
and values it has to the next one and, while they are under way, attends to them. What it keeps between the steps is
the running maximum, sum and mean of each query, in SBUF: D + 2 float32 of every query of every head.

Only 2 S D / ranks elements of a head are in memory at a time, and they are sent while 4 S^2 D / ranks^2 FLOP are done:
communication is hidden when a rank has enough queries, whatever their number in all. The ring is the runtime's choice,
and a chunk may come from any rank, in any order: attention does not care.

With `causal` it does: a query sees the keys of earlier ranks, none of later ones, and of its own rank those before it.
Own keys come first, so that they are known when the kernel is traced, and have the triangle of flash_attention. For
the others a row of zeros or of -1e30, by comparing two ranks on the chip, is added to all scores by one more matmul of
a single partition. The work for keys that nobody sees is done all the same.

On two cores, ``ring_attention[2](...)``, each takes half of the heads; they pass keys and values on together.
"""

from __future__ import annotations

import math

import numpy as np

import nkilite as nki
import nkilite.collectives as ncc
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case, flash_attention
from kernels.tiles import BANK, P, load_stacked, share_of_core

SPACE = {
    "KEY_TILES_IN_BLOCK": (1, 2, 4),
    "TRANSPOSES_PER_COPY": (1, 2, 4, 8),
    "COPY_ENGINE": ("scalar", "vector"),
    "BUFFERS": (2, 3, 4),
}


@nki.jit
def ring_attention(
    q, k, v, ranks, causal=False, scale=None, KEY_TILES_IN_BLOCK=2, TRANSPOSES_PER_COPY=None, COPY_ENGINE="vector",
    BUFFERS=3,
):
    """Scaled dot-product attention of this rank's queries to the keys of all.

    Args:
        q: HBM [heads, S / ranks, D], float32 or bfloat16: this rank's queries, a multiple of 128; D <= 128.
        k: HBM [heads, S / ranks, D] of the same dtype: its keys.
        v: HBM [heads, S / ranks, D]: its values.
        ranks: how many take part; rank r has the r-th part of the sequence.
        causal: let a query see the keys up to its own place in the sequence.
        scale: positive factor on the scores; None for 1 / sqrt(D).
        KEY_TILES_IN_BLOCK: keys per online-softmax step, in tiles of 512; each holds a PSUM bank.
        TRANSPOSES_PER_COPY: tiles of transposed weights one instruction copies out of PSUM; None for a full bank.
        COPY_ENGINE: "vector", or from trn2 on "scalar", which does.
        BUFFERS: places in HBM for keys and values, at least 2.

    Returns:
        HBM [heads, S / ranks, D] of the dtype of `q`.
    """
    heads, queries, D = q.shape
    scale = 1.0 / math.sqrt(D) if scale is None else scale
    assert q.shape == k.shape == v.shape, (
        f"q, k and v must have one shape, found {list(q.shape)}, {list(k.shape)} and {list(v.shape)}"
    )
    flash_attention.validate(q, k, v, causal, scale)
    assert BUFFERS >= 2, f"BUFFERS={BUFFERS} must be at least 2: keys are received while others are in use"
    everybody = ncc.ReplicaGroup([list(range(ranks))])
    out = nl.ndarray(q.shape, dtype=q.dtype, buffer=nl.shared_hbm, name="out")
    chunks = [
        nl.ndarray((2, heads, queries, D), dtype=q.dtype, buffer=nl.shared_hbm, name=f"keys_and_values_{i}")
        for i in range(min(BUFFERS, ranks))
    ]
    first, count = share_of_core(heads)
    mine = range(first, first + count)
    if nl.program_id(0) == 0:
        for i, tensor in enumerate((k, v)):
            nisa.dma_copy(dst=chunks[0][i, :, :, :], src=tensor)  # arguments cannot be sent
    if nl.num_programs() > 1:
        nisa.core_barrier(chunks[0], (0, 1))

    q_T = {head: flash_attention.load_transposed(q[head, :, :]) for head in mine}
    running = {(head, i): flash_attention.Running() for head in mine for i in range(0, queries, P)}
    triangle = flash_attention.causal_mask(q.dtype) if causal else None
    for step in range(ranks):
        chunk, following = chunks[step % len(chunks)], chunks[(step + 1) % len(chunks)]
        later = _later(step, everybody, queries, q.dtype) if causal and step else None
        if step + 1 < ranks:
            ncc.collective_permute_implicit([[chunk]], [[following]], everybody)
        for head in mine:
            k_T = flash_attention.load_transposed(chunk[0, head, :, :])
            values = load_stacked(chunk[1, head, :, :])
            for i in range(0, queries, P):
                visible = i + P if causal and not step else queries
                flash_attention.attend(
                    running[head, i],
                    q_T=q_T[head][:, i : i + P],
                    k_T=k_T[:, 0:visible],
                    values=values,
                    bias=later if step else triangle,
                    scale=scale,
                    block=BANK * KEY_TILES_IN_BLOCK,
                    per_copy=TRANSPOSES_PER_COPY,
                    copy_on=COPY_ENGINE,
                )
    for (head, i), state in running.items():
        result = nl.ndarray((P, D), dtype=q.dtype, buffer=nl.sbuf)
        flash_attention.finish(result, state)
        nisa.dma_copy(dst=out[head, i : i + P, :], src=result)
    return out


def _later(step, everybody, keys, dtype):
    """Operands whose product is MASKED for all keys if they come from a later rank at this step, else 0."""
    whose = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    own = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.register_store(
        whose, ncc.collective_permute_implicit_current_processing_rank_id(step, everybody)
    )
    nisa.register_store(own, ncc.rank_id())
    masked = nl.ndarray((1, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=masked, data1=whose, data2=own, op=nl.greater)
    nisa.tensor_scalar(dst=masked, data=masked, op0=nl.multiply, operand0=flash_attention.MASKED)
    ones = nl.ndarray((1, P), dtype=dtype, buffer=nl.sbuf)
    nisa.memset(dst=ones, value=1.0)
    row = nl.ndarray((1, keys), dtype=dtype, buffer=nl.sbuf)
    nisa.memset(dst=row, value=1.0)
    nisa.tensor_scalar(dst=row, data=row, op0=nl.multiply, operand0=masked)
    return ones, row


def shards(ranks, q, k, v):
    """The arguments of every rank."""
    parts = zip(*(np.split(tensor, ranks, axis=1) for tensor in (q, k, v)), strict=True)
    return [tuple(np.ascontiguousarray(part) for part in tensors) for tensors in parts]


def joined(results):
    """The whole result: ranks have consecutive queries."""
    return np.concatenate(results, axis=1)


def inputs(dtype="float32", seed=0, *, heads, S, D):
    return flash_attention.inputs(dtype, seed, heads=heads, kv_heads=heads, S_q=S, S_k=S, D=D)


reference = flash_attention.reference


def tolerance(*, heads, S, D):
    return {"reduction": S + D}


CASES = (
    Case({"heads": 1, "S": 1024, "D": 32}, "float32"),
    Case({"heads": 2, "S": 1024, "D": 32}, "bfloat16", {"causal": True, "BUFFERS": 2, "KEY_TILES_IN_BLOCK": 1}),
)
