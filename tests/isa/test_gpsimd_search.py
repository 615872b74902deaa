"""topk, nonzero_with_count and sequence_bounds."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from isa_testing import CPU_LEVELS, both, new, outputs, raises, same, tile

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.testing import make


def zeros(shape, dtype):
    result = new(shape, dtype)
    nisa.memset(result, 0)
    return result


# --- topk ---------------------------------------------------------------------------------------------------


def best(x, n, k):
    """Values and numbers of the k largest of each 16 partitions, in zeroed tiles; a sort of pairs in plain Python."""
    values, indices = np.zeros((x.shape[0], k)), np.zeros((x.shape[0], k))
    for start in range(0, x.shape[0], 16):
        group = x[start : start + 16].astype(np.float64)
        pairs = [(group[i % 16, i // 16], -i) for i in range(n)]
        pairs = [(-np.inf if np.isnan(value) else value + 0.0, i) for value, i in pairs]
        for rank, (value, number) in enumerate(sorted(pairs)[n - k :]):
            values[start + rank % 16, rank // 16] = value
            indices[start + rank % 16, rank // 16] = -number
    return values, indices


def run_topk(x, n, k, **options):
    def kernel(x):
        source = tile(x)
        values, indices = zeros((x.shape[0], k), "bfloat16"), zeros((x.shape[0], k), "uint32")
        nisa.topk(values, indices, source, n, **options)
        return outputs(values, indices)

    return both(kernel, x)


@pytest.mark.parametrize(("n", "k"), [(42, 8), (8, 1), (8, 8), (16, 16), (100, 33), (1000, 256)])
@pytest.mark.parametrize("partitions", [16, 128])
def test_topk(n, k, partitions):
    x = make((partitions, -(-n // 16)), "bfloat16", 3)
    values, indices = run_topk(x, n, k)
    expected = best(x, n, k)
    same(values, expected[0])
    same(indices, expected[1])


def test_sorted_values_are_in_the_order_they_have_anyway():
    x = make((16, 3), "bfloat16", 3)
    for found, wanted in zip(run_topk(x, 42, 8, sorted=True), best(x, 42, 8), strict=True):
        same(found, wanted)


def test_topk_of_repeated_values_and_specials():
    x = np.random.default_rng(0).integers(-2, 3, (32, 7)).astype(ml_dtypes.bfloat16)
    x[::3, 1], x[1::5, 2], x[::7, 3] = np.nan, -np.inf, np.inf
    x[::2, 4], x[1::2, 4] = 0.0, -0.0
    values, indices = run_topk(x, 100, 100)
    expected = best(x, 100, 100)
    same(values, expected[0])
    same(indices, expected[1])


def test_topk_at_its_largest():
    x = make((16, 4096), "bfloat16", 5)
    values, indices = run_topk(x, 65535, 300)
    column = x.reshape(-1, order="F")[:65535].astype(np.float32)
    chosen = np.argsort(-column, kind="stable")[:300][::-1]
    rank = np.arange(300)
    np.testing.assert_array_equal(indices[rank % 16, rank // 16], chosen)
    same(values[rank % 16, rank // 16], column[chosen])


@pytest.mark.parametrize("level", CPU_LEVELS)
def test_topk_of_views_on_every_cpu(monkeypatch, level):
    """Values, numbers and results in permuted and strided views; what has no result keeps its content."""
    monkeypatch.setenv("NKILITE_CPU", level)

    def kernel(x):
        source, values, indices = tile(x), new((32, 7, 6), "bfloat16"), new((32, 9, 2), "uint32")
        nisa.memset(values, -5)
        nisa.memset(indices, 77)
        view = source[32:64, ::2, 1:4].permute((0, 2, 1))
        nisa.topk(values[:, 1:4, ::2], indices[:, :, 1], view, 100)
        return outputs(values, indices)

    x = make((64, 6, 11), "bfloat16", 7)[:, :, :5]
    values, indices = both(kernel, np.ascontiguousarray(x))
    rows = x[32:64, ::2, 1:4].transpose(0, 2, 1).reshape(32, 9)
    expected_values, expected_indices = best(rows, 100, 9)
    filled = np.zeros((32, 9), bool)
    filled[np.arange(32) % 16 < 9, 0] = True
    wanted = np.full((32, 7, 6), -5.0)
    wanted[:, 1:4, ::2] = np.where(filled, expected_values, -5).reshape(32, 3, 3)
    same(values, wanted)
    wanted = np.full((32, 9, 2), 77)
    wanted[:, :, 1] = np.where(filled, expected_indices, 77)
    same(indices, wanted)


def test_groups_are_shared_by_threads(monkeypatch):
    monkeypatch.setenv("NKILITE_NUM_THREADS", "3")

    def kernel(x, sparse):
        source, values, indices = tile(x), zeros((128, 64), "bfloat16"), zeros((128, 64), "uint32")
        nisa.topk(values, indices, source, 4000)
        found = zeros((128, 2001), "int32")
        nisa.nonzero_with_count(found, tile(sparse))
        return outputs(values, indices, found)

    x = make((128, 250), "bfloat16")
    sparse = np.where(make((128, 2000), "float32") > 1, 1, 0).astype(np.int32)
    values, indices, found = nki.jit(kernel)(x, sparse)
    expected_values, expected_indices = best(x, 4000, 64)
    same(values, expected_values)
    same(indices, expected_indices)
    np.testing.assert_array_equal(found, counted(sparse))


def test_operands_of_topk():
    def fails(error, match, n=42, k=8, src=((32, 3), "bfloat16"), dst="bfloat16", idx=None):
        def body(x):
            values, indices = new((src[0][0], k), dst), idx or new((src[0][0], k), "uint32")
            nisa.topk(values, indices, zeros(*src), n)

        with pytest.raises(error, match=match):
            both(lambda x: (body(x), x)[1], np.zeros((1, 1), np.float32))

    fails(errors.UnsupportedDtype, "src has dtype float32", src=((32, 3), "float32"))
    fails(errors.UnsupportedDtype, "val_dst has dtype float32", dst="float32")
    fails(errors.InvalidOperand, "n is 7; expected an int from 8 to 65535", n=7)
    fails(errors.InvalidOperand, "n is 42.0", n=42.0)
    fails(errors.InvalidOperand, "at most n, which is 42", k=43)
    fails(errors.InvalidOperand, "src is 3 elements .*at least 4, to hold n = 49", n=49)
    fails(errors.ShapeMismatch, "24 partitions", src=((24, 3), "bfloat16"))


def test_topk_names_the_line():
    raises(
        errors.UnsupportedDtype, "src has dtype",
        lambda x: nisa.topk(new((16, 8), "bfloat16"), new((16, 8), "uint32"), x, 8), shape=(16, 8),
    )


# --- nonzero_with_count -------------------------------------------------------------------------------------


def run_nonzero(x, *options):
    def kernel(x):
        source, result = tile(x), zeros((x.shape[0], x.shape[1] + 1), "int32")
        nisa.nonzero_with_count(result, source, *options)
        return outputs(result)

    return both(kernel, x)[0]


def counted(x, offset=0, padding=-1):
    result = np.zeros((x.shape[0], x.shape[1] + 1), np.int32)
    for p in range(0, x.shape[0], 16):
        found = [i + offset for i, value in enumerate(x[p]) if value != 0]
        result[p] = [*found, *[padding] * (x.shape[1] - len(found)), len(found)]
    return result


def test_documented_example():
    x = np.array([[0, 1, 1, 0, 0, 1, 0, 0]], np.int32)
    np.testing.assert_array_equal(run_nonzero(x, 16, -1), [[17, 18, 21, -1, -1, -1, -1, -1, 3]])


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("shape", [(1, 1), (16, 40), (128, 300), (40, 33)])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_nonzero(dtype, shape, density):
    rng = np.random.default_rng(0)
    x = np.where(rng.random(shape) < density, rng.integers(1, 9, shape) * -1, 0).astype(dtype)
    np.testing.assert_array_equal(run_nonzero(x), counted(x))
    np.testing.assert_array_equal(run_nonzero(x, 1000, 2**31 - 1), counted(x, 1000, 2**31 - 1))


def test_nan_is_not_zero_and_minus_zero_is():
    x = np.array([[np.nan, -0.0, 0.0, 1e-45, np.inf]], np.float32)
    np.testing.assert_array_equal(run_nonzero(x), [[0, 3, 4, -1, -1, 3]])


@pytest.mark.parametrize("level", CPU_LEVELS)
def test_nonzero_of_views_on_every_cpu(monkeypatch, level):
    """Positions are row-major in a permuted view, and other partitions keep what they hold."""
    monkeypatch.setenv("NKILITE_CPU", level)

    def kernel(x):
        source, result = tile(x), new((32, 37, 2), "int32")
        nisa.memset(result, 5)
        view = source[32:64, 1:10:2, ::3].permute((0, 2, 1))
        nisa.nonzero_with_count(result[:, :21, 1], view, -4, 99)
        return outputs(result)

    x = np.random.default_rng(1).integers(0, 2, (64, 10, 11)).astype(np.float32)
    (result,) = both(kernel, x)
    wanted = np.full((32, 37, 2), 5)
    rows = x[32:64, 1:10:2, ::3].transpose(0, 2, 1).reshape(32, -1)
    wanted[::16, :21, 1] = counted(rows, -4, 99)[::16]
    same(result, wanted)


def test_operands_of_nonzero_with_count():
    raises(
        errors.ShapeMismatch, "dst has 16 elements .*take 17",
        lambda x: nisa.nonzero_with_count(new((8, 16), "int32"), x),
    )
    raises(errors.UnsupportedDtype, "dst has dtype float32", lambda x: nisa.nonzero_with_count(new((8, 17)), x))
    raises(
        errors.InvalidOperand, "padding_val is 0.5",
        lambda x: nisa.nonzero_with_count(new((8, 17), "int32"), x, 0, 0.5),
    )
    raises(
        errors.UnsupportedOnTarget, "trn2", lambda x: nisa.nonzero_with_count(new((8, 17), "int32"), x), target="trn1"
    )


# --- sequence_bounds ----------------------------------------------------------------------------------------


def bounds(ids):
    """The page's rule, element by element."""
    n = len(ids)
    first, end = [], [0] * n
    for i, value in enumerate(ids):
        first.append(n if value == 0 else first[-1] if i and value == ids[i - 1] else i)
    for i in reversed(range(n)):
        end[i] = -1 if ids[i] == 0 else end[i + 1] if i + 1 < n and ids[i] == ids[i + 1] else i + 1
    return np.array([[first, end]])


def test_documented_segments():
    first, end = bounds([0, 1, 1, 2, 2, 2, 0, 3, 3])[0].tolist()
    assert first == [9, 1, 1, 3, 3, 3, 9, 7, 7]
    assert end == [-1, 3, 3, 6, 6, 6, -1, 9, 9]


@pytest.mark.parametrize("level", CPU_LEVELS)
@pytest.mark.parametrize("dtypes", [("float32", "int32"), ("int32", "float32"), ("int32", "int32")])
@pytest.mark.parametrize("n", [1, 2, 9, 512])
def test_sequence_bounds(monkeypatch, level, dtypes, n):
    monkeypatch.setenv("NKILITE_CPU", level)

    def kernel(ids):
        source, result = tile(ids), new((1, 2, n), dtypes[1])
        nisa.sequence_bounds(result, source)
        return outputs(result)

    ids = np.repeat(np.random.default_rng(n).integers(0, 4, n), 3)[:n]
    (result,) = both(kernel, ids.astype(dtypes[0])[None])
    same(result, bounds(ids))


def test_sequence_bounds_of_views():
    def kernel(ids):
        source, result = tile(ids), zeros((1, 3, 10, 9), "int32")
        nisa.sequence_bounds(result[:, ::2, 1:4, 2:6], source[:, ::2, :3].permute((0, 2, 1)))
        return outputs(result)

    ids = np.random.default_rng(3).integers(0, 3, (1, 8, 5)).astype(np.int32)
    (result,) = both(kernel, ids)
    flat = ids[:, ::2, :3].transpose(0, 2, 1).reshape(-1)
    wanted = np.zeros((1, 3, 10, 9))
    wanted[:, ::2, 1:4, 2:6] = bounds(flat).reshape(1, 2, 3, 4)
    same(result, wanted)


def test_operands_of_sequence_bounds():
    raises(
        errors.ShapeMismatch, "segment_ids has 8 partitions", lambda x: nisa.sequence_bounds(new((1, 2, 16)), x)
    )
    raises(
        errors.ShapeMismatch, r"it must be \(1, 2, 16\)", lambda x: nisa.sequence_bounds(new((1, 32)), x), shape=(1, 16)
    )
    raises(
        errors.UnsupportedDtype, "dst has dtype bfloat16",
        lambda x: nisa.sequence_bounds(new((1, 2, 16), "bfloat16"), x), shape=(1, 16),
    )
    raises(
        errors.WrongMemory, "dst is in PSUM",
        lambda x: nisa.sequence_bounds(new((1, 2, 16), buffer=nl.psum), x), shape=(1, 16),
    )
