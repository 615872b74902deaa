"""Gated activation, y = act(gate) * up, act SiLU or GELU: what stands between the two products of an MLP.

`mlp` computes it on the way from one product to the next; this is the kernel for when the products are
elsewhere, and the smallest example of an elementwise one.

Layout: elements are independent, so shapes do not matter: tensors are read as one long run, cut into blocks of
128 partitions times COLUMNS, and every DMA moves contiguous memory with long runs per partition.

Algorithm, per block, a pass on each of two engines that overlap from block to block:

    Scalar  activation      act(gate)
    Vector  tensor_tensor   * up, and the cast to the output type

Memory-bound: three elements move per element computed.
"""

from __future__ import annotations

import math

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case
from kernels.tiles import engine, flat_blocks
from nkilite.testing import make

ACTIVATIONS = {"silu": nl.silu, "gelu": nl.gelu, "gelu_tanh": nl.gelu_apprx_tanh}

SPACE = {"COLUMNS": (256, 512, 1024, 2048, 4096, 8192), "PRODUCT_ENGINE": ("gpsimd", "vector")}


@nki.jit
def swiglu(gate, up, act="silu", COLUMNS=2048, PRODUCT_ENGINE="vector"):
    """act(gate) * up, elementwise, computed in float32.

    Args:
        gate: HBM, float32, bfloat16 or float16, any shape.
        up: HBM, the same shape; any float dtype.
        act: "silu", "gelu" (by erf) or "gelu_tanh".
        COLUMNS: elements per partition of a block.
        PRODUCT_ENGINE: "gpsimd" or "vector", which multiplies.

    Returns:
        HBM tensor of the shape and dtype of `gate`.
    """
    assert tuple(gate.shape) == tuple(up.shape), f"gate is {list(gate.shape)} but up is {list(up.shape)}"
    assert act in ACTIVATIONS, f"act={act!r} is not one of {sorted(ACTIVATIONS)}"
    out = nl.ndarray(gate.shape, dtype=gate.dtype, buffer=nl.shared_hbm)
    count = math.prod(gate.shape)
    flat = [tensor.reshape((count,)) for tensor in (gate, up, out)]
    for start, p, width in flat_blocks(count, COLUMNS):
        gates, ups, results = (tensor[start : start + p * width].reshape((p, width)) for tensor in flat)
        gate_tile = nl.ndarray((p, width), dtype=gate.dtype, buffer=nl.sbuf)
        up_tile = nl.ndarray((p, width), dtype=up.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=gate_tile, src=gates)
        nisa.dma_copy(dst=up_tile, src=ups)
        activated = nl.ndarray((p, width), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=activated, op=ACTIVATIONS[act], data=gate_tile)
        result = nl.ndarray((p, width), dtype=out.dtype, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=result, data1=activated, data2=up_tile, op=nl.multiply, engine=engine(PRODUCT_ENGINE))
        nisa.dma_copy(dst=results, src=result)
    return out


def inputs(dtype="float32", seed=0, *, rows, D):
    return make((rows, D), dtype, seed), make((rows, D), dtype, seed + 1)


def reference(gate, up, act="silu"):
    """The textbook formulas in float64; erf from the C library, SiLU by tanh."""
    x = gate.astype(np.float64)
    if act == "silu":
        share = (1 + np.tanh(x / 2)) / 2
    elif act == "gelu":
        share = (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    else:
        share = (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return x * share * up.astype(np.float64)


def tolerance(*, rows, D):
    return {"reduction": 4}


def in_numpy(gate, up):
    return gate / (1 + np.exp(-gate)) * up


SHOWN = {"rows": 2048, "D": 2048}

CASES = (
    Case({"rows": 128, "D": 512}, "float32"),
    Case({"rows": 300, "D": 1000}, "bfloat16"),
    Case({"rows": 7, "D": 33}, "float32", {"act": "gelu"}),
    Case({"rows": 130, "D": 257}, "bfloat16", {"act": "gelu_tanh", "COLUMNS": 64}),
    Case({"rows": 200, "D": 641}, "float32", {"COLUMNS": 512, "PRODUCT_ENGINE": "gpsimd"}),
)
