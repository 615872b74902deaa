"""Copies and constants on chip: tensor_copy, tensor_copy_predicated and memset."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from nkilite import dtypes
from nkilite.codegen import copy, move
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import DType, Elements, cast
from nkilite.errors import DtypeMismatch, InvalidOperand, WrongMemory
from nkilite.ir.program import Signature
from nkilite.isa import rules
from nkilite.isa.constants import engine
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.machine.target import Target
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_any_engine = engine.unknown
_PREDICATED_DIMENSIONS = 4
_PREDICATES = (dtypes.uint8, dtypes.uint16, dtypes.uint32)


@instruction(writes=("dst",), access="p f: dst[p f] = src[p f]", indirect=("dst", "src"))
def tensor_copy(dst: NkiTensor, src: NkiTensor, engine: Engine = _any_engine, name: str | None = None) -> None:
    """Copy `src` to `dst` within SBUF and PSUM.

    Equal dtypes are copied bit by bit; different ones are converted through float32.

    Args:
        dst: SBUF or PSUM tile with the partitions and elements per partition of `src`; the free dimensions
            may be shaped differently (elements are taken in row-major order).
        src: SBUF or PSUM tile of any dtype.
        engine: `nisa.engine.vector` (default), `gpsimd` (SBUF only) or `scalar` (trn2 and later; on trn1 use
            nisa.activation with nl.copy).

    Raises:
        WrongMemory: an operand is in HBM, or in PSUM with the GpSimd engine.
        ShapeMismatch: partitions or elements per partition differ.
        UnsupportedEngine, UnsupportedOnTarget: the engine cannot copy.
        DtypeMismatch: a packed x4 dtype would be converted.

    Source: nki.isa.tensor_copy.
    """


@tensor_copy.normalize
def _tensor_copy_normalize(arguments: dict[str, object], target: Target) -> None:
    rules.choose_engine(arguments, Engine.vector)


@tensor_copy.check
def _tensor_copy_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_same_elements(call, "dst", "src")
    rules.require_engine(call, Engine.vector, Engine.scalar, Engine.gpsimd)
    rules.require_no_gpsimd_psum(call)
    rules.require_convertible(call, "dst", "src")
    if call.engine is Engine.scalar:
        feature = "nisa.tensor_copy on the Scalar Engine"
        rules.require_capability(call, lambda t: t.scalar_engine_tensor_copy, feature)


@tensor_copy.indirection
def _tensor_copy_indirection(call: Signature, indices: Mapping[str, Hashable]) -> None:
    rules.require_engine(call, Engine.vector, Engine.scalar)


@tensor_copy.reference
def _tensor_copy_reference(call: Signature, dst: np.ndarray, src: np.ndarray, **_: object) -> Elements:
    return Elements(src.reshape(dst.shape), call.src.dtype)


@tensor_copy.cost
def _tensor_copy_cost(call: Signature) -> Cost:
    n, src, dst = call.dst.free_size, rules.cost_operand(call.src), rules.cost_operand(call.dst)
    if call.engine is Engine.vector:
        return costs.vector_copy(call.target, n, src, dst)
    if call.engine is Engine.scalar:
        return costs.scalar_copy(call.target, n, src, dst)
    return costs.gpsimd_stream(call.target, n, (src, dst))


@tensor_copy.lower
def _tensor_copy_lower(call: Signature, kernel: MicroKernel) -> None:
    move.move(kernel, "dst", "src")


@instruction(
    writes=("dst",), updates=lambda arguments: ("dst",), access="p f: dst[p f] src[p f] predicate[p f]",
    indirect=("dst", "predicate"),
)
def tensor_copy_predicated(
    dst: NkiTensor, src: float | NkiTensor, predicate: NkiTensor, reverse_pred: bool = False, name: str | None = None
) -> None:
    """Copy elements of `src` to `dst` where `predicate` is nonzero, on the Vector Engine.

    Args:
        dst: SBUF or PSUM tile.
        src: tile of dst's elements and dtype, or a number, rounded to dst's dtype.
        predicate: uint8, uint16 or uint32 tile of dst's elements.
        reverse_pred: copy where the predicate is zero instead.

    Raises:
        WrongMemory: an operand is in HBM, or both src and predicate in PSUM.
        ShapeMismatch: partitions or elements per partition differ.
        DtypeMismatch: src and dst have different dtypes.
        UnsupportedDtype: see predicate.

    Source: nki.isa.tensor_copy_predicated.
    """


@tensor_copy_predicated.normalize
def _tensor_copy_predicated_normalize(arguments: dict[str, object], target: Target) -> None:
    arguments["reverse_pred"] = bool(arguments["reverse_pred"])


@tensor_copy_predicated.check
def _tensor_copy_predicated_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_same_elements(call, "dst", "src", "predicate")
    for operand in ("dst", "src", "predicate"):
        rules.require_dimensions(call, operand, _PREDICATED_DIMENSIONS)
    rules.require_dtype(call, "predicate", _PREDICATES)
    if call.is_tensor("src"):
        if call.src.dtype != call.dst.dtype:
            raise DtypeMismatch(
                instruction=rules.instruction_name(call),
                detail=f"src is {call.src.dtype} and dst {call.dst.dtype}",
                hint="convert src first with nisa.tensor_copy.",
            )
        if call.src.region is rules.PSUM and call.predicate.region is rules.PSUM:
            raise WrongMemory(
                instruction=rules.instruction_name(call), operand="predicate", found="PSUM",
                allowed="SBUF when src is in PSUM", hint="nisa.tensor_copy moves one of them to SBUF",
            )
    else:
        rules.require_dtype(call, "dst", rules.UNPACKED)


@tensor_copy_predicated.reference
def _tensor_copy_predicated_reference(
    call: Signature, dst: np.ndarray, src: Any, predicate: np.ndarray, **_: object
) -> Elements:
    chosen = (predicate.reshape(dst.shape) != 0) != call.reverse_pred
    if call.is_tensor("src"):
        copied = src.reshape(dst.shape)
    else:
        copied = cast(np.asarray(constant(src, call.dst.dtype)), call.dst.dtype)
    return Elements(np.where(chosen, copied, dst), call.dst.dtype)


@tensor_copy_predicated.cost
def _tensor_copy_predicated_cost(call: Signature) -> Cost:
    src = rules.cost_operand(call.src if call.is_tensor("src") else call.dst)
    predicate, dst = rules.cost_operand(call.predicate), rules.cost_operand(call.dst)
    return costs.vector_copy_predicated(call.target, call.dst.free_size, src, predicate, dst)


@tensor_copy_predicated.lower
def _tensor_copy_predicated_lower(call: Signature, kernel: MicroKernel) -> None:
    copy.move_where(kernel, "dst", "src", "predicate", call.reverse_pred)


@instruction(writes=("dst",), access="p f: dst[p f]", wide=True)
def memset(dst: NkiTensor, value: float, engine: Engine = _any_engine, name: str | None = None) -> None:
    """Fill `dst` with a compile-time constant.

    Args:
        dst: SBUF or PSUM tile of any dtype.
        value: a number, rounded to dst's dtype; 0 for packed x4 dtypes. For integer dtypes, which saturate, an int, or
            0.0, whose bits are the same: nki-library passes it. For 64-bit ones it has at most 53 bits, like all
            numbers in instructions.
        engine: `nisa.engine.vector` (default) or `gpsimd` (SBUF only).

    Raises:
        WrongMemory: dst is in HBM, or in PSUM with the GpSimd engine.
        UnsupportedEngine: another engine.
        InvalidOperand: a packed dtype and a value other than 0, an integer dtype and another float than 0, or a 64-bit
            dtype and an int that takes more bits.

    Source: nki.isa.memset.
    """


@memset.normalize
def _memset_normalize(arguments: dict[str, object], target: Target) -> None:
    rules.choose_engine(arguments, Engine.vector)


@memset.check
def _memset_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_engine(call, Engine.vector, Engine.gpsimd)
    rules.require_no_gpsimd_psum(call)


@memset.check_immediates
def _memset_check_immediates(call: Signature, value: float) -> None:
    if call.dst.dtype.kind == "x" and value != 0:
        raise InvalidOperand(
            instruction="nisa.memset", operand="value", found=value,
            expected=f"0 for the packed dtype {call.dst.dtype}; load other constants with nisa.dma_copy",
        )
    if call.dst.dtype.is_integer and not isinstance(value, (int, np.integer, np.bool_)) and value != 0:
        raise InvalidOperand(
            instruction="nisa.memset", operand="value", found=f"the {type(value).__name__} {value}",
            expected=f"an int, as dst is {call.dst.dtype}", fix=f"write {value:g} without a fraction: {int(value)}"
            if np.isfinite(value) and value == int(value) else "",
        )
    if call.dst.dtype.is_wide:
        rules.require_exact(call, "value", value)


@memset.reference
def _memset_reference(call: Signature, dst: np.ndarray, value: float, **_: object) -> np.ndarray:
    return np.full(dst.shape, constant(value, call.dst.dtype))


def constant(value: float, dtype: DType) -> np.generic:
    """A compile-time number as an element; integers are exact or saturate."""
    if not dtype.is_integer or dtype.kind == "b":
        element: np.generic = np.float32(value) if dtype.kind != "x" else dtype.numpy.type(0)
        return element
    limits = np.iinfo(dtype.numpy)
    whole = 0.0 if np.isnan(value) else float(np.rint(np.float64(value)))  # which Python compares with ints exactly
    nearest: np.generic = dtype.numpy.type(int(min(max(whole, limits.min), limits.max)))
    return nearest


@memset.cost
def _memset_cost(call: Signature) -> Cost:
    n, dst = call.dst.free_size, rules.cost_operand(call.dst)
    if call.engine is Engine.gpsimd:
        return costs.gpsimd_stream(call.target, n, (dst,))
    return costs.vector_memset(call.target, n, dst, zero=False)


@memset.lower
def _memset_lower(call: Signature, kernel: MicroKernel) -> None:
    copy.fill(kernel, "dst", "value")
