"""NkiTensor: a strided view of a buffer, the value kernels compute with.

All view operations are free: they compose a new access pattern over the same storage while the kernel is traced.
Semantics: the "Tensor Values" and "Tensor Indexing" sections of the public NKI language guide, and "NKI Access
Patterns" for `ap`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import NoReturn

import numpy as np

from nkilite.dtypes import DType, DTypeLike
from nkilite.errors import (
    IndexOutOfBounds,
    InvalidDimension,
    InvalidReshape,
    InvalidView,
    TensorAsNumber,
)
from nkilite.ir.types import Buffer, Indirection, IndirectKind, MemoryRegion, Problem, ViewType, contiguous_strides
from nkilite.trace import active, bounded, indexing, layout
from nkilite.trace.indirect import IndirectTensor, invalid
from nkilite.trace.indirection import index_tensor, reachable, require_reach
from nkilite.trace.rearrange import rearrange
from nkilite.trace.refusals import Refusals, TensorBase
from nkilite.trace.storage import read
from nkilite.trace.view_arguments import element_type, is_int, pattern_key, pattern_pairs, pattern_problem, require_ints

_SLICES_KEPT = 4096  # per view type; kernels do not come back to more
_BOUNDS = frozenset({int, type(None)})  # of slices


PASS_DATA = "pass its .data, which is a tensor"


def is_grid(value: object) -> bool:
    """Whether it is a grid of tiles, or a cell of one, in the place of a tensor."""
    return isinstance(value, Refusals) and not isinstance(value, NkiTensor)


class NkiTensor(TensorBase):
    """A view: `shape`, `strides`, `offset` (elements of `dtype`) over storage in `buffer` memory.

    A slice that selects nothing and a pattern that leaves its storage are views, too, which only fail where they are
    used: their types have a `problem`, which what is made of them inherits.

    On-chip tensors (SBUF, PSUM) keep dimension 0 as the partition dimension and have at least two dimensions; HBM
    tensors have at least one. A tensor is always true in a condition, so kernels can test optional ones for None.
    """

    __slots__ = ("byte_offset", "index", "storage", "type")

    type: ViewType
    storage: Buffer
    byte_offset: int
    index: NkiTensor | None

    @classmethod
    def of(cls, storage: Buffer, type: ViewType, byte_offset: int = 0, index: NkiTensor | None = None) -> NkiTensor:
        """No constructor: without one, where every nanosecond counts, `NkiTensor()` and what it has cost half."""
        made = cls()
        made.storage, made.type, made.byte_offset, made.index = storage, type, byte_offset, index
        return made

    # --- attributes -----------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def strides(self) -> tuple[int, ...]:
        """Element strides; on chip, one partition is as many elements as a partition of the storage holds."""
        return self.type.strides

    @property
    def offset(self) -> int:
        """Elements from the beginning of the storage."""
        return self.byte_offset // self.type.dtype.itemsize

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def buffer(self) -> MemoryRegion:
        """The memory the tensor is in."""
        return self.type.region

    @property
    def name(self) -> str:
        return self.storage.name

    @property
    def data(self) -> NkiTensor:
        """The tensor itself, so that code for grids (nl.tiles) takes tensors, too."""
        return self

    @property
    def base_tensor(self) -> NkiTensor:
        """The tensor that this one is a view of, itself if it is none; nki-library 2.29 asks arguments for it."""
        return whole(self.storage)

    @property
    def ndim(self) -> int:
        return self.type.ndim

    @property
    def size(self) -> int:
        result: int = self.type.size
        return result

    @property
    def address(self) -> tuple[int, int] | None:
        """(first partition, byte) given by the user, or None when the planner chooses."""
        return self.storage.address

    def is_contiguous(self) -> bool:
        """Whether the elements are dense and row-major; on chip, within each partition."""
        first = 1 if self.type.region.on_chip else 0
        expected = 1
        for size, stride in zip(reversed(self.shape[first:]), reversed(self.strides[first:]), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True

    def is_indirect(self) -> bool:
        """Whether the address depends on an index read on the device."""
        return self.index is not None

    def get_pattern(self) -> list[list[int]]:
        """The access pattern as [[stride, count], ...], one pair per dimension."""
        return [[s, n] for s, n in zip(self.strides, self.shape, strict=True)]

    # --- indexing -------------------------------------------------------------------------------------------------

    def __getitem__(self, key: object) -> NkiTensor:
        """Index with integers, slices, ranges, Ellipsis and nl.ds.

        Raises:
            IndexOutOfBounds, TooManyIndices, InvalidIndex; EmptySlice where a view of nothing is used.
        """
        # What a key selects depends on the type of the view alone: its type and distance are found once for all tiles.
        known: tuple[object, ...] | None = None
        first = middle = last = None
        if type(key) is tuple:
            if len(key) == 2:
                first, last = key
            elif len(key) == 3 and type(key[1]) is int:
                first, middle, last = key
        if first.__class__ is slice and last.__class__ is slice and first.step is None and last.step is None:
            known = top, bottom, _, left, right = first.start, first.stop, middle, last.start, last.stop
            plain = top.__class__ in _BOUNDS and bottom.__class__ in _BOUNDS
            if not (plain and left.__class__ in _BOUNDS and right.__class__ in _BOUNDS):
                known = None
        if known is None:
            known = indexing.cache_key(key)
        try:
            kind, distance = self.type.slices[known]
        except KeyError:
            return self._select(key, known)
        except TypeError:
            return self._getitem(key)
        if self.index is not None:
            return self._getitem(key)
        view = NkiTensor()
        view.storage, view.type, view.index = self.storage, kind, None
        view.byte_offset = self.byte_offset + distance if self.byte_offset else distance  # shares the int
        return view

    def _select(self, key: object, known: tuple[object, ...]) -> NkiTensor:
        """What a key selects that is new for views of this type."""
        view = self._getitem(key)
        if view.index is None and view.type.problem is None and len(self.type.slices) < _SLICES_KEPT:
            self.type.slices[known] = view.type, view.byte_offset - self.byte_offset
        return view

    def _getitem(self, key: object) -> NkiTensor:
        found = indexing.select(self, key)
        if found.first is not None and self._vector_indexed():
            raise InvalidView(operation=found.first, reason="dimension 0 has a runtime index per position",
                              hint="slice the index tensor instead.")
        if not found.runtime:
            return self._view(found.shape, found.strides, found.offset, found.problem)
        if len(found.runtime) > 1:
            one, stride = bounded.combine[0](self, found.runtime)
            return self._indirect(
                IndirectKind.scalar, one, stride, self.storage.type.size, found.shape, found.strides,
                self.byte_offset + found.offset * self.dtype.itemsize, self.dtype, found.problem or self.type.problem,
            )
        ((dim, index, limit),) = found.runtime
        return self._dynamic(found.shape, found.strides, found.offset, dim, index, limit, found.problem)

    def __setitem__(self, key: object, value: object) -> None:
        """Copy `value` (a tensor or a number) into the view, as nisa.tensor_copy, dma_copy or memset would."""
        assign[0](self[key], value)

    def slice(self, dim: int, start: int, end: int, step: int = 1) -> NkiTensor:
        """Elements start, start + step, ... below end of one dimension. Raises IndexOutOfBounds."""
        dim = self._dim(dim, "slice")
        require_ints("slice", start=start, end=end, step=step)
        if step < 1:
            raise InvalidView(operation="slice", reason=f"step {step} is below 1", hint="use a positive step.")
        if not 0 <= start <= end <= self.shape[dim]:
            raise IndexOutOfBounds(index=f"{start}:{end}", dim=dim, size=self.shape[dim], of=indexing.of_tensor(self))
        return self[(slice(None),) * dim + (slice(start, end, step),)]

    def select(self, dim: int, index: object) -> NkiTensor:
        """Remove a dimension by choosing one of its elements, by an integer or by a runtime index.

        Args:
            index: an int; or a [1, 1] int32/uint32 SBUF tensor or a register, read when the kernel runs.
        """
        dim = self._dim(dim, "select")
        if isinstance(index, (int, np.integer)):
            if not 0 <= index < self.shape[dim]:
                raise IndexOutOfBounds(index=index, dim=dim, size=self.shape[dim], of=indexing.of_tensor(self))
            return self[(slice(None),) * dim + (int(index),)]
        self._guard_partition(dim, "select with a runtime index", "select a free dimension.")
        if self.index is not None:
            raise InvalidView(operation="select", reason="the view already has a runtime index",
                              hint="check is_indirect() first.")
        shape = self.shape[:dim] + self.shape[dim + 1:]
        strides = self.strides[:dim] + self.strides[dim + 1:]
        if len(shape) < (2 if self.type.region.on_chip else 1):
            shape, strides = (*shape, 1), (*strides, 1)
        return self._dynamic(shape, strides, 0, dim, index, self.shape[dim])

    def vector_select(self, dim: int, vector_offset: NkiTensor) -> NkiTensor:
        """Give every position of dimension 0 its own runtime index into this HBM tensor (gather or scatter)."""
        require_ints("vector_select", dim=dim)
        if dim != 0 or self.type.region.on_chip or self.index is not None:
            raise InvalidView(
                operation="vector_select",
                reason=f"needs dim=0 of an HBM tensor without a runtime index (dim={dim}, memory {self.buffer})",
                hint="move the data to HBM, or use nisa.nc_n_gather / nisa.local_gather on chip.",
            )
        index = index_tensor(vector_offset, "vector_offset")
        count = index.shape[0]
        return self._indirect(
            IndirectKind.vector, index, self.strides[0], self.shape[0],
            (count, *self.shape[1:]), (0, *self.strides[1:]), self.byte_offset, self.dtype, self.type.problem,
        )

    def indirect(self, index: NkiTensor, num_elem: int | None = None) -> IndirectTensor:
        """Columns chosen on the device, for an instruction of a compute engine to read or write; trn3 and later.

        Every 16 neighbouring partitions, 32 for the Tensor Engine, share their offsets: number i is in partition
        ``i % 16`` of them in `index`, at position ``i // 16``. What is written to one column twice keeps the last.

        Args:
            index: int32, uint32 or uint16 tile in SBUF with as many partitions as this tile, a multiple of 16 or 32.
            num_elem: offsets that are used; all of index by default.

        Returns:
            an operand of shape (partitions, num_elem).
        """
        if not isinstance(index, NkiTensor):
            raise invalid("index", index, "a tile of integers in SBUF")
        return IndirectTensor(self, index, num_elem)

    # --- shape ----------------------------------------------------------------------------------------------------

    def permute(self, dims: Sequence[int]) -> NkiTensor:
        """Reorder dimensions; on chip the partition dimension stays first."""
        order = tuple(dims) if isinstance(dims, (tuple, list)) else (dims,)
        require_ints("permute", **{f"dims[{i}]": d for i, d in enumerate(order)})
        dims = tuple(int(d) for d in order)
        if sorted(dims) != list(range(self.ndim)):
            raise InvalidView(operation="permute", reason=f"{dims} is not a permutation of {tuple(range(self.ndim))}",
                              hint="name every dimension once.")
        if dims[0] != 0:
            self._guard_partition(0, "permute", "transpose partitions with nisa.nc_transpose or dma_transpose.")
        return self._view(tuple(self.shape[d] for d in dims), tuple(self.strides[d] for d in dims), 0)

    def broadcast(self, dim: int, size: int) -> NkiTensor:
        """Repeat a dimension of size 1 `size` times without a copy (stride 0)."""
        dim = self._dim(dim, "broadcast")
        require_ints("broadcast", size=size)
        if size < 1:
            raise InvalidView(operation="broadcast", reason=f"size {size} is below 1", hint="repeat it at least once.")
        self._guard_partition(dim, "broadcast", "copy to the other partitions, or use a matmul with ones.")
        if self.shape[dim] != 1:
            raise InvalidView(operation="broadcast", reason=f"dimension {dim} has size {self.shape[dim]}, not 1",
                              hint="only a dimension of size 1 can be repeated.")
        shape = (*self.shape[:dim], size, *self.shape[dim + 1:])
        return self._view(shape, (*self.strides[:dim], 0, *self.strides[dim + 1:]), 0)

    def expand_dim(self, dim: int) -> NkiTensor:
        """Insert a dimension of size 1 at `dim`."""
        require_ints("expand_dim", dim=dim)
        if not 0 <= dim <= self.ndim:
            raise InvalidDimension(operation="expand_dim", found=dim, shape=self.shape, last=self.ndim)
        self._guard_partition(dim, "expand_dim", "insert it after the partition dimension.")
        stride = self.strides[dim] * self.shape[dim] if dim < self.ndim else 1
        strides = (*self.strides[:dim], stride, *self.strides[dim:])
        return self._view((*self.shape[:dim], 1, *self.shape[dim:]), strides, 0)

    def squeeze_dim(self, dim: int) -> NkiTensor:
        """Remove a dimension of size 1."""
        dim = self._dim(dim, "squeeze_dim")
        self._guard_partition(dim, "squeeze_dim", "keep the partition dimension.")
        if self.shape[dim] != 1:
            raise InvalidView(operation="squeeze_dim", reason=f"dimension {dim} has size {self.shape[dim]}, not 1",
                              hint="select an element of it instead.")
        return self._view(self.shape[:dim] + self.shape[dim + 1:], self.strides[:dim] + self.strides[dim + 1:], 0)

    def reshape_dim(self, dim: int, shape: Sequence[int]) -> NkiTensor:
        """Split one dimension into several; one size may be -1."""
        dim = self._dim(dim, "reshape_dim")
        wanted = self._sizes((self.shape[dim],), shape)
        new = layout.infer_size(wanted, self.shape[dim])
        if new is None:
            raise InvalidReshape(shape=(self.shape[dim],), new_shape=wanted, hint="make the products equal.",
                                 reason=f"the product is not {self.shape[dim]}")
        if len(new) > 1:
            self._guard_partition(dim, "reshape_dim", "partitions cannot be split by a view.")
        strides = tuple(s * self.strides[dim] for s in contiguous_strides(new))
        return self._view((*self.shape[:dim], *new, *self.shape[dim + 1:]),
                          (*self.strides[:dim], *strides, *self.strides[dim + 1:]), 0)

    def flatten_dims(self, start_dim: int, end_dim: int) -> NkiTensor:
        """Merge dimensions start_dim..end_dim (inclusive), which must be contiguous in memory."""
        start_dim, end_dim = self._dim(start_dim, "flatten_dims"), self._dim(end_dim, "flatten_dims")
        if end_dim > start_dim:
            self._guard_partition(start_dim, "flatten_dims", "start after the partition dimension.")
        shape, strides = self.shape[start_dim:end_dim + 1], self.strides[start_dim:end_dim + 1]
        stride = layout.merge(shape, strides)
        if stride is None or not shape:
            raise InvalidReshape(shape=shape, new_shape=(prod(shape),), reason=f"strides {strides} are not contiguous",
                                 hint="flatten before permuting or slicing.")
        return self._view((*self.shape[:start_dim], prod(shape), *self.shape[end_dim + 1:]),
                          (*self.strides[:start_dim], stride, *self.strides[end_dim + 1:]), 0)

    def reshape(self, *shape: object) -> NkiTensor:
        """View the same elements, in row-major order, under another shape.

        On chip the partition dimension keeps its size.

        Raises:
            InvalidReshape: the sizes differ, partitions would change, or the strides do not allow it.
        """
        wanted = self._sizes(self.shape, shape[0] if len(shape) == 1 else shape)
        new = layout.infer_size(wanted, self.size)
        if new is None:
            raise InvalidReshape(shape=self.shape, new_shape=wanted, hint="make the products equal.",
                                 reason="more than one size is unknown" if wanted.count(-1) > 1 else
                                 f"they have {self.size} and {abs(prod(wanted))} elements")
        on_chip = self.type.region.on_chip
        if (on_chip or self._vector_indexed()) and new[0] != self.shape[0]:
            raise InvalidReshape(
                shape=self.shape, new_shape=wanted, reason=f"the partition dimension would change from "
                f"{self.shape[0]} to {new[0]}", hint="data moves between partitions only by nisa.dma_copy, "
                "nc_transpose or a matmul; reshape the HBM tensor instead.")
        if on_chip or self._vector_indexed():
            free = layout.reshape_strides(self.shape[1:], self.strides[1:], new[1:])
            strides = None if free is None else (self.strides[0], *free)
        else:
            strides = layout.reshape_strides(self.shape, self.strides, new)
        if strides is None:
            raise InvalidReshape(shape=self.shape, new_shape=wanted, reason=f"strides {self.strides} do not allow it",
                                 hint="reshape before permuting or slicing, or copy first.")
        return self._view(new, strides, 0)

    def rearrange(
        self,
        src_pattern: Sequence[str | tuple[str, ...]],
        dst_pattern: Sequence[str | tuple[str, ...]],
        fixed_sizes: dict[str, int] | None = None,
    ) -> NkiTensor:
        """Split, reorder and merge dimensions by name, einops style.

        Args:
            src_pattern: a name per dimension, or a tuple of names for a dimension that is split.
            dst_pattern: the same names in the wanted order; a tuple of names is merged into one dimension.
            fixed_sizes: sizes of split names; one name per group may be left out.
        """
        return rearrange(self, src_pattern, dst_pattern, fixed_sizes or {})

    # --- reinterpretation -----------------------------------------------------------------------------------------

    def view(self, dtype: DTypeLike) -> NkiTensor:
        """Reinterpret the bits as another dtype; the size of the (contiguous) last dimension is rescaled."""
        new = element_type("view", dtype)
        old_size, new_size = self.dtype.itemsize, new.itemsize
        if self.index is not None:
            raise InvalidView(operation="view", reason="the view has a runtime index",
                              hint="reinterpret before indexing.")
        if old_size == new_size:
            return self._reinterpreted(new, self.shape, self.strides)
        last_bytes = self.shape[-1] * old_size
        if self.shape[-1] != 1 and self.strides[-1] != 1:
            raise InvalidView(operation="view", reason=f"the last dimension has stride {self.strides[-1]}",
                              hint="only a contiguous last dimension can be reinterpreted.")
        strides_bytes = [s * old_size for s in self.strides[:-1]]
        if last_bytes % new_size or self.byte_offset % new_size or any(
            s % new_size for s, n in zip(strides_bytes, self.shape[:-1], strict=True) if n > 1
        ):
            raise InvalidView(operation="view", reason=f"{last_bytes} bytes at byte {self.byte_offset} do not divide "
                              f"into {new} elements", hint=f"make sizes and offsets multiples of {new_size} bytes.")
        shape = (*self.shape[:-1], last_bytes // new_size)
        return self._reinterpreted(new, shape, (*(s // new_size for s in strides_bytes), 1))

    reinterpret_cast = view

    def ap(
        self,
        pattern: Sequence[Sequence[int]],
        offset: int | None = None,
        scalar_offset: object = None,
        vector_offset: NkiTensor | None = None,
        indirect_dim: int = 0,
        dtype: DTypeLike | None = None,
    ) -> NkiTensor:
        """Address the storage directly by [[stride, count], ...]; the shape and strides of this view are ignored.

        Args:
            offset: elements added to this view's own offset; None adds nothing.
            scalar_offset: a [1, 1] SBUF tensor, a register or a scalar, in HBM of 64 bits, too; the address grows by it
                times the stride of `indirect_dim` in this tensor's shape (not in the pattern).
            vector_offset: an SBUF tensor with one index per position of the first pattern dimension.
            dtype: reinterpret the storage; strides, counts and offset then count such elements.

        Raises:
            InvalidView; PartitionStrideMismatch, PatternOutOfBounds where such a view is used.
        """
        known: tuple[object, ...] | None = None
        if scalar_offset is None and vector_offset is None and not self.storage.dims:
            known = pattern_key(pattern, offset, dtype)
        if known is not None:
            # Whether a pattern fits depends on the type of the storage and on where it begins.
            known = known, self.byte_offset, self.type.dtype
            found = self.storage.type.slices.get(known)
            if found is not None:
                return NkiTensor.of(self.storage, *found)
        element = element_type(".ap()", dtype) if dtype is not None else self.dtype
        pairs = pattern_pairs(pattern)
        if offset is not None:
            require_ints(".ap()", offset=offset)
        require_ints(".ap()", indirect_dim=indirect_dim)
        strides, shape = tuple(s for s, _ in pairs), tuple(n for _, n in pairs)
        byte_offset = self.byte_offset + int(offset or 0) * element.itemsize
        if scalar_offset is not None and vector_offset is not None:
            raise InvalidView(operation=".ap()", reason="both scalar_offset and vector_offset are given",
                              hint="pass one of them.")
        scattered = vector_offset is not None
        problem = pattern_problem(self.storage, pairs, scattered, byte_offset, element) or self.storage.problem
        if scalar_offset is None and not scattered:
            type = ViewType.of(self.type.region, element, shape, strides, problem=problem)
            if known is not None and problem is None and len(self.storage.type.slices) < _SLICES_KEPT:
                self.storage.type.slices[known] = type, byte_offset
            return NkiTensor.of(self.storage, type, byte_offset)
        if not 0 <= indirect_dim < self.ndim:
            raise InvalidDimension(operation=".ap(indirect_dim=)", found=indirect_dim, shape=self.shape,
                                   last=self.ndim - 1)
        stride, rest = divmod(prod(self.shape[indirect_dim + 1:]) * self.dtype.itemsize, element.itemsize)
        if rest:
            raise InvalidView(
                operation=".ap()", reason=f"dimension {indirect_dim} of shape {self.shape}, {self.dtype}, has no whole "
                f"number of {element} elements from one index to the next", hint="reinterpret rows of whole elements.")
        kind = IndirectKind.vector if scattered else IndirectKind.scalar
        index = index_tensor(vector_offset if scattered else scalar_offset, f"{kind.value}_offset")
        strides = (0, *strides[1:]) if scattered else strides
        limit = self.shape[indirect_dim]
        return self._indirect(kind, index, stride, limit, shape, strides, byte_offset, element, problem)

    # --- looking at it while simulating -------------------------------------------------------------------------------

    def numpy(self) -> np.ndarray:
        """The values, while simulating (nki.simulate); a copy.

        Raises:
            TensorAsNumber: the kernel is being traced, so there are no values yet.
            ViewError: the view cannot be used.
        """
        if self.type.problem is not None:
            raise self.type.problem.raised()
        if self.storage.data is None:
            raise TensorAsNumber(use="an array", hint="run the kernel with nki.simulate to look at values.")
        builder = active.builder_or_none()
        if builder is not None:
            builder.looked_at()
        result: np.ndarray = read(self).copy()
        return result

    def __repr__(self) -> str:
        text = f"NkiTensor({self.storage.label}: {self.dtype} {self.shape} in {self.buffer})"
        if self.storage.data is not None and self.index is None and self.type.problem is None:
            text += f"\n{self.numpy()}"
        return text

    # --- internals ------------------------------------------------------------------------------------------------

    def _view(
        self, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, problem: Problem | None = None
    ) -> NkiTensor:
        kind = self.type
        return NkiTensor.of(
            self.storage,
            ViewType.of(kind.region, kind.dtype, shape, strides, kind.indirection, problem or kind.problem),
            self.byte_offset + offset * kind.dtype.itemsize,
            self.index,
        )

    def _reinterpreted(self, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...]) -> NkiTensor:
        type = ViewType.of(self.type.region, dtype, shape, strides, problem=self.type.problem)
        return NkiTensor.of(self.storage, type, self.byte_offset)

    def _dynamic(self, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, dim: int, index: object,
                 limit: int, problem: Problem | None = None) -> NkiTensor:
        if self.type.region.on_chip and dim == 0:
            self._guard_partition(0, "a runtime index", "index a free dimension.")
        tensor = index_tensor(index, "runtime index")
        return self._indirect(IndirectKind.scalar, tensor, self.strides[dim], limit, shape, strides,
                              self.byte_offset + offset * self.dtype.itemsize, self.dtype,
                              problem or self.type.problem)

    def _indirect(self, kind: IndirectKind, index: NkiTensor, stride: int, limit: int, shape: tuple[int, ...],
                  strides: tuple[int, ...], byte_offset: int, dtype: DType, problem: Problem | None) -> NkiTensor:
        require_reach(index, kind, self.type.region)
        if problem is None:
            limit = min(limit, reachable(self.storage, dtype, byte_offset, shape, strides, stride))
        indirection = Indirection.of(kind, index.type, stride, max(limit, 0))
        type = ViewType.of(self.type.region, dtype, shape, strides, indirection, problem)
        return NkiTensor.of(self.storage, type, byte_offset, index)

    @staticmethod
    def _sizes(shape: tuple[int, ...], new_shape: object) -> tuple[int, ...]:
        """The sizes a reshape asks for, which must be ints."""
        sizes = tuple(new_shape) if isinstance(new_shape, (tuple, list)) else (new_shape,)
        if not sizes or not all(is_int(n) for n in sizes):
            raise InvalidReshape(shape=shape, new_shape=sizes, reason="a shape is one or more ints",
                                 hint="use // instead of / to compute sizes.")
        return tuple(int(n) for n in sizes)

    def _vector_indexed(self) -> bool:
        indirection = self.type.indirection
        return indirection is not None and indirection.kind is IndirectKind.vector

    def _guard_partition(self, dim: int, operation: str, hint: str) -> None:
        if dim == 0 and (self.type.region.on_chip or self._vector_indexed()):
            raise InvalidView(operation=operation, hint=hint, reason="dimension 0 is the partition dimension")

    def _dim(self, dim: int, operation: str) -> int:
        require_ints(operation, dim=dim)
        if not -self.ndim <= dim < self.ndim:
            raise InvalidDimension(operation=operation, found=dim, shape=self.shape, last=self.ndim - 1)
        return dim % self.ndim


def whole(storage: Buffer) -> NkiTensor:
    """The tensor that is all of a buffer."""
    kind = storage.type
    if storage.dims:
        kind = ViewType.of(kind.region, kind.dtype, kind.shape, kind.strides, problem=storage.problem)
    return NkiTensor.of(storage, kind)


def _no_assignment(view: NkiTensor, value: object) -> NoReturn:
    raise AssertionError("nkilite.language was not imported")


# How `t[...] = value` copies: set by nkilite.language, which knows the instructions.
assign: list[Callable[[NkiTensor, object], None]] = [_no_assignment]
