"""Random chains of views against NumPy views of the same memory: simulated, written through, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors

RELAXED = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
}
MEMORIES = [nl.shared_hbm, nl.sbuf, nl.psum]
Step = Callable[[Any], Any]


class Chain:
    """A NumPy view that grows step by step, and the same steps for an NkiTensor.

    Attributes:
        array: the NumPy view; a copy once `shares` is False.
        steps: functions of an NkiTensor.
        refused: the error the last step must raise.
    """

    def __init__(self, shape: tuple[int, ...], memory: Any) -> None:
        self.memory = memory
        self.base = np.arange(prod(shape), dtype=np.int32).reshape(shape) * 65_599
        self.array = self.base
        self.steps: list[Step] = []
        self.refused: type[Exception] | None = None
        self.shares = True

    @property
    def first_free(self) -> int:
        """The first dimension that views may rearrange."""
        return 1 if self.memory.on_chip else 0

    def extend(self, step: Step, array: np.ndarray | None, otherwise: type[Exception] | None = None) -> None:
        """Add a step that gives `array`, or must be refused when there is none."""
        self.steps.append(step)
        if array is None:
            self.refused = otherwise
        else:
            self.array = array

    def apply(self, tensor: Any) -> Any:
        for step in self.steps:
            tensor = step(tensor)
        return tensor


def reshaped(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """A view of another shape, or None where NumPy would have to copy."""
    result = array.reshape(shape)
    return result if np.shares_memory(result, array) else None


def splits(data: st.DataObject, size: int) -> tuple[int, ...]:
    """Two or three sizes with product `size`."""
    parts: list[int] = []
    for _ in range(data.draw(st.integers(1, 2))):
        part = data.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        parts.append(part)
        size //= part
    return (*parts, size)


# --- one function per kind of step: draws its arguments and extends the chain -----------------------------------


def index(data: st.DataObject, chain: Chain) -> None:
    keys: list[Any] = []
    taken: list[int] = []  # dimensions indexed by an int
    for dim, size in enumerate(chain.array.shape):
        kind = data.draw(st.sampled_from(["all", "int", "slice", "ds", "slice"]))
        if kind == "int":
            keys.append(data.draw(st.integers(-size, size - 1)))
            taken.append(dim)
        elif kind == "all":
            keys.append(slice(None))
        else:
            start = data.draw(st.integers(0, size - 1))
            stop = data.draw(st.integers(start + 1, size))
            step = data.draw(st.integers(1, 3))
            keys.append(nl.ds(start, stop - start) if kind == "ds" else slice(start, stop, step))
    as_slices = tuple(
        slice(k % n, k % n + 1)
        if isinstance(k, int)
        else slice(k.start, k.start + k.size)
        if not isinstance(k, slice)
        else k
        for k, n in zip(keys, chain.array.shape, strict=True)
    )
    array = chain.array[as_slices]
    gone = [dim for dim in taken if dim >= chain.first_free]
    if array.ndim - len(gone) < chain.first_free + 1 and gone:
        gone.pop()
    array = array.reshape([n for dim, n in enumerate(array.shape) if dim not in gone])
    if data.draw(st.booleans()):
        while keys and keys[-1] == slice(None):
            keys.pop()
        keys.append(...)
    chain.extend(lambda t: t[tuple(keys)], array)


def select(data: st.DataObject, chain: Chain) -> None:
    assume(chain.array.ndim > chain.first_free + 1)
    dim = data.draw(st.integers(chain.first_free, chain.array.ndim - 1))
    i = data.draw(st.integers(0, chain.array.shape[dim] - 1))
    chain.extend(lambda t: t.select(dim, i), chain.array[(slice(None),) * dim + (i,)])


def slice_dimension(data: st.DataObject, chain: Chain) -> None:
    dim = data.draw(st.integers(0, chain.array.ndim - 1))
    start = data.draw(st.integers(0, chain.array.shape[dim] - 1))
    end = data.draw(st.integers(start + 1, chain.array.shape[dim]))
    step = data.draw(st.integers(1, 3))
    array = chain.array[(slice(None),) * dim + (slice(start, end, step),)]
    chain.extend(lambda t: t.slice(dim, start, end, step), array)


def permute(data: st.DataObject, chain: Chain) -> None:
    fixed = list(range(chain.first_free))
    dims = tuple(fixed + data.draw(st.permutations(range(chain.first_free, chain.array.ndim))))
    chain.extend(lambda t: t.permute(dims), chain.array.transpose(dims))


def broadcast(data: st.DataObject, chain: Chain) -> None:
    ones = [d for d in range(chain.first_free, chain.array.ndim) if chain.array.shape[d] == 1]
    assume(ones)
    dim, size = data.draw(st.sampled_from(ones)), data.draw(st.integers(1, 3))
    shape = (*chain.array.shape[:dim], size, *chain.array.shape[dim + 1 :])
    chain.extend(lambda t: t.broadcast(dim, size), np.broadcast_to(chain.array, shape))
    chain.shares = False  # NumPy does not write to it


def expand(data: st.DataObject, chain: Chain) -> None:
    dim = data.draw(st.integers(chain.first_free, chain.array.ndim))
    chain.extend(lambda t: t.expand_dim(dim), np.expand_dims(chain.array, dim))


def squeeze(data: st.DataObject, chain: Chain) -> None:
    assume(chain.array.ndim > chain.first_free + 1)
    ones = [d for d in range(chain.first_free, chain.array.ndim) if chain.array.shape[d] == 1]
    assume(ones)
    dim = data.draw(st.sampled_from(ones))
    chain.extend(lambda t: t.squeeze_dim(dim), chain.array.squeeze(dim))


def split(data: st.DataObject, chain: Chain) -> None:
    dim = data.draw(st.integers(chain.first_free, chain.array.ndim - 1))
    parts = splits(data, chain.array.shape[dim])
    given_parts = (-1, *parts[1:]) if data.draw(st.booleans()) else parts
    shape = (*chain.array.shape[:dim], *parts, *chain.array.shape[dim + 1 :])
    chain.extend(lambda t: t.reshape_dim(dim, given_parts), reshaped(chain.array, shape))


def flatten(data: st.DataObject, chain: Chain) -> None:
    start = data.draw(st.integers(chain.first_free, chain.array.ndim - 1))
    end = data.draw(st.integers(start, chain.array.ndim - 1))
    merged = prod(chain.array.shape[start : end + 1])
    shape = (*chain.array.shape[:start], merged, *chain.array.shape[end + 1 :])
    chain.extend(lambda t: t.flatten_dims(start, end), reshaped(chain.array, shape), errors.InvalidReshape)


def reshape(data: st.DataObject, chain: Chain) -> None:
    kept = chain.array.shape[: chain.first_free]
    free = splits(data, prod(chain.array.shape[chain.first_free :]))
    shape = (*kept, *free)
    chain.extend(lambda t: t.reshape(shape), reshaped(chain.array, shape), errors.InvalidReshape)


def rearrange(data: st.DataObject, chain: Chain) -> None:
    """Split one dimension by name, permute, and merge the two last names."""
    names = [f"d{i}" for i in range(chain.array.ndim)]
    dim = data.draw(st.integers(chain.first_free, chain.array.ndim - 1))
    size = chain.array.shape[dim]
    outer = data.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
    source = (*names[:dim], ("outer", "inner"), *names[dim + 1 :])
    flat = [*names[:dim], "outer", "inner", *names[dim + 1 :]]
    order = flat[: chain.first_free] + data.draw(st.permutations(flat[chain.first_free :]))
    merge = data.draw(st.booleans()) and len(order) > chain.first_free + 2
    target = (*order[:-2], tuple(order[-2:])) if merge else tuple(order)
    shape = (*chain.array.shape[:dim], outer, size // outer, *chain.array.shape[dim + 1 :])
    array = chain.array.reshape(shape).transpose([flat.index(n) for n in order])
    view = reshaped(array, (*array.shape[:-2], array.shape[-2] * array.shape[-1])) if merge else array
    chain.extend(lambda t: t.rearrange(source, target, {"outer": outer}), view, errors.InvalidReshape)


def reinterpret(data: st.DataObject, chain: Chain) -> None:
    dtype = data.draw(st.sampled_from([nl.int32, nl.uint32, nl.int16, nl.uint8, nl.float16]))
    array, size = chain.array, dtype.itemsize
    start = array.__array_interface__["data"][0] - chain.base.__array_interface__["data"][0]
    places = [start, *(s for s, n in zip(array.strides[:-1], array.shape[:-1], strict=True) if n > 1)]
    contiguous = array.shape[-1] == 1 or array.strides[-1] == array.itemsize or size == array.itemsize
    fits = contiguous and not any(p % size for p in (*places, array.shape[-1] * array.itemsize))
    if not fits:
        chain.extend(lambda t: t.view(dtype), None, errors.InvalidView)
        return
    if size != array.itemsize and array.shape[-1] == 1:  # NumPy looks at the stride of the only element
        array = as_strided(array, strides=(*array.strides[:-1], array.itemsize))
    chain.extend(lambda t: t.view(dtype), array.view(dtype.numpy))


STEPS = [
    index, select, slice_dimension, permute, broadcast, expand, squeeze,
    split, flatten, reshape, rearrange, reinterpret,
]  # fmt: skip


@st.composite
def chains(draw: Any, memory: Any, longest: int) -> Chain:
    data = draw(st.data())
    smallest = 2 if memory.on_chip else 1
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=smallest, max_size=4)))
    chain = Chain(shape, memory)
    for _ in range(draw(st.integers(1, longest))):
        possible = [s for s in STEPS if chain.array.ndim < 6 or s in (index, select, slice_dimension, flatten, squeeze)]
        draw(st.sampled_from(possible))(data, chain)
        if chain.refused:
            break
    return chain


def placed(x: Any, memory: Any) -> Any:
    """The values of an HBM tensor in a memory."""
    if not memory.on_chip:
        return x
    tile = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(tile, x)
    if nl.is_sbuf(memory):
        return tile
    moved = nl.ndarray(x.shape, x.dtype, buffer=memory)
    nisa.tensor_copy(moved, tile)
    return moved


def bits(array: np.ndarray) -> np.ndarray:
    """Integers of the same bits, for which NaN equals itself."""
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
@settings(max_examples=100, **RELAXED)
@given(data=st.data())
def test_values(memory: Any, data: st.DataObject) -> None:
    chain = data.draw(chains(memory, 6))

    def kernel(x: Any) -> None:
        if chain.refused:
            with pytest.raises(chain.refused) as caught:
                chain.apply(placed(x, memory))
            assert caught.value.location.file == __file__
            return
        view = chain.apply(placed(x, memory))
        assert view.shape == chain.array.shape
        assert view.dtype == chain.array.dtype
        np.testing.assert_array_equal(bits(view.numpy()), bits(chain.array))

    nki.simulate(kernel)(chain.base.copy())


@pytest.mark.parametrize("memory", MEMORIES[:2], ids=str)
@settings(max_examples=40, **RELAXED)
@given(data=st.data())
def test_writes_go_to_the_storage(memory: Any, data: st.DataObject) -> None:
    chain = data.draw(chains(memory, 4).filter(lambda c: not c.refused and c.shares))

    def kernel(x: Any) -> None:
        tensor = placed(x, memory)
        view = chain.apply(tensor)
        nisa.dma_copy(view, nl.zeros(view.shape, view.dtype, buffer=nl.private_hbm))
        found = tensor.numpy()
        chain.array[...] = 0
        np.testing.assert_array_equal(found, chain.base)

    nki.simulate(kernel)(chain.base.copy())


@pytest.mark.parametrize("memory", MEMORIES[:2], ids=str)
@settings(max_examples=12, **RELAXED)
@given(data=st.data())
def test_compiled(memory: Any, data: st.DataObject) -> None:
    chain = data.draw(chains(memory, 5).filter(lambda c: not c.refused))

    @nki.jit
    def kernel(x: Any) -> Any:
        view = chain.apply(placed(x, memory))
        output = nl.ndarray(view.shape, view.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(output, view)
        return output

    np.testing.assert_array_equal(bits(kernel(chain.base.copy())), bits(chain.array))


@pytest.mark.parametrize("memory", MEMORIES[:2], ids=str)
@settings(max_examples=60, **RELAXED)
@given(data=st.data())
def test_access_patterns(memory: Any, data: st.DataObject) -> None:
    """.ap() against as_strided, inside and outside the storage."""
    shape = tuple(data.draw(st.lists(st.integers(2, 6), min_size=2, max_size=3)))
    base = np.arange(prod(shape), dtype=np.int32).reshape(shape)
    columns = prod(shape[1:])
    first = data.draw(st.integers(0, shape[0] - 1))
    free = data.draw(st.lists(st.tuples(st.integers(-2, 4), st.integers(1, 4)), min_size=1, max_size=3))
    count = data.draw(st.integers(1, shape[0] - first))
    pattern = [[columns, count], *map(list, free)] if memory.on_chip else [list(p) for p in free]
    offset = data.draw(st.integers(0, columns - 1))
    low = offset + sum(min(0, s * (n - 1)) for s, n in free)
    high = offset + sum(max(0, s * (n - 1)) for s, n in free)
    if not memory.on_chip:
        low, high, columns = low + first * columns, high + first * columns, base.size
    inside = low >= 0 and high < columns

    def kernel(x: Any) -> None:
        view = placed(x, memory)[first:]
        if not inside:
            with pytest.raises(errors.PatternOutOfBounds):
                view.ap(pattern, offset=offset).numpy()
            return
        strides = [4 * s for s, _ in pattern]
        start = base[first:].reshape(-1)[offset:]
        want = as_strided(start, [n for _, n in pattern], strides)
        np.testing.assert_array_equal(view.ap(pattern, offset=offset).numpy(), want)

    nki.simulate(kernel)(base.copy())


def test_get_pattern_rebuilds_a_view() -> None:
    def kernel(x: Any) -> None:
        view = placed(x, nl.sbuf)[:, 1:4, ::2].permute((0, 2, 1))
        again = view.ap(view.get_pattern())
        np.testing.assert_array_equal(again.numpy(), view.numpy())
        assert again.shape == view.shape

    nki.simulate(kernel)(np.arange(4 * 5 * 6, dtype=np.int32).reshape(4, 5, 6))
