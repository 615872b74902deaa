"""Launches of kernels with dynamic dimensions: the sizes of one, and memory where elements are as in the bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from nkilite.dimensions import Dim, Shapes, numbered
from nkilite.dtypes import as_dtype, int32
from nkilite.errors import InvalidDynamicShape
from nkilite.ir.types import contiguous_strides
from nkilite.runtime.arguments import ArrayArgument
from nkilite.runtime.containers import map_leaves
from nkilite.runtime.opaque import UserValue
from nkilite.runtime.results import Result
from nkilite.trace.storage import beyond_bounds

Dims = Sequence[tuple[int, int]]  # of an array: its dynamic dimensions, and their places among the sizes


def bound_shapes(kernel: str, shapes: Shapes, values: Mapping[str, object]) -> ArrayArgument | None:
    """Give arguments with dynamic dimensions the shapes of their bounds; the sizes, None if there are none.

    Raises:
        InvalidDynamicShape: one is no array, or has not the dimension, or the size is none that it may have.
    """
    if not shapes:
        return None
    numbers = numbered(shapes)
    found: dict[Dim, tuple[int, str]] = {}
    for name, axes in shapes:
        argument = values.get(name)
        if not isinstance(argument, ArrayArgument):
            fix = "name parameters that are arrays in dynamic_shapes"
            raise InvalidDynamicShape(name=name, kernel=kernel, problem="is no array", fix=fix)
        _bound(kernel, argument, axes, numbers, found)
    sizes = np.array([[found[dim][0]] for dim in numbers], np.int32)
    return ArrayArgument("sizes", sizes, sizes, int32, "numpy")


def _bound(
    kernel: str, argument: ArrayArgument, axes: Sequence[tuple[int, Dim]], numbers: Mapping[Dim, int],
    found: dict[Dim, tuple[int, str]],
) -> None:
    """Give one argument the shape of its bounds, and take note of the sizes."""
    shape = list(argument.shape)
    dims: dict[int, int] = {}
    for axis, dim in axes:
        if not -len(shape) <= axis < len(shape) or axis % len(shape) in dims:
            raise _invalid(kernel, argument, f"has shape {argument.shape}, without a dimension {axis} of its own", axis)
        axis %= len(shape)
        size = argument.shape[axis]
        before = found.setdefault(dim, (size, argument.name))
        if not dim.min <= size <= dim.max:
            problem = f"has shape {argument.shape}: dimension {axis} is {dim!r}, from {dim.min} to {dim.max}"
            raise _invalid(kernel, argument, problem, axis)
        if before[0] != size:
            problem = f"has shape {argument.shape}: dimension {axis} is {dim.name!r}, of which {before[1]!r} "
            raise _invalid(kernel, argument, f"{problem}has {before[0]}", axis)
        shape[axis] = dim.max
        dims[axis] = numbers[dim]
    argument.shape, argument.dims = tuple(shape), tuple(sorted(dims.items()))
    if inner(argument.dims):
        _spread(argument)


def _invalid(kernel: str, argument: ArrayArgument, problem: str, axis: int) -> InvalidDynamicShape:
    fix = "pass an array of such a size, or declare another bound in dynamic_shapes"
    return InvalidDynamicShape(name=argument.name, kernel=kernel, problem=problem, fix=fix)


def inner(dims: Dims) -> bool:
    """Whether a dimension other than the outermost one is dynamic, so that rows are as far apart as the bound says."""
    return any(axis for axis, _ in dims)


def cut(array: np.ndarray, dims: Dims, sizes: Sequence[int]) -> np.ndarray:
    """What there is of an array of the bounds."""
    return array[tuple(slice(n) for n in size_of(array.shape, dims, sizes))] if dims else array


def fill(array: np.ndarray, dims: Dims, sizes: Sequence[int], unwritten: int) -> None:
    """Fill what there is of a result with the byte of unwritten memory, for what a kernel does not write of it."""
    if inner(dims):
        array = cut(array, dims, sizes)
    array.view(np.uint8)[...] = unwritten


def _spread(argument: ArrayArgument) -> None:
    """Have the rows of an argument as far apart as in the bounds: in a copy, unless they are (a part of a cache)."""
    source = argument.source
    argument.copied = not (source.strides == _strides(argument.shape, argument.dtype.itemsize) and source.flags.aligned)
    if argument.copied:
        argument.numpy = np.empty(argument.shape, source.dtype)
        argument.numpy[tuple(slice(n) for n in source.shape)] = source
    else:
        argument.numpy = source


def _strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple(s * itemsize for s in contiguous_strides(shape))


def memory_of(argument: ArrayArgument) -> np.ndarray:
    """The bytes of an argument that the reference rules work on.

    Of one with dynamic dimensions these are a copy with room for its bounds, and for a block that begins within them.
    """
    if not argument.dims:
        return argument.numpy.reshape(-1).view(np.uint8)
    memory = beyond_bounds(prod(argument.shape) * argument.dtype.itemsize)
    there = np.ndarray(argument.shape, argument.numpy.dtype, memory)
    there[tuple(slice(n) for n in argument.source.shape)] = argument.source
    return memory


def write_back(argument: ArrayArgument, array: np.ndarray) -> None:
    """Copy what a simulated kernel made of an argument with dynamic dimensions to where it is from."""
    if argument.dims and argument.writable:
        np.copyto(argument.source, array[tuple(slice(n) for n in argument.source.shape)])


def sized(returned: object, sizes: Sequence[int]) -> UserValue:
    """What a kernel returns, with the shapes that results have for these sizes."""

    def leaf(value: object, _: str) -> object:
        if not isinstance(value, Result) or not value.dims:
            return value
        shape = size_of(value.shape, value.dims, sizes)
        strides = _strides(value.shape, as_dtype(value.dtype).itemsize) if inner(value.dims) else None
        return Result(value.array, shape, value.dtype, strides, value.offset, value.dims)

    return map_leaves(returned, leaf, records=False)


def parts(returned: object, sizes: Sequence[int]) -> UserValue:
    """The same, as parts of arrays of the bounds."""

    def leaf(value: object, _: str) -> object:
        if not isinstance(value, Result) or not value.dims:
            return value
        strides = _strides(value.shape, as_dtype(value.dtype).itemsize)
        return Result(value.array, size_of(value.shape, value.dims, sizes), value.dtype, strides, value.offset)

    return map_leaves(returned, leaf, records=False)


def size_of(shape: tuple[int, ...], dims: Dims, sizes: Sequence[int]) -> tuple[int, ...]:
    """The shape of what there is of an array of the bounds."""
    found = dict(dims)
    return tuple(sizes[found[axis]] if axis in found else n for axis, n in enumerate(shape))


def rows_of(shape: tuple[int, ...], dims: Dims, sizes: Sequence[int]) -> tuple[int, ...]:
    """The shape of the memory that a result needs: of all rows of its bounds only those that there are."""
    return shape if inner(dims) else size_of(shape, dims, sizes)
