"""Scalars: integers that the device computes with, for indices and loop bounds."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from nkilite import dtypes
from nkilite.codegen.kernel import MicroKernel
from nkilite.errors import InvalidOperand, RegisterInControlFlow, UnsupportedDtype, describe
from nkilite.ir.access import Opaque
from nkilite.ir.program import Signature
from nkilite.ir.types import MemoryRegion
from nkilite.isa.registers import register_load, register_store, register_value, require_int32, require_registers
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.trace import active
from nkilite.trace.instruction import instruction
from nkilite.trace.register import VirtualRegister
from nkilite.trace.tensor import NkiTensor

_NUMPY = {"add": np.add, "sub": np.subtract, "mul": np.multiply}


class NkiScalar(VirtualRegister):
    """A 32-bit signed integer on the device that can be computed with.

    ``+``, ``-`` and ``*`` with ints and other scalars record an instruction and give a new scalar; results wrap
    around at 32 bits. It serves wherever a register does. nisa.scalar_load makes one, and nl.fori_loop passes one to
    its body.

    Source: nki.isa.NkiScalar. 64-bit scalars are not supported: there are no 64-bit tensors to load them from.
    """

    __slots__ = ()

    @property
    def dtype(self) -> dtypes.DType:
        return dtypes.int32

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

    def _compare(self, other: Any) -> Comparison:
        _require_operand(other)
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


def new_scalar() -> NkiScalar:
    """A scalar without a value, for an instruction to write."""
    return NkiScalar(active.builder("a scalar").allocate(MemoryRegion.registers, (1, 1), dtypes.int32))


def scalar_load(src: NkiTensor) -> NkiScalar:
    """Read one element of memory as a scalar.

    Args:
        src: an int32 tensor of one element in SBUF or HBM; see nisa.register_load.

    Raises:
        UnsupportedDtype: src has another dtype.

    Source: nki.isa.scalar_load.
    """
    _require_int32(src, "nisa.scalar_load", "src")
    scalar = new_scalar()
    register_load(scalar, src)
    return scalar


def scalar_store(dst: NkiTensor, value: NkiScalar) -> None:
    """Write a scalar to one element of memory.

    Args:
        dst: an int32 tensor of one element in SBUF or HBM; see nisa.register_store.
        value: the scalar.

    Raises:
        UnsupportedDtype: dst has another dtype.

    Source: nki.isa.scalar_store.
    """
    _require_int32(dst, "nisa.scalar_store", "dst")
    register_store(dst, value)


@instruction(writes=("dst",), access=Opaque("registers are read and written one after another"))
def scalar_compute(dst: VirtualRegister, a: int | VirtualRegister, b: int | VirtualRegister, op) -> None:
    """One operator of NkiScalar: dst = a op b, modulo 2 to the 32.

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
def _scalar_compute_reference(call: Signature, dst: np.ndarray, a: Any, b: Any, op: str) -> np.ndarray:
    left, right = (np.full((1, 1), register_value(x), np.int32) for x in (a, b))
    return _NUMPY[op](left, right)


@scalar_compute.cost
def _scalar_compute_cost(call: Signature) -> Cost:
    return costs.sequencer(call.target, Engine.sync)


@scalar_compute.lower
def _scalar_compute_lower(call: Signature, kernel: MicroKernel) -> None:
    result = kernel.e.binary(call.op, kernel.register("a"), kernel.register("b"))
    kernel.e.store(result, kernel.pointer("dst"), align=4)


def _computed(op: str, a: Any, b: Any) -> NkiScalar:
    for operand in (a, b):
        _require_operand(operand)
    result = new_scalar()
    scalar_compute(result, a, b, op)
    return result


def _require_operand(operand: Any) -> None:
    """Raise InvalidOperand unless something is an int of 32 bits or a scalar."""
    if isinstance(operand, NkiScalar):
        return
    if isinstance(operand, (NkiTensor, VirtualRegister, Comparison)):
        raise InvalidOperand(
            instruction="a scalar operator", operand="an operand", found=describe(operand),
            expected="an int or a scalar (nisa.scalar_load reads one from a tile)",
        )
    require_int32("a scalar operator", "an operand", operand)


def _require_int32(tensor: Any, instruction: str, operand: str) -> None:
    """Raise UnsupportedDtype for a tensor of another dtype; what is no tensor is left to the instruction."""
    if isinstance(tensor, NkiTensor) and tensor.dtype is not dtypes.int32:
        target = active.builder(instruction).target.name
        raise UnsupportedDtype(
            instruction=instruction, operand=operand, found=tensor.dtype, target=target, allowed="int32"
        )
