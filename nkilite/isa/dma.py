"""Instructions of the DMA engines: copies between HBM and SBUF, with conversion, gather and scatter."""

from __future__ import annotations

from typing import Any

import numpy as np

from nkilite.codegen import elementwise
from nkilite.codegen.kernel import MicroKernel
from nkilite.errors import ShapeMismatch
from nkilite.ir.program import Signature
from nkilite.isa import rules
from nkilite.isa.constants import dge_mode, engine, oob_mode
from nkilite.machine.engine import Cost
from nkilite.machine import engine as costs
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_oob_error, _dge_unknown, _any_engine = oob_mode.error, dge_mode.unknown, engine.unknown


@instruction(writes=("dst",))
def dma_copy(
    dst: NkiTensor,
    src: NkiTensor,
    priority=None,
    oob_mode=_oob_error,
    dge_mode=_dge_unknown,
    engine=_any_engine,
    name=None,
) -> None:
    """Copy `src` to `dst` with the DMA engines: between HBM and SBUF, in either direction, or within one of them.

    Elements are taken in row-major order of both shapes, which may differ as long as the element counts agree; a
    different dtype is converted through float32.
    """


@dma_copy.check
def _(call: Signature) -> None:
    for operand in ("dst", "src"):
        rules.require_memory(call, operand, rules.SBUF, *rules.HBM)
    if call.dst.size != call.src.size:
        raise ShapeMismatch(
            instruction="nisa.dma_copy",
            detail=f"dst {call.dst.shape} has {call.dst.size} elements, src {call.src.shape} has {call.src.size}",
        )


@dma_copy.reference
def _(call: Signature, dst: np.ndarray, src: np.ndarray, **_: Any) -> np.ndarray:
    return src.reshape(dst.shape)


@dma_copy.cost
def _(call: Signature) -> Cost:
    raise AssertionError


@dma_copy.lower
def _(call: Signature, kernel: MicroKernel) -> None:
    same = call.dst.dtype == call.src.dtype
    elementwise.map(kernel, "dst", ("src",), lambda e, x: x, compute="bits" if same else "f32")
