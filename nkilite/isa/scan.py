"""Running reductions along the free dimensions: tensor_tensor_scan and tensor_scalar_cumulative."""

from __future__ import annotations

from typing import Any

import numpy as np

from nkilite import dtypes
from nkilite.codegen import scan
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.ir.program import Signature
from nkilite.isa import accumulation, alu, arithmetic, rules
from nkilite.isa.arithmetic import Domain
from nkilite.isa.constants import reduce_cmd
from nkilite.isa.operators import Op
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost
from nkilite.machine.target import Target
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_reset_reduce = reduce_cmd.reset_reduce
_CUMULATIVE = tuple(alu.TABLE[name] for name in ("add", "subtract", "multiply", "maximum", "minimum"))
_CUMULABLE = (
    dtypes.float32, dtypes.bfloat16, dtypes.float16, dtypes.float8_e4m3, dtypes.float8_e4m3fn, dtypes.float8_e5m2,
    dtypes.int8, dtypes.int16, dtypes.uint8, dtypes.uint16,
)  # fmt: skip
_LANES = 16  # partitions that the micro-kernels want: their vectors run across them


def _running(call: Signature, state: Any, columns: int, step: Any) -> tuple[np.ndarray, np.ndarray]:
    """Every state [P, columns] and the last one [P]: state = step(state, column) column by column."""
    states = np.empty((call.dst.partitions, columns), np.float32)
    state = np.broadcast_to(np.asarray(state, np.float32).reshape(-1), call.dst.partitions)
    for column in range(columns):
        state = states[:, column] = step(state, column)
    return states.reshape(call.dst.shape), state


# --- tensor_tensor_scan -------------------------------------------------------------------------------------


@instruction(writes=("dst",), least_rows=_LANES, access="p, f in order: dst[p f] data0[p f] data1[p f] initial[p]")
def tensor_tensor_scan(
    dst: NkiTensor,
    data0: NkiTensor,
    data1: NkiTensor,
    initial: float | NkiTensor,
    op0: Op,
    op1: Op,
    reverse0: bool = False,
    reverse1: bool = False,
    name: str | None = None,
) -> None:
    """The recurrence h[i] = (data0[i] <op0> h[i - 1]) <op1> data1[i] in each partition; dst = h.

    Runs on the Vector Engine in float32: the state is never rounded, only what is stored. With
    multiply and add it is a gated linear recurrence (selective scan); with data0 = 1, a cumulative sum.

    Args:
        dst: SBUF or PSUM tile with the partitions P and elements per partition of the inputs. Elements are
            visited in row-major order of the free dimensions.
        data0: SBUF or PSUM tile, left operand of op0.
        data1: tile, right operand of op1; not in PSUM when data0 is.
        initial: h[-1]: a number, or a [P, 1] tile of any dtype.
        op0: binary arithmetic operator of nki.language or NumPy.
        op1: binary arithmetic operator.
        reverse0: h[i - 1] <op0> data0[i] instead.
        reverse1: data1[i] <op1> (...) instead.

    Raises:
        UnknownOperator, UnsupportedOnTarget: an operator is unary, bitvec, unknown, or newer than the chip.
        ShapeMismatch: tiles differ, or initial is not [P, 1].
        WrongMemory: an operand in HBM, or both inputs in PSUM.
        UnsupportedDtype: packed elements.

    Source: nki.isa.tensor_tensor_scan.
    """


@tensor_tensor_scan.normalize
def _tensor_tensor_scan_normalize(arguments: dict[str, object], target: Target) -> None:
    for op, reverse in (("op0", "reverse0"), ("op1", "reverse1")):
        row = alu.lookup(arguments[op], "nisa.tensor_tensor_scan", arithmetic.BINARY_ARITHMETIC)
        arguments[op], arguments[reverse] = row, arithmetic.reverses(row, arguments[reverse])


@tensor_tensor_scan.check
def _tensor_tensor_scan_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_same_elements(call, "data0", "data1", "dst")
    rules.require_one_psum(call, "data0", "data1")
    rules.require_vector(call, "initial", "data0")
    arithmetic.require_available(call, "op0", "op1")
    arithmetic.require_dtypes(call, Domain.float32, "data0", "data1", "initial", "dst")


@tensor_tensor_scan.reference
def _tensor_tensor_scan_reference(
    call: Signature, dst: np.ndarray, data0: np.ndarray, data1: np.ndarray, initial: object, **_: object
) -> np.ndarray:
    a, b = (x.astype(np.float32).reshape(x.shape[0], -1) for x in (data0, data1))

    def step(state: np.ndarray, i: int) -> np.ndarray:
        first = call.op0.numpy(state, a[:, i]) if call.reverse0 else call.op0.numpy(a[:, i], state)
        result: np.ndarray = call.op1.numpy(b[:, i], first) if call.reverse1 else call.op1.numpy(first, b[:, i])
        return result

    return _running(call, initial, a.shape[1], step)[0]


@tensor_tensor_scan.cost
def _tensor_tensor_scan_cost(call: Signature) -> Cost:
    operands = [rules.cost_operand(call.arguments[o]) for o in ("data0", "data1", "dst")]
    n = call.dst.free_size
    return costs.vector_stream(call.target, n, operands, cycles_per_element=costs.SCAN_CYCLES)


@tensor_tensor_scan.lower
def _tensor_tensor_scan_lower(call: Signature, kernel: MicroKernel) -> None:
    def step(e: Emitter, state: Value, a: Value, b: Value) -> Value:
        first = arithmetic.emit(e, call.op0, a, state, Domain.float32, call.reverse0)
        return arithmetic.emit(e, call.op1, first, b, Domain.float32, call.reverse1)

    scan.scan(kernel, "dst", ("data0", "data1"), (), "initial", step)


# --- tensor_scalar_cumulative -------------------------------------------------------------------------------


@instruction(
    writes=("dst",), registers=lambda arguments: "vector", least_rows=_LANES,
    access="p, f in order: dst[p f] src[p f] imm0[p] imm1[p] registers[p]", indirect=("dst", "src"),
)
def tensor_scalar_cumulative(
    dst: NkiTensor,
    src: NkiTensor,
    op0: Op,
    op1: Op,
    imm0: float | NkiTensor | None,
    imm1: float | NkiTensor | None = None,
    reduce_cmd: reduce_cmd = _reset_reduce,
    name: str | None = None,
) -> None:
    """The running reduction r[i] = (src[i] <op0> imm0) <op1> r[i - 1] in each partition; dst = r.

    Runs on the Vector Engine in float32. r lives in the engine's accumulation registers, which all
    accumulating Vector Engine instructions share, so that a later call can continue with reduce_cmd.reduce.

    Args:
        dst: SBUF or PSUM tile with the partitions P and elements per partition of src; float32, bfloat16, float16,
            float8 with a sign, or an integer of 8 or 16 bits. Elements are visited in row-major order of the free
            dimensions.
        src: SBUF or PSUM tile of such a dtype.
        op0: arithmetic operator; unary ones take None or 0 as imm0.
        op1: nl.add, subtract, multiply, maximum or minimum.
        imm0: a number, or a float32 [P, 1] tile.
        imm1: r[-1] with load_reduce: a number, or a float32 [P, 1] tile. Ignored otherwise.
        reduce_cmd: `nisa.reduce_cmd.reset_reduce` (start from op1's identity), `reduce` (from the registers)
            or `load_reduce` (from imm1).

    Raises:
        UnknownOperator, UnsupportedOnTarget: an operator is not one of those, or newer than the chip.
        InvalidOperand: imm0 is missing or given to a unary operator, imm1 is missing with load_reduce, or
            another reduce_cmd.
        ShapeMismatch, WrongMemory, UnsupportedDtype: an operand breaks the rules above.

    Source: nki.isa.tensor_scalar_cumulative.
    """


@tensor_scalar_cumulative.normalize
def _tensor_scalar_cumulative_normalize(arguments: dict[str, object], target: Target) -> None:
    instruction = "nisa.tensor_scalar_cumulative"
    arguments["op0"] = alu.lookup(arguments["op0"], instruction, arithmetic.ARITHMETIC)
    arguments["op1"] = alu.lookup(arguments["op1"], instruction, _CUMULATIVE)


@tensor_scalar_cumulative.check
def _tensor_scalar_cumulative_check(call: Signature) -> None:
    rules.require_on_chip(call, "dst", "src")
    rules.require_same_elements(call, "src", "dst")
    for operand in ("src", "dst"):
        rules.require_dtype(call, operand, _CUMULABLE)
    arithmetic.require_available(call, "op0")
    arithmetic.require_operand(call, "op0", "imm0", "src")
    accumulation.require_command(call, reduce_cmd.reset_reduce, reduce_cmd.reduce, reduce_cmd.load_reduce)
    accumulation.require_initial(call, "imm1", "src")


@tensor_scalar_cumulative.check_immediates
def _tensor_scalar_cumulative_check_immediates(call: Signature, imm0: float = 0, **_: float) -> None:
    arithmetic.require_number(call, "op0", "imm0", imm0)


@tensor_scalar_cumulative.reference
def _tensor_scalar_cumulative_reference(
    call: Signature, dst: np.ndarray, src: np.ndarray, imm0: object, registers: np.ndarray, imm1: object = None,
    **_: object,
) -> tuple[np.ndarray, np.ndarray]:
    values = arithmetic.operate(
        call.op0, src.astype(np.float32).reshape(src.shape[0], -1), imm0, Domain.float32, False
    )
    starts = {
        reduce_cmd.reset_reduce: call.op1.identity,
        reduce_cmd.reduce: registers[: src.shape[0]],
        reduce_cmd.load_reduce: imm1,
    }
    states, last = _running(
        call, starts[call.reduce_cmd], values.shape[1], lambda state, i: call.op1.numpy(values[:, i], state)
    )
    after = registers.copy()
    after[: src.shape[0], 0] = last
    return states, after


@tensor_scalar_cumulative.cost
def _tensor_scalar_cumulative_cost(call: Signature) -> Cost:
    operands = (rules.cost_operand(call.src), rules.cost_operand(call.dst))
    return costs.vector_stream(call.target, call.dst.free_size, operands)


@tensor_scalar_cumulative.lower
def _tensor_scalar_cumulative_lower(call: Signature, kernel: MicroKernel) -> None:
    def step(e: Emitter, state: Value, x: Value, imm0: Value | None = None) -> Value:
        value = arithmetic.emit(e, call.op0, x, imm0, Domain.float32)
        return arithmetic.emit(e, call.op1, value, state, Domain.float32)

    starts = {
        reduce_cmd.reset_reduce: call.op1.identity,
        reduce_cmd.reduce: "registers",
        reduce_cmd.load_reduce: "imm1",
    }
    vectors = ("imm0",) if arithmetic.takes_operand(call.op0) else ()
    scan.scan(kernel, "dst", ("src",), vectors, starts[call.reduce_cmd], step, last="registers")
