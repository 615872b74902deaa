"""Warm launches of kernels with dynamic dimensions: calls that only differ in sizes look alike.

Only the outermost dimensions of arrays may be dynamic here: other arrays take a closer look, for they may be copied.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np

from nkilite.dimensions import Shapes, numbered
from nkilite.dtypes import as_dtype
from nkilite.runtime.delegation import Args, Kwargs
from nkilite.runtime.dynamic import fill, inner, rows_of, sized
from nkilite.runtime.foreign import libraries
from nkilite.runtime.launch import Calls
from nkilite.runtime.opaque import UserValue
from nkilite.runtime.recycler import new_array
from nkilite.runtime.results import collect
from nkilite.runtime.specialization import Specialization


class SizedCalls(Calls):
    """The launches of a kernel with dynamic dimensions."""

    def __init__(self, kernel: object, signature: inspect.Signature, takes_out: bool, shapes: Shapes) -> None:
        super().__init__(kernel, signature, takes_out)
        numbers = numbered(shapes)
        self._dims = {name: [(axis, dim, numbers[dim]) for axis, dim in axes] for name, axes in shapes}
        self._count = len(numbers)
        self._simple = self._simple and not any(axis for axes in self._dims.values() for axis, _, _ in axes)

    def key(self, args: Args, kwargs: Kwargs) -> tuple[object, ...] | None:
        known = super().key(args, kwargs)
        if known is None:
            return None
        key: list[UserValue] = list(known)
        at = self.VALUES
        sizes = [0] * self._count
        for name, value in zip((*self._names[: len(args)], *kwargs), (*args, *kwargs.values()), strict=True):
            kind = type(value)
            alone = kind is float or kind in libraries
            axes = self._dims.get(name)
            if axes is not None:
                if kind is not np.ndarray and kind not in libraries:
                    return None
                dtype, shape = key[at] if alone else key[at : at + 2]
                for _, dim, number in axes:
                    size = shape[0] if shape else 0
                    if not dim.min <= size <= dim.max or sizes[number] not in (0, size):
                        return None
                    sizes[number] = size
                key[at : at + (1 if alone else 2)] = [(dtype, shape[1:])] if alone else [dtype, shape[1:]]
            at += 1 if alone else 2
        return tuple(key) if all(sizes) else None

    def add(self, key: tuple[object, ...], args: Args, kwargs: Kwargs, specialization: Specialization) -> None:
        explicit = self._explicit(args, kwargs)
        if len(explicit) != len(args) + len(kwargs) or any(inner(dims) for dims in specialization.dims):
            return  # with out=
        names = [*self._names[: len(args)], *kwargs]
        arrays = {n: type(explicit[n]) for n in self._names if n in explicit}
        arrays = {n: kind for n, kind in arrays.items() if kind is np.ndarray or kind in libraries}
        kinds = set(arrays.values())
        picks = [names.index(n) for n in arrays]
        if len(picks) + 1 != len(specialization.executable.image.inputs) or len({libraries.get(k) for k in kinds}) != 1:
            return
        where: list[int] = [0] * self._count
        for position, name in enumerate(arrays):
            for _, _, number in self._dims.get(name, ()):
                where[number] = position
        self._launches[key] = SizedLaunch(specialization, picks, where, next(iter(kinds)))


class SizedLaunch:
    """Runs a specialization on arrays of any sizes; like `Launch`."""

    __slots__ = ("_execute", "_framework", "_memory", "_outputs", "_picks", "_where", "specialization", "unchanged")

    unchanged: Callable[[], bool]

    def __init__(
        self, specialization: Specialization, picks: Sequence[int], where: Sequence[int], kind: type
    ) -> None:
        """
        Args:
            picks: which values of a call are its arrays, in order.
            where: for every size, an array whose outermost dimension has it.
            kind: the class of the arrays.
        """
        self.specialization, self._picks, self._where = specialization, picks, where
        self._execute = specialization.executable.enter
        image = specialization.executable.image
        self._outputs = [
            (o.shape, as_dtype(o.dtype).numpy, dims) for o, dims in zip(image.outputs, specialization.dims, strict=True)
        ]
        library = libraries.get(kind)
        self._memory = None if library is None else library.memory
        self._framework = "numpy" if library is None else "torch"
        self.unchanged = specialization.reach.quick()

    def __call__(self, args: Args, kwargs: Kwargs) -> tuple[bool, UserValue]:
        """Whether the arrays were accepted, and what the kernel returns."""
        values = (*args, *kwargs.values())
        given = [values[i] for i in self._picks]
        sizes = [given[i].shape[0] for i in self._where]
        arrays = given if self._memory is None else [self._memory(a) for a in given]
        made = [self._new(*output, sizes) for output in self._outputs]
        memory = [*arrays, np.array(sizes, np.int32).reshape(-1, 1), *made]
        if not self._execute(*memory):
            return False, None
        specialization = self.specialization
        return True, collect(sized(specialization.returned, sizes), given, memory, self._framework)

    def _new(
        self, shape: tuple[int, ...], dtype: np.dtype, dims: Sequence[tuple[int, int]], sizes: Sequence[int]
    ) -> np.ndarray:
        array = new_array(rows_of(shape, dims, sizes), dtype)
        if dims:
            fill(array, dims, sizes, self.specialization.unwritten)
        return array

    def outputs(self, args: Args, kwargs: Kwargs) -> list[object] | None:
        """The new arrays: always by a closer look."""
        return None
