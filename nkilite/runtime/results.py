"""What a kernel returns, as plain data, and how arrays take its place: new ones, or those the caller gave as `out`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nkilite.dtypes import as_dtype
from nkilite.errors import (
    InvalidOutput,
    InvalidReturn,
    StaleTensor,
    UnsupportedArgument,
    UnsupportedArrayDtype,
    describe,
)
from nkilite.ir.program import Program
from nkilite.ir.types import BOUNDED, BufferKind, MemoryRegion
from nkilite.ir.unwritten import Returned
from nkilite.location import Location
from nkilite.runtime.arguments import ArrayArgument, as_array, to_framework
from nkilite.runtime.containers import map_leaves
from nkilite.runtime.opaque import UserValue
from nkilite.trace.tensor import NkiTensor


@dataclass(frozen=True, slots=True)
class Result:
    """A returned tensor.

    Attributes:
        array: its place among the inputs followed by the outputs.
        strides: bytes, from byte `offset` of that array on; None when it is the whole array.
        dims: dynamic dimensions, see nkilite.ir.types.Buffer; it is a whole array then.
    """

    array: int
    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...] | None
    offset: int
    dims: tuple[tuple[int, int], ...] = ()

    def view(self, array: np.ndarray) -> np.ndarray:
        if self.strides is None:
            return array
        result: np.ndarray = np.ndarray(self.shape, as_dtype(self.dtype).numpy, array, self.offset, self.strides)
        return result


def check_returned(returned: object, program: Program, kernel: str, location: Location) -> None:
    """Make what a kernel returned the outputs of its program.

    Raises:
        StaleTensor, InvalidReturn: it cannot be returned.
    """

    def leaf(value: object, _: str) -> object:
        if not isinstance(value, NkiTensor):
            if value is None or isinstance(value, (int, float, str)):
                return value
            what = f"a value of type {type(value).__name__}"
            fix = "return HBM tensors, numbers, strings or None, alone or in tuples, lists and dicts"
            raise InvalidReturn(kernel=kernel, what=what, fix=fix, location=location)
        buffer = value.storage
        if buffer.id >= len(program.buffers) or program.buffers[buffer.id] is not buffer:
            raise StaleTensor(
                instruction=f"kernel {kernel!r}", operand="a returned value", tensor=buffer.label,
                made=buffer.location, location=location,
            )
        if value.type.problem is BOUNDED:
            if not _is_whole(value):
                what, fix = "a view of a tensor with a dynamic dimension", "return the tensor itself"
                raise InvalidReturn(kernel=kernel, what=what, fix=fix, location=buffer.location)
        elif value.type.problem is not None:
            raise value.type.problem.raised()
        if value.buffer.on_chip or value.is_indirect():
            what = f"a tensor in {str(value.buffer).upper()}" if value.buffer.on_chip else "an indirect view"
            raise InvalidReturn(kernel=kernel, what=what, location=buffer.location)
        if value.buffer is MemoryRegion.private_hbm:
            what, fix = "a tensor in nl.hbm, which is one core's own", "allocate it with buffer=nl.shared_hbm"
            raise InvalidReturn(kernel=kernel, what=what, fix=fix, location=buffer.location)
        if buffer.kind is not BufferKind.input and buffer not in program.outputs:
            program.outputs.append(buffer)
        return value

    map_leaves(returned, leaf, records=False)


def returned_views(returned: object) -> list[Returned]:
    """The tensors in a checked return value."""
    found: list[Returned] = []

    def leaf(value: object, _: str) -> object:
        if isinstance(value, NkiTensor):
            found.append(Returned(value.storage, value.type, value.byte_offset))
        return value

    map_leaves(returned, leaf, records=False)
    return found


def results_of(returned: object, program: Program) -> UserValue:
    """A checked return value with a Result in the place of every tensor."""
    arrays = {b.id: i for i, b in enumerate([*program.inputs, *program.outputs])}

    def leaf(value: object, _: str) -> object:
        if not isinstance(value, NkiTensor):
            return value
        buffer = value.storage
        strides = None if _is_whole(value) else tuple(s * value.dtype.itemsize for s in value.strides)
        return Result(arrays[buffer.id], value.shape, str(value.dtype), strides, value.byte_offset, buffer.dims)

    return map_leaves(returned, leaf, records=False)


def _is_whole(tensor: NkiTensor) -> bool:
    """Whether a view covers its storage as it is."""
    kind, all_of_it = tensor.type, tensor.storage.type
    return (kind.dtype, kind.shape, kind.strides) == (all_of_it.dtype, all_of_it.shape, all_of_it.strides)


def collect(returned: object, originals: Sequence[object], arrays: Sequence[np.ndarray], framework: str) -> UserValue:
    """What the kernel returned, as arrays of a framework; whole inputs are the caller's originals."""

    def leaf(value: object, _: str) -> object:
        if not isinstance(value, Result):
            return value
        if value.array < len(originals) and (value.strides is None or value.dims):
            return originals[value.array]
        return to_framework(value.view(arrays[value.array]), as_dtype(value.dtype), framework)

    return map_leaves(returned, leaf, records=False)


class Destinations:
    """The arrays a caller gave as `out`: checked, and matched with what the kernel returns.

    Attributes:
        arrays: by place among inputs and outputs, those the kernel can write itself.
    """

    def __init__(self, out: object, returned: object, arguments: Sequence[ArrayArgument], kernel: str) -> None:
        """
        Raises:
            InvalidOutput: `out` is not nested like the return value, or an array in it cannot take its result.
        """
        self._kernel = kernel
        self._inputs = arguments
        self._copies: list[tuple[Result, ArrayArgument]] = []
        self._taken: list[ArrayArgument] = []
        self.arrays: dict[int, np.ndarray] = {}
        self.given = self._match(returned, out, "out")

    def fill(self, arrays: Sequence[np.ndarray]) -> UserValue:
        """After the run: copy what the kernel did not write there itself; returns the caller's arrays."""
        for result, destination in self._copies:
            np.copyto(destination.numpy, result.view(arrays[result.array]))
        return self.given

    def _match(self, returned: object, out: object, name: str) -> UserValue:
        if isinstance(returned, Result):
            return self._array(returned, out, name)
        if isinstance(returned, (tuple, list)):
            if not isinstance(out, (tuple, list)) or len(out) != len(returned):
                raise self._refused(name, f"is {describe(out)}", f"{len(returned)} results in a tuple or list")
            items = [self._match(r, o, f"{name}[{i}]") for i, (r, o) in enumerate(zip(returned, out, strict=True))]
            if isinstance(returned, list):
                return items
            return type(returned)(*items) if hasattr(returned, "_fields") else tuple(items)
        if isinstance(returned, dict):
            if not isinstance(out, Mapping) or out.keys() != returned.keys():
                keys = ", ".join(map(repr, returned))
                raise self._refused(name, f"is {describe(out)}", f"a dict with the keys {keys}")
            return {k: self._match(r, out[k], f"{name}[{k!r}]") for k, r in returned.items()}
        if out is not None and (type(out) is not type(returned) or out != returned):
            raise self._refused(name, f"is {describe(out)}", f"None, where the kernel returns {returned!r}")
        return returned

    def _array(self, result: Result, out: object, name: str) -> object:
        expected = f"a contiguous, writable array {result.dtype} {result.shape}"
        try:
            found = as_array(name, out, self._kernel)
        except (UnsupportedArgument, UnsupportedArrayDtype):
            found = None
        if found is None or str(found.dtype) != result.dtype or found.shape != result.shape:
            raise self._refused(name, f"is {describe(out)}", expected)
        if not found.writable:
            problem = "is not contiguous" if found.copied else "cannot be written"
            raise self._refused(name, problem, expected)
        if result.array < len(self._inputs) and result.strides is None and out is self._inputs[result.array].original:
            return out
        for other in (*self._inputs, *self._taken):
            if np.may_share_memory(found.numpy, other.numpy):
                raise self._refused(name, f"overlaps {other.name}", "memory of its own")
        self._taken.append(found)
        if result.array >= len(self._inputs) and result.strides is None and result.array not in self.arrays:
            self.arrays[result.array] = found.numpy
        else:
            self._copies.append((result, found))
        return out

    def _refused(self, name: str, problem: str, expected: str) -> InvalidOutput:
        return InvalidOutput(name=name, kernel=self._kernel, problem=problem, expected=expected)


