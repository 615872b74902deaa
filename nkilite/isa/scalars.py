"""Scalars: integers that the device computes with, for indices and loop bounds."""

from __future__ import annotations

from typing import Any

import numpy as np

from nkilite import dtypes
from nkilite.codegen.kernel import MicroKernel
from nkilite.errors import InvalidOperand, describe
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


def new_scalar() -> NkiScalar:
    """A scalar without a value, for an instruction to write."""
    return NkiScalar(active.builder("a scalar").allocate(MemoryRegion.registers, (1, 1), dtypes.int32))


def scalar_load(src: NkiTensor) -> NkiScalar:
    """Read one element of memory as a scalar.

    Args:
        src: an integer tensor of one element in SBUF or HBM; see nisa.register_load.

    Source: nki.isa.scalar_load.
    """
    scalar = new_scalar()
    register_load(scalar, src)
    return scalar


def scalar_store(dst: NkiTensor, src: NkiScalar) -> None:
    """Write a scalar to one element of memory.

    Args:
        dst: an integer tensor of one element in SBUF or HBM; see nisa.register_store.
        src: the scalar.

    Source: nki.isa.scalar_store.
    """
    register_store(dst, src)


@instruction(writes=("dst",))
def scalar_compute(dst: VirtualRegister, a: int | VirtualRegister, b: int | VirtualRegister, op) -> None:
    """One operator of NkiScalar: dst = a op b, modulo 2 to the 32.

    Args:
        dst: the result.
        a: left operand.
        b: right operand.
        op: "add", "sub" or "mul".
    """


@scalar_compute.check
def _(call: Signature) -> None:
    require_registers(call, "dst", "a", "b")


@scalar_compute.reference
def _(call: Signature, dst: np.ndarray, a: Any, b: Any, op: str) -> np.ndarray:
    left, right = (np.full((1, 1), register_value(x), np.int32) for x in (a, b))
    return _NUMPY[op](left, right)


@scalar_compute.cost
def _(call: Signature) -> Cost:
    return costs.sequencer(call.target, Engine.sync)


@scalar_compute.lower
def _(call: Signature, kernel: MicroKernel) -> None:
    result = kernel.e.binary(call.op, kernel.register("a"), kernel.register("b"))
    kernel.e.store(result, kernel.pointer("dst"), align=4)


def _computed(op: str, a: Any, b: Any) -> NkiScalar:
    for operand in (a, b):
        if isinstance(operand, NkiScalar):
            continue
        if isinstance(operand, (NkiTensor, VirtualRegister)):
            raise InvalidOperand(
                instruction="a scalar operator", operand="an operand", found=describe(operand),
                expected="an int or a scalar (nisa.scalar_load reads one from a tile)",
            )
        require_int32("a scalar operator", "an operand", operand)
    result = new_scalar()
    scalar_compute(result, a, b, op)
    return result
