"""Elementwise ALU instructions: tensor_tensor, tensor_scalar, scalar_tensor_tensor and reciprocal."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np

from nkilite.codegen import elementwise
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.errors import InvalidOperand
from nkilite.ir.program import Signature
from nkilite.ir.rules import ArgumentsByName
from nkilite.isa import accumulation, alu, arithmetic, rules
from nkilite.isa.arithmetic import Domain
from nkilite.isa.constants import engine, reduce_cmd
from nkilite.isa.operators import Op
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.machine.target import Target
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_any_engine = engine.unknown
_reset_reduce = reduce_cmd.reset_reduce


# --- tensor_tensor ------------------------------------------------------------------------------------------


@instruction(writes=("dst",), access="p f: dst[p f] data1[p f] data2[p f]", indirect=("dst", "data1"))
def tensor_tensor(
    dst: NkiTensor, data1: NkiTensor, data2: NkiTensor, op: Op, engine: Engine = _any_engine, name: str | None = None
) -> None:
    """dst = data1 <op> data2, element by element.

    Arithmetic operators compute in float32 and round to dst's dtype. Where all three tiles are int32 or
    uint32, GpSimd computes in native integers, which are exact and wrap around; they compare as unsigned
    numbers when both inputs are uint32. Bitvec operators work on zero-extended bit patterns and keep the
    low bits.

    Args:
        dst: SBUF or PSUM tile with the partitions and elements per partition of the inputs; free dimensions
            may be shaped differently (elements are taken in row-major order).
        data1: left operand, an SBUF or PSUM tile.
        data2: right operand; at most one of the two is in PSUM. Nothing is broadcast: pass a broadcast view.
        op: a binary operator of nki.language (nl.add, nl.maximum, nl.bitwise_and, ...) or its NumPy ufunc.
        engine: `nisa.engine.vector` or `gpsimd` (SBUF only). Unset: GpSimd for nl.power and for native
            integers outside PSUM, otherwise the Vector Engine.

    Raises:
        UnknownOperator, UnsupportedOnTarget: the operator is not binary, or newer than the chip.
        ShapeMismatch: partitions or elements per partition differ.
        WrongMemory: an operand in HBM, both inputs in PSUM, or PSUM on GpSimd.
        DtypeMismatch, UnsupportedDtype: bit operations on floats, arithmetic on packed elements.
        UnsupportedEngine: the engine cannot run the operator.

    Source: nki.isa.tensor_tensor.
    """


@tensor_tensor.normalize
def _tensor_tensor_normalize(arguments: dict[str, object], target: Target) -> None:
    op = arguments["op"] = alu.lookup(arguments["op"], "nisa.tensor_tensor", arithmetic.BINARY)
    if arguments["engine"] in (None, Engine.unknown):
        exact = _native(arguments) and not rules.in_psum(arguments, *_TILES)
        arguments["engine"] = Engine.gpsimd if exact or op.name == "power" else Engine.vector


_TILES = ("dst", "data1", "data2")


def _native(arguments: ArgumentsByName) -> bool:
    """Whether GpSimd computes in native integers."""
    op = arguments["op"]
    return op.native and not op.bitvec and all(arguments[n].dtype in arithmetic.INT32 for n in _TILES)


def _tensor_tensor_domain(call: Signature) -> Domain:
    if call.op.bitvec:
        return Domain.bits
    if call.engine is Engine.gpsimd and _native(call.arguments):
        return arithmetic.native_domain(call.data1.dtype, call.data2.dtype)
    return Domain.float32


@tensor_tensor.check
def _tensor_tensor_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_same_elements(call, "data1", "data2", "dst")
    engines = (Engine.gpsimd,) if call.op.name == "power" else (Engine.vector, Engine.gpsimd)
    rules.require_engine(call, *engines)
    rules.require_no_gpsimd_psum(call)
    rules.require_one_psum(call, "data1", "data2")
    arithmetic.require_available(call, "op")
    arithmetic.require_dtypes(call, _tensor_tensor_domain(call), "data1", "data2", "dst")


@tensor_tensor.reference
def _tensor_tensor_reference(
    call: Signature, dst: np.ndarray, data1: np.ndarray, data2: np.ndarray, **_: object
) -> np.ndarray:
    domain = _tensor_tensor_domain(call)
    a, b = (arithmetic.to_domain(x, domain).reshape(dst.shape) for x in (data1, data2))
    return arithmetic.from_domain(call.op.numpy(a, b), domain, call.dst.dtype)


@tensor_tensor.equals
def _tensor_tensor_equals(call: Signature, reads: Mapping[str, int], theirs: Mapping[str, int]) -> Hashable:
    one, other = ((view.dtype, view.shape, view.strides[1:]) for view in (call.data1, call.data2))
    return frozenset(reads.values()) if call.op.commutative and one == other else tuple(reads.values())


@tensor_tensor.cost
def _tensor_tensor_cost(call: Signature) -> Cost:
    n = call.dst.free_size
    data1, data2, dst = (rules.cost_operand(call.arguments[o]) for o in ("data1", "data2", "dst"))
    if call.engine is Engine.gpsimd:
        return costs.gpsimd_stream(call.target, n, (data1, data2, dst), cycles_per_element=2)
    return costs.vector_tensor_tensor(call.target, n, data1, data2, dst, op=call.op.name)


@tensor_tensor.lower
def _tensor_tensor_lower(call: Signature, kernel: MicroKernel) -> None:
    domain = _tensor_tensor_domain(call)

    def body(e: Emitter, a: Value, b: Value) -> Value:
        return arithmetic.emit(e, call.op, a, b, domain)

    arithmetic.map(kernel, "dst", ("data1", "data2"), domain, body)


# --- tensor_scalar ------------------------------------------------------------------------------------------


@instruction(writes=("dst",), access="p f: dst[p f] data[p f] operand0[p] operand1[p]", indirect=("dst", "data"))
def tensor_scalar(
    dst: NkiTensor,
    data: NkiTensor,
    op0: Op,
    operand0: float | NkiTensor | None,
    reverse0: bool = False,
    op1: Op | None = None,
    operand1: float | NkiTensor | None = None,
    reverse1: bool = False,
    engine: Engine = _any_engine,
    name: str | None = None,
) -> None:
    """dst = (data <op0> operand0) <op1> operand1; an operand is one value for all, or one per partition.

    Arithmetic operators compute in float32, also for integer tiles, and the result is rounded once.
    Bitvec operators work on zero-extended bit patterns and keep the low bits.

    Args:
        dst: SBUF or PSUM tile with the partitions and elements per partition of data.
        data: SBUF or PSUM tile.
        op0: operator of nki.language or NumPy; unary ones (nl.abs, nl.rsqrt, ...) take None or 0 as operand0.
        operand0: a number, or a [P, 1] tile: float32 for arithmetic operators (also int32 or uint32 where
            data is), an integer for bitvec operators.
        reverse0: operand0 <op0> data instead.
        op1: second operator, of the same kind as op0; None applies one operator only, at the same cost.
        operand1: like operand0; None without op1.
        reverse1: operand1 <op1> (...) instead.
        engine: `nisa.engine.vector`, `gpsimd`, or `scalar` (trn2 and later: multiply, add, or multiply then
            add). Unset: GpSimd for nl.rsqrt, otherwise the Vector Engine. Bitvec operators run on the Vector
            Engine alone.

    Raises:
        UnknownOperator, UnsupportedOnTarget: the operator does not exist (yet).
        InvalidOperand: an operand is missing, or given to a unary operator.
        ShapeMismatch: dst and data differ, or a vector operand is not [P, 1].
        WrongMemory: an operand in HBM, or PSUM on GpSimd.
        DtypeMismatch, UnsupportedDtype: bit operations on floats, operators of both kinds, a vector operand
            of another dtype.
        UnsupportedEngine: the engine cannot run the operators.

    Source: nki.isa.tensor_scalar.
    """


@tensor_scalar.normalize
def _tensor_scalar_normalize(arguments: ArgumentsByName, target: Target) -> None:
    op0 = arguments["op0"] = alu.lookup(arguments["op0"], "nisa.tensor_scalar")
    arguments["reverse0"] = arithmetic.reverses(arguments["op0"], arguments["reverse0"])
    if arguments["op1"] is None:
        arguments["reverse1"] = False
    else:
        arguments["op1"] = alu.lookup(arguments["op1"], "nisa.tensor_scalar")
        arguments["reverse1"] = arithmetic.reverses(arguments["op1"], arguments["reverse1"])
    if arguments["engine"] in (None, Engine.unknown):
        on_gpsimd = "rsqrt" in (op0.name, getattr(arguments["op1"], "name", None))
        arguments["engine"] = Engine.gpsimd if on_gpsimd else Engine.vector


@tensor_scalar.check
def _tensor_scalar_check(call: Signature) -> None:
    rules.require_on_chip(call, "dst", "data")
    rules.require_same_elements(call, "data", "dst")
    arithmetic.require_one_kind(call, "op0", "op1")
    arithmetic.require_available(call, "op0", "op1")
    arithmetic.require_operand(call, "op0", "operand0", "data")
    if call.op1 is not None:
        arithmetic.require_operand(call, "op1", "operand1", "data")
    elif call.operand1 is not None:
        raise InvalidOperand(
            instruction="nisa.tensor_scalar", operand="operand1", found="given",
            expected="None, as op1 is None",
        )
    _check_tensor_scalar_engine(call)
    arithmetic.require_dtypes(call, Domain.bits if call.op0.bitvec else Domain.float32, "data", "dst")


def _check_tensor_scalar_engine(call: Signature) -> None:
    operators = [op for op in (call.op0, call.op1) if op is not None]
    if call.op0.bitvec:
        allowed = {Engine.vector}
    else:
        allowed = set.intersection(*(set(op.engines) for op in operators))
    if call.engine is Engine.scalar:
        runs = call.target.scalar_engine_tensor_scalar_ops
        feature = "nisa.tensor_scalar on the Scalar Engine"
        rules.require_capability(call, lambda t: t.scalar_engine_tensor_scalar_ops, feature)
        if "any" not in runs and "+".join(op.name for op in operators) not in runs:
            allowed.discard(Engine.scalar)
    rules.require_engine(call, *sorted(allowed, key=lambda e: e.value))
    rules.require_no_gpsimd_psum(call)


@tensor_scalar.check_immediates
def _tensor_scalar_check_immediates(call: Signature, **operands: float) -> None:
    for operand, value in operands.items():
        arithmetic.require_number(call, f"op{operand[-1]}", operand, value)


@tensor_scalar.reference
def _tensor_scalar_reference(
    call: Signature, dst: np.ndarray, data: np.ndarray, operand0: object, operand1: object = None, **_: object
) -> np.ndarray:
    domain = Domain.bits if call.op0.bitvec else Domain.float32
    result = arithmetic.operate(call.op0, arithmetic.to_domain(data, domain), operand0, domain, call.reverse0)
    if call.op1 is not None:
        result = arithmetic.operate(call.op1, result, operand1, domain, call.reverse1)
    return arithmetic.from_domain(result, domain, call.dst.dtype)


@tensor_scalar.cost
def _tensor_scalar_cost(call: Signature) -> Cost:
    n, data, dst = call.dst.free_size, rules.cost_operand(call.data), rules.cost_operand(call.dst)
    if call.engine is Engine.scalar:
        return costs.scalar_copy(call.target, n, data, dst)
    if call.engine is Engine.gpsimd:
        rsqrt = "rsqrt" in (call.op0.name, getattr(call.op1, "name", None))
        return costs.gpsimd_stream(call.target, n, (data, dst), cycles_per_element=4 if rsqrt else 1)
    return costs.vector_copy(call.target, n, data, dst)


@tensor_scalar.lower
def _tensor_scalar_lower(call: Signature, kernel: MicroKernel) -> None:
    domain = Domain.bits if call.op0.bitvec else Domain.float32
    steps = [(call.op0, "operand0", call.reverse0)]
    if call.op1 is not None:
        steps.append((call.op1, "operand1", call.reverse1))
    used = [operand for op, operand, _ in steps if arithmetic.takes_operand(op)]

    def body(e: Emitter, data: Value, *operands: Value) -> Value:
        values = dict(zip(used, operands, strict=True))
        for op, operand, reverse in steps:
            data = arithmetic.emit(e, op, data, values.get(operand), domain, reverse)
        return data

    arithmetic.map(kernel, "dst", ("data", *used), domain, body)


# --- scalar_tensor_tensor -----------------------------------------------------------------------------------


def _reduces(arguments: Mapping[str, object]) -> str | None:
    return None if arguments["reduce_op"] is None else "vector"


@instruction(
    writes=("dst", "reduce_res"), registers=_reduces,
    access="p f: dst[p f] data[p f] operand0[p] operand1[p f] reduce_res[p] registers[p]",
)
def scalar_tensor_tensor(
    dst: NkiTensor,
    data: NkiTensor,
    op0: Op,
    operand0: float | NkiTensor | None,
    op1: Op,
    operand1: NkiTensor,
    reverse0: bool = False,
    reverse1: bool = False,
    reduce_cmd: reduce_cmd = _reset_reduce,
    reduce_op: Op | None = None,
    reduce_res: NkiTensor | None = None,
    name: str | None = None,
) -> None:
    """dst = (data <op0> operand0) <op1> operand1, where operand1 is a whole tile. Runs on the Vector Engine.

    Everything computes in float32; the result is rounded once, to dst's dtype.

    Args:
        dst: SBUF or PSUM tile with the partitions and elements per partition of data.
        data: SBUF or PSUM tile.
        op0: arithmetic operator of nki.language or NumPy.
        operand0: a number, or a [P, 1] tile of any unpacked dtype.
        op1: binary arithmetic operator.
        operand1: tile with as many partitions and elements as data; not in PSUM when data is.
        reverse0: operand0 <op0> data instead.
        reverse1: operand1 <op1> (...) instead.
        reduce_cmd: beside reduce_op, `nisa.reduce_cmd.reset_reduce` (start anew) or `reduce` (continue from the
            engine's accumulation registers, which all accumulating Vector Engine instructions share).
        reduce_op: nl.add, nl.multiply, nl.maximum or nl.minimum combines the results of each partition, before they
            are rounded; None (or ...) reduces nothing and leaves the registers alone.
        reduce_res: float [P, 1] tile that receives the registers; None leaves the result in them.

    Raises:
        UnknownOperator, UnsupportedOnTarget: the operator is bitvec, unknown, or newer than the chip.
        InvalidOperand: operand0 is missing, or given to a unary operator; another reduce_cmd; a reduce_res without
            reduce_op.
        ShapeMismatch, WrongMemory, UnsupportedDtype: an operand breaks the rules above.

    Source: nki.isa.scalar_tensor_tensor.
    """


@scalar_tensor_tensor.normalize
def _scalar_tensor_tensor_normalize(arguments: ArgumentsByName, target: Target) -> None:
    instruction = "nisa.scalar_tensor_tensor"
    arguments["op0"] = alu.lookup(arguments["op0"], instruction, arithmetic.ARITHMETIC)
    arguments["op1"] = alu.lookup(arguments["op1"], instruction, arithmetic.BINARY_ARITHMETIC)
    reduction = arguments["reduce_op"]
    none = reduction is None or reduction is ...
    arguments["reduce_op"] = None if none else alu.lookup(reduction, instruction, accumulation.OPERATORS)
    arguments["reverse0"] = arithmetic.reverses(arguments["op0"], arguments["reverse0"])
    arguments["reverse1"] = arithmetic.reverses(arguments["op1"], arguments["reverse1"])


@scalar_tensor_tensor.check
def _scalar_tensor_tensor_check(call: Signature) -> None:
    rules.require_on_chip(call, "dst", "data", "operand1")
    rules.require_same_elements(call, "data", "operand1", "dst")
    rules.require_one_psum(call, "data", "operand1")
    arithmetic.require_available(call, "op0", "op1")
    arithmetic.require_operand(call, "op0", "operand0", "data", rules.UNPACKED)
    arithmetic.require_dtypes(call, Domain.float32, "data", "operand1", "dst")
    if call.reduce_op is not None:
        accumulation.require_command(call, reduce_cmd.reset_reduce, reduce_cmd.reduce)
    elif call.reduce_res is not None:
        raise InvalidOperand(
            instruction="nisa.scalar_tensor_tensor", operand="reduce_op", found="not given beside reduce_res",
            expected="nl.add, nl.multiply, nl.maximum or nl.minimum",
        )
    accumulation.require_result(call, "data")


@scalar_tensor_tensor.check_immediates
def _scalar_tensor_tensor_check_immediates(call: Signature, operand0: float = 0) -> None:
    arithmetic.require_number(call, "op0", "operand0", operand0)


@scalar_tensor_tensor.reference
def _scalar_tensor_tensor_reference(
    call: Signature, dst: np.ndarray, data: np.ndarray, operand0: object, operand1: np.ndarray,
    registers: np.ndarray | None = None, **_: object,
) -> tuple[np.ndarray, ...]:
    first = arithmetic.operate(call.op0, data.astype(np.float32), operand0, Domain.float32, call.reverse0)
    second = operand1.astype(np.float32).reshape(data.shape)
    result: np.ndarray = call.op1.numpy(second, first) if call.reverse1 else call.op1.numpy(first, second)
    return accumulation.reference(call, call.reduce_cmd, call.reduce_op, result, registers)


@scalar_tensor_tensor.cost
def _scalar_tensor_tensor_cost(call: Signature) -> Cost:
    data, operand1, dst = (rules.cost_operand(call.arguments[o]) for o in ("data", "operand1", "dst"))
    return costs.vector_scalar_tensor_tensor(
        call.target, call.dst.free_size, data, operand1, dst, op0=call.op0.name, op1=call.op1.name,
        reads_accumulator=call.reduce_res is not None,
    )


@scalar_tensor_tensor.lower
def _scalar_tensor_tensor_lower(call: Signature, kernel: MicroKernel) -> None:
    binary = arithmetic.takes_operand(call.op0)

    def body(e: Emitter, data: Value, operand1: Value, operand0: Value | None = None) -> Value:
        first = arithmetic.emit(e, call.op0, data, operand0, Domain.float32, call.reverse0)
        return arithmetic.emit(e, call.op1, first, operand1, Domain.float32, call.reverse1)

    inputs = ("data", "operand1", *(("operand0",) if binary else ()))
    if call.reduce_op is None:
        elementwise.map(kernel, "dst", inputs, body)
    else:
        accumulation.lower(kernel, call.reduce_cmd, call.reduce_op, inputs, body)


# --- reciprocal ---------------------------------------------------------------------------------------------


@instruction(writes=("dst",), access="p f: dst[p f] data[p f]")
def reciprocal(dst: NkiTensor, data: NkiTensor, name: str | None = None) -> None:
    """dst = 1 / data in float32, correctly rounded, on the Vector Engine; then rounded to dst's dtype.

    Args:
        dst: SBUF or PSUM tile with the partitions and elements per partition of data.
        data: SBUF or PSUM tile; 0 gives an infinity of its sign.

    Raises:
        WrongMemory, ShapeMismatch, UnsupportedDtype: an operand breaks the rules above.

    Source: nki.isa.reciprocal.
    """


@reciprocal.check
def _reciprocal_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_same_elements(call, "data", "dst")
    arithmetic.require_dtypes(call, Domain.float32, "data", "dst")


@reciprocal.reference
def _reciprocal_reference(call: Signature, dst: np.ndarray, data: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        result: np.ndarray = np.float32(1) / data.astype(np.float32)
        return result


@reciprocal.cost
def _reciprocal_cost(call: Signature) -> Cost:
    operands = (rules.cost_operand(call.data), rules.cost_operand(call.dst))
    return costs.vector_stream(
        call.target, call.dst.free_size, operands, cycles_per_element=costs.RECIPROCAL_CYCLES
    )


@reciprocal.lower
def _reciprocal_lower(call: Signature, kernel: MicroKernel) -> None:
    elementwise.map(kernel, "dst", ("data",), lambda e, x: e.div(1, x))
