"""What `t[key]` selects: keys to shape, strides and offset. Source: "Tensor Indexing" in the NKI language guide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nkilite.errors import EmptySlice, IndexOutOfBounds, InvalidIndex, InvalidView, TooManyIndices, describe
from nkilite.ir.types import Problem
from nkilite.trace.indirection import is_runtime_index
from nkilite.trace.refusals import Refusals
from nkilite.trace.view_arguments import is_int, require_ints

if TYPE_CHECKING:
    from nkilite.trace.register import VirtualRegister
    from nkilite.trace.tensor import NkiTensor


@dataclass(slots=True, unsafe_hash=True)  # assigned once; frozen costs three times as much to make
class DynamicSlice:
    """`nl.ds(start, size)`: `size` elements from `start`. No tuple, which would be a subscript of two dimensions."""

    start: Any
    size: int


class RuntimeIndex(NamedTuple):
    """A dimension addressed by a value that is only known on the device, which lies below `limit`."""

    dim: int
    value: NkiTensor | VirtualRegister
    limit: int


class Selection(NamedTuple):
    """What an index expression selects.

    Attributes:
        offset: elements from the beginning of the indexed view.
        runtime: at most one, but for tensors with dynamic dimensions.
        first: what a static key did to dimension 0, "slice" or "index"; None when it kept all of it.
        problem: the first slice that selects nothing, which matters if somebody uses it.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    first: str | None
    runtime: tuple[RuntimeIndex, ...]
    problem: Problem | None


def select(tensor: NkiTensor, key: object) -> Selection:
    """Resolve an index expression of integers, slices, ranges, an ellipsis, nl.ds and at most one runtime index.

    Integers remove their dimension, except that dimension 0 stays on chip, and that the last removed one stays when
    fewer than two dimensions (in HBM: none) would be left.

    Raises:
        IndexOutOfBounds, TooManyIndices, InvalidIndex, InvalidView.
    """
    keys = _one_per_dimension(tensor, key)
    shape: list[int] = []
    strides: list[int] = []
    runtime: list[RuntimeIndex] = []
    offset = 0
    removed = (1, 1)
    first: str | None = None
    problem: Problem | None = None
    on_chip = tensor.type.region.on_chip
    for dim, (k, size, stride) in enumerate(zip(keys, tensor.shape, tensor.strides, strict=True)):
        if isinstance(k, (DynamicSlice, range)):
            k = _sliced(k, size, dim, tensor)
        if isinstance(k, DynamicSlice):
            if not k.size:
                problem = problem or Problem.of(EmptySlice, index="nl.ds of size 0", dim=dim, size=size)
            runtime.append(RuntimeIndex(dim, k.start, size - k.size + 1))
            shape.append(k.size)
            strides.append(stride)
        elif isinstance(k, slice):
            start, count, step = _bounds(k, size, dim, tensor)
            if not count:
                problem = problem or Problem.of(EmptySlice, index=_show(k), dim=dim, size=size)
            if dim == 0 and (start, count, step) != (0, size, 1):
                first = "slice"
            offset += start * stride
            shape.append(count)
            strides.append(stride * step)
        elif isinstance(k, (int, np.integer)) and not isinstance(k, bool):
            first = "index" if dim == 0 else first
            offset += _position(int(k), dim, tensor) * stride
            if on_chip and dim == 0:
                shape.append(1)
                strides.append(stride)
            else:
                removed = (1, stride)
        elif is_runtime_index(k):
            runtime.append(RuntimeIndex(dim, k, size))
            removed = (1, stride)
        else:
            hint = "use integers, slices, ranges, ..., nl.ds(start, size), or expand_dim() for a new axis."
            raise InvalidIndex(what=describe(k), hint=hint)
    if len(shape) < (2 if on_chip else 1):
        shape.append(removed[0])
        strides.append(removed[1])
    _require_one(runtime, tensor)
    return Selection(tuple(shape), tuple(strides), offset, first, tuple(runtime), problem)


def _position(index: int, dim: int, tensor: NkiTensor) -> int:
    """Where an integer points in a dimension: one below zero counts from its end."""
    size = tensor.shape[dim]
    if not -size <= index < size:
        raise IndexOutOfBounds(index=index, dim=dim, size=size, of=of_tensor(tensor))
    return index % size


def _sliced(key: DynamicSlice | range, size: int, dim: int, tensor: NkiTensor) -> DynamicSlice | slice:
    """The slice that nl.ds with a number and a range stand for; nl.ds with a runtime index as it is."""
    if isinstance(key, range):
        return _slice(key, size, dim, tensor)
    count = _count(key, size, dim, tensor)
    if not is_int(key.start):
        return DynamicSlice(key.start, count)
    start = int(key.start) % size if -size <= key.start < 0 else int(key.start)
    return slice(start, start + count)


def _require_one(runtime: list[RuntimeIndex], tensor: NkiTensor) -> None:
    """Raise InvalidView for more runtime indices than a view of the tensor can have."""
    if (len(runtime) > 1 and not tensor.storage.dims) or (runtime and tensor.index is not None):
        raise InvalidView(
            operation="indexing with a runtime value",
            reason="a view has at most one runtime index",
            hint="combine the indices into one before indexing.",
        )


def _count(key: DynamicSlice, size: int, dim: int, tensor: NkiTensor) -> int:
    """The elements that nl.ds selects, at most as many as there are."""
    require_ints("nl.ds", size=key.size)
    if not 0 <= key.size <= size:
        raise IndexOutOfBounds(index=f"nl.ds of size {key.size}", dim=dim, size=size, of=of_tensor(tensor))
    return int(key.size)


def _slice(key: range, size: int, dim: int, tensor: NkiTensor) -> slice:
    """The slice that selects the elements a range names, all of which must be there."""
    if not key:
        return slice(0, 0)
    if not (0 <= key[0] < size and 0 <= key[-1] < size):
        raise IndexOutOfBounds(index=str(key), dim=dim, size=size, of=of_tensor(tensor))
    stop = key[-1] + (1 if key.step > 0 else -1)
    return slice(key.start, None if stop < 0 else stop, key.step)


def cache_key(key: object) -> tuple[object, ...]:
    """A hashable stand-in for an index expression (slices hash only since Python 3.12), which tells 1 from 1.0."""
    found: list[object] = []
    for k in key if key.__class__ is tuple else (key,):
        if k.__class__ is slice:
            found += (k.start, k.stop, k.step, k.start.__class__, k.stop.__class__, k.step.__class__)
        elif k.__class__ is DynamicSlice:
            found += (k.start, k.size, k.start.__class__, k.size.__class__, DynamicSlice)
        else:
            found += (k, k.__class__)
    return tuple(found)


def _one_per_dimension(tensor: NkiTensor, key: object) -> list[object]:
    """The keys with the ellipsis, and what is left out at the end, replaced by full slices."""
    keys = list(key) if type(key) is tuple else [key]
    ellipses = [i for i, k in enumerate(keys) if k is Ellipsis]
    explicit = len(keys) - len(ellipses)
    if explicit > tensor.ndim:
        raise TooManyIndices(found=explicit, ndim=tensor.ndim, shape=tensor.shape)
    if len(ellipses) > 1:
        raise InvalidIndex(what="two ellipses", hint="use ... once.")
    fill = [slice(None)] * (tensor.ndim - explicit)
    if not ellipses:
        return keys + fill
    return keys[: ellipses[0]] + fill + keys[ellipses[0] + 1 :]


def _bounds(key: slice, size: int, dim: int, tensor: NkiTensor) -> tuple[int, int, int]:
    """(start, count, step) of a slice; unlike NumPy, bounds outside the dimension are an error."""
    for bound in (key.start, key.stop, key.step):
        if isinstance(bound, Refusals):
            bound.__index__()
        if bound is not None and not isinstance(bound, (int, np.integer)):
            hint = "use integers (// instead of /), or nl.ds for a runtime start."
            raise InvalidIndex(what=f"slice bound {describe(bound)}", hint=hint)
    step = 1 if key.step is None else int(key.step)
    if step == 0:
        raise InvalidIndex(what="a slice of step 0", hint="use a nonzero step.")
    for bound in (key.start, key.stop):
        if bound is not None and not -size <= bound <= size:
            raise IndexOutOfBounds(index=_show(key), dim=dim, size=size, of=of_tensor(tensor))
    start, stop, step = key.indices(size)
    return start, len(range(start, stop, step)), step


def _show(key: slice) -> str:
    text = f"{'' if key.start is None else key.start}:{'' if key.stop is None else key.stop}"
    return text if key.step is None else f"{text}:{key.step}"


def of_tensor(tensor: NkiTensor) -> str:
    """How messages about an index name the tensor."""
    return f" of {tensor.storage.label} with shape {tensor.shape}"
