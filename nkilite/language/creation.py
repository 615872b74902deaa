"""New tensors: uninitialized, or filled.

Source: public pages nki.language.ndarray, zeros, ones, full, zeros_like.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from nkilite import isa as nisa
from nkilite.dimensions import Dim
from nkilite.dtypes import ALL, DType, DTypeLike, as_dtype
from nkilite.errors import (
    HbmOverflow,
    InvalidOperand,
    MemoryOverflow,
    PartitionLimitExceeded,
    describe,
)
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.language.regions import as_region
from nkilite.machine.target import Target
from nkilite.passes.allocate import check_address
from nkilite.trace import active
from nkilite.trace.tensor import NkiTensor

__all__ = ["full", "ndarray", "ones", "zeros", "zeros_like"]

_FILL_ELEMENTS = 2048  # per partition of an SBUF tile that HBM is filled from


def ndarray(
    shape: Sequence[int],
    dtype: DTypeLike,
    buffer: MemoryRegion = MemoryRegion.sbuf,
    name: str | None = "",
    address: tuple[int, int] | None = None,
) -> NkiTensor:
    """A new, uninitialized tensor.

    Args:
        shape: sizes; on chip (SBUF, PSUM) at least two, the first counting partitions, except that (1,) is (1, 1). In
            nl.shared_hbm, dynamic dimensions of the kernel (nki.Dim) are sizes, too.
        dtype: an nl dtype, a NumPy or ml_dtypes type, or its name.
        buffer: the memory.
        name: shown in messages and profiles; None is no name.
        address: (first partition, byte in the partition) of an on-chip tensor; None leaves it to the planner.

    Raises:
        InvalidOperand: shape, dtype, buffer or address is of the wrong kind.
        PartitionLimitExceeded: an on-chip tensor of more than 128 partitions.
        HbmOverflow: a tensor larger than the device memory.
        MemoryOverflow: a tensor larger than its memory by itself.
        InvalidAddress: an address outside the memory, or misaligned.
    """
    builder = active.current.builder or active.builder("nl.ndarray")
    if name is None:
        name = ""
    elif not isinstance(name, str):
        raise InvalidOperand(
            instruction="nl.ndarray", operand="name", found=describe(name), expected="a string"
        )
    key: tuple[object, ...] | None
    try:
        if len(shape) == 2:  # a third of the cost of the general case
            rows, columns = shape
            key = buffer, dtype, rows, columns, type(rows), type(columns)
        else:
            key = (buffer, dtype, *shape, *map(type, shape))
        kind = builder.tiles.get(key)
    except TypeError:
        kind = key = None
    if kind is None:
        if isinstance(shape, (tuple, list)) and any(isinstance(size, Dim) for size in shape):
            return _dynamic(shape, dtype, buffer, name, address, builder.place(sys._getframe(1)))
        kind = _checked_type(shape, dtype, buffer, name, builder.target)
        if key is not None:
            builder.tiles[key] = kind
    if address is None:
        return builder.tile(kind, name, builder.place(sys._getframe(1)))
    if not kind.region.on_chip:
        raise _bad_address(address, "None for a tensor in HBM")
    where = _as_address(address)
    tensor = builder.tile(kind, name, builder.place(sys._getframe(1)), where)
    if (kind, where) not in builder.placed:
        check_address(tensor.storage, builder.target)
        builder.placed.add((kind, where))
    return tensor


def _dynamic(
    shape: Sequence[object], dtype: DTypeLike, buffer: object, name: str, address: tuple[int, int] | None, place: int
) -> NkiTensor:
    """A new tensor with dynamic dimensions; errors as in `ndarray`."""
    builder = active.builder()
    region = as_region(buffer, "ndarray")
    if region is not MemoryRegion.shared_hbm:
        raise InvalidOperand(
            instruction="nl.ndarray", operand="shape", found=f"a dynamic dimension in {str(region).upper()}",
            expected="ints; results in nl.shared_hbm alone have dynamic dimensions",
        )
    unknown = next((n for n in shape if isinstance(n, Dim) and n not in builder.dimensions), None)
    if unknown is not None:
        raise InvalidOperand(
            instruction="nl.ndarray", operand="shape", found=unknown,
            expected="ints, and dimensions that an argument has, by dynamic_shapes of @nki.jit",
        )
    if address is not None:
        raise _bad_address(address, "None for a tensor in HBM")
    bounds = [n.max if isinstance(n, Dim) else n for n in shape]
    kind = _checked_type(bounds, dtype, buffer, name, builder.target)
    dims = tuple((axis, builder.dimensions[n]) for axis, n in enumerate(shape) if isinstance(n, Dim))
    location = builder.program.locations[place]
    return builder.allocate(kind.region, kind.shape, kind.dtype, name, location=location, dims=dims)


def _checked_type(shape: object, dtype: DTypeLike, buffer: object, name: str, target: Target) -> ViewType:
    """The type of a new tensor; errors as in `ndarray`."""
    region = as_region(buffer, "ndarray")
    sizes, element = as_shape(shape, "ndarray"), element_type(dtype, "ndarray")
    if not region.on_chip:
        size = prod(sizes) * element.itemsize
        if size > target.hbm_bytes:
            what = f"{name or 'a tensor'} {element} {list(sizes)}"
            raise HbmOverflow(what=what, found=size, limit=target.hbm_bytes, target=target.name)
        return ViewType.dense(region, element, sizes)
    if sizes == (1,):
        sizes = (1, 1)  # one element has one partition, whichever dimension was meant
    if len(sizes) < 2:
        raise InvalidOperand(
            instruction="nl.ndarray",
            operand="shape",
            found=f"{sizes} in {str(region).upper()}",
            expected="at least two dimensions, (partitions, elements per partition)",
            fix=f"write ({sizes[0]}, 1) for one element per partition, or (1, {sizes[0]}) for one partition",
        )
    if sizes[0] > target.num_partitions:
        raise PartitionLimitExceeded(
            what=f"nl.ndarray: {list(sizes)}", found=sizes[0], limit=target.num_partitions
        )
    capacity = target.psum_partition_bytes if region is MemoryRegion.psum else target.sbuf_fmax_bytes
    need = prod(sizes[1:]) * element.itemsize
    if need > capacity:
        raise MemoryOverflow(
            memory=str(region).upper(),
            target=target.name,
            what=f"{name or 'a tile'} {element} {list(sizes)}",
            need=need,
            live=0,
            capacity=capacity,
            missing=need - capacity,
            tiles="  none",
        )
    return ViewType.dense(region, element, sizes)


def zeros(
    shape: Sequence[int], dtype: DTypeLike, buffer: MemoryRegion = MemoryRegion.sbuf, name: str = ""
) -> NkiTensor:
    """A new tensor of zeros; arguments and errors as in `ndarray`."""
    return full(shape, 0, dtype, buffer, name)


def ones(
    shape: Sequence[int], dtype: DTypeLike, buffer: MemoryRegion = MemoryRegion.sbuf, name: str = ""
) -> NkiTensor:
    """A new tensor of ones; arguments and errors as in `ndarray`."""
    return full(shape, 1, dtype, buffer, name)


def full(
    shape: Sequence[int],
    fill_value: float,
    dtype: DTypeLike,
    buffer: MemoryRegion = MemoryRegion.sbuf,
    name: str = "",
) -> NkiTensor:
    """A new tensor with every element `fill_value`; the other arguments and errors as in `ndarray`."""
    tensor = ndarray(shape, dtype, buffer, name)
    fill(tensor, fill_value)
    return tensor


def zeros_like(
    x: NkiTensor, dtype: DTypeLike | None = None, buffer: MemoryRegion | None = None, name: str = ""
) -> NkiTensor:
    """A new tensor of zeros with the shape of `x`, and its dtype and memory unless given."""
    x = require_tensor(x, "x", "zeros_like")
    return full(x.shape, 0, x.dtype if dtype is None else dtype, x.buffer if buffer is None else buffer, name)


def fill(tensor: NkiTensor, value: float) -> None:
    """Set every element of a tensor in any memory; HBM is written by DMA from a small SBUF tile."""
    if tensor.buffer.on_chip:
        nisa.memset(tensor, value)
        return
    if not tensor.is_contiguous():
        for i in range(tensor.shape[0]):
            fill(tensor[i : i + 1].reshape_dim(0, (1,)) if tensor.ndim == 1 else tensor[i], value)
        return
    source = None
    for piece in pieces(tensor):
        if source is None:  # the first piece is the largest
            source = ndarray(piece.shape, tensor.dtype)
            nisa.memset(source, value)
        nisa.dma_copy(piece, source[: piece.shape[0], : piece.shape[1]])


def pieces(tensor: NkiTensor) -> Iterator[NkiTensor]:
    """A contiguous HBM tensor in pieces of the shape of a small tile, none larger than the first."""
    flat = tensor.reshape((tensor.size,))
    partitions = min(active.builder().target.num_partitions, tensor.size)
    columns = min(_FILL_ELEMENTS, tensor.size // partitions)
    done = 0
    while done < tensor.size:
        rows = min(partitions, max(1, (tensor.size - done) // columns))
        count = min(columns, tensor.size - done)
        yield flat[done : done + rows * count].reshape((rows, count))
        done += rows * count


def require_tensor(x: object, operand: str, function: str) -> NkiTensor:
    """Raise InvalidOperand unless `x` is a tensor."""
    if isinstance(x, NkiTensor):
        return x
    raise InvalidOperand(instruction=f"nl.{function}", operand=operand, found=describe(x), expected="a tensor")


def as_shape(shape: object, function: str, operand: str = "shape") -> tuple[int, ...]:
    """Check a shape argument: a sequence of positive integers.

    Raises:
        InvalidOperand: it is anything else.
    """
    expected = "a tuple of positive ints"
    if not isinstance(shape, (tuple, list)) or not shape:
        raise InvalidOperand(
            instruction=f"nl.{function}",
            operand=operand,
            found=describe(shape),
            expected=expected,
        )
    for size in shape:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            fix = "use // instead of / to compute sizes" if isinstance(size, float) else ""
            raise InvalidOperand(
                instruction=f"nl.{function}",
                operand=operand,
                found=repr(tuple(shape)),
                expected=expected,
                fix=fix,
            )
    return tuple(int(size) for size in shape)


def element_type(dtype: DTypeLike, function: str) -> DType:
    """Check a dtype argument.

    Raises:
        InvalidOperand: the chip has no such element type.
    """
    try:
        return as_dtype(dtype)
    except KeyError:
        raise InvalidOperand(
            instruction=f"nl.{function}",
            operand="dtype",
            found=describe(dtype),
            expected="one of " + ", ".join(sorted(ALL)), fix="pass an nl dtype, for example nl.bfloat16",
        ) from None


def _as_address(address: object) -> tuple[int, int]:
    if isinstance(address, (tuple, list)) and len(address) == 2:
        partition, byte = address
        if type(partition) is int and type(byte) is int:
            return partition, byte
        if isinstance(partition, (int, np.integer)) and isinstance(byte, (int, np.integer)):
            return int(partition), int(byte)
    raise _bad_address(address, "(first partition, byte in the partition) as two ints")


def _bad_address(address: object, expected: str) -> InvalidOperand:
    return InvalidOperand(instruction="nl.ndarray", operand="address", found=repr(address), expected=expected)
