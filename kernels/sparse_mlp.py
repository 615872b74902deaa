"""Gated multi-layer perceptron with 4:8, 4:12 or 4:16 sparse weights: y = (act(x Wg) * (x Wu)) Wd in one kernel.

The Tensor Engine takes a stationary operand of which every group of 4 r rows keeps four elements, r being the
compression: it holds r times the contraction, so that a product takes r times fewer passes, and weights take
(1 + 1/8) / r of the memory in bfloat16, tags included.

Layout: weights are stationary in all three products, so that all results come out transposed:

    g^T = matmul(stationary Wg [H, F], moving x^T [H, tokens])       contracts H over partitions and groups
    y^T = matmul(stationary Wd [F, H], moving h^T [F, tokens])       contracts F over partitions and groups

Row p r + i of a contraction tile is element [p, i] of the moving operand. x^T and h^T are made in tiles of 128 rows,
so that i counts tiles: which features share a group is free to choose, and `interleaved` arranges weights before
they are pruned. Only x and y pass through the Tensor Engine once more to be transposed.

Algorithm, per block of up to 512 tokens (a moving operand, a PSUM bank):

    Tensor  x^T
    Tensor  g^T and u^T for 128 hidden units, H / (128 r) accumulating matmuls each
    Scalar  act(g^T) from PSUM to SBUF
    Vector  h^T = act(g^T) * u^T, rounded to the type of the operands
    Tensor  y^T for 128 features, F / (128 r) accumulating matmuls
    Tensor  y

NKI itself has no sparse product yet: `nisa.nc_matmul_sparse` is the one its architecture guide drafts.
"""

from __future__ import annotations

import math

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case
from kernels.tiles import BANK, P, load_transposed, tiles, transpose_chunks
from nkilite.sparsity import compress, expand
from nkilite.testing import make

ACTIVATIONS = {"silu": nl.silu, "gelu": nl.gelu}

SPACE = {
    "TOKENS_IN_BLOCK": (128, 256, 512),
    "TILES_IN_PANEL": (1, 2, 4),
}


@nki.jit
def sparse_mlp(
    x, gate, gate_tags, up, up_tags, down, down_tags, act="silu", TOKENS_IN_BLOCK=512, TILES_IN_PANEL=4
):
    """Gated MLP of `x` [tokens, H] through F hidden units, weights compressed by r.

    Args:
        x: HBM [tokens, H], bfloat16, float16, or float32, which is multiplied as tfloat32; H a multiple of 128 r.
        gate: HBM [H / r, F] of the same dtype, F a multiple of 128 r: values of `interleaved` weights.
        gate_tags: HBM [H / r, F / 4], uint16.
        up: HBM [H / r, F], and its tags.
        down: HBM [F / r, H], and its tags.
        act: "silu" or "gelu" (by erf).
        TOKENS_IN_BLOCK: tokens that share one pass over the weights, at most 512.
        TILES_IN_PANEL: columns of weights loaded at a time, in tiles of 128.

    Returns:
        HBM [tokens, H] of the dtype of `x`, accumulated in float32, the hidden activations rounded to the type of the
        operands.
    """
    tokens, H = x.shape
    hidden = gate.shape[1]
    ratio = _validate(x, gate, up, down, act, TOKENS_IN_BLOCK)
    operand = nl.tfloat32 if x.dtype == nl.float32 else x.dtype
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    width = P * TILES_IN_PANEL
    for t, count in tiles(tokens, TOKENS_IN_BLOCK):
        x_T = load_transposed(x[t : t + count, :], operand)
        h_T = nl.ndarray((P, hidden // P, count), dtype=operand, buffer=nl.sbuf)
        for i, units in tiles(hidden, width):
            columns = slice(i, i + units)
            gate_panel, up_panel = (_panel(w, columns, operand) for w in ((gate, gate_tags), (up, up_tags)))
            for unit in range(0, units, P):
                gated = nl.ndarray((P, count), dtype=nl.float32, buffer=nl.sbuf)
                nisa.activation(dst=gated, op=ACTIVATIONS[act], data=_contract(gate_panel, unit, x_T, ratio))
                product = _contract(up_panel, unit, x_T, ratio)
                nisa.tensor_tensor(dst=h_T[:, (i + unit) // P, :], data1=gated, data2=product, op=nl.multiply)
        y_T = nl.ndarray((P, H // P, count), dtype=x.dtype, buffer=nl.sbuf)
        for h, features in tiles(H, width):
            panel = _panel((down, down_tags), slice(h, h + features), operand)
            for feature in range(0, features, P):
                nisa.tensor_copy(dst=y_T[:, (h + feature) // P, :], src=_contract(panel, feature, h_T, ratio))
        for token, rows in tiles(count, P):
            y = nl.ndarray((rows, H // P, P), dtype=x.dtype, buffer=nl.sbuf)
            transpose_chunks(y, [y_T[:, j, token : token + rows] for j in range(H // P)])
            nisa.dma_copy(dst=out[t + token : t + token + rows, :], src=y.reshape((rows, H)))
    return out


def _panel(weight, columns, operand):
    """Columns of compressed values and their tags as SBUF tiles [128, n, W] and [128, n, W / 4]."""
    values, tags = weight
    words = slice(columns.start // 4, columns.stop // 4)
    return _stacked(values[:, columns], operand), _stacked(tags[:, words], tags.dtype)


def _stacked(matrix, dtype):
    rows, width = matrix.shape
    tile = nl.ndarray((P, rows // P, width), dtype=dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=matrix.reshape_dim(0, (rows // P, P)).permute((1, 0, 2)))
    return tile


def _contract(panel, column, moving, ratio):
    """128 columns of a panel times moving [128, n r, N], contracted, in PSUM [128, N]."""
    values, tags = panel
    steps, count = values.shape[1], moving.shape[2]
    moving = moving.reshape((P, steps, ratio, count))
    product = nl.ndarray((P, count), dtype=nl.float32, buffer=nl.psum)
    words = slice(column // 4, (column + P) // 4)
    for j in range(steps):
        nisa.nc_matmul_sparse(
            dst=product, moving=moving[:, j], stationary=values[:, j, column : column + P], tag=tags[:, j, words],
            compress_ratio=ratio, accumulate=j > 0,
        )
    return product


def _validate(x, gate, up, down, act, TOKENS_IN_BLOCK):
    """The compression of the weights."""
    H, hidden = x.shape[1], gate.shape[1]
    ratio = H // gate.shape[0]
    tile = P * ratio if ratio in (2, 3, 4) else 0
    assert tile, f"H={H} and weights of {gate.shape[0]} rows give r={ratio}, which is not 2, 3 or 4"
    assert H % tile == hidden % tile == 0, f"H={H} and F={hidden} must be multiples of 128 r = {tile}"
    assert (*gate.shape, *up.shape, *down.shape) == (H // ratio, hidden) * 2 + (hidden // ratio, H), (
        f"gate, up and down must be [H / r, F], [H / r, F] and [F / r, H], found {list(gate.shape)}, "
        f"{list(up.shape)} and {list(down.shape)} for H={H}"
    )
    assert act in ACTIVATIONS, f"act={act!r} is not one of {sorted(ACTIVATIONS)}"
    assert TOKENS_IN_BLOCK <= BANK, (
        f"TOKENS_IN_BLOCK={TOKENS_IN_BLOCK} exceeds {BANK}, the width of a PSUM bank"
    )
    return ratio


def interleaved(weight, ratio):
    """The rows of a weight [K, M] in the order of the kernel's contractions: tile, partition, r."""
    return weight.reshape(-1, ratio, P, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def plain(weight, ratio):
    """The opposite of `interleaved`."""
    return weight.reshape(-1, P, ratio, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def inputs(dtype="float32", seed=0, *, tokens, H, F, ratio):
    """Random weights scaled by their fan-in, pruned by magnitude."""
    kind = make(1, dtype).dtype

    def weights(rows, columns, at):
        dense = make((rows, columns), "float32", at) / math.sqrt(rows)
        return compress(interleaved(dense, ratio).astype(kind), ratio)

    return (
        make((tokens, H), dtype, seed),
        *weights(H, F, seed + 1),
        *weights(H, F, seed + 2),
        *weights(F, H, seed + 3),
    )


def _dense(x, gate, gate_tags, up, up_tags, down, down_tags, dtype):
    ratio = x.shape[1] // gate.shape[0]
    pairs = ((gate, gate_tags), (up, up_tags), (down, down_tags))
    return (x.astype(dtype), *(plain(expand(v, t, ratio), ratio).astype(dtype) for v, t in pairs))


def reference(x, gate, gate_tags, up, up_tags, down, down_tags, act="silu"):
    """The textbook formula in float64 with the weights expanded; erf from the C library, SiLU by tanh."""
    x, gate, up, down = _dense(x, gate, gate_tags, up, up_tags, down, down_tags, np.float64)
    g = x @ gate
    activated = g * (1 + (np.tanh(g / 2) if act == "silu" else np.vectorize(math.erf)(g / math.sqrt(2)))) / 2
    return (activated * (x @ up)) @ down


def tolerance(*, tokens, H, F, ratio):
    """Operands of 11 bits (tfloat32) or 8 (bfloat16), rounded before every product."""
    return {"rtol": 2e-2, "atol": 1e-2}


def in_numpy(x, gate, gate_tags, up, up_tags, down, down_tags):
    x, gate, up, down = _dense(x, gate, gate_tags, up, up_tags, down, down_tags, np.float32)
    g = x @ gate
    return (g / (1 + np.exp(-g)) * (x @ up)) @ down


SHOWN = {"tokens": 512, "H": 512, "F": 1024, "ratio": 4}

CASES = (
    Case({"tokens": 128, "H": 256, "F": 256, "ratio": 2}, "float32"),
    Case({"tokens": 200, "H": 512, "F": 1024, "ratio": 4}, "bfloat16"),
    Case({"tokens": 5, "H": 384, "F": 768, "ratio": 3}, "float16", {"act": "gelu"}),
    Case({"tokens": 300, "H": 512, "F": 512, "ratio": 4}, "bfloat16", {"TOKENS_IN_BLOCK": 256, "TILES_IN_PANEL": 2}),
)
