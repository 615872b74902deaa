"""Rotary position embedding: rotate pairs of elements by an angle that grows with the token's position.

    (a, b) -> (a cos - b sin, b cos + a sin)

Layout: tokens on partitions, [heads, D] along the free dimension, so a token's angles, cos and sin [D/2], sit
on its own partition and serve all heads as a view of stride zero. Tables are loaded once per 128 tokens and
used by every batch.

The two conventions pair different elements: `interleaved` pairs neighbours (2i, 2i+1), otherwise element i
pairs with i + D/2. Both are the same kernel on another view of the tile, [p, heads, 2, D/2], whose third axis
is the pair.

Algorithm: four instructions per tile, three passes' worth of work.

    tensor_tensor   u = x * cos, all pairs at once
    tensor_tensor   v = x * sin
    tensor_tensor   first halves:  u[0] - v[1]
    tensor_tensor   second halves: u[1] + v[0]
"""

from __future__ import annotations

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case
from kernels.tiles import P, tiles
from nkilite.testing import make

SPACE = {"HEADS_IN_BLOCK": (1, 2, 4, 8, 16, 32)}


@nki.jit
def rope(x, cos, sin, interleaved=False, HEADS_IN_BLOCK=8):
    """Rotate `x` by the angles whose cosines and sines are given, in float32.

    Args:
        x: HBM [batch, tokens, heads, D], D even; float32 or bfloat16, any sizes.
        cos: HBM [tokens, D/2]; any float dtype.
        sin: HBM [tokens, D/2]; any float dtype.
        interleaved: pair elements (2i, 2i+1) rather than (i, i + D/2).
        HEADS_IN_BLOCK: heads per tile; more make longer instructions and DMA runs, and larger tiles.

    Returns:
        HBM tensor of the shape and dtype of `x`.
    """
    batch, tokens, heads, width = x.shape
    half = width // 2
    assert width % 2 == 0, f"head size D={width} must be even: rotations act on pairs"
    assert tuple(cos.shape) == tuple(sin.shape) == (tokens, half), (
        f"cos and sin must be [tokens={tokens}, D/2={half}], found {list(cos.shape)} and {list(sin.shape)}"
    )
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for t, p in tiles(tokens, P):
        tables = []
        for table in (cos, sin):
            tile = nl.ndarray((p, half), dtype=table.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=tile, src=table[t : t + p, :])
            tables.append(tile)
        for b in range(batch):
            for h, count in tiles(heads, HEADS_IN_BLOCK):
                x_tile = nl.ndarray((p, count, width), dtype=x.dtype, buffer=nl.sbuf)
                nisa.dma_copy(dst=x_tile, src=x[b, t : t + p, h : h + count, :])
                pairs = _pairs(x_tile, interleaved)
                products = []
                for table in tables:
                    angles = table.reshape((p, 1, 1, half)).broadcast(1, count).broadcast(2, 2)
                    product = nl.ndarray(pairs.shape, dtype=nl.float32, buffer=nl.sbuf)
                    nisa.tensor_tensor(dst=product, data1=pairs, data2=angles, op=nl.multiply)
                    products.append(product)
                by_cos, by_sin = products
                y_tile = nl.ndarray((p, count, width), dtype=x.dtype, buffer=nl.sbuf)
                rotated = _pairs(y_tile, interleaved)
                for this, other, op in ((0, 1, nl.subtract), (1, 0, nl.add)):
                    nisa.tensor_tensor(
                        dst=rotated[:, :, this, :],
                        data1=by_cos[:, :, this, :],
                        data2=by_sin[:, :, other, :],
                        op=op,
                    )
                nisa.dma_copy(dst=out[b, t : t + p, h : h + count, :], src=y_tile)
    return out


def _pairs(tile, interleaved):
    """View of [p, heads, D] as [p, heads, 2, D/2]."""
    half = tile.shape[2] // 2
    if interleaved:
        return tile.reshape_dim(2, (half, 2)).permute((0, 1, 3, 2))
    return tile.reshape_dim(2, (2, half))


def inputs(dtype="float32", seed=0, *, batch, tokens, heads, D):
    """Random x, and the usual tables: position times 10000^(-2i/D)."""
    x = make((batch, tokens, heads, D), dtype, seed)
    angles = np.outer(np.arange(tokens), 10000.0 ** (-np.arange(0, D, 2) / D))
    return x, np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)


def reference(x, cos, sin, interleaved=False):
    """Pairs as complex numbers, multiplied by cos + i sin."""
    x, half = x.astype(np.float64), x.shape[-1] // 2
    first, second = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    turn = cos.astype(np.float64) + 1j * sin.astype(np.float64)
    rotated = (first + 1j * second) * turn[None, :, None, :]
    parts = rotated.real, rotated.imag
    return np.stack(parts, axis=-1).reshape(x.shape) if interleaved else np.concatenate(parts, axis=-1)


def tolerance(*, batch, tokens, heads, D):
    return {"reduction": 2}


def in_numpy(x, cos, sin):
    half = x.shape[-1] // 2
    first, second, c, s = x[..., :half], x[..., half:], cos[None, :, None], sin[None, :, None]
    return np.concatenate((first * c - second * s, first * s + second * c), axis=-1)


SHOWN = {"batch": 1, "tokens": 1024, "heads": 16, "D": 128}

CASES = (
    Case({"batch": 1, "tokens": 128, "heads": 4, "D": 64}, "float32"),
    Case({"batch": 2, "tokens": 200, "heads": 12, "D": 64}, "bfloat16"),
    Case({"batch": 1, "tokens": 130, "heads": 3, "D": 128}, "float32", {"interleaved": True}),
    Case(
        {"batch": 2, "tokens": 64, "heads": 5, "D": 32},
        "bfloat16",
        {"interleaved": True, "HEADS_IN_BLOCK": 2},
    ),
    Case({"batch": 1, "tokens": 5, "heads": 1, "D": 2}, "float32"),
)
