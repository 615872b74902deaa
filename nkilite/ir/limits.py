"""Limits of the chip on what any instruction accesses: which partitions, along how many dimensions, how far apart.

A compute engine reads and writes neighbouring partitions from certain ones on, and within each the same access
pattern. DMA engines and the sequencers that read registers have no such limits. Where an access pattern breaks one is
seen when a signature is made; where partitions start is a matter of every single instruction.
"""

from __future__ import annotations

from collections.abc import Iterator

from nkilite.errors import (
    AccessPatternExceeded,
    BroadcastDestination,
    OverlappingDestination,
    PartitionsNotAdjacent,
    PartitionStartMisplaced,
    UnsupportedDtype,
    UnsupportedError,
    UnsupportedOnTarget,
)
from nkilite.ir.program import Operand, Program, Signature
from nkilite.ir.regions import distinct
from nkilite.ir.types import Buffer, IndirectKind, MemoryRegion, ViewType
from nkilite.location import Location
from nkilite.machine.engine import Engine
from nkilite.machine.target import Target, first_with

_COMPUTE = (Engine.tensor, Engine.vector, Engine.scalar, Engine.gpsimd)
_ON_CHIP = (MemoryRegion.sbuf, MemoryRegion.psum)


def require_instruction(name: str, target: Target, feature: str = "") -> None:
    """Raise UnsupportedOnTarget for an instruction the chip does not have.

    Args:
        feature: what the user has written that becomes this instruction, if it is not the call of its name.
    """
    if name in target.missing_instructions:
        needs = first_with(lambda t: name not in t.missing_instructions)
        raise UnsupportedOnTarget(feature=feature or f"nisa.{name}", needs=needs, target=target.name)


def require_widths(call: Signature) -> None:
    """Raise UnsupportedDtype for 64-bit elements: engines compute with 32 bits, and nobody extends an instruction's.

    What tells where a view begins is checked where the view is made.
    """
    if call.definition.wide:
        return
    for operand in call.operands:
        if operand.type.dtype.is_wide and not operand.name.endswith(".index"):
            raise UnsupportedDtype(
                instruction=call.title, operand=call.said(operand.name), found=operand.type.dtype,
                target=call.target.name, allowed="dtypes of at most 32 bits", fix=_NARROWER,
            )


_NARROWER = (
    "64-bit elements are moved by nisa.dma_copy and set by nisa.memset, and nisa.scalar_load reads one; reinterpret "
    "them with .view(nl.int32) to reach their low words."
)


def require_biases(call: Signature) -> None:
    """Check the operands whose exponent bias is adjusted.

    Raises:
        UnsupportedOnTarget: the chip cannot.
        UnsupportedError: other cores are sent one, or told about it.
    """
    for operand in call.operands:
        if not operand.type.dtype.is_biased:
            continue
        if call.definition.meets is not None:
            raise UnsupportedError(feature=f"{call.title} of {operand.type.dtype}, of an adjusted exponent bias")
        if not call.target.adjustable_exponent_bias:
            raise UnsupportedOnTarget(
                feature=f"the exponent bias of {call.said(operand.name)}, {operand.type.dtype}, in {call.title}",
                needs=first_with(lambda t: t.adjustable_exponent_bias), target=call.target.name,
            )


def require_destinations(call: Signature) -> None:
    """Raise BroadcastDestination or OverlappingDestination for a view several of whose elements are one place.

    Of an instruction with several results, kernels let those they do not want fall into such a place to save memory.
    """
    written = [o for o in call.operands if o.writes]
    if len(written) > 1:
        return
    for operand in written:
        dynamic = operand.type.indirection is not None and operand.type.indirection.kind is IndirectKind.vector
        counts, strides = operand.type.shape, operand.type.strides
        for dim, (count, stride) in enumerate(zip(counts, strides, strict=True)):
            if not stride and count > 1 and not (dynamic and dim == 0):  # each has its own index there
                raise BroadcastDestination(
                    instruction=call.title, operand=call.said(operand.name), shape=counts, dim=dim, count=count,
                )
        # A partition is a row of its own; with an index of its own, so is a position of dimension 0.
        free = 1 if operand.type.region.on_chip or dynamic else 0
        if not distinct(counts[free:], strides[free:]):
            dims = [[stride, count] for count, stride in zip(counts, strides, strict=True)]
            raise OverlappingDestination(
                instruction=call.title, what=f"the access pattern {dims} of {call.said(operand.name)} overlaps itself"
            )


# --- access patterns ----------------------------------------------------------------------------------------------


def require_patterns(call: Signature) -> None:
    """Raise AccessPatternExceeded for an operand whose pattern within a partition an engine cannot follow."""
    for operand in _accessed(call):
        pattern = _pattern(call, operand.type)
        what = _excess(pattern, operand.type, call.target)
        if what and _computes(call):
            pairs = [list(pair) for pair in pattern]
            raise AccessPatternExceeded(
                instruction=call.title, operand=call.said(operand.name), pattern=pairs, what=what
            )


def _excess(pattern: list[tuple[int, int]], kind: ViewType, target: Target) -> str:
    """What is too much in a pattern, and how much there may be; empty if nothing is."""
    if len(pattern) > target.access_dimensions:
        return f"{len(pattern)} dimensions; the limit is {target.access_dimensions}"
    lowest = -target.access_stride_max - 1
    for stride, _ in pattern:
        if not lowest <= stride <= target.access_stride_max:
            return f"a stride of {stride} elements; strides are from {lowest} to {target.access_stride_max}"
    if kind.region is MemoryRegion.sbuf and kind.free_size > target.access_elements_max:
        return f"{kind.free_size} elements; the limit is {target.access_elements_max}"
    return ""


def _pattern(call: Signature, kind: ViewType) -> list[tuple[int, int]]:
    """The fewest (stride, count) pairs that visit the elements of a partition in order, outermost first.

    A reduction keeps the dimensions that it reduces apart from the others.
    """
    border = call.axis[0] if call.name == "tensor_reduce" and kind is call.data else 0
    pairs: list[tuple[int, int]] = []
    for dim in range(1, kind.ndim):
        count, stride = kind.shape[dim], kind.strides[dim]
        if count == 1:
            continue
        if pairs and dim != border and pairs[-1][0] == stride * count:
            pairs[-1] = stride, pairs[-1][1] * count
        else:
            pairs.append((stride, count))
    return pairs


# --- partitions ---------------------------------------------------------------------------------------------------


def partition_rules(call: Signature) -> Iterator[tuple[Operand, tuple[int, ...]]]:
    """The operands a compute engine accesses, with the partitions at which they may start."""
    rule = call.definition.rules.get("starts")
    special = {} if rule is None else rule(call)
    for operand in _accessed(call):
        yield operand, special.get(operand.name) or call.target.start_partitions(operand.type.partitions)


def is_brought(program: Program, call: Signature, operand: Operand) -> bool:
    """Whether DMA brings an operand to partition 0 if it begins elsewhere (nkilite/passes/bring_partitions.py).

    Where the vendor's compiler places tiles, where they begin is its business. DMA does not reach PSUM, and what is
    indexed as the program runs stays where it is.
    """
    indexed = any(o.name == f"{operand.name}.index" for o in call.operands)
    return program.placed and operand.type.region is MemoryRegion.sbuf and not indexed


def first_partition(buffer: Buffer, byte_offset: int) -> int:
    """Where a view of an on-chip buffer begins; whole tiles without an address begin at partition 0."""
    start = buffer.address[0] if buffer.address is not None else 0
    result: int = start + byte_offset // max(buffer.partition_bytes, 1)
    return result


def require_partitions(
    call: Signature, operand: Operand, allowed: tuple[int, ...], buffer: Buffer, byte_offset: int, location: Location
) -> None:
    """Check which partitions an operand covers.

    Raises:
        PartitionsNotAdjacent: it skips or repeats some.
        PartitionStartMisplaced: it starts at one where accesses of its size do not start.
    """
    kind, start = operand.type, first_partition(buffer, byte_offset)
    apart = kind.strides[0] * kind.dtype.itemsize
    stepped = kind.partitions > 1 and apart != buffer.partition_bytes
    if (start in allowed and not stepped) or not _computes(call):
        return
    place = f"tile {buffer.label} {buffer.dtype} {buffer.shape}"
    if stepped:
        raise PartitionsNotAdjacent(
            instruction=call.title, operand=call.said(operand.name), place=place, step=apart // buffer.partition_bytes,
            location=location,
        )
    raise PartitionStartMisplaced(
        instruction=call.title, operand=call.said(operand.name), place=place, first=start,
        last=start + kind.partitions - 1, count=kind.partitions, allowed=" or ".join(map(str, allowed)),
        location=location,
    )


def _accessed(call: Signature) -> Iterator[Operand]:
    """The operands in SBUF and PSUM, without the indices that a sequencer or a DMA engine reads."""
    for operand in call.operands:
        if operand.type.region in _ON_CHIP and not operand.name.endswith(".index"):
            yield operand


def _computes(call: Signature) -> bool:
    return call.definition.rule("cost")(call).engine in _COMPUTE
