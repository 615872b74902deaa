"""The gallery: kernels written for a NeuronCore, each in one file that tells the whole story.

    matmul            tiled, and blocked over M, N and K
    softmax           over the last axis
    rmsnorm           with gain
    layernorm         with gain and offset
    flash_attention   forward; causal or full, grouped-query
    decode_attention  one token, a cache that grows; traced once for its room
    mlp               gated, SiLU or GELU
    sparse_mlp        the same with 4:8, 4:12 or 4:16 sparse weights
    transpose         two-dimensional, on the Tensor Engine
    rope              rotary position embedding, split or interleaved pairs
    swiglu            gated activation, elementwise, SiLU or GELU
    mamba             selective scan
    adam              one optimizer step with weight decay

They use the public NKI interface alone: replace ``nkilite`` by ``nki`` in the imports and they run on the
chip; all but sparse_mlp, whose product NKI only drafts. Every module holds, under the same names,

    <module name>   the kernel; its tunable sizes are keyword arguments in capitals, with good defaults
    SPACE           for each of those the values worth trying; any combination computes the same result
    inputs          seeded arguments from named sizes: ``inputs(dtype="bfloat16", M=512, N=512, K=128)``
    reference       the same function in float64 NumPy, by an algorithm of its own
    tolerance       how close the two must be, as keywords of `nkilite.testing.check`
    CASES           shapes, dtypes and options it is tested on
    SHOWN           the sizes at which ``python -m kernels`` runs it
    in_numpy        beside which it is timed there: the idiomatic float32 formula

Those of RANKED run on several ranks, and on one core or two. A call takes the arguments of one rank and their number,
and instead of the last two names a module has

    shards          the arguments of every rank, from those of `inputs`: ``shards(ranks, *arrays)``
    joined          the whole result, from those of the ranks: what `reference` gives

    tensor_parallel_mlp   hidden units shared out, partial results reduced block by block
    all_gather_matmul     rows passed around a ring while they are multiplied
    ring_attention        queries shared out, keys and values passed around a ring

`tiles` has the few lines of tiling they share. To read them in order: softmax, rmsnorm, matmul,
flash_attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["GALLERY", "RANKED", "Case"]

GALLERY = (
    "matmul", "softmax", "rmsnorm", "layernorm", "flash_attention", "decode_attention", "mlp", "sparse_mlp",
    "transpose", "rope", "swiglu", "mamba", "adam",
)


RANKED = ("tensor_parallel_mlp", "all_gather_matmul", "ring_attention")


class Case(NamedTuple):
    """One row of a kernel's table of tested shapes.

    Attributes:
        shape: the named sizes `inputs` takes.
        dtype: element type of the inputs.
        options: keyword arguments of the kernel.
    """

    shape: Mapping[str, int]
    dtype: str
    options: Mapping[str, Any] = {}
