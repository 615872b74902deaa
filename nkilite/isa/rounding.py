"""What stochastic rounding takes of the engines: their state, and rounding as an instruction of the CPU's own.

An engine rounds as it writes. In a compiled program an instruction that rounds is split into the one that computes,
whose destination then is float32, and `round_stochastically` (nkilite/passes/round_stochastically.py).
"""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np

from nkilite import dtypes
from nkilite.codegen import move
from nkilite.codegen import rounding as algorithms
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import Elements
from nkilite.ir.program import Signature
from nkilite.isa import rules
from nkilite.machine.engine import Cost, Engine
from nkilite.rounding import STOCHASTIC, key_bits, round_to
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_NO_TIME = Cost(Engine.sync)  # the runtime sets it before the launch


@instruction(writes=("dst",), access="p f: dst[p f] = src[p f]")
def set_rounding(dst: NkiTensor, src: NkiTensor, core: SupportsIndex = 0) -> None:
    """Round stochastically from here on.

    Args:
        dst: the engines' registers of that purpose (nkilite/machine/registers.py).
        src: what they are to hold, in HBM (nkilite.rounding.launch_state).
        core: number of the core in its launch, which rounds with other bits than the others.
    """


@set_rounding.check
def _set_rounding_check(call: Signature) -> None:
    for operand in ("dst", "src"):
        rules.require_dtype(call, operand, (dtypes.uint32,))
    rules.require_same_elements(call, "dst", "src")


@set_rounding.reference
def _set_rounding_reference(call: Signature, dst: np.ndarray, src: np.ndarray, **_: object) -> Elements:
    return Elements(src, call.src.dtype)


@set_rounding.cost
def _set_rounding_cost(call: Signature) -> Cost:
    return _NO_TIME


@set_rounding.lower
def _set_rounding_lower(call: Signature, kernel: MicroKernel) -> None:
    move.move(kernel, "dst", "src")


@instruction(writes=("dst",), access="p f: dst[p f] data[p f] low[p] high[p] columns[f]")
def round_stochastically(
    dst: NkiTensor, data: NkiTensor, low: NkiTensor, high: NkiTensor, columns: NkiTensor, site_low: int, site_high: int
) -> None:
    """Round numbers to one of the two neighbours they lie between (nkilite/rounding.py).

    Args:
        dst: SBUF or PSUM tile of a float dtype with less precision than float32.
        data: float32 tile of as many elements.
        low, high: the two words of every row's key.
        columns: one row of what tells columns apart.
        site_low, site_high: the two words of the key of the instruction whose result it is.
    """


@round_stochastically.check
def _round_stochastically_check(call: Signature) -> None:
    rules.require_on_chip(call, "dst", "data")
    rules.require_dtype(call, "dst", tuple(STOCHASTIC))
    rules.require_dtype(call, "data", (dtypes.float32,))
    for operand in ("low", "high", "columns"):
        rules.require_dtype(call, operand, (dtypes.uint32,))
    rules.require_same_elements(call, "dst", "data")


@round_stochastically.reference
def _round_stochastically_reference(
    call: Signature, dst: np.ndarray, data: np.ndarray, low: np.ndarray, high: np.ndarray, columns: np.ndarray,
    site_low: float, site_high: float, **_: object,
) -> np.ndarray:
    site = int(site_low) | int(site_high) << 32
    bits = key_bits(low.reshape(-1, 1), high.reshape(-1, 1), columns.reshape(1, -1), site).reshape(dst.shape)
    return round_to(data.reshape(dst.shape), call.dst.dtype, bits)


@round_stochastically.cost
def _round_stochastically_cost(call: Signature) -> Cost:
    return _NO_TIME


@round_stochastically.lower
def _round_stochastically_lower(call: Signature, kernel: MicroKernel) -> None:
    algorithms.round_stochastically(kernel, "dst", "data", "low", "high", "columns", "site_low", "site_high")
