"""The control instructions around the bodies of nl.fori_loop and nl.while_loop.

Each loop is tested twice: before its first iteration by the instruction that begins it, and after every iteration by
the one that ends it. The body sees a copy of the loop's state, so what it writes there does not change the loop.
"""

from __future__ import annotations

import numpy as np

from nkilite.codegen import convert
from nkilite.codegen.kernel import MicroKernel
from nkilite.ir.access import Opaque
from nkilite.ir.definition import Control
from nkilite.ir.program import Signature
from nkilite.isa import rules
from nkilite.isa.registers import register_value, require_int, require_registers
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.trace.instruction import instruction
from nkilite.trace.register import VirtualRegister
from nkilite.trace.tensor import NkiTensor

_CONTROL = Opaque("what runs next depends on it")


@instruction(writes=("index", "counter"), control=Control.begin, access=_CONTROL, wide=True)
def for_begin(
    index: VirtualRegister, counter: NkiTensor, lower: int | VirtualRegister, upper: int | VirtualRegister, step: int
) -> None:
    """Begin a counted loop: run the body up to for_end for lower, lower + step, ... below upper.

    Args:
        index: the register the body reads.
        counter: (1, 2) in registers, of the index's dtype: the loop's own index, and the upper bound, read once.
        lower: first value.
        upper: end, exclusive.
        step: at least 1; that of for_end.

    Raises:
        InvalidOperand: a number does not fit into a register.
        DtypeMismatch: the registers have different widths.
    """


@for_begin.check
def _for_begin_check(call: Signature) -> None:
    require_registers(call, "index", "counter", "lower", "upper")


@for_begin.check_immediates
def _for_begin_check_immediates(call: Signature, **numbers: float) -> None:
    for name, value in numbers.items():
        require_int("nl.fori_loop", name, value, call.index.dtype)
        rules.require_exact(call, name, value)


@for_begin.trips
def _for_begin_trips(
    call: Signature, step: float, lower: float | None = None, upper: float | None = None,
) -> int | None:
    if lower is None or upper is None:
        return None
    return len(range(int(lower), int(upper), int(step)))


@for_begin.reference
def _for_begin_reference(
    call: Signature, index: np.ndarray, counter: np.ndarray, lower: object, upper: object, step: float,
) -> tuple[object, ...]:
    first, bound = register_value(lower), register_value(upper)
    if first >= bound:
        return None, None, False
    return *_counted(call, first, bound), True


@for_begin.lower
def _for_begin_lower(call: Signature, kernel: MicroKernel) -> None:
    e, dtype = kernel.e, call.index.dtype
    index, counter = kernel.pointer("index"), kernel.pointer("counter")
    first, bound = kernel.register("lower", dtype), kernel.register("upper", dtype)
    kernel.jump_if(e.compare("sge", first, bound))
    e.store(first, index, align=dtype.itemsize)
    e.store(first, counter, align=dtype.itemsize)
    e.store(bound, e.offset(counter, dtype.itemsize), align=dtype.itemsize)


@instruction(
    writes=("index", "counter"), updates=lambda arguments: ("index", "counter"), control=Control.end, access=_CONTROL,
    wide=True,
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
def _for_end_reference(call: Signature, index: np.ndarray, counter: np.ndarray, step: float) -> tuple[object, ...]:
    following, bound = int(counter[0, 0]) + int(step), int(counter[0, 1])
    if following >= bound:
        return None, None, False
    return *_counted(call, following, bound), True


def _counted(call: Signature, index: int, bound: int) -> tuple[np.ndarray, np.ndarray]:
    """What index and counter hold."""
    dtype = call.index.dtype.numpy
    return np.array([[index]], dtype), np.array([[index, bound]], dtype)


@for_end.lower
def _for_end_lower(call: Signature, kernel: MicroKernel) -> None:
    e, dtype = kernel.e, call.index.dtype
    index, counter = kernel.pointer("index"), kernel.pointer("counter")
    at, bound = (
        e.load(convert.raw_scalar(dtype), p, align=dtype.itemsize) for p in (counter, e.offset(counter, dtype.itemsize))
    )
    step = kernel.immediate_i64("step")
    # What steps over the largest integer stays there, which is not below any bound.
    following = e.intrinsic("llvm.sadd.sat", at, step if dtype.is_wide else e.convert("trunc", step, at.scalar))
    go_on, leave = e.label("next"), e.label("leave")
    e.line(f"br {e.compare('slt', following, bound)}, label %{go_on}, label %{leave}")
    e.start_block(go_on)
    e.store(following, index, align=dtype.itemsize)
    e.store(following, counter, align=dtype.itemsize)
    kernel.jump()
    e.start_block(leave)


@instruction(writes=("value",), control=Control.begin, access=_CONTROL, wide=True)
def while_begin(value: VirtualRegister, condition: VirtualRegister) -> None:
    """Begin a loop that runs while a condition is not zero.

    Args:
        value: the register the body reads: a copy of the condition.
        condition: whether there is a first iteration.
    """


@instruction(writes=("value",), control=Control.end, access=_CONTROL, wide=True)
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
def _while_begin_reference(call: Signature, value: np.ndarray, condition: np.ndarray) -> tuple[object, ...]:
    return condition, bool(condition[0, 0] != 0)


@while_begin.lower
def _while_begin_lower(call: Signature, kernel: MicroKernel) -> None:
    _again(kernel, call, "eq")


@while_end.lower
def _while_end_lower(call: Signature, kernel: MicroKernel) -> None:
    _again(kernel, call, "ne")


def _again(kernel: MicroKernel, call: Signature, compared: str) -> None:
    """Hand on a condition, and jump where it compares with 0 so."""
    e, dtype = kernel.e, call.value.dtype
    condition = kernel.register("condition", dtype)
    e.store(condition, kernel.pointer("value"), align=dtype.itemsize)
    kernel.jump_if(e.compare(compared, condition, 0))


@for_begin.cost
@for_end.cost
@while_begin.cost
@while_end.cost
def _for_begin_cost(call: Signature) -> Cost:
    return costs.sequencer(call.target, Engine.sync)
