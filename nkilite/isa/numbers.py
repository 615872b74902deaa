"""What a compiled program looks for NaN and infinities with: instructions of the CPU's own."""

from __future__ import annotations

import numpy as np

from nkilite import dtypes
from nkilite.codegen import elementwise
from nkilite.codegen import numbers as algorithms
from nkilite.codegen.kernel import MicroKernel
from nkilite.ir.numbers import BITS, COLUMN, NAN, NOW, NUMBER, SPECIAL, WHEN
from nkilite.ir.program import Signature
from nkilite.isa import rules
from nkilite.machine.engine import Cost, Engine
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_NO_TIME = Cost(Engine.sync)  # the chip has no such instructions


@instruction(writes=("dst",), updates=lambda arguments: ("dst",), access="p f: dst[p f] step[p f]")
def advance_counters(dst: NkiTensor, step: NkiTensor) -> None:
    """Add to counters, in 32 bits that wrap around: at the beginning of a loop's body.

    Args:
        dst: the counters of all rows.
        step: what is added to them.
    """


@advance_counters.check
def _advance_counters_check(call: Signature) -> None:
    for operand in ("dst", "step"):
        rules.require_dtype(call, operand, (dtypes.uint32,))
    rules.require_same_elements(call, "dst", "step")


@advance_counters.reference
def _advance_counters_reference(call: Signature, dst: np.ndarray, step: np.ndarray, **_: object) -> np.ndarray:
    result: np.ndarray = dst + step
    return result


@advance_counters.cost
def _advance_counters_cost(call: Signature) -> Cost:
    return _NO_TIME


@advance_counters.lower
def _advance_counters_lower(call: Signature, kernel: MicroKernel) -> None:
    elementwise.map(kernel, "dst", ["dst", "step"], lambda e, a, b: e.add(a, b), "i32")


@instruction(writes=("state",), updates=lambda arguments: ("state",), access="p: data[p f] state[p s]")
def find_special(data: NkiTensor, state: NkiTensor, number: int, what: str = "nan") -> None:
    """Note, row by row, the first element that is NaN, or infinite, unless something was noted before.

    Args:
        data: tile of floats.
        state: what was noted of every row (nkilite/ir/numbers.py has its words).
        number: of this check, from 1.
        what: "nan", or "nan and inf".
    """


@find_special.check
def _find_special_check(call: Signature) -> None:
    rules.require_dtype(call, "data", rules.FLOATS)
    rules.require_dtype(call, "state", (dtypes.uint32,))
    rules.require_same_partitions(call, "data", "state")
    assert call.what in (NAN, SPECIAL), call.what


@find_special.reference
def _find_special_reference(
    call: Signature, data: np.ndarray, state: np.ndarray, number: float, **_: object
) -> np.ndarray:
    single = data.astype(np.float32).reshape(len(data), -1)
    special = np.isnan(single) if call.what == NAN else ~np.isfinite(single)
    rows = np.flatnonzero(special.any(axis=1) & (state[:, NUMBER] == 0))
    columns = special[rows].argmax(axis=1)
    state = state.copy()
    state[rows, NUMBER] = int(number)
    state[rows, WHEN] = state[rows, NOW]
    state[rows, COLUMN] = columns
    state[rows, BITS] = single.view(np.uint32)[rows, columns]
    return state


@find_special.cost
def _find_special_cost(call: Signature) -> Cost:
    return _NO_TIME


@find_special.lower
def _find_special_lower(call: Signature, kernel: MicroKernel) -> None:
    algorithms.find(kernel, "data", "state", "number", call.what)
