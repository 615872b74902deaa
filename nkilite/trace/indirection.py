"""Runtime indices of views: the tensors they are read from, and which values keep a view inside its storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from nkilite.dtypes import DType
from nkilite.errors import InvalidView
from nkilite.ir.types import Buffer, IndirectKind, MemoryRegion, extent
from nkilite.trace.refusals import TensorBase

if TYPE_CHECKING:
    from nkilite.trace.register import VirtualRegister
    from nkilite.trace.tensor import NkiTensor


def is_runtime_index(value: object) -> TypeGuard[NkiTensor | VirtualRegister]:
    """Whether a value is a tensor or a register, which the device reads when the kernel runs."""
    return isinstance(value, TensorBase) or hasattr(value, "register_tensor")


def index_tensor(value: object, what: str) -> NkiTensor:
    """The tensor behind a runtime index: itself, or the one-element tensor a register lives in.

    Raises:
        InvalidView: it is not an integer tensor on chip; `what` names it in the message.
    """
    index = value if _is_tensor(value) else getattr(value, "register_tensor", value)
    if not _is_tensor(index):
        found = type(index).__name__
    elif index.type.problem is not None:
        raise index.type.problem.raised()
    elif index.type.region.on_chip and index.dtype.is_integer:
        return index
    else:
        found = f"{index.dtype} in {index.buffer}"
    raise InvalidView(
        operation=what, reason=f"the index is {found}", hint="use an int32 or uint32 tile in SBUF."
    )


def _is_tensor(value: object) -> TypeGuard[NkiTensor]:
    return isinstance(value, TensorBase)


def require_reach(index: NkiTensor, kind: IndirectKind, region: MemoryRegion) -> None:
    """Raise InvalidView for an index of 64 bits of anything but a view of HBM that moves as a whole."""
    if index.dtype.is_wide and (region.on_chip or kind is IndirectKind.vector):
        what = f"a tensor in {str(region).upper()}" if region.on_chip else "rows"
        raise InvalidView(
            operation=f"a runtime index of {what}", reason=f"the index is {index.dtype}",
            hint="use int32: 64 bits are for one offset into HBM.",
        )


def reachable(
    storage: Buffer,
    dtype: DType,
    byte_offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    stride: int,
) -> int:
    """The number of indices from 0 on whose whole view, `stride` elements further each, lies inside the storage."""
    start, total = byte_offset // dtype.itemsize, storage.size_bytes // dtype.itemsize
    row = storage.partition_bytes // dtype.itemsize
    if storage.region.on_chip and stride % row:
        # The view moves inside its partitions.
        start, total, shape, strides = start % row, row, shape[1:], strides[1:]
    low, high = extent(shape, strides)
    if stride < 0:
        return (start + low) // -stride + 1
    result: int = max(0, (total - 1 - start - high) // stride + 1) if stride else storage.size_bytes
    return result
