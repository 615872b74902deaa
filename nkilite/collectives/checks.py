"""The documented rules for the tensors of collectives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nkilite.collectives.transfer import MOST, invalid
from nkilite.errors import DtypeMismatch, ShapeMismatch, UnsupportedOnTarget, describe
from nkilite.ir.types import BufferKind, MemoryRegion
from nkilite.isa import alu
from nkilite.machine.target import Target
from nkilite.trace.tensor import NkiTensor

_REDUCTIONS = tuple(alu.TABLE[name] for name in ("add", "minimum", "maximum"))
_SBUF = MemoryRegion.sbuf

Shape = tuple[int, ...]


def as_tensors(found: Any, operand: str, kind: str, most: int = MOST) -> list[NkiTensor]:
    """A list of tensors in HBM or in SBUF, none of which is an argument of the kernel.

    Raises:
        InvalidOperand: it is none.
    """
    whole = isinstance(found, (list, tuple)) and all(isinstance(t, NkiTensor) for t in found)
    if not whole or not 1 <= len(found) <= most:
        expected = "a list of one tensor" if most == 1 else f"a list of 1 to {most} tensors"
        raise invalid(kind, operand, describe(found), expected)
    for tensor in found:
        if tensor.index is not None or tensor.type.region in (MemoryRegion.psum, MemoryRegion.registers):
            raise invalid(kind, operand, describe(tensor), "a tensor in HBM or SBUF without a runtime index")
        if tensor.storage.kind is not BufferKind.internal:
            raise invalid(
                kind, operand, f"{tensor.storage.label}, an argument of the kernel",
                "a tensor made in the kernel: copy it there with nisa.dma_copy",
            )
    return list(found)


def require_places(kind: str, srcs: Sequence[NkiTensor], dsts: Sequence[NkiTensor], sbuf: bool) -> None:
    """Check that all are in HBM, or all in SBUF and then alone; in HBM all sources and all destinations in one of its
    memories.

    Raises:
        InvalidOperand: they are not, or lists differ in length.
    """
    if len(dsts) != len(srcs):
        raise invalid(kind, "dsts", f"a list of {len(dsts)}", f"one for each of the {len(srcs)} sources")
    on_chip = {tensor.type.region is _SBUF for tensor in (*srcs, *dsts)}
    if len(on_chip) > 1:
        raise invalid(kind, "dsts", "in another memory than srcs", "all tensors in HBM, or all in SBUF")
    if True in on_chip:
        if not sbuf:
            raise invalid(kind, "srcs", "in SBUF", "tensors in HBM")
        if len(srcs) > 1:
            raise invalid(kind, "srcs", f"{len(srcs)} tensors in SBUF", "one; several have to be in HBM")
        return
    for operand, tensors in (("srcs", srcs), ("dsts", dsts)):
        if len({tensor.type.region for tensor in tensors}) > 1:
            raise invalid(kind, operand, "in private and shared HBM", "all in private, or all in shared HBM")


def require_shapes(
    kind: str, srcs: Sequence[NkiTensor], dsts: Sequence[NkiTensor], becomes: Callable[[Shape], Shape | None], says: str
) -> None:
    """Check that destinations have the dtypes of their sources, and the shapes that these become.

    Raises:
        DtypeMismatch, ShapeMismatch: one has not.
    """
    for i, (src, dst) in enumerate(zip(srcs, dsts, strict=True)):
        if src.dtype != dst.dtype:
            raise DtypeMismatch(
                instruction=f"nki.collectives.{kind}", detail=f"srcs[{i}] is {src.dtype} and dsts[{i}] {dst.dtype}",
                hint="use tensors of one dtype, and convert with nisa.tensor_copy before or after.",
            )
        if becomes(src.shape) != dst.shape:
            raise ShapeMismatch(
                instruction=f"nki.collectives.{kind}",
                detail=f"srcs[{i}] has shape {src.shape} and dsts[{i}] {dst.shape}; {says}",
            )


def as_op(op: object, kind: str) -> str:
    """The name of a reduction.

    Raises:
        UnknownOperator: it is none of add, minimum and maximum.
    """
    return alu.lookup(op, f"nki.collectives.{kind}", _REDUCTIONS).name


def require_dim(kind: str, dim: object, allowed: tuple[int, ...]) -> None:
    """Raise InvalidOperand for another dimension."""
    if isinstance(dim, bool) or dim not in allowed:
        raise invalid(kind, "collective_dim", describe(dim), " or ".join(map(str, allowed)))


def require_priority(kind: str, priority: object, target: Target) -> None:
    """Raise for a priority that is none, or that the chip does not have."""
    if priority is None:
        return
    if target.generation < 4:
        raise UnsupportedOnTarget(
            feature=f"priority of nki.collectives.{kind}", needs="trn3 (gen4)", target=target.name
        )
    if isinstance(priority, bool) or priority not in range(4):
        raise invalid(kind, "priority", describe(priority), "an int from 0 to 3, or None")
