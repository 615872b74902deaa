"""The control instructions around the bodies of nl.fori_loop and nl.while_loop.

Each loop is tested twice: before its first iteration by the instruction that begins it, and after every iteration by
the one that ends it. The body sees a copy of the loop's state, so what it writes there does not change the loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.ir.access import Opaque
from nkilite.ir.definition import Control
from nkilite.ir.program import Signature
from nkilite.isa.registers import register_value, require_int32, require_registers
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.trace.instruction import instruction
from nkilite.trace.register import VirtualRegister
from nkilite.trace.tensor import NkiTensor

_CONTROL = Opaque("what runs next depends on it")

_BOUND = 4  # byte offset of the upper bound in a counter


@instruction(writes=("index", "counter"), control=Control.begin, access=_CONTROL)
def for_begin(
    index: VirtualRegister, counter: NkiTensor, lower: int | VirtualRegister, upper: int | VirtualRegister, step: int
) -> None:
    """Begin a counted loop: run the body up to for_end for lower, lower + step, ... below upper.

    Args:
        index: the register the body reads.
        counter: int32 (1, 2) in registers: the loop's own index, and the upper bound, read once.
        lower: first value.
        upper: end, exclusive.
        step: at least 1; that of for_end.

    Raises:
        InvalidOperand: a number does not fit into a register.
    """


@for_begin.check
def _for_begin_check(call: Signature) -> None:
    require_registers(call, "index", "counter", "lower", "upper")


@for_begin.check_immediates
def _for_begin_check_immediates(call: Signature, **numbers: Any) -> None:
    for name, value in numbers.items():
        require_int32("nl.fori_loop", name, value)


@for_begin.trips
def _for_begin_trips(
    call: Signature, step: float, lower: float | None = None, upper: float | None = None,
) -> int | None:
    if lower is None or upper is None:
        return None
    return len(range(int(lower), int(upper), int(step)))


@for_begin.reference
def _for_begin_reference(
    call: Signature, index: np.ndarray, counter: np.ndarray, lower: Any, upper: Any, step: float,
) -> tuple:
    first, bound = register_value(lower), register_value(upper)
    if first >= bound:
        return None, None, False
    return np.array([[first]], np.int32), np.array([[first, bound]], np.int32), True


@for_begin.lower
def _for_begin_lower(call: Signature, kernel: MicroKernel) -> None:
    e = kernel.e
    index, counter = kernel.pointer("index"), kernel.pointer("counter")
    first, bound = kernel.register("lower"), kernel.register("upper")
    kernel.jump_if(e.compare("sge", first, bound))
    e.store(first, index, align=4)
    e.store(first, counter, align=4)
    e.store(bound, e.offset(counter, _BOUND), align=4)


@instruction(
    writes=("index", "counter"), updates=lambda arguments: ("index", "counter"), control=Control.end, access=_CONTROL
)
def for_end(index: VirtualRegister, counter: NkiTensor, step: int) -> None:
    """End the body of a counted loop: go on with the next index, if it is below the upper bound.

    Args:
        index: that of for_begin.
        counter: that of for_begin.
        step: that of for_begin.
    """


@for_end.check
def _for_end_check(call: Signature) -> None:
    require_registers(call, "index", "counter")


@for_end.reference
def _for_end_reference(call: Signature, index: np.ndarray, counter: np.ndarray, step: float) -> tuple:
    following, bound = int(counter[0, 0]) + int(step), int(counter[0, 1])
    if following >= bound:
        return None, None, False
    return np.array([[following]], np.int32), np.array([[following, bound]], np.int32), True


@for_end.lower
def _for_end_lower(call: Signature, kernel: MicroKernel) -> None:
    e = kernel.e
    index, counter = kernel.pointer("index"), kernel.pointer("counter")
    # In 64 bits, for the index may step over the largest int32; below the bound, it is one again.
    following = e.add(_wide(kernel, counter), kernel.immediate_i64("step"))
    go_on, leave = e.label("next"), e.label("leave")
    below = e.compare("slt", following, _wide(kernel, e.offset(counter, _BOUND)))
    e.line(f"br {below}, label %{go_on}, label %{leave}")
    e.start_block(go_on)
    narrow = e.convert("trunc", following, "i32")
    e.store(narrow, index, align=4)
    e.store(narrow, counter, align=4)
    kernel.jump()
    e.start_block(leave)


def _wide(kernel: MicroKernel, pointer: Value) -> Value:
    return kernel.e.convert("sext", kernel.e.load("i32", pointer, align=4), "i64")


@instruction(writes=("value",), control=Control.begin, access=_CONTROL)
def while_begin(value: VirtualRegister, condition: VirtualRegister) -> None:
    """Begin a loop that runs while a condition is not zero.

    Args:
        value: the register the body reads: a copy of the condition.
        condition: whether there is a first iteration.
    """


@instruction(writes=("value",), control=Control.end, access=_CONTROL)
def while_end(value: VirtualRegister, condition: VirtualRegister) -> None:
    """End the body of a while loop: run it again if the condition is not zero.

    Args:
        value: that of while_begin.
        condition: the register the body chose.
    """


@while_begin.check
@while_end.check
def _while_begin_check(call: Signature) -> None:
    require_registers(call, "value", "condition")


@while_begin.reference
@while_end.reference
def _while_begin_reference(call: Signature, value: np.ndarray, condition: np.ndarray) -> tuple:
    return condition, bool(condition[0, 0] != 0)


@while_begin.lower
def _while_begin_lower(call: Signature, kernel: MicroKernel) -> None:
    e = kernel.e
    condition = kernel.register("condition")
    e.store(condition, kernel.pointer("value"), align=4)
    kernel.jump_if(e.compare("eq", condition, e.i32(0)))


@while_end.lower
def _while_end_lower(call: Signature, kernel: MicroKernel) -> None:
    e = kernel.e
    condition = kernel.register("condition")
    e.store(condition, kernel.pointer("value"), align=4)
    kernel.jump_if(e.compare("ne", condition, e.i32(0)))


@for_begin.cost
@for_end.cost
@while_begin.cost
@while_end.cost
def _for_begin_cost(call: Signature) -> Cost:
    return costs.sequencer(call.target, Engine.sync)
