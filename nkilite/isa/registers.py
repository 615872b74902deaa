"""Registers of the engines' sequencers: making them, and moving values between them, immediates and memory.

A register is one int32 in `registers` memory, or one int64 behind an NkiScalar of that width. Instructions on several
of them take one width: none is widened.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from nkilite import dtypes
from nkilite.codegen import convert
from nkilite.codegen.kernel import MicroKernel
from nkilite.errors import (
    DtypeMismatch,
    InvalidOperand,
    ShapeMismatch,
    UnsupportedDtype,
    UnsupportedError,
    WrongMemory,
    describe,
)
from nkilite.ir.access import Opaque
from nkilite.ir.program import Signature
from nkilite.ir.types import IndirectKind, MemoryRegion, ViewType
from nkilite.isa import rules
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.trace import active
from nkilite.trace.instruction import instruction
from nkilite.trace.register import VirtualRegister
from nkilite.trace.tensor import NkiTensor

_SEQUENCER = Opaque("registers are read and written one after another")
_NARROW = tuple(d for d in dtypes.ALL.values() if not d.is_wide)
_INTEGERS = tuple(d for d in _NARROW if d.is_integer)  # bool is one of them
_LOADED = tuple(d for d in _NARROW if d not in dtypes.ELEMENTS)


def register_alloc(x: int | NkiTensor | VirtualRegister | None = None) -> VirtualRegister:
    """Make a register.

    Args:
        x: its first value: an int of 32 bits, another register, or a tensor of one element in SBUF or HBM;
            without it the register has no value until one is moved or loaded into it.

    Raises:
        InvalidOperand: x is something else, or does not fit into 32 bits.
        UnsupportedDtype: x has 64 bits, which scalars have (nisa.scalar_load) and registers have not.
        UninitializedRead: (by whoever reads it) the register was never given a value.

    Source: nki.isa.register_alloc.
    """
    builder = active.builder("nki.isa.register_alloc")
    if x is not None and not isinstance(x, (NkiTensor, VirtualRegister)):
        require_int("nisa.register_alloc", "x", x, dtypes.int32)
    register = VirtualRegister(builder.allocate(MemoryRegion.registers, (1, 1), dtypes.int32))
    if isinstance(x, NkiTensor):
        register_load(register, x)
    elif x is not None:
        register_move(register, x)
    return register


@instruction(writes=("dst",), access=_SEQUENCER, wide=True)
def register_move(dst: VirtualRegister, src: int | VirtualRegister) -> None:
    """Give a register the value of an int or of another register.

    Args:
        dst: the register.
        src: an int of its width, or a register.

    Raises:
        InvalidOperand: src is neither, or does not fit.
        DtypeMismatch: one has 32 bits and the other 64.

    Source: nki.isa.register_move.
    """


@register_move.check
def _register_move_check(call: Signature) -> None:
    require_registers(call, "dst", "src")


@register_move.check_immediates
def _register_move_check_immediates(call: Signature, src: float = 0) -> None:
    require_int("nisa.register_move", "src", src, call.dst.dtype)
    rules.require_exact(call, "src", src)


@register_move.reference
def _register_move_reference(call: Signature, dst: np.ndarray, src: object) -> np.ndarray:
    return np.full((1, 1), register_value(src), call.dst.dtype.numpy)


@register_move.lower
def _register_move_lower(call: Signature, kernel: MicroKernel) -> None:
    dtype = call.dst.dtype
    kernel.e.store(kernel.register("src", dtype), kernel.pointer("dst"), align=dtype.itemsize)


@instruction(writes=("dst",), access=_SEQUENCER, wide=True)
def register_load(dst: VirtualRegister, src: NkiTensor) -> None:
    """Read one element of memory into a register.

    Narrow integers are extended to 32 bits; a uint32 keeps its bits. A float becomes the nearest int32, as it does in
    an int32 tile.

    Args:
        dst: the register.
        src: a tensor of one element in SBUF or HBM, of any dtype but the packed and the 64-bit ones; int64 for a
            register of that width.

    Raises:
        WrongMemory: src is in PSUM.
        ShapeMismatch: src has more than one element.
        UnsupportedDtype: src is packed, or of another width.

    Source: nki.isa.register_load; what becomes of a float is not published.
    """


@register_load.check
def _register_load_check(call: Signature) -> None:
    require_registers(call, "dst")
    _require_element(call, "src", (dtypes.int64,) if call.dst.dtype.is_wide else _LOADED)


@register_load.reference
def _register_load_reference(call: Signature, dst: np.ndarray, src: np.ndarray) -> np.ndarray:
    element = src.reshape(1, 1)
    if call.dst.dtype.is_wide:
        return element
    return element.astype(np.int32) if call.src.dtype.is_integer else dtypes.cast(element, dtypes.int32)


@register_load.lower
def _register_load_lower(call: Signature, kernel: MicroKernel) -> None:
    e = kernel.e
    raw = e.load(convert.raw_scalar(call.src.dtype), kernel.pointer("src"))
    if call.dst.dtype.is_wide:
        value = raw
    elif call.src.dtype.is_integer:
        value = convert.to_i32(e, call.src.dtype, raw)
    else:
        value = convert.narrow(e, dtypes.int32, convert.widen(e, call.src.dtype, raw))
    e.store(value, kernel.pointer("dst"), align=call.dst.dtype.itemsize)


@instruction(writes=("dst",), access=_SEQUENCER, wide=True)
def register_store(dst: NkiTensor, src: VirtualRegister) -> None:
    """Write the value of a register to one element of memory.

    Args:
        dst: an integer (or bool) tensor of one element in SBUF or HBM; narrow integers take the low bits, and bool
            whether the value is not zero. An int64 tensor for a register of that width.
        src: the register.

    Raises:
        WrongMemory: dst is in PSUM.
        ShapeMismatch: dst has more than one element.
        UnsupportedDtype: dst is not an integer tensor, or of another width.

    Source: nki.isa.register_store.
    """


@register_store.check
def _register_store_check(call: Signature) -> None:
    require_registers(call, "src")
    _require_element(call, "dst", (dtypes.int64,) if call.src.dtype.is_wide else _INTEGERS)


@register_store.reference
def _register_store_reference(call: Signature, dst: np.ndarray, src: np.ndarray) -> np.ndarray:
    return src.astype(call.dst.dtype.numpy)


@register_store.lower
def _register_store_lower(call: Signature, kernel: MicroKernel) -> None:
    e, dtype = kernel.e, call.dst.dtype
    value = kernel.register("src", call.src.dtype)
    if dtype is dtypes.bool_:
        value = e.convert("zext", e.compare("ne", value, 0), "i8")
    elif dtype.itemsize < 4:
        value = e.convert("trunc", value, f"i{8 * dtype.itemsize}")
    e.store(value, kernel.pointer("dst"))


@register_move.cost
@register_load.cost
@register_store.cost
def _register_move_cost(call: Signature) -> Cost:
    return costs.sequencer(call.target, Engine.sync)


# --- what loops and scalars share -----------------------------------------------------------------------------------


def register_value(operand: object) -> int:
    """In a reference rule: the number in a register, or an immediate in its place."""
    return int(operand[0, 0]) if isinstance(operand, np.ndarray) else int(cast(float, operand))


def require_int(instruction: str, operand: str, value: object, dtype: dtypes.DType) -> None:
    """Raise InvalidOperand unless a number is an int that fits into a register of a dtype."""
    end = 1 << 8 * dtype.itemsize - 1
    if not isinstance(value, (int, np.integer)) or not -end <= value < end:
        raise InvalidOperand(
            instruction=instruction, operand=operand, found=describe(value), expected=f"an int from {-end} to {end - 1}"
        )


def require_registers(call: Signature, *operands: str) -> None:
    """Check operands that are registers, or numbers in the place of some.

    Raises:
        WrongMemory: a tensor was given.
        DtypeMismatch: they have different widths.
    """
    first: tuple[str, ViewType] | None = None
    for operand in operands:
        kind = call.arguments[operand]
        if not isinstance(kind, ViewType):
            continue
        if kind.region is not MemoryRegion.registers:
            raise WrongMemory(
                instruction=rules.instruction_name(call), operand=operand, found=str(kind.region).upper(),
                allowed="a register", hint="nisa.register_load reads one element into a register",
            )
        first = first or (operand, kind)
        require_width(rules.instruction_name(call), *first, operand, kind)


def require_width(instruction: str, one: str, first: ViewType, other: str, kind: ViewType) -> None:
    """Raise DtypeMismatch unless two registers have one dtype."""
    if kind.dtype != first.dtype:
        raise DtypeMismatch(
            instruction=instruction, detail=f"{one} is {first.dtype} and {other} {kind.dtype}",
            hint="registers and scalars are not widened: load both from tiles of one dtype.",
        )


def _require_element(call: Signature, operand: str, allowed: tuple[dtypes.DType, ...]) -> None:
    rules.require_memory(call, operand, MemoryRegion.sbuf, *rules.HBM)
    kind: ViewType = call.arguments[operand]
    if kind.size != 1:
        raise ShapeMismatch(
            instruction=rules.instruction_name(call),
            detail=f"{operand} has shape {kind.shape}; a register holds one element, of shape (1, 1) or, in HBM, (1,)",
        )
    if kind.indirection is not None and kind.indirection.kind is IndirectKind.vector:
        raise UnsupportedError(feature=f"{rules.instruction_name(call)} with a vector_offset in {operand}")
    if kind.dtype.is_wide and dtypes.int64 not in allowed:
        raise UnsupportedDtype(
            instruction=rules.instruction_name(call), operand=operand, found=kind.dtype, target=call.target.name,
            allowed="dtypes of at most 32 bits, as many as a register has",
            fix="nisa.scalar_load reads an int64, or take its low word, .view(nl.int32)[..., 0:1]",
        )
    rules.require_dtype(call, operand, allowed)
