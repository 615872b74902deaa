"""nl.rand, nl.random_seed and nl.dropout."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import scipy
from language_testing import floats, run_both

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors


def both(kernel, *arrays):
    compiled, simulated = nki.jit(kernel)(*arrays), nki.simulate(kernel)(*arrays)
    np.testing.assert_array_equal(compiled, simulated)
    return compiled


@pytest.mark.parametrize("target", ["trn1", "trn2", "trn3"])
@pytest.mark.parametrize("buffer", ["sbuf", "psum", "shared_hbm"])
def test_rand_is_uniform_in_every_memory(monkeypatch, target, buffer):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)

    def kernel():
        values = nl.rand((128, 300), nl.float32, buffer=getattr(nl, buffer))
        if buffer == "shared_hbm":
            return values
        result = nl.ndarray(values.shape, values.dtype, buffer=nl.shared_hbm)
        nl.store(result, nl.copy(values))
        return result

    values = both(kernel)
    assert values.min() >= 0
    assert values.max() < 1
    assert scipy.stats.kstest(values.reshape(-1), "uniform").pvalue > 1e-4
    np.testing.assert_array_equal(values, nki.jit(kernel)())


@pytest.mark.parametrize("shape", [(7,), (3, 5, 11), (300, 2000), (100_003,)])
def test_rand_fills_hbm_of_any_shape(shape):
    def kernel():
        return nl.rand(shape, nl.float32, buffer=nl.shared_hbm)

    values = both(kernel)
    assert values.shape == shape
    assert np.unique(values).size > 0.98 * values.size
    assert 0 <= values.min() <= values.max() < 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int32"])
def test_rand_rounds_to_the_dtype(dtype):
    def kernel(kind):
        values = nl.rand((4, 64), kind)
        return nl.copy(values, nl.float32)

    wide = run_both(lambda x: kernel(nl.float32), np.zeros((4, 64), np.float32))
    got = run_both(lambda x: kernel(dtype), np.zeros((4, 64), np.float32))
    rounded = np.rint(wide) if dtype == "int32" else wide.astype(getattr(ml_dtypes, dtype, dtype))
    np.testing.assert_array_equal(got, rounded.astype(np.float32))


def test_a_seed_repeats_the_values():
    """The example of the page of nl.random_seed."""

    def kernel(seeds):
        tile = nl.load(seeds)
        results = []
        for i in (0, 1, 0):
            nl.random_seed(tile[:, i : i + 1])
            results += [nl.rand((64, 100), nl.float32), nl.rand((64, 100), nl.float32)]
        returned = [nl.ndarray((64, 100), nl.float32, buffer=nl.shared_hbm) for _ in results]
        for result, values in zip(returned, results, strict=True):
            nl.store(result, values)
        return tuple(returned)

    seeds = np.array([[42, 43]], np.int32)
    first, second, other, _, again, more = nki.jit(kernel)(seeds)
    for left, right in zip(nki.simulate(kernel)(seeds), nki.jit(kernel)(seeds), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(second, more)
    assert (first != second).mean() > 0.99
    assert (first != other).mean() > 0.99


def test_dropout(rng):
    x = floats(rng, 64, 500)
    got = run_both(lambda t: nl.dropout(t, 0.3), x)
    kept = got != 0
    assert abs(kept.mean() - 0.7) < 0.02
    np.testing.assert_array_equal(got[kept], x[kept])
    narrow = run_both(lambda t: nl.dropout(t, 0.3, dtype=nl.bfloat16), x)
    np.testing.assert_array_equal(narrow, got.astype(ml_dtypes.bfloat16))
    rates = np.linspace(0, 1, 64, dtype=np.float32)[:, None]
    got = run_both(nl.dropout, x, rates)
    assert abs((got == 0).mean(axis=1) - rates[:, 0]).max() < 0.1


def test_dropout_of_random_values_in_one_kernel():
    """A chain that passes may fuse by row keeps the order in which numbers are drawn."""

    def kernel(x):
        tile = nl.load(x)
        noise = nl.rand(x.shape, nl.float32)
        result = nl.dropout(nl.add(tile, noise), 0.5)
        output = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
        nl.store(output, nl.add(result, nl.rand(x.shape, nl.float32)))
        return output

    both(kernel, np.ones((128, 2048), np.float32))


def test_mistakes():
    def refused(error, match, body):
        def kernel():
            body()

        with pytest.raises(error, match=match) as caught:
            nki.jit(kernel)()
        assert caught.value.location.line == body.__code__.co_firstlineno

    refused(errors.InvalidOperand, "nl.random_seed: seed is", lambda: nl.random_seed(42))
    refused(errors.WrongMemory, "HBM", lambda: nl.random_seed(nl.ndarray((1, 1), nl.int32, buffer=nl.shared_hbm)))
    refused(errors.InvalidOperand, "nl.dropout: x is", lambda: nl.dropout(3.0, 0.5))
    refused(errors.InvalidOperand, "prob is -0.5", lambda: nl.dropout(nl.zeros((4, 4), nl.float32), -0.5))
    refused(errors.UnsupportedDtype, "dst has dtype float32", lambda: nisa.rng(nl.zeros((4, 4), nl.float32)))
    refused(errors.InvalidOperand, "dtype", lambda: nl.rand((4, 4), "float13"))
