"""One step of Adam with decoupled weight decay (AdamW), for one parameter tensor:

    m' = beta1 m + (1 - beta1) g              running mean of the gradient
    v' = beta2 v + (1 - beta2) g²             and of its square
    p' = (1 - lr decay) p - lr (m' / (1 - beta1^step)) / (sqrt(v' / (1 - beta2^step)) + eps)

Layout: elements are independent, so tensors of any shape are read as one long run, cut into blocks of 128
partitions times COLUMNS.

Algorithm, per block. What does not depend on the element is folded into immediates; dividing numerator and
denominator by sqrt(1 / (1 - beta2^step)) leaves the square root of v' itself:

    p' = (1 - lr decay) p - (rate m') / (sqrt(v') + epsilon)
    rate    = lr sqrt(1 - beta2^step) / (1 - beta1^step)
    epsilon = eps sqrt(1 - beta2^step)

    Scalar  activation            (1 - beta2) g², the factor's root taken inside the square
    GpSimd  tensor_scalar         (1 - beta1) g
    Vector  scalar_tensor_tensor  m' = beta1 m + ... and v' = beta2 v + ...
    Scalar  activation            sqrt(v')
    Scalar  activation            1 / (... + epsilon); the Vector Engine takes eight cycles for a reciprocal
    Vector  scalar_tensor_tensor  (-rate / ...) m', then p' = (1 - lr decay) p + ...

Memory-bound: four tensors are read and three written, each once. The step number is a compile-time value that
only changes immediates.
"""

from __future__ import annotations

import math

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case
from kernels.tiles import P, engine, flat_blocks
from nkilite.testing import make

SPACE = {"COLUMNS": (256, 512, 1024, 2048, 4096), "GRADIENT_ENGINE": ("gpsimd", "vector")}


@nki.jit
def adam(
    p, g, m, v, step=1, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, decay=0.0, COLUMNS=1024, GRADIENT_ENGINE="gpsimd"
):
    """AdamW's update of `p` for the gradient `g`, computed in float32.

    Args:
        p: HBM, the parameters, float32 or bfloat16, any shape.
        g: HBM, their gradient, the same shape; any float dtype.
        m: HBM, running mean of the gradient, float32.
        v: HBM, running mean of its square, float32.
        step: the number of this step, from 1.
        lr: learning rate.
        beta1: share of `m` that is kept.
        beta2: share of `v` that is kept.
        eps: added to the root.
        decay: weight decay.
        COLUMNS: elements per partition of a block.
        GRADIENT_ENGINE: "gpsimd" or "vector", which scales the gradient.

    Returns:
        HBM tensors (p', m', v') of the shapes and dtypes of `p`, `m` and `v`.
    """
    _validate(p, g, m, v, step)
    unbias = math.sqrt(1 - beta2**step)
    rate, epsilon = lr * unbias / (1 - beta1**step), eps * unbias
    outs = [nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm) for x in (p, m, v)]
    count = math.prod(p.shape)
    flat_in = [x.reshape((count,)) for x in (p, g, m, v)]
    flat_out = [x.reshape((count,)) for x in outs]
    epsilon_tile = nl.ndarray((P, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=epsilon_tile, value=epsilon)
    for start, rows, width in flat_blocks(count, COLUMNS):
        here, block = slice(start, start + rows * width), (rows, width)
        p_tile, g_tile, m_tile, v_tile = (_load(x[here].reshape(block)) for x in flat_in)
        p_new, m_new, v_new = (nl.ndarray(block, dtype=x.dtype, buffer=nl.sbuf) for x in outs)

        squares = nl.ndarray(block, dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=squares, op=nl.square, data=g_tile, scale=math.sqrt(1 - beta2))
        scaled = nl.ndarray(block, dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=scaled, data=g_tile, op0=nl.multiply, operand0=1 - beta1, engine=engine(GRADIENT_ENGINE))
        _multiply_add(m_new, m_tile, beta1, scaled)
        _multiply_add(v_new, v_tile, beta2, squares)

        sizes = nl.ndarray(block, dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=sizes, op=nl.sqrt, data=v_new)
        nisa.activation(dst=sizes, op=nl.reciprocal, data=sizes, bias=epsilon_tile[0:rows, :])
        nisa.scalar_tensor_tensor(
            dst=sizes, data=sizes, op0=nl.multiply, operand0=-rate, op1=nl.multiply, operand1=m_new
        )
        _multiply_add(p_new, p_tile, 1 - lr * decay, sizes)
        for new, whole in zip((p_new, m_new, v_new), flat_out, strict=True):
            nisa.dma_copy(dst=whole[here].reshape(block), src=new)
    return tuple(outs)


def _multiply_add(dst, data, factor, addend):
    nisa.scalar_tensor_tensor(dst=dst, data=data, op0=nl.multiply, operand0=factor, op1=nl.add, operand1=addend)


def _load(view):
    tile = nl.ndarray(view.shape, dtype=view.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=view)
    return tile


def _validate(p, g, m, v, step):
    shapes = [tuple(x.shape) for x in (p, g, m, v)]
    assert len(set(shapes)) == 1, f"p, g, m and v must have one shape, found {', '.join(map(str, shapes))}"
    assert m.dtype == v.dtype == nl.float32, f"m and v must be float32, found {m.dtype} and {v.dtype}"
    assert step >= 1, f"step={step} must be at least 1: the running means are empty before the first"


def inputs(dtype="float32", seed=0, *, rows, D):
    """Parameters and gradients of a layer, and running means as they are after some steps."""
    m = 0.1 * make((rows, D), "float32", seed + 2)
    spread = make((rows, D), "float32", seed + 3)
    return make((rows, D), dtype, seed), make((rows, D), dtype, seed + 1), m, 0.01 * spread * spread + m * m


def reference(p, g, m, v, step=1, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, decay=0.0):
    """The formulas of the paper in float64, with the corrected means written out."""
    p, g, m, v = (x.astype(np.float64) for x in (p, g, m, v))
    m = m + (1 - beta1) * (g - m)
    v = v + (1 - beta2) * (g * g - v)
    mean, square = m / (1 - beta1**step), v / (1 - beta2**step)
    return p - lr * (mean / (np.sqrt(square) + eps) + decay * p), m, v


def tolerance(*, rows, D):
    return {"reduction": 8}


def in_numpy(p, g, m, v):
    m = np.float32(0.9) * m + np.float32(0.1) * g
    v = np.float32(0.999) * v + np.float32(0.001) * g * g
    return p - np.float32(1e-3) * (m / np.float32(0.1)) / (np.sqrt(v / np.float32(0.001)) + np.float32(1e-8)), m, v


SHOWN = {"rows": 2048, "D": 1024}

CASES = (
    Case({"rows": 128, "D": 512}, "float32"),
    Case({"rows": 300, "D": 1000}, "bfloat16", {"step": 10, "decay": 0.1}),
    Case({"rows": 7, "D": 33}, "float32", {"step": 3, "lr": 0.1, "eps": 1e-3}),
    Case({"rows": 200, "D": 641}, "float32", {"step": 1000, "COLUMNS": 256, "GRADIENT_ENGINE": "vector"}),
)
