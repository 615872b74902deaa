"""bn_stats and bn_aggr."""

from __future__ import annotations

import functools
import itertools

import isa_testing
import numpy as np
import pytest
from isa_testing import CPU_LEVELS, both, new, outputs, same, tile

import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.testing import make

raises = functools.partial(isa_testing.raises, shape=(8, 36))


def stats(rows: np.ndarray) -> np.ndarray:
    """The six documented numbers of each row, in float64."""
    result = []
    for sample in (rows[:, 0::2], rows[:, 1::2]):
        n = sample.shape[1]
        mean = sample.mean(1) if n else np.zeros(len(rows))
        result += [np.full(len(rows), n), mean, np.square(sample - mean[:, None]).sum(1)]
    return np.stack(result, axis=1)


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("free", [1, 2, 3, 37, 64, 511, 512])
def test_bn_stats_and_aggr(cpu, free, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(a):
        samples, result = new((a.shape[0], 6)), new((a.shape[0], 2), "float32", nl.psum)
        nisa.bn_stats(dst=samples, data=tile(a))
        nisa.bn_aggr(dst=result, data=samples)
        return outputs(samples, result)

    a = 3 * make((100, free), "float32") + 5
    samples, result = both(kernel, a, rtol=1e-5, atol=1e-5)
    exact = a.astype(np.float64)
    same(samples, stats(exact), rtol=1e-5, atol=1e-5)
    same(result, np.stack([exact.mean(1), exact.var(1)], axis=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "uint8", "int32"])
def test_dtypes(dtype):
    """Even and odd elements are counted in row-major order of all free dimensions, of an odd size here."""

    def kernel(a):
        samples, narrow = new((a.shape[0], 2, 3)), new((a.shape[0], 6), "bfloat16")
        x = tile(a)
        nisa.bn_stats(samples, x)
        nisa.bn_stats(narrow, x)
        return outputs(samples, narrow)

    a = np.random.default_rng(0).integers(0, 9, (128, 3, 7)).astype(make((1,), dtype).dtype)
    samples, narrow = both(kernel, a, rtol=1e-2, atol=1e-5)
    expected = stats(a.astype(np.float64).reshape(128, 21))
    same(samples.reshape(128, 6), expected, rtol=1e-5, atol=1e-5)
    same(narrow, expected, rtol=2**-8)


def test_access_patterns():
    def kernel(a):
        x = tile(a)
        results = [new((20, 6)) for _ in range(3)]
        nisa.bn_stats(results[0], x[:20, :, 1:6])
        nisa.bn_stats(results[1], x[:20].permute((0, 2, 1)))
        nisa.bn_stats(results[2], x[:20, 0:1, ::3].broadcast(1, 5))
        return outputs(*results)

    a = make((32, 9, 11), "float32")
    results = both(kernel, a, rtol=1e-5, atol=1e-6)
    views = a[:20, :, 1:6], a[:20].transpose(0, 2, 1), np.broadcast_to(a[:20, 0:1, ::3], (20, 5, 4))
    for got, view in zip(results, views, strict=True):
        same(got, stats(view.astype(np.float64).reshape(20, -1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("tiles", [1, 3, 20])
def test_many_tiles_are_pooled(cpu, tiles, monkeypatch):
    """Tiles of different sizes and means; statistics gathered in one tile at different offsets."""
    monkeypatch.setenv("NKILITE_CPU", cpu)
    bounds = np.cumsum([0, *(7 + 3 * i for i in range(tiles))])

    def kernel(a):
        x, samples = tile(a), new((a.shape[0], tiles, 6))
        flat, reordered = new((a.shape[0], 2)), new((a.shape[0], 2))
        for i, (start, stop) in enumerate(itertools.pairwise(bounds)):
            nisa.bn_stats(samples[:, i], x[:, start:stop])
        nisa.bn_aggr(flat, samples)
        nisa.bn_aggr(reordered, samples[:, ::-1])
        return outputs(flat, reordered)

    a = make((40, bounds[-1]), "float32") + np.arange(bounds[-1], dtype=np.float32) / 50
    exact = a.astype(np.float64)
    for got in both(kernel, a, rtol=1e-4, atol=1e-5):
        same(got, np.stack([exact.mean(1), exact.var(1)], axis=1), rtol=1e-4, atol=1e-5)


def test_aggr_of_samples_cut_across_a_dimension():
    """Free dimensions (9, 2) of a strided view: triples straddle the rows."""

    def kernel(a):
        result = new((16, 2))
        nisa.bn_aggr(result, tile(a)[:, :, 1:3])
        return outputs(result)

    a = np.abs(make((16, 9, 4), "float32")) + 0.5
    (result,) = both(kernel, a, rtol=1e-5, atol=1e-5)
    count, mean, squares = a[:, :, 1:3].astype(np.float64).reshape(16, 6, 3).transpose(2, 0, 1)
    total = count.sum(1)
    center = (count * mean).sum(1) / total
    variance = (squares + count * np.square(mean - center[:, None])).sum(1) / total
    same(result, np.stack([center, variance], axis=1), rtol=1e-5, atol=1e-5)


def test_errors():
    raises(errors.FreeSizeExceeded, "513.*512", lambda x: nisa.bn_stats(x[:, :6], new((8, 513))))
    raises(errors.ShapeMismatch, r"\(8, 5\).*6 elements", lambda x: nisa.bn_stats(new((8, 5)), x))
    raises(errors.ShapeMismatch, r"\(4, 6\).*8 partitions", lambda x: nisa.bn_stats(new((4, 6)), x))
    raises(errors.ShapeMismatch, "35 elements.*multiple of 3", lambda x: nisa.bn_aggr(x[:, :2], x[:, :35]))
    raises(errors.ShapeMismatch, r"\(8, 3\).*2 elements", lambda x: nisa.bn_aggr(new((8, 3)), x))
    raises(errors.ShapeMismatch, "dst.* 4 dimensions", lambda x: nisa.bn_aggr(new((8, 1, 1, 2)), x))
    deep = (8, 1, 1, 1, 1, 3)
    raises(errors.ShapeMismatch, "data.* 6 dimensions", lambda x: nisa.bn_aggr(new((8, 2)), x[:, :3].reshape(deep)))
    raises(errors.WrongMemory, "HBM", lambda x: nisa.bn_stats(new((8, 6), buffer=nl.shared_hbm), x))
