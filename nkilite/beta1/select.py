"""What a Beta-1 subscript selects: index tensors, ints and slices become one access pattern over the same storage.

Index tensors follow NumPy's rules: they broadcast together, and the dimensions of their grid take the place of those
they index. On chip the partition dimension is indexed along dimension 0 of the grid. A pattern is found once for all
subscripts of one structure; an access then costs the sum of its offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any

import numpy as np

from nkilite.beta1.index import Grid, Index, LoopIndex, index
from nkilite.beta1.mask import Box
from nkilite.errors import IndexOutOfBounds, InvalidIndex, ShapeMismatch, TooManyIndices, describe
from nkilite.ir.partitions import excess
from nkilite.ir.types import ViewType
from nkilite.trace.indexing import DynamicSlice, of_tensor
from nkilite.trace.tensor import NkiTensor

_KEPT = 4096  # subscripts per view type; kernels do not come back to more
_BOUNDS = frozenset({int, LoopIndex, NoneType})
_STATIC = frozenset({int, LoopIndex, Index})
UNEQUAL = frozenset({bool, float, np.bool_, np.float16, np.float32, np.float64})  # to ints, which they seem to equal
_patterns: dict[tuple[object, ...], ViewType] = {}
_steps: dict[ViewType, tuple[int, ...]] = {}


#: What subscripts select of views of a type: the type of what they select, its distance in bytes, and which items of
#: the subscript are ints.
known: dict[ViewType, dict[tuple[object, ...], tuple[ViewType, int, tuple[int, ...]]]] = {}


def find(view: NkiTensor, key: tuple[object, ...]) -> NkiTensor | None:
    """What a subscript selects if it has selected something of such a view before; None otherwise."""
    try:
        kind, distance, numbers = known[view.type][key]
    except (KeyError, TypeError):  # new, or with slices in it
        return None
    for position in numbers:
        if key[position].__class__ in UNEQUAL:
            return None
    found = NkiTensor()
    found.storage, found.type, found.index = view.storage, kind, view.index
    found.byte_offset = view.byte_offset + distance
    return found


def keep(view: NkiTensor, key: tuple[object, ...], found: NkiTensor) -> None:
    """Remember what a subscript of ints and index tensors selects, which depends on the type of the view alone."""
    if found.type.problem is not None:
        return
    kept = known.setdefault(view.type, {})
    if len(kept) < _KEPT:
        numbers = tuple(position for position, k in enumerate(key) if k.__class__ is not Index)
        kept[key] = found.type, found.byte_offset - view.byte_offset, numbers


def hashable(key: tuple[object, ...]) -> tuple[object, ...]:
    """A subscript with something that can be hashed in the place of its slices."""
    items: list[object] = []
    for k in key:
        if k.__class__ is slice:
            k = (k.start, k.stop, k.step, type(k.start), type(k.stop), type(k.step))
        elif k.__class__ is DynamicSlice:
            k = (k.start, k.size, type(k.start), type(k.size))
        items.append(k)
    return tuple(items)


def is_static(key: tuple[object, ...]) -> bool:
    """Whether a subscript has ints, slices of ints and index tensors alone."""
    return all(k.__class__ in _STATIC or _is_static_slice(k) for k in key)


def _is_static_slice(k: object) -> bool:
    if isinstance(k, DynamicSlice):
        return _BOUNDS.issuperset((type(k.start), type(k.size)))
    return isinstance(k, slice) and _BOUNDS.issuperset((type(k.start), type(k.stop), type(k.step)))


class Outside(Exception):  # no error yet: a mask may keep the subscript inside
    """An index tensor leaves the dimension it indexes: its arguments are that, the lowest and the highest position."""


def select(view: NkiTensor, key: tuple[object, ...]) -> NkiTensor:
    """The view a subscript with index tensors selects; its items are normalized (`normalize`).

    Raises:
        Outside: an index tensor leaves its dimension.
        InvalidIndex, ShapeMismatch: the subscript is no access pattern.
    """
    kind = view.type
    steps = _steps.get(kind)
    if steps is None:
        steps = _steps[kind] = tuple(s * kind.dtype.itemsize for s in kind.strides)
    shape = kind.shape
    offset = view.byte_offset
    structure: list[object] = [kind]
    k: Any
    for dim, k in enumerate(key):
        if k.__class__ is Index:
            grid, start = k.grid, k.offset
            if start + grid.low < 0 or start + grid.high >= shape[dim]:
                raise Outside(dim, start + grid.low, start + grid.high)
            structure.append(grid)
        elif k.__class__ is range:
            start = k.start
            structure.append((len(k), k.step))
        else:
            start = k
            if not 0 <= start < shape[dim]:
                raise Outside(dim, start, start)
            structure.append(None)
        offset += start * steps[dim]
    pattern = tuple(structure)
    found = _patterns.get(pattern)
    if found is None:
        found = _patterns[pattern] = _pattern(view, kind, structure[1:], offset)
    selected = NkiTensor()
    selected.storage, selected.type, selected.byte_offset, selected.index = view.storage, found, offset, view.index
    return selected


def _pattern(view: NkiTensor, kind: ViewType, structure: Sequence[object], offset: int) -> ViewType:
    grids = [(d, s) for d, s in enumerate(structure) if isinstance(s, Grid)]
    whole = grids[0][1].times(0)
    for _, grid in grids[1:]:
        whole = whole.plus(grid.times(0))
    shape = whole.shape
    if kind.region.on_chip:
        _require_partitions(structure[0], shape, view)
    strides = [0] * len(shape)
    for dim, grid in grids:
        _, padded = grid._padded(len(shape))
        strides = [s + kind.strides[dim] * p for s, p in zip(strides, padded, strict=True)]
    advanced = [d for d, s in enumerate(structure) if not isinstance(s, tuple)]
    adjacent = advanced == list(range(advanced[0], advanced[-1] + 1))
    sliced = [(d, *s) for d, s in enumerate(structure) if isinstance(s, tuple)]
    before = [(n, kind.strides[d] * step) for d, n, step in sliced if adjacent and d < advanced[0]]
    after = [(n, kind.strides[d] * step) for d, n, step in sliced if not adjacent or d > advanced[0]]
    dims = [*before, *zip(shape, strides, strict=True), *after]
    if kind.region.on_chip and structure[0] is None and dims[0][0] > 1:  # of one partition
        dims = [(1, kind.strides[0]), *dims]
    shape, steps = _settled(kind, dims)
    if kind.region.on_chip:
        _require_rows(view, shape, steps, offset)
    return ViewType.of(kind.region, kind.dtype, shape, steps, kind.indirection)


def _settled(kind: ViewType, dims: list[tuple[int, int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides with the dimensions a tile needs: on chip partitions and one more, in HBM one."""
    if not kind.region.on_chip:
        dims = dims or [(1, 1)]
        return tuple(n for n, _ in dims), tuple(1 if n == 1 else s for n, s in dims)
    pitch = kind.strides[0]
    if len(dims) < 2:
        dims = [*dims, (1, 1)] if not dims or dims[0][1] % pitch == 0 else [(1, pitch), *dims]
    first = (dims[0][0], pitch if dims[0][0] == 1 else dims[0][1])
    dims = [first, *((n, 1 if n == 1 else s) for n, s in dims[1:])]
    return tuple(n for n, _ in dims), tuple(s for _, s in dims)


def _require_partitions(first: object, shape: tuple[int, ...], view: NkiTensor) -> None:
    """Raise InvalidIndex unless the partitions of a tile run along dimension 0 of what is selected, and alone."""
    if isinstance(first, tuple):
        return
    varying = [d for d, s in enumerate(first._padded(len(shape))[1]) if s] if isinstance(first, Grid) else []
    if varying not in ([], [0]) or (not varying and len(shape) > 1 and shape[0] != 1):
        raise InvalidIndex(
            what=f"partitions{of_tensor(view)} selected along dimension {varying[-1] if varying else 'none'} of "
            f"an index grid {shape}",
            hint="let dimension 0 of the index tensors (nl.arange(n)[:, None]) select partitions, and only them.",
        )


def _require_rows(view: NkiTensor, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> None:
    """Raise InvalidIndex unless dimension 0 moves from partition to partition, and all others inside of one."""
    if excess(view.storage, shape, strides, view.dtype.itemsize, offset, "") is not None:
        raise InvalidIndex(
            what=f"places{of_tensor(view)} that differ from partition to partition",
            hint="let one index tensor select partitions along dimension 0, and no other one depend on that dimension; "
            "a tensor in HBM has diagonals.",
        )


def normalize(view: NkiTensor, key: object) -> tuple[object, ...]:
    """A subscript as one Index, int or range for every dimension.

    Raises:
        IndexOutOfBounds, TooManyIndices, InvalidIndex.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    ellipses = [i for i, k in enumerate(keys) if k is Ellipsis]
    missing = view.ndim - len(keys) + len(ellipses)
    if missing < 0:
        raise TooManyIndices(found=len(keys) - len(ellipses), ndim=view.ndim, shape=view.shape)
    at = ellipses[0] if ellipses else len(keys)
    keys[at : at + len(ellipses[:1])] = [slice(None)] * missing
    return tuple(_item(view, dim, k) for dim, k in enumerate(keys))


def _are_ints(*bounds: object) -> bool:
    return all(b is None or isinstance(b, (int, np.integer)) for b in bounds)


def _item(view: NkiTensor, dim: int, key: object) -> object:
    size = view.shape[dim]
    if isinstance(key, Index):
        return key if key.ndim else int(key.offset)
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        number = int(key)
        if not -size <= number < size:
            raise IndexOutOfBounds(index=number, dim=dim, size=size, of=of_tensor(view))
        return number % size
    if isinstance(key, DynamicSlice):
        key = slice(key.start, key.start + key.size)
    if isinstance(key, slice) and key.step != 0 and _are_ints(key.start, key.stop, key.step):
        found = range(size)[slice(*(None if b is None else int(b) for b in (key.start, key.stop, key.step)))]
        wanted = key.stop is not None and key.stop > size
        if not found or wanted or (key.start is not None and key.start > size):
            raise IndexOutOfBounds(index=f"{key.start}:{key.stop}", dim=dim, size=size, of=of_tensor(view))
        return found
    raise InvalidIndex(what=describe(key), hint="use ints, slices, index tensors of nl.arange or nl.mgrid, or nl.ds.")


def spread(view: NkiTensor, keys: tuple[object, ...]) -> tuple[object, ...] | None:
    """A subscript of ints and slices as one of index tensors, which a mask can limit; None if it has other items."""
    dims: list[tuple[int, int, int, int]] = []
    found: list[object] = []
    for dim, k in enumerate((*keys, *(slice(None),) * (view.ndim - len(keys)))):
        if isinstance(k, DynamicSlice):
            k = slice(k.start, k.start + k.size)
        if isinstance(k, (int, np.integer)) and not isinstance(k, bool):
            found.append(int(k))
            continue
        if not isinstance(k, slice) or dim >= view.ndim:
            return None
        start, stop, step = k.start or 0, view.shape[dim] if k.stop is None else k.stop, k.step or 1
        if not all(isinstance(b, (int, np.integer)) for b in (start, stop, step)) or not 0 <= start < stop or step < 1:
            return None
        dims.append((len(found), int(start), len(range(start, stop, step)), int(step)))
        found.append(None)
    for place, (at, start, size, step) in enumerate(dims):
        shape = tuple(size if d == place else 1 for d in range(len(dims)))
        found[at] = index(start, Grid.of(shape, tuple(step if d == place else 0 for d in range(len(dims)))))
    return tuple(found) if dims else None


def selected_shape(view: NkiTensor, key: tuple[object, ...]) -> tuple[int, ...]:
    """The shape a normalized subscript selects, wherever its index tensors lead."""
    whole: Grid | None = None
    for k in key:
        if isinstance(k, Index):
            whole = k.grid.times(0) if whole is None else whole.plus(k.grid.times(0))
    assert whole is not None
    if any(isinstance(k, range) for k in key):
        raise ShapeMismatch(
            instruction="a subscript",
            detail=f"slices and index tensors of {view.storage.label} are mixed, and one leaves its dimension",
        )
    return whole.shape


def narrowed(key: tuple[object, ...], box: Box) -> tuple[object, ...]:
    """A normalized subscript of index tensors with their grids cut to a box."""
    return tuple(_cut(k, box) if isinstance(k, Index) else k for k in key)


def _cut(index_tensor: Index, box: Box) -> Index:
    shape, strides = index_tensor.grid._padded(len(box))
    offset = index_tensor.offset
    sizes = []
    for size, stride, span in zip(shape, strides, box, strict=True):
        offset += stride * span.start
        sizes.append(1 if size == 1 else len(span))
    return index(offset, Grid.of(tuple(sizes), strides))
