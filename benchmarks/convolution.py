"""A convolution written out tap by tap: a kernel whose instructions are many, and of few kinds."""

from __future__ import annotations

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl


@nki.jit
def conv2d(x, w, b):
    """x [B, C, H, W], w [KH, KW, C, O], b [O, 1], no padding: a matmul per tap, row of the result and 128 channels."""
    B, C, H, W = x.shape
    KH, KW, _, O = w.shape  # noqa: E741
    OH, OW = H - KH + 1, W - KW + 1
    out = nl.ndarray((B, O, OH, OW), dtype=x.dtype, buffer=nl.shared_hbm)
    weights, taps = {}, [(i, j) for i in range(KH) for j in range(KW)]
    for c in range(0, C, 128):
        for o in range(0, O, 128):
            tile = weights[c, o] = nl.ndarray((128, len(taps), 128), dtype=w.dtype, buffer=nl.sbuf)
            for n, (i, j) in enumerate(taps):
                nisa.dma_copy(dst=tile[:, n, :], src=w[i, j, c : c + 128, o : o + 128])
    for image in range(B):
        for row in range(OH):
            rows = {c: nl.ndarray((128, KH, W), dtype=x.dtype, buffer=nl.sbuf) for c in range(0, C, 128)}
            for c, tile in rows.items():
                for i in range(KH):
                    nisa.dma_copy(dst=tile[:, i, :], src=x[image, c : c + 128, row + i, :])
            for o in range(0, O, 128):
                total = nl.ndarray((128, OW), dtype=nl.float32, buffer=nl.psum)
                for c, tile in rows.items():
                    for n, (i, j) in enumerate(taps):
                        nisa.nc_matmul(
                            total, weights[c, o][:, n, :], tile[:, i, j : j + OW], accumulate=c > 0 or n > 0
                        )
                result = nl.ndarray((128, OW), dtype=x.dtype, buffer=nl.sbuf)
                nisa.activation(dst=result, op=nl.relu, data=total, bias=nl.load(b[o : o + 128, :]))
                nisa.dma_copy(dst=out[image, o : o + 128, row, :], src=result)
    return out


def operands(images: int) -> tuple[np.ndarray, ...]:
    """For 3,000 instructions an image."""
    shapes = (images, 256, 30, 16), (5, 5, 256, 256), (256, 1)
    return tuple(np.ones(shape, np.float32) for shape in shapes)
