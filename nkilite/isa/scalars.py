"""Scalars: integers that the device computes with, for indices and loop bounds."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from nkilite import dtypes
from nkilite.codegen.kernel import MicroKernel
from nkilite.errors import (
    DtypeMismatch,
    InvalidOperand,
    RegisterInControlFlow,
    UnsupportedDtype,
    UnsupportedError,
    describe,
)
from nkilite.ir.access import Opaque
from nkilite.ir.program import Signature
from nkilite.ir.types import MemoryRegion
from nkilite.isa.operators import Op
from nkilite.isa.registers import register_load, register_store, register_value, require_int, require_registers
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.trace import active
from nkilite.trace.instruction import instruction
from nkilite.trace.register import VirtualRegister
from nkilite.trace.tensor import NkiTensor

_NUMPY = {"add": np.add, "sub": np.subtract, "mul": np.multiply}


_DTYPES = (dtypes.int32, dtypes.int64)
_HALF = 32  # bits of an int that one instruction's number brings into a scalar of 64


class NkiScalar(VirtualRegister):
    """A signed integer of 32 or 64 bits on the device that can be computed with.

    ``+``, ``-`` and ``*`` with ints and other scalars record an instruction and give a new scalar of the same width;
    results wrap around, and nothing is widened: both operands have one dtype. It serves wherever a register does.
    nisa.scalar_load makes one of its tile's width, and nl.fori_loop passes one to its body.

    With 64 bits it is a loop bound, too, which the hardware has no comparison for, and it indexes tensors in HBM, not
    tiles; it cannot be compared.

    Source: nki.isa.NkiScalar; NKI Scalar Values.
    """

    __slots__ = ()

    @property
    def dtype(self) -> dtypes.DType:
        return self.register_tensor.dtype

    def __add__(self, other: int | NkiScalar) -> NkiScalar:
        return _computed("add", self, other)

    def __radd__(self, other: int) -> NkiScalar:
        return _computed("add", other, self)

    def __sub__(self, other: int | NkiScalar) -> NkiScalar:
        return _computed("sub", self, other)

    def __rsub__(self, other: int) -> NkiScalar:
        return _computed("sub", other, self)

    def __mul__(self, other: int | NkiScalar) -> NkiScalar:
        return _computed("mul", self, other)

    def __rmul__(self, other: int) -> NkiScalar:
        return _computed("mul", other, self)

    def __neg__(self) -> NkiScalar:
        return _computed("sub", 0, self)

    def _compare(self, other: object) -> Comparison:
        dtype = _common_dtype(self, other)
        if dtype.is_wide:
            raise UnsupportedError(feature=f"comparing scalars of {dtype}")
        return Comparison()

    __lt__ = __le__ = __gt__ = __ge__ = _compare
    __eq__ = __ne__ = _compare  # type: ignore[assignment]
    __hash__ = VirtualRegister.__hash__


class Comparison:
    """What comparing a scalar gives: it can be written down, but nothing can be done with it (nki.isa.NkiScalar)."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        raise RegisterInControlFlow(use="a condition")

    def __index__(self) -> NoReturn:
        raise RegisterInControlFlow(use="an int")


def new_scalar(dtype: dtypes.DType = dtypes.int32) -> NkiScalar:
    """A scalar without a value, for an instruction to write."""
    return NkiScalar(active.builder("a scalar").allocate(MemoryRegion.registers, (1, 1), dtype))


def scalar_load(src: NkiTensor) -> NkiScalar:
    """Read one element of memory as a scalar.

    Args:
        src: an int32 or int64 tensor of one element in SBUF or HBM; see nisa.register_load. The scalar has its dtype.

    Raises:
        UnsupportedDtype: src has another dtype.

    Source: nki.isa.scalar_load.
    """
    _require_dtype(src, "nisa.scalar_load", "src", _DTYPES)
    scalar = new_scalar(src.dtype if isinstance(src, NkiTensor) else dtypes.int32)
    register_load(scalar, src)
    return scalar


def scalar_store(dst: NkiTensor, value: NkiScalar) -> None:
    """Write a scalar to one element of memory.

    Args:
        dst: a tensor of one element and of the scalar's dtype in SBUF or HBM; see nisa.register_store.
        value: the scalar.

    Raises:
        UnsupportedDtype: dst has another dtype.

    Source: nki.isa.scalar_store.
    """
    _require_dtype(dst, "nisa.scalar_store", "dst", (value.dtype,) if isinstance(value, NkiScalar) else _DTYPES)
    register_store(dst, value)


@instruction(writes=("dst",), access=Opaque("registers are read and written one after another"), wide=True)
def scalar_compute(dst: VirtualRegister, a: int | VirtualRegister, b: int | VirtualRegister, op: Op) -> None:
    """One operator of NkiScalar: dst = a op b, modulo 2 to the number of its bits.

    Args:
        dst: the result.
        a: left operand.
        b: right operand.
        op: "add", "sub" or "mul".
    """


@scalar_compute.check
def _scalar_compute_check(call: Signature) -> None:
    require_registers(call, "dst", "a", "b")


@scalar_compute.reference
def _scalar_compute_reference(call: Signature, dst: np.ndarray, a: object, b: object, op: str) -> np.ndarray:
    left, right = (np.full((1, 1), register_value(x), call.dst.dtype.numpy) for x in (a, b))
    return _NUMPY[op](left, right)


@scalar_compute.cost
def _scalar_compute_cost(call: Signature) -> Cost:
    return costs.sequencer(call.target, Engine.sync)


@scalar_compute.lower
def _scalar_compute_lower(call: Signature, kernel: MicroKernel) -> None:
    dtype = call.dst.dtype
    result = kernel.e.binary(call.op, kernel.register("a", dtype), kernel.register("b", dtype))
    kernel.e.store(result, kernel.pointer("dst"), align=dtype.itemsize)


def _computed(op: str, a: NkiScalar | int, b: NkiScalar | int) -> NkiScalar:
    dtype = _common_dtype(a, b)
    result = new_scalar(dtype)
    left, right = (x if isinstance(x, NkiScalar) else _number(x, dtype) for x in (a, b))
    scalar_compute(result, left, right, op)
    return result


def _number(value: int, dtype: dtypes.DType) -> int | NkiScalar:
    """An int as an operand: itself, or a scalar made of its halves, for numbers in instructions have 53 bits."""
    if int(float(value)) == value:
        return value
    high, low = divmod(int(value), 1 << _HALF)
    upper, shifted, whole = (new_scalar(dtype) for _ in range(3))
    scalar_compute(upper, high, 0, "add")
    scalar_compute(shifted, upper, 1 << _HALF, "mul")
    scalar_compute(whole, shifted, low, "add")
    return whole


def _common_dtype(a: object, b: object) -> dtypes.DType:
    """The dtype of an operator on scalars, and on ints that it holds.

    Raises:
        InvalidOperand: an operand is something else, or too large.
        DtypeMismatch: the scalars have different widths.
    """
    scalars = [x for x in (a, b) if isinstance(x, NkiScalar)]
    dtype = scalars[0].dtype
    if scalars[-1].dtype != dtype:
        raise DtypeMismatch(
            instruction="a scalar operator", detail=f"one scalar is {dtype} and the other {scalars[-1].dtype}",
            hint="scalars are not widened: load both from tiles of one dtype.",
        )
    for operand in (a, b):
        if isinstance(operand, (NkiTensor, Comparison)) or type(operand) is VirtualRegister:
            raise InvalidOperand(
                instruction="a scalar operator", operand="an operand", found=describe(operand),
                expected="an int or a scalar (nisa.scalar_load reads one from a tile)",
            )
        if not isinstance(operand, NkiScalar):
            require_int("a scalar operator", "an operand", operand, dtype)
    return dtype


def _require_dtype(tensor: object, instruction: str, operand: str, allowed: tuple[dtypes.DType, ...]) -> None:
    """Raise UnsupportedDtype for a tensor of another dtype; what is no tensor is left to the instruction."""
    if isinstance(tensor, NkiTensor) and tensor.dtype not in allowed:
        target = active.builder(instruction).target.name
        raise UnsupportedDtype(
            instruction=instruction, operand=operand, found=tensor.dtype, target=target,
            allowed=" or ".join(allowed),
        )
