"""max8, nc_find_index8 and nc_match_replace8."""

from __future__ import annotations

import numpy as np
import pytest
from isa_testing import CPU_LEVELS, both, new, outputs, same, tile

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.testing import make

SHAPES = [(1, 8), (3, 9), (128, 15), (5, 37), (128, 512), (64, 1000)]


def top8(x):
    """One step of a top-k over the last dimensions of x, with everything it produces."""
    data = tile(x)
    values, found = new((x.shape[0], 8)), new((x.shape[0], 8), "uint32")
    replaced, replaced_at = new(x.shape, x.dtype), new((x.shape[0], 8), "uint16")
    nisa.max8(dst=values, src=data)
    nisa.nc_find_index8(dst=found, data=data, vals=values)
    nisa.nc_match_replace8(dst=replaced, data=data, vals=values, imm=-3.0, dst_idx=replaced_at)
    return outputs(values, found, replaced, replaced_at)


@pytest.mark.parametrize("shape", SHAPES)
def test_distinct_values(shape):
    rows = np.random.default_rng(0).permuted(
        np.tile(np.arange(shape[1], dtype=np.float32), (shape[0], 1)), axis=1
    )
    values, found, replaced, replaced_at = both(top8, rows)
    same(values, -np.sort(-rows, axis=1)[:, :8])
    same(found, np.argsort(-rows, axis=1)[:, :8])
    same(replaced_at, found)
    same(replaced, np.where(rows >= shape[1] - 8, -3.0, rows))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "dtype", ["float32", "bfloat16", "float16", "float8_e4m3", "int32", "uint8", "int16"]
)
def test_repeated_values(shape, dtype):
    x = np.random.default_rng(1).integers(0, 6, shape).astype(make((1,), dtype).dtype)
    values, found, replaced, replaced_at = both(top8, x)
    rows = x.astype(np.float32)
    same(values, -np.sort(-rows, axis=1)[:, :8])
    for p, row in enumerate(rows):
        up = dict.fromkeys(row, 0)
        ascending = []
        for value in values[p]:
            ascending.append(np.flatnonzero(row == value)[up[value]])
            up[value] += 1
        same(found[p], ascending)
        # The highest slot of equal values takes the first occurrence.
        descending = {v: [i for i, w in zip(ascending, values[p], strict=True) if w == v] for v in values[p]}
        same(replaced_at[p], [descending[v].pop() for v in values[p]])
        expected = row.copy()
        expected[ascending] = {"uint8": 0}.get(dtype, -3.0)
        same(replaced[p], expected)


def test_documented_example():
    """The repeated values spelled out on the page of nc_match_replace8."""

    def kernel(x, vals):
        result, at, found = new(x.shape), new((1, 8), "uint32"), new((1, 8), "uint32")
        data, wanted = tile(x), tile(vals)
        nisa.nc_match_replace8(result, data, wanted, float("-inf"), at)
        nisa.nc_find_index8(found, data, wanted)
        return outputs(result, at, found)

    x = np.array([[1, 2, 3, 4, 8, 8, 8, 8, 8, 8, 8]], np.float32)
    vals = np.array([[3, 8, 8, 8, 8, 8, 8, 8]], np.float32)
    result, at, found = both(kernel, x, vals)
    same(at, [[2, 10, 9, 8, 7, 6, 5, 4]])
    same(found, [[2, 4, 5, 6, 7, 8, 9, 10]])
    same(result, [[1, 2, -np.inf, 4] + [-np.inf] * 7])


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_absent_values_are_all_ones(dtype):
    def kernel(x, vals):
        data, wanted = tile(x), tile(vals)
        found, at = new((2, 8), dtype), new((2, 8), dtype)
        nisa.nc_find_index8(found, data, wanted)
        nisa.nc_match_replace8(data, data, wanted, 0.0, at)
        return outputs(found, at, data)

    x = np.tile(np.arange(10, dtype=np.float32), (2, 1))
    vals = np.array([[3, 3, 99, 98, 97, 0, 9, np.nan], [5] * 8], np.float32)
    found, at, data = both(kernel, x, vals)
    none = np.iinfo(dtype).max
    same(found, [[3, none, none, none, none, 0, 9, none], [5] + [none] * 7])
    same(at, [[none, 3, none, none, none, 0, 9, none], [none] * 7 + [5]])
    same(data, [[0, 1, 2, 0, 4, 5, 6, 7, 8, 0], [0, 1, 2, 3, 4, 0, 6, 7, 8, 9]])


def test_nan_and_infinities():
    x = np.array([[np.nan, -np.inf, 1, np.inf, -0.0, 0.0, np.nan, 2, -5]], np.float32)
    values, *_ = both(top8, x)
    same(values, [[np.inf, 2, 1, -0.0, 0.0, -5, -np.inf, -np.inf]])


@pytest.mark.parametrize("level", CPU_LEVELS)
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
def test_views_on_every_cpu(monkeypatch, level, order):
    """Strided 3-D free dimensions, permuted, replaced in place; positions are row-major in the view."""
    monkeypatch.setenv("NKILITE_CPU", level)

    def kernel(x):
        whole, values, at = tile(x), new((20, 2, 8)), new((20, 16), "uint32")
        view = whole[32:52, 1:9, ::3].permute(order)
        nisa.max8(values[:, 1, :], view)
        nisa.nc_find_index8(at[:, ::2], view, values[:, 1, :])
        nisa.nc_match_replace8(view, view, values[:, 1, :], 0.5)
        return outputs(values[:, 1, :], at[:, ::2], whole)

    x = make((64, 10, 11), "float32", 4)
    values, at, whole = both(kernel, x)
    view = x[32:52, 1:9, ::3].transpose(order)
    rows = view.reshape(20, -1)
    best = np.argsort(-rows, axis=1)[:, :8]
    same(at, best)
    same(values, np.take_along_axis(rows, best, axis=1))
    np.put_along_axis(rows, best, 0.5, axis=1)
    x[32:52, 1:9, ::3] = rows.reshape(view.shape).transpose(np.argsort(order))
    same(whole, x)


def test_broadcast_values_and_conversion():
    """A value repeated by a stride of 0, as a maximum found elsewhere; data converted on the way."""

    def kernel(x, value):
        data, wanted = tile(x), tile(value)
        found, copied = new((4, 8), "uint32"), new(x.shape, "bfloat16")
        eight = wanted.ap([[1, 4], [0, 8]])
        nisa.nc_find_index8(found, data, eight)
        nisa.nc_match_replace8(copied, data, eight, 1.001)
        return outputs(found, copied)

    x = make((4, 40), "float32")
    x[:, 11] = x[:, 30] = 7
    found, copied = both(kernel, x, np.full((4, 1), 7, np.float32))
    same(found[:, :3], np.tile(np.array([11, 30, 2**32 - 1]), (4, 1)))
    expected = x.copy()
    expected[:, [11, 30]] = 1
    same(copied, expected.astype(copied.dtype))


def test_int32_beyond_float_precision_keeps_its_bits():
    def kernel(x, vals):
        data = tile(x)
        nisa.nc_match_replace8(data, data, tile(vals), 0.0)
        return outputs(data)

    x = np.arange(2**24, 2**24 + 16, dtype=np.int32)[None]
    (result,) = both(kernel, x, np.full((1, 8), -1, np.float32))
    np.testing.assert_array_equal(result, x)


@pytest.mark.parametrize("ascending", [False, True])
def test_longest_partition(ascending):
    x = make((2, 16384), "float32", 5)
    if ascending:
        x.sort(axis=1)
    values, found, *_ = both(top8, x)
    same(values, -np.sort(-x, axis=1)[:, :8])
    same(found, np.argsort(-x, axis=1)[:, :8])


def _error(kernel, *arrays):
    with pytest.raises(errors.NkiError) as caught:
        nki.jit(kernel)(*arrays)
    return caught.value


@pytest.mark.parametrize(("n", "kind"), [(7, errors.InvalidOperand), (16385, errors.FreeSizeExceeded)])
def test_too_few_or_too_many_elements(n, kind):
    def kernel(x):
        source, result = tile(x), new((2, 8))
        nisa.max8(result, source)

    error = _error(kernel, np.zeros((2, n), np.float32))
    assert isinstance(error, kind)
    assert str(n) in str(error)
    assert "16384" in str(error)
    assert error.location.line == kernel.__code__.co_firstlineno + 2


def test_eight_of_each_are_required():
    def kernel(x, vals):
        nisa.nc_find_index8(new((4, 8), "uint32"), tile(x), tile(vals))

    error = _error(kernel, np.zeros((4, 16), np.float32), np.zeros((4, 7), np.float32))
    assert isinstance(error, errors.ShapeMismatch)
    assert "(4, 7)" in str(error)
    assert "(4, 8)" in str(error)
    assert error.location.line == kernel.__code__.co_firstlineno + 1


def test_indices_are_unsigned():
    def kernel(x):
        data = tile(x)
        nisa.nc_match_replace8(data, data, data[:, :8], 0.0, new((4, 8), "float32"))

    error = _error(kernel, np.zeros((4, 16), np.float32))
    assert isinstance(error, errors.UnsupportedDtype)
    assert "float32" in str(error)
    assert "uint16, uint32" in str(error)


def test_hbm_is_refused():
    def kernel(x):
        result = nl.ndarray((4, 8), dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.max8(result, tile(x))

    error = _error(kernel, np.zeros((4, 16), np.float32))
    assert isinstance(error, errors.WrongMemory)
    assert "HBM" in str(error)
