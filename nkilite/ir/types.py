"""What an operand is: a memory region, a buffer in it, and an interned strided view type over that buffer."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from nkilite.dtypes import DType
from nkilite.errors import InvalidView, ViewError
from nkilite.ir.sizes import unknown
from nkilite.location import UNKNOWN, Location, here


class MemoryRegion(Enum):
    """The memories of a NeuronCore that a tensor can live in (public as `nl.sbuf`, `nl.psum`, `nl.hbm`, ...)."""

    sbuf = "sbuf"
    psum = "psum"
    private_hbm = "private_hbm"
    shared_hbm = "shared_hbm"
    registers = "registers"

    on_chip: bool
    """Whether dimension 0 of a tensor here is the partition dimension."""

    def __init__(self, value: str) -> None:
        self.on_chip = not value.endswith("hbm")  # an attribute: it is asked for every operand

    def __str__(self) -> str:
        result: str = self.value
        return result

    __hash__ = object.__hash__  # identity: enum members are singletons, and Enum.__hash__ is slow on the trace path


class IndirectKind(Enum):
    """How a view's address depends on a value only known on the device."""

    scalar = "scalar"  # one index moves the whole view
    vector = "vector"  # each position of dimension 0 has its own index

    __hash__ = object.__hash__


class OobMode(Enum):
    """What an indirect access does with an index outside its limit (public as `nisa.oob_mode`)."""

    error = 0  # raise IndirectOutOfBounds when the kernel runs
    skip = 1  # transfer nothing for that index

    __hash__ = object.__hash__


class Indirection:
    """Interned: the dynamic part of a view type.

    The address of an element grows by ``index * stride`` elements; an index outside [0, limit) is out of bounds.
    `index` is the view type of the index operand, which follows the tensor in the operand list.
    """

    __slots__ = ("index", "kind", "limit", "stride")
    _interned: ClassVar[dict[tuple[object, ...], Indirection]] = {}

    def __init__(self, kind: IndirectKind, index: ViewType, stride: int, limit: int) -> None:
        self.kind, self.index, self.stride, self.limit = kind, index, stride, limit

    @classmethod
    def of(cls, kind: IndirectKind, index: ViewType, stride: int, limit: int) -> Indirection:
        if unknown((stride, limit)):
            return cls(kind, index, stride, limit)
        key = (kind, index, stride, limit)
        found = cls._interned.get(key)
        if found is None:
            found = cls._interned[key] = cls(*key)
        return found

    def __str__(self) -> str:
        return f"{self.kind.value}({self.index}) * {self.stride} < {self.limit}"


class Problem(NamedTuple):
    """Why a view cannot be used: the error that whoever uses it gets."""

    error: type[ViewError]
    fields: dict[str, Any]

    @classmethod
    def of(cls, error: type[ViewError], **fields: object) -> Problem:
        """That of a view made at the user's line."""
        return cls(error, {**fields, "made_at": here()})

    def raised(self) -> ViewError:
        """The error, at the user's line that uses the view."""
        return self.error(**self.fields)


#: That of all views of tensors with dynamic dimensions, which an instruction gets in a form that checks the size.
BOUNDED = Problem(InvalidView, {
    "operation": "a tensor with a dynamic dimension", "reason": "this does not ask for its size",
    "hint": "copy the part that is needed with nisa.dma_copy, nl.load or nl.store.",
})


class ViewType:
    """Interned: memory, dtype, shape and element strides of a view; two equal types are the same object.

    Strides count elements of `dtype` in the row-major storage of the buffer. On chip, one step along dimension 0 is
    `strides[0]` elements, a multiple of the elements per partition; all other dimensions stay inside a partition.

    Attributes:
        size: number of elements.
        free_size: elements per partition.
        bytes, free_bytes: what the elements take when packed, and of it per partition.
        byte_strides: the strides in bytes.
        slices: what index expressions select from views of this type, kept by nkilite/trace/tensor.py.
        problem: for views that kernels may make but not use; such types are not interned, and in no signature.
    """

    __slots__ = (
        "byte_strides", "bytes", "dtype", "free_bytes", "free_size", "indirection", "ndim", "problem", "region",
        "shape", "size", "slices", "strides",
    )
    _interned: ClassVar[dict[tuple[object, ...], ViewType]] = {}
    _dense: ClassVar[dict[tuple[object, ...], ViewType]] = {}

    region: MemoryRegion
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    indirection: Indirection | None

    def __init__(
        self, region: MemoryRegion, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...],
        indirection: Indirection | None, problem: Problem | None = None,
    ) -> None:
        self.region, self.dtype, self.shape, self.strides, self.indirection = region, dtype, shape, strides, indirection
        self.ndim = len(shape)
        self.size = prod(shape)
        self.free_size = prod(shape[1:])
        self.bytes, self.free_bytes = self.size * dtype.itemsize, self.free_size * dtype.itemsize
        self.byte_strides = tuple([s * dtype.itemsize for s in strides])
        self.slices: dict[tuple[object, ...], tuple[ViewType, int]] = {}
        self.problem = problem

    @classmethod
    def of(
        cls,
        region: MemoryRegion,
        dtype: DType,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        indirection: Indirection | None = None,
        problem: Problem | None = None,
    ) -> ViewType:
        if problem is not None or unknown(shape) or unknown(strides):
            return cls(region, dtype, shape, strides, indirection, problem)
        key = (region, dtype, shape, strides, indirection)
        found = cls._interned.get(key)
        if found is None:
            found = cls._interned[key] = cls(*key)
        return found

    @classmethod
    def dense(cls, region: MemoryRegion, dtype: DType, shape: tuple[int, ...]) -> ViewType:
        """The type of a view of row-major storage that covers it."""
        if unknown(shape):
            return cls.of(region, dtype, shape, contiguous_strides(shape))
        key = (region, dtype, shape)
        found = cls._dense.get(key)
        if found is None:
            found = cls._dense[key] = cls.of(region, dtype, shape, contiguous_strides(shape))
        return found

    @property
    def partitions(self) -> int:
        return self.shape[0]

    def span(self) -> tuple[int, int]:
        """The lowest and highest element position the view touches, relative to its offset."""
        return extent(self.shape, self.strides)

    def __str__(self) -> str:
        dims = ", ".join(f"[{s}, {n}]" for s, n in zip(self.strides, self.shape, strict=True))
        dynamic = f" + {self.indirection}" if self.indirection else ""
        return f"{self.dtype} {self.region} [{dims}]{dynamic}"

    __repr__ = __str__


def extent(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """The lowest and highest position of an element, relative to the first one and in the unit of the strides."""
    ends = [s * (n - 1) for s, n in zip(strides, shape, strict=True)]
    return sum(e for e in ends if e < 0), sum(e for e in ends if e > 0)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major element strides."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * shape[i + 1]
    return tuple(strides)


class BufferKind(Enum):
    """Where a buffer's storage comes from."""

    internal = "internal"  # allocated by the kernel
    input = "input"  # an argument array
    constant = "constant"  # embedded in the program
    registers = "registers"  # an engine's, kept between instructions


_INTERNAL = BufferKind.internal


class Buffer:
    """Storage: a dense row-major array in one memory.

    On chip each of `shape[0]` partitions holds `partition_bytes`. `address` is (first partition, byte in partition),
    given by the user or, after the allocation pass, by the planner. `type` is that of the view that covers it.
    `open_id` is `id` until the buffer is closed, and gone from then on: what records operands by it refuses tensors of
    an earlier kernel call, at no cost to the others. `loop` is the number of the loop in whose body the buffer was
    made, None outside of loops: such a buffer is a fresh one in every iteration and closes with the body. `dims` has
    its dynamic dimensions: their positions, and their places among the sizes of a launch.
    """

    __slots__ = (
        "address", "data", "dims", "dtype", "id", "kind", "location", "loop", "name", "open_id", "partition_bytes",
        "region", "shape", "size_bytes", "type",
    )

    id: int
    open_id: int
    type: ViewType
    region: MemoryRegion
    shape: tuple[int, ...]
    dtype: DType
    size_bytes: int
    partition_bytes: int
    name: str
    kind: BufferKind
    address: tuple[int, int] | None
    location: Location
    data: np.ndarray | None
    loop: int | None
    dims: tuple[tuple[int, int], ...]

    @classmethod
    def of(
        cls,
        id: int,
        region: MemoryRegion,
        shape: tuple[int, ...],
        dtype: DType,
        name: str = "",
        kind: BufferKind = BufferKind.internal,
        address: tuple[int, int] | None = None,
        location: Location = UNKNOWN,
        data: Any = None,
        loop: int | None = None,
        dims: tuple[tuple[int, int], ...] = (),
    ) -> Buffer:
        """No constructor: `internal` would have to go around it."""
        made = cls.internal(id, ViewType.dense(region, dtype, shape), name, address, location, loop)
        made.kind, made.data, made.dims = kind, data, dims
        return made

    @classmethod
    def internal(cls, id: int, type: ViewType, name: str, address: Any, location: Location, loop: int | None) -> Buffer:
        """A kernel's own of a known type."""
        made = cls()
        made.id = made.open_id = id
        made.type, made.region, made.shape, made.dtype = type, type.region, type.shape, type.dtype
        made.partition_bytes = type.free_bytes
        made.size_bytes = type.bytes
        made.name, made.address, made.location, made.loop = name, address, location, loop
        made.kind, made.data, made.dims = _INTERNAL, None, ()
        return made

    @property
    def partitions(self) -> int:
        return self.shape[0]

    @property
    def problem(self) -> Problem | None:
        """What views of it have: where it ends is checked by those who know how (nkilite/isa/dynamic.py)."""
        return BOUNDED if self.dims else None

    def close(self) -> None:
        """The kernel call or loop body that made the buffer has ended."""
        if hasattr(self, "open_id"):
            del self.open_id

    @property
    def label(self) -> str:
        """Its name, or a generated one that is stable within a program."""
        return self.name or f"{_PREFIX.get(self.region, 't')}{self.id}"

    def __repr__(self) -> str:
        return f"Buffer({self.label}: {self.dtype} {self.shape} in {self.region})"


_PREFIX = {
    MemoryRegion.sbuf: "sb",
    MemoryRegion.psum: "ps",
    MemoryRegion.private_hbm: "hbm",
    MemoryRegion.shared_hbm: "hbm",
    MemoryRegion.registers: "reg",
}
