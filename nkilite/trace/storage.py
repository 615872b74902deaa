"""NumPy memory behind tensors while a kernel is simulated, and reading and writing views of it.

Tiles with an explicit address share one array per memory, so that tiles aliased by address alias here too; every
other buffer has an array of its own. Fresh memory is filled with the target's `unwritten_byte`.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nkilite.dtypes import Elements, cast, elements, stored
from nkilite.errors import IndirectOutOfBounds
from nkilite.ir.types import Buffer, IndirectKind, MemoryRegion, ViewType

if TYPE_CHECKING:
    from nkilite.trace.tensor import NkiTensor


_NO_RESERVE = 0x4000  # MAP_NORESERVE, for which mmap has no name


class Placement(NamedTuple):
    """Where a buffer is: byte `base` of `memory`, partitions `pitch` bytes apart."""

    memory: np.ndarray
    base: int
    pitch: int


def beyond_bounds(size: int) -> np.ndarray:
    """Memory of a tensor whose bounds take so many bytes, and of as many behind them, filled with zeros.

    A block that begins within a dynamic dimension may reach beyond its bound, where nothing is transferred. Only what
    is touched takes room.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):
        return np.zeros(2 * size, np.uint8)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (_NO_RESERVE if sys.platform == "linux" else 0)
    return np.frombuffer(mmap.mmap(-1, 2 * size, flags=flags), np.uint8)


class EagerMemory:
    """Allocates the placements of a simulated kernel's buffers."""

    def __init__(
        self, partitions: int, partition_bytes: dict[MemoryRegion, int], unwritten: int,
        sizes: Callable[[], Sequence[int]],
    ) -> None:
        """
        Args:
            unwritten: the byte that fresh memory is filled with.
            sizes: what gives the sizes of dynamic dimensions.
        """
        self._partitions, self._sizes = partitions, sizes
        self._unwritten = unwritten
        self._partition_bytes = partition_bytes
        self._physical: dict[MemoryRegion, np.ndarray] = {}

    def place(self, buffer: Buffer) -> Placement:
        """Fresh memory for a buffer; explicitly addressed ones share the physical array of their region."""
        if buffer.dims:
            sizes, found = self._sizes(), dict(buffer.dims)
            there = tuple(slice(sizes[found[axis]] if axis in found else n) for axis, n in enumerate(buffer.shape))
            bounds = beyond_bounds(buffer.size_bytes)
            np.ndarray(buffer.shape, buffer.dtype.numpy, bounds)[there].view(np.uint8)[...] = self._unwritten
            return Placement(bounds, 0, buffer.partition_bytes)
        if buffer.address is None:
            return Placement(np.full(buffer.size_bytes, self._unwritten, np.uint8), 0, buffer.partition_bytes)
        pitch = self._partition_bytes[buffer.region]
        memory = self._physical.get(buffer.region)
        if memory is None:
            memory = self._physical[buffer.region] = np.full(self._partitions * pitch, self._unwritten, np.uint8)
        partition, byte = buffer.address
        return Placement(memory, partition * pitch + byte, pitch)


def address(tensor: NkiTensor) -> tuple[Placement, int, tuple[int, ...]]:
    """Placement, byte offset into its memory, and byte strides of a tensor's static part."""
    placement, kind = tensor.storage.data, tensor.type
    assert placement.__class__ is Placement
    strides, offset = kind.byte_strides, tensor.byte_offset
    per_partition = tensor.storage.partition_bytes
    if kind.region.on_chip and per_partition != placement.pitch and per_partition:
        strides = strides[0] // per_partition * placement.pitch, *strides[1:]
        offset = offset // per_partition * placement.pitch + offset % per_partition
    return placement, placement.base + offset, strides


def array(tensor: NkiTensor) -> np.ndarray:
    """The NumPy view of a tensor without a runtime index."""
    placement, offset, strides = address(tensor)
    kind = tensor.type
    result: np.ndarray = np.ndarray(kind.shape, kind.dtype.numpy, placement.memory, offset, strides)
    return result


def read(tensor: NkiTensor) -> np.ndarray:
    """The values of a tensor: a view, or a gathered copy when it has a runtime index (absent rows read as zero).

    A copy too where the dtype's exponent bias is adjusted.
    """
    if tensor.index is None:
        dtype = tensor.type.dtype
        return elements(array(tensor), dtype) if dtype.is_biased else array(tensor)
    rows, places, inside = _indirect_rows(tensor)
    if inside.all():
        return elements(rows[places], tensor.dtype)
    values = np.zeros(tensor.shape, tensor.dtype.numpy)
    values[inside] = rows[tuple(p[inside] for p in places)]
    return elements(values, tensor.dtype)


def write(tensor: NkiTensor, values: np.ndarray | Elements) -> None:
    """Convert and store values of the tensor's shape (or one with the same number of elements)."""
    dtype = tensor.type.dtype
    converted = cast(values if isinstance(values, (np.ndarray, Elements)) else np.asarray(values), dtype)
    if dtype.is_biased:
        converted = stored(converted, dtype)
    if tensor.index is None:
        target = array(tensor)
        target[...] = converted.reshape(target.shape) if converted.size == target.size else converted
        return
    rows, places, inside = _indirect_rows(tensor)
    rows[tuple(p[inside] for p in places)] = converted.reshape(tensor.shape)[inside]  # of equal indices, the last stays


def located(tensor: NkiTensor) -> NkiTensor:
    """The tensor that a scalar runtime index chooses at this moment; other tensors as they are."""
    kind = tensor.type
    if tensor.index is None or kind.indirection is None or kind.indirection.kind is not IndirectKind.scalar:
        return tensor
    index = int(row_indices(tensor)[0])
    if not 0 <= index < kind.indirection.limit:
        return tensor
    here = ViewType.of(kind.region, kind.dtype, kind.shape, kind.strides)
    offset = index * kind.indirection.stride * kind.dtype.itemsize
    return tensor.of(tensor.storage, here, tensor.byte_offset + offset)


class Reach(NamedTuple):
    """The bytes that a tensor means at one moment, whatever becomes of its runtime index.

    Attributes:
        memory: that they are in.
        offset: of the first element, or of row 0.
        strides: bytes.
        rows: of a runtime index, one for each position of dimension 0; those out of bounds are left out.
        step: bytes from one row to the next.
    """

    memory: np.ndarray
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int
    positions: np.ndarray | None = None
    rows: np.ndarray | None = None
    step: int = 0

    @classmethod
    def of(cls, tensor: NkiTensor) -> Reach:
        """That of a tensor in HBM."""
        tensor = located(tensor)
        placement, offset, strides = address(tensor)
        found = cls(placement.memory, offset, tensor.shape, strides, tensor.dtype.itemsize)
        if tensor.index is None:
            return found
        assert tensor.type.indirection is not None
        indices = row_indices(tensor)
        inside = np.flatnonzero((indices >= 0) & (indices < tensor.type.indirection.limit))
        step = tensor.type.indirection.stride * tensor.dtype.itemsize
        return found._replace(positions=inside, rows=indices[inside], step=step)

    @property
    def span(self) -> tuple[int, int]:
        """The bytes [low, high) around all of them; empty if there are none."""
        reaches = [step * (n - 1) for step, n in zip(self.strides, self.shape, strict=True)]
        low = self.offset + sum(r for r in reaches if r < 0)
        high = self.offset + sum(r for r in reaches if r > 0) + self.itemsize
        if self.rows is None:
            return low, high
        if not self.rows.size:
            return 0, 0
        return low + int(self.rows.min()) * self.step, high + int(self.rows.max()) * self.step

    def read(self, memory: np.ndarray) -> np.ndarray:
        """What bytes as many as there are in the memory have at these places."""
        window, chosen = self._window(memory)
        return window if chosen is None else window[chosen]

    def mark(self, memory: np.ndarray, values: np.ndarray | int) -> None:
        """Set them there."""
        window, chosen = self._window(memory)
        window[... if chosen is None else chosen] = values

    def _window(self, memory: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
        word = f"u{self.itemsize}"
        if self.rows is None or self.positions is None:
            return np.ndarray(self.shape, word, memory, self.offset, self.strides), None
        limit = int(self.rows.max(initial=-1)) + 1
        window = np.lib.stride_tricks.as_strided(
            np.ndarray((1,), word, memory, self.offset), (self.shape[0], limit, *self.shape[1:]),
            (self.strides[0], self.step, *self.strides[1:]),
        )
        return window, (self.positions, self.rows)


def valid_rows(tensor: NkiTensor) -> np.ndarray | None:
    """Which positions of dimension 0 have an index inside its limit; None when the tensor has no runtime index."""
    if tensor.index is None or tensor.type.indirection is None:
        return None
    indices = row_indices(tensor)
    return (indices >= 0) & (indices < tensor.type.indirection.limit)


def check_bounds(tensor: NkiTensor, instruction: str) -> None:
    """Raise IndirectOutOfBounds for the first index outside its limit."""
    valid = valid_rows(tensor)
    if valid is not None and not valid.all():
        assert tensor.type.indirection is not None
        found = int(row_indices(tensor)[~valid][0])
        raise IndirectOutOfBounds(instruction=instruction, found=found, limit=tensor.type.indirection.limit)


def row_indices(tensor: NkiTensor) -> np.ndarray:
    """The runtime index of each position of dimension 0."""
    assert tensor.index is not None
    assert tensor.type.indirection is not None
    flat = array(tensor.index).astype(np.int64)
    if tensor.type.indirection.kind is IndirectKind.scalar:
        return np.broadcast_to(flat.reshape(-1)[:1], (tensor.shape[0],))
    # Position i of dimension 0 takes entry i of the index tile read column by column.
    result: np.ndarray = flat.reshape(flat.shape[0], -1).T.reshape(-1)[: tensor.shape[0]]
    return result


def _indirect_rows(tensor: NkiTensor) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """A view of rows by (position in dimension 0, index), the places that the tensor means, and which are inside.

    The view reaches beyond the memory where both are large; only places whose index is inside its limit are in it.
    """
    indirection = tensor.type.indirection
    assert indirection is not None
    placement, base, strides = address(tensor)
    step = indirection.stride * tensor.dtype.itemsize
    per_partition = tensor.storage.partition_bytes
    if tensor.type.region.on_chip and step % per_partition == 0:
        step = step // per_partition * placement.pitch
    first = np.ndarray((1,), f"u{tensor.dtype.itemsize}", placement.memory, base)  # as_strided knows no float8_e5m2
    words = np.lib.stride_tricks.as_strided(
        first, (tensor.shape[0], indirection.limit, *tensor.shape[1:]), (strides[0], step, *strides[1:])
    )
    rows = words.view(tensor.dtype.numpy)
    indices = row_indices(tensor)
    inside = (indices >= 0) & (indices < indirection.limit)
    return rows, (np.arange(tensor.shape[0]), indices), inside
