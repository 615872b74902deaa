"""Checks that many instructions share: memories, shapes, dtypes, partitions, engines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nkilite.dtypes import ALL, DType
from nkilite.errors import (
    DtypeMismatch,
    InvalidOperand,
    PartitionLimitExceeded,
    ShapeMismatch,
    UnsupportedDtype,
    UnsupportedEngine,
    UnsupportedError,
    UnsupportedOnTarget,
    WrongMemory,
    describe,
)
from nkilite.ir.program import Signature
from nkilite.ir.rules import ArgumentsByName, ReadArguments
from nkilite.ir.types import IndirectKind, MemoryRegion, ViewType
from nkilite.machine.engine import Engine, Operand
from nkilite.machine.target import Target, first_with

SBUF = MemoryRegion.sbuf
PSUM = MemoryRegion.psum
ON_CHIP = (MemoryRegion.sbuf, MemoryRegion.psum)
HBM = (MemoryRegion.private_hbm, MemoryRegion.shared_hbm)
FLOATS = tuple(d for d in ALL.values() if d.is_float)
UNPACKED = tuple(d for d in ALL.values() if d.kind != "x" and not d.is_wide)
TWO_BYTES = tuple(d for d in ALL.values() if d.itemsize == 2)


def instruction_name(call: Signature) -> str:
    """How messages name the instruction."""
    return call.title


def tensors(call: Signature) -> dict[str, ViewType]:
    """The tensor arguments of a call, without registers."""
    return {n: v for n, v in call.arguments.items() if isinstance(v, ViewType) and n != "registers"}


def require_memory(call: Signature, operand: str, *allowed: MemoryRegion) -> None:
    """Raise WrongMemory unless a tensor argument (if given) is in one of the memories."""
    kind = call.arguments[operand]
    if isinstance(kind, ViewType) and kind.region not in allowed:
        raise WrongMemory(
            instruction=instruction_name(call), operand=call.said(operand), found=_public(kind.region),
            allowed=" or ".join(dict.fromkeys(_public(r) for r in allowed)), hint=_move(call, operand, allowed),
        )


def _move(call: Signature, operand: str, allowed: tuple[MemoryRegion, ...]) -> str:
    """How an operand gets into an allowed memory."""
    if any(p.written and p.name == operand for p in call.definition.parameters):
        where = " or ".join(f"buffer=nl.{r}" for r in allowed if r is not MemoryRegion.private_hbm)
        return f"allocate {operand} with {where}, and move the result from there"
    if call.arguments[operand].region in HBM:
        return f"copy it into an SBUF tile with nisa.dma_copy (or nl.load) and pass that as {operand}"
    return f"copy it into an SBUF tile with nisa.tensor_copy and pass that as {operand}"


def _public(region: MemoryRegion) -> str:
    return "HBM" if region in HBM else str(region).upper()


def require_on_chip(call: Signature, *operands: str) -> None:
    """Check that the tensor arguments (all of them by default) are directly addressed tiles in SBUF or PSUM.

    Raises:
        WrongMemory: one is elsewhere.
        PartitionLimitExceeded: one has more than 128 partitions.
        UnsupportedError: one has a runtime index per partition, which DMA instructions alone follow.
    """
    for operand in operands or tensors(call):
        require_memory(call, operand, *ON_CHIP)
        require_partitions(call, operand)
        kind = call.arguments[operand]
        if not isinstance(kind, ViewType) or kind.indirection is None:
            continue
        if kind.indirection.kind is IndirectKind.vector:
            raise UnsupportedError(
                feature=f"{instruction_name(call)} with a runtime index per partition in {operand}"
            )


def require_partitions(call: Signature, operand: str) -> None:
    """Raise PartitionLimitExceeded when an on-chip tensor argument has more than 128 partitions."""
    kind = call.arguments[operand]
    if isinstance(kind, ViewType) and kind.partitions > call.target.num_partitions:
        raise PartitionLimitExceeded(
            what=f"{instruction_name(call)}: {call.said(operand)}", found=kind.partitions,
            limit=call.target.num_partitions,
        )


def require_same_elements(call: Signature, *operands: str) -> None:
    """Raise ShapeMismatch unless the tensors have the same partitions and elements per partition."""
    kinds = [(o, call.arguments[o]) for o in operands if isinstance(call.arguments[o], ViewType)]
    first_name, first = kinds[0]
    for name, kind in kinds[1:]:
        if kind.partitions != first.partitions or kind.free_size != first.free_size:
            raise ShapeMismatch(
                instruction=instruction_name(call),
                detail=f"{first_name} has shape {first.shape} and {name} {kind.shape}: partitions and elements per "
                "partition must be equal",
            )


def require_vector(call: Signature, operand: str, data: str = "data", dtypes: tuple[DType, ...] = ()) -> None:
    """Raise unless a scalar-or-tensor argument is a number or a [P, 1] tile with the partitions of `data`."""
    kind = call.arguments[operand]
    if not isinstance(kind, ViewType):
        return
    require_on_chip(call, operand)
    partitions = call.arguments[data].partitions
    if kind.free_size != 1 or kind.partitions != partitions:
        raise ShapeMismatch(
            instruction=instruction_name(call),
            detail=f"{operand} has shape {kind.shape}; a vector operand has shape ({partitions}, 1): one element for "
            f"each partition of {data}",
        )
    if dtypes:
        require_dtype(call, operand, dtypes)


def require_dtype(call: Signature, operand: str, allowed: tuple[DType, ...] | frozenset[str]) -> None:
    """Raise UnsupportedDtype unless a tensor argument has one of the dtypes, with any exponent bias."""
    kind = call.arguments[operand]
    if isinstance(kind, ViewType) and kind.dtype.base not in allowed:
        raise UnsupportedDtype(
            instruction=instruction_name(call), operand=call.said(operand), found=kind.dtype, target=call.target.name,
            allowed=", ".join(sorted(map(str, allowed))),
        )


def require_int32(call: Signature, operand: str, value: float) -> None:
    """Raise InvalidOperand unless the number given for an immediate is a whole one of 32 bits."""
    if not -(1 << 31) <= value < 1 << 31 or value != int(value):
        raise InvalidOperand(
            instruction=instruction_name(call), operand=call.said(operand), found=value, expected="an int32"
        )


def require_bits(call: Signature, operand: str, value: float) -> None:
    """Raise InvalidOperand unless the number given to a bit operation is a whole one of 32 bits, signed or not."""
    if not -(1 << 31) <= value < 1 << 32 or value != int(value):
        raise InvalidOperand(
            instruction=instruction_name(call), operand=call.said(operand), found=value,
            expected="a 32-bit integer, because the operation works on bits",
        )


def require_exact(call: Signature, operand: str, value: float) -> None:
    """Raise InvalidOperand for an int that a number in an instruction, a float64, does not hold exactly."""
    if isinstance(value, (int, np.integer)) and int(float(value)) != value:
        raise InvalidOperand(
            instruction=instruction_name(call), operand=call.said(operand), found=value,
            expected="an int of at most 53 bits, as all numbers in instructions are",
            fix="compute it: a scalar of 64 bits takes any int as an operand",
        )


def require_integers(call: Signature, *operands: str) -> None:
    """Raise DtypeMismatch unless all tensor arguments are integers, as bit operations need."""
    for operand in operands:
        kind = call.arguments[operand]
        if isinstance(kind, ViewType) and not kind.dtype.is_integer:
            raise DtypeMismatch(
                instruction=instruction_name(call),
                detail=f"bit operations work on integers, and {operand} is {kind.dtype}",
                hint="reinterpret the tile with .view(nl.uint32) to work on its bits, or use an arithmetic operator.",
            )


def require_convertible(call: Signature, dst: str, src: str) -> None:
    """Raise DtypeMismatch when the dtypes differ and elements of one do not go through float32 on their way.

    Packed elements have no single value, and 64-bit integers too many bits.
    """
    to, source = call.arguments[dst].dtype, call.arguments[src].dtype
    if to != source and "x" in (to.kind, source.kind):
        raise DtypeMismatch(
            instruction=instruction_name(call),
            detail=f"{src} is {source} and {dst} is {to}, and packed x4 elements cannot be converted",
            hint="reinterpret one side with .view(dtype) to move the bits.",
        )
    if to != source and (to.is_wide or source.is_wide):
        raise DtypeMismatch(
            instruction=instruction_name(call),
            detail=f"{src} is {source} and {dst} is {to}, and 64-bit integers are not converted",
            hint="move the bits: give both sides one dtype, or take the low words with .view(nl.int32).",
        )


def choose_engine(arguments: ArgumentsByName, default: Engine) -> None:
    """Say which engine it is of a call that leaves it open."""
    if arguments["engine"] in (None, Engine.unknown):
        arguments["engine"] = default


def require_engine(call: Signature, *allowed: Engine) -> None:
    """Raise UnsupportedEngine unless the (resolved) engine is one of those."""
    chosen = call.arguments["engine"]
    if chosen not in allowed:
        raise UnsupportedEngine(
            instruction=instruction_name(call), found=chosen.name if isinstance(chosen, Engine) else describe(chosen),
            allowed=", ".join(e.name for e in allowed),
        )


def require_dimensions(call: Signature, operand: str, most: int, fewest: int = 1) -> None:
    """Raise ShapeMismatch unless a tensor argument (if given) has a number of dimensions, partitions included."""
    kind = call.arguments[operand]
    if isinstance(kind, ViewType) and not fewest <= kind.ndim <= most:
        allowed = f"{most}" if fewest == most else f"at most {most}"
        raise ShapeMismatch(
            instruction=instruction_name(call),
            detail=f"{operand} of shape {kind.shape} has {kind.ndim} dimensions; the instruction takes {allowed}",
        )


def require_capability(call: Signature, has: Callable[[Target], object], feature: str) -> None:
    """Raise UnsupportedOnTarget unless the chip has what `has` reads off a target."""
    if not has(call.target):
        raise UnsupportedOnTarget(feature=feature, needs=first_with(has), target=call.target.name)


def require_sbuf(call: Signature) -> None:
    """Check that the tensor arguments are directly addressed tiles in SBUF, the memory GpSimd works on.

    Raises:
        WrongMemory, PartitionLimitExceeded, UnsupportedError: see `require_on_chip`.
    """
    require_on_chip(call)
    for operand in tensors(call):
        require_memory(call, operand, SBUF)


def require_same_partitions(call: Signature, first: str, second: str) -> None:
    """Raise ShapeMismatch unless two tiles have the same number of partitions."""
    one, other = call.arguments[first].partitions, call.arguments[second].partitions
    if one != other:
        raise ShapeMismatch(
            instruction=instruction_name(call), detail=f"{first} has {one} partitions and {second} {other}"
        )


def require_whole_cores(call: Signature, operand: str) -> None:
    """Raise ShapeMismatch unless a tile fills GpSimd cores: a multiple of 16 partitions."""
    partitions, core = call.arguments[operand].partitions, call.target.partitions_per_gpsimd_core
    if partitions % core:
        raise ShapeMismatch(
            instruction=instruction_name(call),
            detail=f"{operand} has {partitions} partitions; a GpSimd core serves {core}, so that they must be a "
            "multiple of that",
        )


def require_no_gpsimd_psum(call: Signature) -> None:
    """Raise WrongMemory when GpSimd is asked to touch PSUM, which it cannot reach."""
    if call.arguments["engine"] is Engine.gpsimd:
        for name in tensors(call):
            require_memory(call, name, SBUF)


def require_one_psum(call: Signature, first: str, second: str) -> None:
    """Raise WrongMemory when two inputs are both in PSUM, which has one read port for them."""
    if call.arguments[first].region is PSUM and call.arguments[second].region is PSUM:
        raise WrongMemory(
            instruction=instruction_name(call), operand=call.said(second), found=f"PSUM, as is {first}", allowed="SBUF",
            hint="nisa.tensor_copy moves one of them to SBUF",
        )


def in_psum(arguments: ReadArguments, *names: str) -> bool:
    """Whether any of the arguments is a PSUM tensor (for choosing an engine)."""
    return any(isinstance(arguments[n], ViewType) and arguments[n].region is PSUM for n in names)


def cost_operand(kind: ViewType) -> Operand:
    """What the cost formulas need to know of an operand."""
    free = [(n, s) for n, s in zip(kind.shape[1:], kind.strides[1:], strict=True) if n != 1]
    stride = free[-1][1] if free else 1
    return Operand(str(kind.dtype.base), kind.dtype.itemsize, kind.region is PSUM, stride)


