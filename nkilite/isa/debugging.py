"""Showing values of a running kernel."""

from __future__ import annotations

import numpy as np

from nkilite.codegen.kernel import MicroKernel
from nkilite.errors import InvalidOperand, InvalidView
from nkilite.ir.access import Opaque
from nkilite.ir.program import Signature
from nkilite.isa import rules
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor


@instruction(writes=(), wide=True, access=Opaque("the host shows the tensor as it is then"))
def device_print(prefix: str, tensor: NkiTensor, name: str | None = None) -> None:
    """Print `prefix` and the values of `tensor` each time the kernel gets here; written by nl.device_print.

    Args:
        prefix: a string.
        tensor: any tensor in SBUF or HBM without a runtime index.

    Raises:
        InvalidOperand: prefix is not a string.
        InvalidView: the tensor has a runtime index.
        WrongMemory: the tensor is in PSUM.
    """


@device_print.check
def _device_print_check(call: Signature) -> None:
    if not isinstance(call.prefix, str):
        raise InvalidOperand(
            instruction="nl.device_print", operand="print_prefix", found=repr(call.prefix), expected="a string"
        )
    rules.require_memory(call, "tensor", rules.SBUF, *rules.HBM)
    if call.tensor.indirection is not None:
        raise InvalidView(
            operation="nl.device_print", reason="the tensor has a runtime index",
            hint="copy the part you want to see into a tile first.",
        )


@device_print.reference
def _device_print_reference(call: Signature, prefix: str, tensor: np.ndarray) -> tuple[object, ...]:
    print(prefix, tensor)
    return ()


@device_print.cost
def _device_print_cost(call: Signature) -> Cost:
    return costs.sequencer(call.target, Engine.sync)


@device_print.lower
def _device_print_lower(call: Signature, kernel: MicroKernel) -> None:
    kernel.pause()
