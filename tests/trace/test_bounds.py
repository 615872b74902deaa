"""No view reaches a byte outside of its tensor: random patterns against a model in bytes, with guards around arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.dtypes import as_dtype

RELAXED = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}
GUARD = 256
DTYPES = ("uint8", "uint16", "int32")


def guarded(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Memory, and an array of bytes in its middle with nothing but guards around it."""
    size = int(np.prod(shape))
    memory = np.full(size + 2 * GUARD, 0xAA, np.uint8)
    array = memory[GUARD:-GUARD].reshape(shape)
    array[...] = np.arange(size).reshape(shape) % 97
    return memory, array


def places(shape: tuple[int, int], start: int, pattern: list[list[int]], size: int, on_chip: bool) -> np.ndarray | None:
    """Byte positions of a pattern's elements, or None if it is not inside the tensor or not of whole elements."""
    row, total = shape[1], shape[0] * shape[1]
    if start % size or (on_chip and row % size):
        return None
    if on_chip and pattern[0][1] > 1 and pattern[0][0] * size != row:
        return None
    at = np.full([n for _, n in pattern], start)
    for dim, (stride, count) in enumerate(pattern):
        at += (np.arange(count) * stride * size).reshape(-1, *[1] * (len(pattern) - dim - 1))
    if at.min() < 0 or at.max() + size > total:
        return None
    if on_chip and any(
        (at[p] // row != start // row + p).any() or (at[p] % row + size > row).any() for p in range(len(at))
    ):
        return None
    return at[..., None] + np.arange(size)


@st.composite
def patterns(draw: st.DrawFn, row: int, size: int, on_chip: bool) -> list[list[int]]:
    free = draw(st.lists(st.tuples(st.integers(-3, 9), st.integers(1, 4)), min_size=1, max_size=2))
    stride = row // size + draw(st.sampled_from((0, 0, 0, 0, 1))) if on_chip else draw(st.integers(-2, 12))
    return [[stride, draw(st.integers(1, 4))], *map(list, free)]


@pytest.mark.parametrize("on_chip", [False, True], ids=["hbm", "sbuf"])
@settings(max_examples=60, **RELAXED)
@given(data=st.data())
def test_patterns(on_chip: bool, data: st.DataObject) -> None:
    """Reads and writes through a pattern of another dtype over a slice, or an error; the same in both modes."""
    shape = data.draw(st.integers(1, 4)), data.draw(st.sampled_from((3, 7, 8, 16, 24)))
    dtype = data.draw(st.sampled_from(DTYPES))
    size = as_dtype(dtype).itemsize
    first, column = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    offset = data.draw(st.sampled_from((0, 0, 0, 1, -1, 3)))
    pattern = data.draw(patterns(shape[1], size, on_chip))
    start = first * shape[1] + column + offset * size
    at = places(shape, start, pattern, size, on_chip)
    writes = data.draw(st.booleans()) and (at is None or len(np.unique(at)) == at.size)

    def kernel(x: Any) -> Any:
        base, result = x, x
        if on_chip:
            base = nl.ndarray(x.shape, x.dtype, nl.sbuf)
            nisa.dma_copy(base, x)
        view = base[first:, column:].ap(pattern, offset=offset, dtype=dtype)
        if writes:
            values = nl.ndarray(view.shape, dtype, nl.sbuf)
            nisa.memset(values, 7)
            nisa.dma_copy(view, values)
            if on_chip:
                nisa.dma_copy(x, base)
        else:
            result = nl.ndarray(view.shape, dtype, nl.shared_hbm)
            nisa.dma_copy(result, view)
        return result

    for run in (nki.simulate, nki.jit):
        memory, array = guarded(shape)
        want = array.copy()
        if at is None:
            with pytest.raises(errors.ViewError) as caught:
                run(kernel)(array)
            assert caught.value.location.file == __file__
        else:
            got = run(kernel)(array)
            if writes:
                want.reshape(-1)[at] = np.array([7], as_dtype(dtype).numpy).view(np.uint8)
            else:
                np.testing.assert_array_equal(np.asarray(got).view(np.uint8).reshape(at.shape), want.reshape(-1)[at])
        np.testing.assert_array_equal(array, want)
        assert (memory[:GUARD] == 0xAA).all()
        assert (memory[-GUARD:] == 0xAA).all()


@pytest.mark.parametrize("on_chip", [False, True], ids=["hbm", "sbuf"])
@settings(max_examples=40, **RELAXED)
@given(data=st.data())
def test_runtime_indices(on_chip: bool, data: st.DataObject) -> None:
    """A slice that begins where a register says: the elements, or an error when it does not fit."""
    rows, columns = data.draw(st.integers(2, 5)), data.draw(st.sampled_from((4, 7, 12)))
    step = data.draw(st.sampled_from((slice(None), slice(1, None), slice(None, None, -1), slice(None, None, 2))))
    length = len(range(columns)[step])
    size, index = data.draw(st.integers(0, length + 1)), data.draw(st.integers(-2, length + 1))

    def kernel(x: Any, start: Any) -> Any:
        base, loaded = x, nl.ndarray((1, 1), nl.int32, nl.sbuf)
        nisa.dma_copy(loaded, start)
        register = nisa.register_alloc()
        nisa.register_load(register, loaded)
        if on_chip:
            base = nl.ndarray(x.shape, x.dtype, nl.sbuf)
            nisa.dma_copy(base, x)
        result = nl.ndarray((rows, max(size, 1)), x.dtype, nl.shared_hbm)
        nisa.dma_copy(result, base[:, step][:, nl.ds(register, size)])
        return result

    fits = size > 0 and 0 <= index <= length - size
    for run in (nki.simulate, nki.jit):
        _, array = guarded((rows, columns))
        position = np.array([[index]], np.int32)
        if not fits:
            with pytest.raises((errors.ViewError, errors.IndirectOutOfBounds)):
                run(kernel)(array, position)
            continue
        got = run(kernel)(array, position)
        np.testing.assert_array_equal(np.asarray(got), array[:, step][:, index : index + size])


def test_views_nobody_uses() -> None:
    """Kernels make patterns for all cases, and slices of what is left over, before they choose."""

    def kernel(x: Any) -> Any:
        tile = nl.load(x)
        tile.ap([[16, 4], [4, 16]], offset=4)
        x.ap([[16, 4], [1, 0]]).reshape((0, 4))
        tile.view(nl.uint8)[:, 1:].ap([[4, 4], [1, 4]], dtype=nl.int32)
        x[4:].permute((1, 0))[3:]
        tile[:, nl.ds(16, 0)].expand_dim(1).view(nl.int32)

        def body(i: Any) -> None:
            nisa.dma_copy(x[nl.ds(i, 0)], x[nl.ds(i, 0)])

        nl.fori_loop(2, 2, body)
        out = nl.ndarray(x.shape, x.dtype, nl.shared_hbm)
        nl.store(out, tile)
        return out

    array = np.arange(64, dtype=np.float32).reshape(4, 16)
    for run in (nki.simulate, nki.jit):
        np.testing.assert_array_equal(run(kernel)(array), array)
