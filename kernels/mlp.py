"""Gated multi-layer perceptron: y = (act(x Wg) * (x Wu)) Wd, act SiLU or GELU, in one kernel.

Layout: the hidden activations are computed *transposed*, h^T [F, tokens], with the weights as stationary
operand:

    g^T = matmul(stationary Wg [H, F], moving x^T [H, tokens])       contracts H over partitions
    y   = matmul(stationary h^T [F, tokens], moving Wd [F, H])       contracts F over partitions

h^T comes out of the first product exactly as the second wants it in, so the large intermediate is neither
transposed nor sent to HBM; only x is transposed, on the Tensor Engine, once per block of tokens.

Algorithm, per block of up to 512 tokens (a moving operand, a PSUM bank):

    Tensor  x^T, several tiles to a PSUM bank
    Tensor  g^T and u^T for 128 hidden units, H/128 accumulating matmuls each
    Scalar  act(g^T) from PSUM to SBUF: the activation rides on the copy that has to happen anyway
    Vector  h^T = act(g^T) * u^T, the second operand straight from PSUM, rounded to the input type
    Tensor  y for 128 tokens and 512 features, F/128 accumulating matmuls

Weights stream from HBM once per block of tokens, in panels of F_TILES_IN_BLOCK * 128 hidden units and then of
H_TILES_IN_BLOCK * 512 features: 2 * tokens FLOP per weight, so a block of 512 tokens is compute-bound. SBUF
holds x^T, h^T and the panels: per partition (H + F) / 128 * tokens elements plus 2 H F_TILES_IN_BLOCK of
weights.
"""

from __future__ import annotations

import math

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case
from kernels.tiles import BANK, P, load_stacked, load_transposed, tiles
from nkilite.testing import make

ACTIVATIONS = {"silu": nl.silu, "gelu": nl.gelu, "gelu_tanh": nl.gelu_apprx_tanh}

SPACE = {
    "TOKENS_IN_BLOCK": (128, 256, 512),
    "F_TILES_IN_BLOCK": (1, 2, 4, 8),
    "H_TILES_IN_BLOCK": (1, 2, 4),
}


@nki.jit
def mlp(x, w_gate, w_up, w_down, act="silu", TOKENS_IN_BLOCK=512, F_TILES_IN_BLOCK=4, H_TILES_IN_BLOCK=1):
    """Gated MLP of `x` [tokens, H] through F hidden units.

    Args:
        x: HBM [tokens, H], float32 or bfloat16; any number of tokens, H a multiple of 128.
        w_gate: HBM [H, F] of the same dtype, F a multiple of 128.
        w_up: HBM [H, F].
        w_down: HBM [F, H].
        act: "silu", "gelu" (by erf) or "gelu_tanh".
        TOKENS_IN_BLOCK: tokens that share one pass over the weights, at most 512.
        F_TILES_IN_BLOCK: width of a panel of w_gate and w_up, in tiles of 128.
        H_TILES_IN_BLOCK: width of a panel of w_down, in tiles of 512.

    Returns:
        HBM [tokens, H] of the dtype of `x`, accumulated in float32, the hidden activations rounded to that
        dtype.
    """
    validate(x, w_gate, w_up, w_down, act, TOKENS_IN_BLOCK)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for t, count in tiles(x.shape[0], TOKENS_IN_BLOCK):
        here = slice(t, t + count)
        feed_forward(out[here, :], x[here, :], w_gate, w_up, w_down, act, F_TILES_IN_BLOCK, H_TILES_IN_BLOCK)
    return out


def feed_forward(out, x, w_gate, w_up, w_down, act, F_TILES_IN_BLOCK, H_TILES_IN_BLOCK):
    """Write one block of tokens, of which there are at most 512, to `out`, HBM [tokens, H]."""
    count, H = x.shape
    hidden = w_gate.shape[1]
    x_T = load_transposed(x, x.dtype)
    h_T = nl.ndarray((P, hidden // P, count), dtype=x.dtype, buffer=nl.sbuf)
    for i, units in tiles(hidden, P * F_TILES_IN_BLOCK):
        gate_panel = load_stacked(w_gate[:, i : i + units])
        up_panel = load_stacked(w_up[:, i : i + units])
        for unit in range(0, units, P):
            gate = _contract(gate_panel[:, :, unit : unit + P], x_T)
            up = _contract(up_panel[:, :, unit : unit + P], x_T)
            gated = nl.ndarray((P, count), dtype=nl.float32, buffer=nl.sbuf)
            nisa.activation(dst=gated, op=ACTIVATIONS[act], data=gate)
            nisa.tensor_tensor(dst=h_T[:, (i + unit) // P, :], data1=gated, data2=up, op=nl.multiply)
    for h, width in tiles(H, BANK * H_TILES_IN_BLOCK):
        down_panel = load_stacked(w_down[:, h : h + width])
        for token, rows in tiles(count, P):
            y_tile = nl.ndarray((rows, width), dtype=x.dtype, buffer=nl.sbuf)
            for feature, columns in tiles(width, BANK):
                here = slice(feature, feature + columns)
                product = _contract(h_T[:, :, token : token + rows], down_panel[:, :, here])
                nisa.tensor_copy(dst=y_tile[:, here], src=product)
            nisa.dma_copy(dst=out[token : token + rows, h : h + width], src=y_tile)


def _contract(stationary, moving):
    """Stationary [128, n, M] times moving [128, n, N], contracted over both first axes, in PSUM [M, N]."""
    product = nl.ndarray((stationary.shape[2], moving.shape[2]), dtype=nl.float32, buffer=nl.psum)
    for j in range(stationary.shape[1]):
        nisa.nc_matmul(dst=product, stationary=stationary[:, j, :], moving=moving[:, j, :], accumulate=j > 0)
    return product


def validate(x, w_gate, w_up, w_down, act, TOKENS_IN_BLOCK):
    H, hidden = w_gate.shape
    assert (x.shape[1], *w_up.shape, *w_down.shape) == (H, H, hidden, hidden, H), (
        f"x, w_gate, w_up and w_down must be [tokens, H], [H, F], [H, F] and [F, H], found {list(x.shape)}, "
        f"{list(w_gate.shape)}, {list(w_up.shape)} and {list(w_down.shape)}"
    )
    assert H % P == hidden % P == 0, (
        f"H={H} and F={hidden} must be multiples of {P}: pad the weights with zeros"
    )
    assert act in ACTIVATIONS, f"act={act!r} is not one of {sorted(ACTIVATIONS)}"
    assert TOKENS_IN_BLOCK <= BANK, (
        f"TOKENS_IN_BLOCK={TOKENS_IN_BLOCK} exceeds {BANK}, the width of a PSUM bank"
    )


def inputs(dtype="float32", seed=0, *, tokens, H, F):
    """Weights scaled by their fan-in: activations stay around one, where the gate bends."""
    kind = make(1, dtype).dtype

    def weights(rows, columns, at):
        return (make((rows, columns), "float32", at) / math.sqrt(rows)).astype(kind)

    return (
        make((tokens, H), dtype, seed),
        weights(H, F, seed + 1),
        weights(H, F, seed + 2),
        weights(F, H, seed + 3),
    )


def reference(x, w_gate, w_up, w_down, act="silu"):
    """The textbook formula in float64; erf from the C library, SiLU by tanh."""
    x, w_gate, w_up, w_down = (a.astype(np.float64) for a in (x, w_gate, w_up, w_down))
    gate = x @ w_gate
    if act == "silu":
        activated = gate * (1 + np.tanh(gate / 2)) / 2
    elif act == "gelu":
        activated = gate * (1 + np.vectorize(math.erf)(gate / math.sqrt(2))) / 2
    else:
        activated = gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))) / 2
    return (activated * (x @ w_up)) @ w_down


def tolerance(*, tokens, H, F):
    return {"reduction": H + F}


def in_numpy(x, w_gate, w_up, w_down):
    gate = x @ w_gate
    return (gate / (1 + np.exp(-gate)) * (x @ w_up)) @ w_down


SHOWN = {"tokens": 512, "H": 512, "F": 1024}

CASES = (
    Case({"tokens": 128, "H": 128, "F": 256}, "float32"),
    Case({"tokens": 200, "H": 256, "F": 384}, "float32", {"act": "gelu"}),
    Case({"tokens": 600, "H": 640, "F": 256}, "bfloat16"),
    Case({"tokens": 5, "H": 128, "F": 1024}, "float32", {"act": "gelu_tanh"}),
    Case({"tokens": 300, "H": 1152, "F": 128}, "float32", {"TOKENS_IN_BLOCK": 256, "H_TILES_IN_BLOCK": 2}),
)
