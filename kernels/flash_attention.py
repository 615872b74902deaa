"""Attention forward without the score matrix, O = softmax(scale * Q K^T) V: causal or full, grouped queries.

Layout: scores of 128 queries lie on 128 partitions with their keys along the free dimension, so the softmax
never crosses partitions. That wants K^T and Q^T, [D, sequence], as matmul operands; both are transposed once
on the Tensor Engine as they arrive, next to the S_q * S_k * D matmuls a trifle. K^T and V of one key/value
head stay in SBUF for all queries of all heads of its group: every input is read from HBM once. Per partition
that is 2 * S_k elements at D = 128, 64 KiB at 16,384 keys in bfloat16.

Algorithm, for 128 queries and one block of keys after the other (the online softmax):

    Tensor  S = Q K^T, 512 keys to a PSUM bank
    Vector  m' = max(m, rowmax S), straight from PSUM
    Scalar  P = exp(scale S - scale m'), rounded to the input type; the accumulator sums rows in the same
            pass, and scale is free here, so Q is never rounded a second time
    Tensor  P^T, several tiles to a PSUM bank, then P V accumulated over the whole block; the copies between
            the two are the third pass over the scores, and go to the less busy of Vector and Scalar
    Vector  O = O alpha + P V and l = l alpha + rowsum P, one instruction each; alpha = exp(scale (m - m'))

and O / l at the end. m starts with the first block's maximum instead of minus infinity, so nothing is ever
NaN.

Causality costs nothing per score. Blocks end at the last visible key, and lengths are multiples of 128, so
only the last 128 x 128 tile of a query tile is cut by the diagonal, always in the same way: a mask tile of 0
and -1e30, made once by affine_select, is added to it in PSUM as one more matmul against the identity. -1e30
is finite, since 0 * inf would poison the sum, and its exponential is exactly zero.
"""

from __future__ import annotations

import math

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case
from kernels.tiles import BANK, P, load_stacked, tiles, transpose_chunks
from nkilite.testing import make

MASKED = -1e30

SPACE = {
    "KEY_TILES_IN_BLOCK": (1, 2, 4),
    "QUERY_TILES_IN_BLOCK": (1, 2, 4, 8),
    "TRANSPOSES_PER_COPY": (1, 2, 4, 8),
    "COPY_ENGINE": ("scalar", "vector"),
}


@nki.jit
def flash_attention(
    q, k, v, causal=False, scale=None, KEY_TILES_IN_BLOCK=2, QUERY_TILES_IN_BLOCK=4, TRANSPOSES_PER_COPY=None,
    COPY_ENGINE="vector",
):
    """Scaled dot-product attention, forward.

    Args:
        q: HBM [heads, S_q, D], float32 or bfloat16, S_q a multiple of 128, D <= 128.
        k: HBM [kv_heads, S_k, D] of the same dtype, S_k a multiple of 128, heads a multiple of kv_heads:
            query head h attends to key/value head h // (heads / kv_heads).
        v: HBM [kv_heads, S_k, D].
        causal: let query i see keys up to i + S_k - S_q: the last query sees all. Needs S_k >= S_q.
        scale: positive factor on the scores; None for 1 / sqrt(D).
        KEY_TILES_IN_BLOCK: keys per online-softmax step, in tiles of 512; each holds a PSUM bank.
        QUERY_TILES_IN_BLOCK: queries loaded and stored by one DMA, in tiles of 128.
        TRANSPOSES_PER_COPY: tiles of P^T one instruction copies out of PSUM; None for a full bank.
        COPY_ENGINE: "vector", or from trn2 on "scalar", which does.

    Returns:
        HBM [heads, S_q, D] of the dtype of `q`.
    """
    heads, queries, D = q.shape
    kv_heads, keys, _ = k.shape
    scale = 1.0 / math.sqrt(D) if scale is None else scale
    validate(q, k, v, causal, scale)

    out = nl.ndarray(q.shape, dtype=q.dtype, buffer=nl.shared_hbm)
    mask = causal_mask(q.dtype) if causal else None
    group = heads // kv_heads
    for kv_head in range(kv_heads):
        k_T = load_transposed(k[kv_head, :, :])
        values = load_stacked(v[kv_head, :, :])
        for head in range(kv_head * group, (kv_head + 1) * group):
            for first, count in tiles(queries, P * QUERY_TILES_IN_BLOCK):
                q_T = load_transposed(q[head, first : first + count, :])
                result = nl.ndarray((P, count // P, D), dtype=q.dtype, buffer=nl.sbuf)
                for i in range(count // P):
                    query = first + i * P
                    visible = query + P + keys - queries if causal else keys
                    running = Running()
                    attend(
                        running,
                        q_T=q_T[:, i * P : (i + 1) * P],
                        k_T=k_T[:, 0:visible],
                        values=values,
                        bias=mask,
                        scale=scale,
                        block=BANK * KEY_TILES_IN_BLOCK,
                        per_copy=TRANSPOSES_PER_COPY,
                        copy_on=COPY_ENGINE,
                    )
                    finish(result[:, i, :], running)
                rows = out[head, first : first + count, :]
                nisa.dma_copy(dst=rows.reshape_dim(0, (count // P, P)).permute((1, 0, 2)), src=result)
    return out


class Running:
    """What the online softmax keeps of 128 queries, as float32 tiles; None before the first keys.

    Attributes:
        maximum: of the scores, [128, 1].
        total: of the exponentials, [128, 1].
        weighted: values times exponentials, [128, D].
    """

    def __init__(self):
        self.maximum = self.total = self.weighted = None


def attend(running, q_T, k_T, values, bias, scale, block, per_copy, copy_on):
    """Take keys k_T [D, keys] and their values into account for 128 queries, q_T [D, 128].

    `bias` is a pair of operands whose product is added to the scores of the last of them, as many as it has columns.
    """
    keys = k_T.shape[1]
    for start, width in tiles(keys, block):
        scores, maximum = _scores(q_T, k_T[:, start : start + width], _part(bias, keys, start, width))
        previous, running.maximum = running.maximum, maximum
        if previous is not None:
            nisa.tensor_tensor(dst=maximum, data1=maximum, data2=previous, op=nl.maximum)
        shift = nl.ndarray((P, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=shift, data=maximum, op0=nl.multiply, operand0=-scale)

        weights, total = _exponentials(scores, scale, shift, dtype=q_T.dtype)
        weighted = _weigh(weights, values[:, start // P : (start + width) // P, :], per_copy, copy_on)
        if previous is None:
            running.total = total
            running.weighted = nl.ndarray(weighted.shape, dtype=nl.float32, buffer=nl.sbuf)
            nisa.tensor_copy(dst=running.weighted, src=weighted)
            continue
        alpha = nl.ndarray((P, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=alpha, op=nl.exp, data=previous, scale=scale, bias=shift)
        for kept, new in ((running.total, total), (running.weighted, weighted)):
            nisa.scalar_tensor_tensor(dst=kept, data=kept, op0=nl.multiply, operand0=alpha, op1=nl.add, operand1=new)


def finish(dst, running):
    """dst [128, D] = the mean of the values by their weights."""
    inverse = nl.ndarray((P, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.reciprocal(dst=inverse, data=running.total)
    nisa.tensor_scalar(dst=dst, data=running.weighted, op0=nl.multiply, operand0=inverse)


def _scores(q_T, k_T, bias):
    """Q K^T of a block of keys as PSUM banks [128, <= 512], and the maximum [128, 1] of each row."""
    width = k_T.shape[1]
    block = list(tiles(width, BANK))
    maxima = nl.ndarray((P, len(block)), dtype=nl.float32, buffer=nl.sbuf)
    banks = []
    for i, (key, keys) in enumerate(block):
        bank = nl.ndarray((P, keys), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=bank, stationary=q_T, moving=k_T[:, key : key + keys], accumulate=False)
        here = _part(bias, width, key, keys)
        if here is not None:
            stationary, moving = here
            biased = bank[:, keys - moving.shape[1] : keys]
            nisa.nc_matmul(dst=biased, stationary=stationary, moving=moving, accumulate=True)
        nisa.tensor_reduce(dst=maxima[:, i : i + 1], op=nl.maximum, data=bank, axis=1)
        banks.append(bank)
    return banks, _reduce_row(maxima, nl.maximum)


def _part(bias, extent, start, width):
    """What of a bias on the last of `extent` keys falls on `width` of them, again the last ones; None if nothing."""
    if bias is None:
        return None
    stationary, moving = bias
    first = extent - moving.shape[1]
    here = slice(max(start, first) - first, start + width - first)
    return (stationary, moving[:, here]) if here.start < here.stop else None


def _exponentials(scores, scale, shift, dtype):
    """exp(scale * scores + shift) as one tile [128, keys] of `dtype`, and its row sums [128, 1]."""
    weights = nl.ndarray((P, sum(bank.shape[1] for bank in scores)), dtype=dtype, buffer=nl.sbuf)
    sums = nl.ndarray((P, len(scores)), dtype=nl.float32, buffer=nl.sbuf)
    for i, bank in enumerate(scores):
        nisa.activation(
            dst=weights[:, i * BANK : i * BANK + bank.shape[1]],
            op=nl.exp,
            data=bank,
            scale=scale,
            bias=shift,
            reduce_op=nl.add,
            reduce_res=sums[:, i : i + 1],
            reduce_cmd=nisa.reduce_cmd.reset_reduce,
        )
    return weights, _reduce_row(sums, nl.add)


def _weigh(weights, values, per_copy, copy_on):
    """weights [128, keys] times values [128, keys / 128, D] as a PSUM tile [128, D]."""
    _, chunks, D = values.shape
    weights_T = nl.ndarray((P, chunks, P), dtype=weights.dtype, buffer=nl.sbuf)
    tiles_of_weights = [weights[:, i * P : (i + 1) * P] for i in range(chunks)]
    transpose_chunks(weights_T, tiles_of_weights, per_copy, copy_on)
    product = nl.ndarray((P, D), dtype=nl.float32, buffer=nl.psum)
    for i in range(chunks):
        nisa.nc_matmul(dst=product, stationary=weights_T[:, i, :], moving=values[:, i, :], accumulate=i > 0)
    return product


def _reduce_row(tile, op):
    reduced = nl.ndarray((P, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=reduced, op=op, data=tile, axis=1)
    return reduced


def load_transposed(rows):
    """HBM [n * 128, D] as an SBUF tile [D, n * 128]."""
    stack = load_stacked(rows)
    _, count, width = stack.shape
    transposed = nl.ndarray((width, count * P), dtype=rows.dtype, buffer=nl.sbuf)
    transpose_chunks(transposed.reshape_dim(1, (count, P)), [stack[:, i, :] for i in range(count)])
    return transposed


def causal_mask(dtype):
    """Operands whose product is 0 on and below the diagonal and MASKED above it."""
    zeros = nl.ndarray((P, P), dtype=dtype, buffer=nl.sbuf)
    nisa.memset(dst=zeros, value=0.0)
    bias = nl.ndarray((P, P), dtype=dtype, buffer=nl.sbuf)
    nisa.affine_select(  # keep where query - key >= 0
        dst=bias,
        pattern=[[-1, P]],
        channel_multiplier=1,
        on_true_tile=zeros,
        on_false_value=MASKED,
        cmp_op=nl.greater_equal,
    )
    return nl.shared_identity_matrix(P, dtype=dtype), bias


def validate(q, k, v, causal, scale):
    heads, queries, D = q.shape
    kv_heads, keys, _ = k.shape
    assert tuple(k.shape) == tuple(v.shape) == (kv_heads, keys, D), (
        f"k and v must be [kv_heads, S_k, D={D}], found {list(k.shape)} and {list(v.shape)}"
    )
    assert q.dtype in (nl.float32, nl.bfloat16), (
        f"q is {q.dtype}; -1e30 needs the range of float32 or bfloat16"
    )
    assert D <= P, f"head size D={D} must not exceed {P}: it is the contraction of one matmul"
    assert heads % kv_heads == 0, f"{heads} query heads cannot share {kv_heads} key/value heads evenly"
    assert queries % P == keys % P == 0, f"S_q={queries} and S_k={keys} must be multiples of {P}: pad them"
    assert not causal or keys >= queries, f"causal attention needs S_k >= S_q, found {keys} < {queries}"
    assert scale > 0, f"scale={scale} must be positive: the running maximum is taken before scaling"


def inputs(dtype="float32", seed=0, *, heads, kv_heads, S_q, S_k, D):
    return (
        make((heads, S_q, D), dtype, seed),
        make((kv_heads, S_k, D), dtype, seed + 1),
        make((kv_heads, S_k, D), dtype, seed + 2),
    )


def reference(q, k, v, causal=False, scale=None):
    """The whole score matrix in float64, one head at a time."""
    heads, queries, D = q.shape
    keys, group = k.shape[1], heads // k.shape[0]
    scale = 1.0 / math.sqrt(D) if scale is None else scale
    out = np.empty(q.shape)
    for head in range(heads):
        scores = scale * (q[head].astype(np.float64) @ k[head // group].astype(np.float64).T)
        if causal:
            scores[~np.tri(queries, keys, keys - queries, dtype=bool)] = -np.inf
        weights = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
        out[head] = weights @ v[head // group].astype(np.float64)
    return out


def tolerance(*, heads, kv_heads, S_q, S_k, D):
    return {"reduction": S_k + D}


def in_numpy(q, k, v):
    scores = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(q.shape[-1]))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ v


SHOWN = {"heads": 2, "kv_heads": 2, "S_q": 1024, "S_k": 1024, "D": 128}

CASES = (
    Case({"heads": 1, "kv_heads": 1, "S_q": 128, "S_k": 128, "D": 64}, "float32"),
    Case({"heads": 2, "kv_heads": 1, "S_q": 256, "S_k": 640, "D": 64}, "float32"),
    Case({"heads": 2, "kv_heads": 2, "S_q": 128, "S_k": 1152, "D": 128}, "bfloat16", {"scale": 0.2}),
    Case({"heads": 1, "kv_heads": 1, "S_q": 128, "S_k": 128, "D": 32}, "float32", {"causal": True}),
    Case({"heads": 1, "kv_heads": 1, "S_q": 640, "S_k": 640, "D": 64}, "float32", {"causal": True}),
    Case({"heads": 4, "kv_heads": 2, "S_q": 128, "S_k": 1152, "D": 128}, "bfloat16", {"causal": True}),
    Case(
        {"heads": 1, "kv_heads": 1, "S_q": 384, "S_k": 1152, "D": 16},
        "float32",
        {"causal": True, "KEY_TILES_IN_BLOCK": 1, "QUERY_TILES_IN_BLOCK": 2},
    ),
)
