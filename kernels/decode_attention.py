"""Attention of one new token to a growing cache, O = softmax(scale * q K^T) V over the first keys: grouped queries.

A cache has room for the longest sequence, and how much of it is filled is a number on the device. The kernel is traced
once, for the room; the length decides how often its loop runs. So a cache that grows by a row costs a launch, and no
trace.

Layout: the queries of a group lie on partitions, their scores along the free dimension, so that the softmax never
crosses partitions. Keys arrive as rows and are transposed on the Tensor Engine, 128 at a time; values are rows already.
What is known of the softmax so far (maximum, sum, weighted values) stays in SBUF for the whole loop.

The last block of keys is ragged. Its scores are masked: the positions of a block, which a tile carries from iteration
to iteration, are compared with the length, and -1e30 is added from there on, whose exponential is exactly zero. In
memory, what lies behind the length has to be finite, as a cache of zeros is, for zero times infinity is not zero.
"""

from __future__ import annotations

import math

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case
from kernels.tiles import BANK, P, transpose_chunks
from nkilite.testing import make

MASKED = -1e30

SPACE = {"COPY_ENGINE": ("scalar", "vector"), "KEY_TILES_IN_BLOCK": (1, 2, 4)}


@nki.jit
def decode_attention(q, k, v, length, scale=None, KEY_TILES_IN_BLOCK=2, COPY_ENGINE="vector"):
    """Scaled dot-product attention of one token.

    Args:
        q: HBM [heads, D], float32 or bfloat16, D <= 128.
        k: HBM [kv_heads, room, D] of the same dtype, heads a multiple of kv_heads: query head h attends to key/value
            head h // (heads / kv_heads). room is a multiple of the keys in a block; rows from `length` on are finite.
        v: HBM [kv_heads, room, D].
        length: HBM [1, 1] int32: how many keys there are, 1 to room.
        scale: positive factor on the scores; None for 1 / sqrt(D).
        KEY_TILES_IN_BLOCK: keys per iteration, in tiles of 128.
        COPY_ENGINE: what copies transposes out of PSUM: "vector", or from trn2 on "scalar".

    Returns:
        HBM [heads, D] of the dtype of `q`.
    """
    heads, D = q.shape
    kv_heads = k.shape[0]
    block = P * KEY_TILES_IN_BLOCK
    scale = 1.0 / math.sqrt(D) if scale is None else scale
    validate(q, k, v, length, scale, block)

    group = heads // kv_heads
    out = nl.ndarray(q.shape, dtype=q.dtype, buffer=nl.shared_hbm)
    keys = nisa.scalar_load(length)
    end = nl.ndarray((group, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=end, src=length.ap([[0, group], [1, 1]]))
    for head in range(kv_heads):
        queries = slice(head * group, (head + 1) * group)
        q_T = nl.ndarray((D, 1, group), dtype=q.dtype, buffer=nl.sbuf)
        transpose_chunks(q_T, [nl.load(q[queries])], on=COPY_ENGINE)
        running = Running(group, D, block)

        def attend(first, head=head, q_T=q_T, running=running):
            k_T = nl.ndarray((D, KEY_TILES_IN_BLOCK, P), dtype=k.dtype, buffer=nl.sbuf)
            rows = [nl.load(k[head, nl.ds(first + i * P, P)]) for i in range(KEY_TILES_IN_BLOCK)]
            transpose_chunks(k_T, rows, on=COPY_ENGINE)
            values = [nl.load(v[head, nl.ds(first + i * P, P)]) for i in range(KEY_TILES_IN_BLOCK)]
            scores = nl.ndarray((group, block), dtype=nl.float32, buffer=nl.psum)
            nisa.nc_matmul(dst=scores, stationary=q_T[:, 0, :], moving=k_T.reshape((D, block)))
            running.add(masked(scores, running.positions, end), values, scale, q.dtype, COPY_ENGINE)

        nl.fori_loop(0, keys, attend, step=block)
        nl.store(out[queries], running.mean(q.dtype))
    return out


class Running:
    """What is known of the softmax of some queries, as tiles that outlive the iterations of a loop.

    Attributes:
        maximum, total: of the scores, and of their exponentials, [queries, 1].
        weighted: values times exponentials, [queries, D].
        positions: of the keys of the block that comes, [queries, block].
    """

    def __init__(self, queries, D, block):
        self.maximum = nl.full((queries, 1), MASKED, dtype=nl.float32)
        self.total = nl.zeros((queries, 1), dtype=nl.float32)
        self.weighted = nl.zeros((queries, D), dtype=nl.float32)
        self.positions = nl.ndarray((queries, block), dtype=nl.float32, buffer=nl.sbuf)
        nisa.iota(dst=self.positions, pattern=[[1, block]])

    def add(self, scores, values, scale, dtype, copy_on):
        """Take a block of keys into account: their scores [queries, block] and tiles of values, [128, D] each."""
        queries, block = scores.shape
        highest = nl.ndarray((queries, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(dst=highest, op=nl.maximum, data=scores, axis=1)
        nisa.tensor_tensor(dst=highest, data1=highest, data2=self.maximum, op=nl.maximum)
        shift = nl.ndarray((queries, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=shift, data=highest, op0=nl.multiply, operand0=-scale)
        alpha = nl.ndarray((queries, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=alpha, op=nl.exp, data=self.maximum, scale=scale, bias=shift)
        weights = nl.ndarray((queries, block), dtype=dtype, buffer=nl.sbuf)
        total = nl.ndarray((queries, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(
            dst=weights, op=nl.exp, data=scores, scale=scale, bias=shift, reduce_op=nl.add, reduce_res=total,
            reduce_cmd=nisa.reduce_cmd.reset_reduce,
        )
        weighted = weigh(weights, values, copy_on)
        for kept, new in ((self.total, total), (self.weighted, weighted)):
            nisa.scalar_tensor_tensor(dst=kept, data=kept, op0=nl.multiply, operand0=alpha, op1=nl.add, operand1=new)
        nisa.tensor_copy(dst=self.maximum, src=highest)
        nisa.tensor_scalar(dst=self.positions, data=self.positions, op0=nl.add, operand0=float(block))

    def mean(self, dtype):
        """The mean of the values by their weights."""
        nisa.reciprocal(dst=self.total, data=self.total)
        result = nl.ndarray(self.weighted.shape, dtype=dtype, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=result, data=self.weighted, op0=nl.multiply, operand0=self.total)
        return result


def masked(scores, positions, end):
    """Scores, of keys from `end` [queries, 1] on with MASKED added."""
    result = nl.ndarray(scores.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(
        dst=result, data=positions, op0=nl.greater_equal, operand0=end, op1=nl.multiply, operand1=MASKED
    )
    nisa.tensor_tensor(dst=result, data1=result, data2=scores, op=nl.add)
    return result


def weigh(weights, values, copy_on):
    """weights [queries, keys] times values, in PSUM."""
    queries, _ = weights.shape
    weights_T = nl.ndarray((P, len(values), queries), dtype=weights.dtype, buffer=nl.sbuf)
    chunks = [weights[:, i * P : (i + 1) * P] for i in range(len(values))]
    transpose_chunks(weights_T, chunks, on=copy_on)
    sums = nl.ndarray((queries, values[0].shape[1]), dtype=nl.float32, buffer=nl.psum)
    for i, rows in enumerate(values):
        nisa.nc_matmul(dst=sums, stationary=weights_T[:, i, :], moving=rows, accumulate=i > 0)
    return sums


def validate(q, k, v, length, scale, block):
    heads, D = q.shape
    kv_heads, room, _ = k.shape
    assert k.shape[2] == D, f"q is {list(q.shape)} and k {list(k.shape)}: they must agree in D"
    assert k.shape == v.shape, f"k is {list(k.shape)} and v {list(v.shape)}: they must have one shape"
    assert q.dtype in (nl.float32, nl.bfloat16), f"{q.dtype} scores do not hold {MASKED}: pass float32 or bfloat16"
    assert D <= P, f"head size D={D} must not exceed {P}: it is the contraction of one matmul"
    assert heads % kv_heads == 0, f"{heads} query heads cannot share {kv_heads} key/value heads evenly"
    assert heads // kv_heads <= P, f"{heads // kv_heads} queries of a group must not exceed {P}: they lie on partitions"
    assert block <= BANK, f"a block of {block} keys must not exceed the {BANK} scores of a PSUM bank"
    assert room % block == 0, f"room={room} must be a multiple of the {block} keys in a block: pad the cache"
    assert tuple(length.shape) == (1, 1), f"length must be [1, 1] int32, found {list(length.shape)}"
    assert scale > 0, f"scale={scale} must be positive: the running maximum is taken before scaling"


def inputs(dtype="float32", seed=0, *, heads, kv_heads, room, length, D):
    return (
        make((heads, D), dtype, seed),
        make((kv_heads, room, D), dtype, seed + 1),
        make((kv_heads, room, D), dtype, seed + 2),
        np.array([[length]], np.int32),
    )


def reference(q, k, v, length, scale=None):
    """In float64, one head at a time, of what there is in the cache."""
    (heads, D), count = q.shape, int(length[0, 0])
    group = heads // k.shape[0]
    scale = 1.0 / math.sqrt(D) if scale is None else scale
    out = np.empty(q.shape)
    for head in range(heads):
        scores = scale * (k[head // group, :count].astype(np.float64) @ q[head].astype(np.float64))
        weights = np.exp(scores - np.logaddexp.reduce(scores))
        out[head] = weights @ v[head // group, :count].astype(np.float64)
    return out


def tolerance(*, heads, kv_heads, room, length, D):
    return {"reduction": length + D}


def in_numpy(q, k, v, length):
    count, group = int(length[0, 0]), q.shape[0] // k.shape[0]
    grouped = q.reshape(k.shape[0], group, q.shape[1])
    scores = grouped @ k[:, :count].transpose(0, 2, 1) / np.float32(np.sqrt(q.shape[-1]))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True) @ v[:, :count]).reshape(q.shape)


SHOWN = {"heads": 32, "kv_heads": 4, "room": 4096, "length": 3000, "D": 128}

CASES = (
    Case({"heads": 1, "kv_heads": 1, "room": 256, "length": 1, "D": 64}, "float32"),
    Case({"heads": 8, "kv_heads": 2, "room": 1024, "length": 300, "D": 32}, "float32"),
    Case({"heads": 4, "kv_heads": 1, "room": 512, "length": 512, "D": 128}, "bfloat16", {"scale": 0.2}),
    Case({"heads": 16, "kv_heads": 2, "room": 512, "length": 385, "D": 64}, "bfloat16", {"KEY_TILES_IN_BLOCK": 1}),
)
