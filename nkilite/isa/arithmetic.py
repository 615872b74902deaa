"""What an ALU instruction computes in: float32, bit patterns or native integers, in NumPy and in lanes.

Arithmetic operators compute in float32; bitvec operators on patterns zero-extended to 32 bits, whatever the width of
the tiles, of which the low bits are stored. GpSimd evaluates tiles that are all int32 or uint32 in native integers,
which wrap around. A bool is one bit: 1 for any byte but 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np

from nkilite import dtypes
from nkilite.codegen import convert, elementwise
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import DType
from nkilite.errors import DtypeMismatch, InvalidOperand
from nkilite.ir.program import Signature
from nkilite.ir.types import ViewType
from nkilite.isa import alu, rules
from nkilite.isa.alu import AluOp

INT32 = (dtypes.int32, dtypes.uint32)


class Domain(Enum):
    """The arithmetic of one instruction."""

    float32 = "float32"
    bits = "bits"
    signed = "signed"  # native integers
    unsigned = "unsigned"

    @property
    def native(self) -> bool:
        return self in (Domain.signed, Domain.unsigned)


def takes_operand(op: AluOp) -> bool:
    """Whether an operator has a second operand."""
    return not op.unary and op.name != "invert"


def reverses(op: AluOp, reverse: object) -> bool:
    """A reverse flag, which means nothing to an operator that is unary or commutative."""
    return bool(reverse) and takes_operand(op) and not op.commutative


def native_domain(*inputs: DType) -> Domain:
    """Native integers are unsigned when every input is."""
    return Domain.unsigned if all(d == dtypes.uint32 for d in inputs) else Domain.signed


BINARY = tuple(row for row in alu.ELEMENTWISE if takes_operand(row))
ARITHMETIC = tuple(row for row in alu.ELEMENTWISE if not row.bitvec)
BINARY_ARITHMETIC = tuple(row for row in BINARY if not row.bitvec)
REDUCTIONS = tuple(row for row in alu.ELEMENTWISE if row.reduction)


# --- checks -------------------------------------------------------------------------------------------------


def require_dtypes(call: Signature, domain: Domain, *operands: str) -> None:
    """Raise unless tensors hold what the domain takes: integers for bits, unpacked elements otherwise."""
    if domain is Domain.bits:
        rules.require_integers(call, *operands)
        return
    for operand in operands:
        rules.require_dtype(call, operand, rules.UNPACKED)


def require_operand(
    call: Signature, op_name: str, operand_name: str, data: str, dtypes_of_tile: tuple[DType, ...] = (dtypes.float32,)
) -> None:
    """Check the number-or-vector operand of a tensor-scalar operator.

    Args:
        dtypes_of_tile: what a tile of an arithmetic operator may hold; also integers when data is int32 or uint32,
            for address arithmetic.

    Raises:
        InvalidOperand: a binary operator has no operand, or a unary one has a tile.
        ShapeMismatch, WrongMemory: a tile that is not one element per partition on chip.
        DtypeMismatch, UnsupportedDtype: a tile of another dtype (arithmetic), or no integer (bitvec).
    """
    op, operand = call.arguments[op_name], call.arguments[operand_name]
    unary = not takes_operand(op)
    if unary and isinstance(operand, ViewType):
        raise InvalidOperand(
            instruction=rules.instruction_name(call), operand=operand_name,
            found=f"a tile of shape {operand.shape}", expected=f"None or 0, because {op_name}={op} is unary",
        )
    if operand is None and not unary:
        raise InvalidOperand(
            instruction=rules.instruction_name(call), operand=operand_name, found="None",
            expected=f"a number or a tile, because {op_name}={op} is binary",
        )
    rules.require_vector(call, operand_name, data)
    if op.bitvec:
        rules.require_integers(call, operand_name)
    elif call.arguments[data].dtype in INT32:
        rules.require_dtype(call, operand_name, (*dtypes_of_tile, *INT32))
    else:
        rules.require_dtype(call, operand_name, dtypes_of_tile)


def require_number(call: Signature, op_name: str, operand_name: str, value: float) -> None:
    """Check the number given to a tensor-scalar operator.

    Raises:
        InvalidOperand: a unary operator gets one that is not 0, or a bitvec operator one that has not 32 bits.
    """
    op = call.arguments[op_name]
    if not takes_operand(op):
        if value != 0:
            raise InvalidOperand(
                instruction=rules.instruction_name(call), operand=operand_name, found=value,
                expected=f"None or 0, because {op_name}={op} is unary",
            )
    elif op.bitvec:
        rules.require_bits(call, operand_name, value)


def require_one_kind(call: Signature, first: str, second: str) -> None:
    """Raise DtypeMismatch when one of two operators is bitvec and the other arithmetic."""
    a, b = call.arguments[first], call.arguments[second]
    if b is not None and a.bitvec != b.bitvec:
        names = {True: "bitvec", False: "arithmetic"}
        raise DtypeMismatch(
            instruction=rules.instruction_name(call),
            detail=f"{first}={a} is {names[a.bitvec]} and {second}={b} is {names[b.bitvec]}",
            hint="use two operators of one kind, or two instructions.",
        )


def require_available(call: Signature, *operators: str) -> None:
    """Raise UnsupportedOnTarget for an operator that the chip lacks."""
    for name in operators:
        op = call.arguments[name]
        if op is not None:
            _require_operator(call, op, f"{rules.instruction_name(call)} with {name}={op}")


def _require_operator(call: Signature, op: AluOp, feature: str) -> None:
    rules.require_capability(call, lambda t: op.name not in t.missing_operators, feature)


# --- reference ----------------------------------------------------------------------------------------------


def to_domain(x: Any, domain: Domain) -> Any:
    """An array or a Python number as the arithmetic takes it."""
    if not isinstance(x, np.ndarray):
        if domain is Domain.float32:
            return np.float32(x)
        return np.int64(x).astype(np.uint32)
    if domain is Domain.float32:
        numbers = dtypes.single(x)
        return numbers.copy() if numbers is x else numbers
    if domain is Domain.bits and x.dtype != np.bool_:
        return x.view(f"u{x.itemsize}").astype(np.uint32)
    return x.astype(np.uint32 if domain is Domain.unsigned else np.int32)


def from_domain(result: np.ndarray, domain: Domain, dtype: DType) -> np.ndarray:
    """A result ready to be stored as `dtype`: unchanged if float32 (storing rounds), else its low bits."""
    if domain is Domain.float32:
        return result
    if dtype is dtypes.bool_:
        return (result & 1).astype(np.bool_)
    return np.ascontiguousarray(result).astype(f"u{dtype.itemsize}").view(dtype.numpy)


def operate(op: AluOp, data: np.ndarray, operand: object, domain: Domain, reverse: bool) -> np.ndarray:
    """data op operand, or operand op data, for data in the domain and a number, [P, 1] vector or None."""
    other = to_domain(0.0 if operand is None else operand, domain)
    if isinstance(other, np.ndarray):
        other = other.reshape(-1, *(1,) * (data.ndim - 1))
    result: np.ndarray = op.numpy(other, data) if reverse else op.numpy(data, other)
    return result


# --- lowering -----------------------------------------------------------------------------------------------


def emit(e: Emitter, op: AluOp, a: Value, b: Value | None, domain: Domain, reverse: bool = False) -> Value:
    """Lanes of a op b, or b op a; a unary operator has no b."""
    if b is None:
        b = a
    if reverse:
        a, b = b, a
    return op.emit(e, a, b, domain is not Domain.unsigned)


def map(
    kernel: MicroKernel,
    out: str,
    inputs: Sequence[str],
    domain: Domain,
    body: Callable[..., Value],
) -> None:
    """out[i] = body(e, *inputs[i]) in a domain; inputs are tensors, [P, 1] vectors or immediates."""
    if domain is Domain.float32:
        elementwise.map(kernel, out, inputs, body)
        return
    target = kernel.operands[out].dtype
    numbers = {name: integer_immediate(kernel, name) for name in inputs if not kernel.has(name)}
    tensors = [name for name in inputs if kernel.has(name)]

    def element(e: Emitter, *raw: Value) -> Value:
        lanes = raw[0].lanes
        wide = {name: zero_extend(e, value) for name, value in zip(tensors, raw, strict=True)}
        values = [wide[name] if name in wide else e.splat(numbers[name], lanes) for name in inputs]
        return low_bits(e, target, body(e, *values))

    elementwise.map(kernel, out, tensors, element, compute="pattern")


def integer_immediate(kernel: MicroKernel, name: str) -> Value:
    """The low 32 bits of an integer immediate."""
    return kernel.e.convert("trunc", kernel.immediate_i64(name), "i32")


def zero_extend(e: Emitter, raw: Value) -> Value:
    """Patterns in 32-bit lanes."""
    return raw if raw.scalar == "i32" else e.convert("zext", raw, "i32")


def low_bits(e: Emitter, dtype: DType, value: Value) -> Value:
    """32-bit lanes to the raw lanes of an integer dtype; a bool keeps one bit."""
    scalar = convert.raw_scalar(dtype)
    value = value if scalar == "i32" else e.convert("trunc", value, scalar)
    return e.and_(value, 1) if dtype is dtypes.bool_ else value
