"""What passes write to memory that a kernel has not: an instruction of its own, so that a kernel's stay countable.

Stochastic rounding knows instructions by their number in the kernel (nkilite/rounding.py).
"""

from __future__ import annotations

import numpy as np

from nkilite.codegen import copy
from nkilite.codegen.kernel import MicroKernel
from nkilite.ir.program import Signature
from nkilite.isa import rules
from nkilite.isa.copy import constant
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor


@instruction(writes=("dst",), wide=True)
def fill_unwritten(dst: NkiTensor, value: float) -> None:
    """Give memory the value that reads of it take for granted before anything is written to it.

    Args:
        dst: a view of any memory.
        value: 0, or the byte of memory that nobody wrote to, for a view of bytes.
    """


@fill_unwritten.check
def _fill_unwritten_check(call: Signature) -> None:
    if call.dst.region.on_chip:
        rules.require_partitions(call, "dst")


@fill_unwritten.reference
def _fill_unwritten_reference(call: Signature, dst: np.ndarray, value: float, **_: object) -> np.ndarray:
    return np.full(dst.shape, constant(value, call.dst.dtype))


@fill_unwritten.access
def _fill_unwritten_access(call: Signature) -> str:
    return "p f: dst[p f]" if call.dst.region.on_chip else "e: dst[e]"


@fill_unwritten.cost
def _fill_unwritten_cost(call: Signature) -> Cost:
    if not call.dst.region.on_chip:
        return costs.sequencer(call.target, Engine.sync)  # no kernel waits for it: the memory is as it happens to be
    return costs.vector_memset(call.target, call.dst.free_size, rules.cost_operand(call.dst), zero=False)


@fill_unwritten.lower
def _fill_unwritten_lower(call: Signature, kernel: MicroKernel) -> None:
    copy.fill(kernel, "dst", "value")
