"""rng, rand2, dropout and the state they share."""

from __future__ import annotations

import numpy as np
import pytest
import scipy
from isa_testing import CPU_LEVELS, both, new, outputs, raises, same, tile

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.ir import parse_program, print_program
from nkilite.testing import make

MASK = 0xFFFFFFFF
INTEGERS = ["int8", "int16", "int32", "uint8", "uint16", "uint32"]


@pytest.fixture
def trn3(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")


def xorwow(state, count):
    """Marsaglia's generator in plain integers: the numbers, and the state afterwards."""
    x, y, z, w, v, d = (int(word) for word in state)
    drawn = []
    for _ in range(count):
        t = x ^ (x >> 2)
        x, y, z, w = y, z, w, v
        v = ((v ^ (v << 4)) ^ (t ^ (t << 1))) & MASK
        d = (d + 362437) & MASK
        drawn.append((v + d) & MASK)
    return drawn, [x, y, z, w, v, d]


def words(partitions, columns, seed=0):
    return np.random.default_rng(seed).integers(1, 2**32, (partitions, columns)).astype(np.uint32)


# --- the generator ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("partitions", [1, 20, 128])
def test_gpsimd_draws_xorwow_numbers(dtype, partitions):
    def kernel(seeds):
        result, after = new((partitions, 3, 5), dtype), new((partitions, 6), "uint32")
        nisa.rand_set_state(tile(seeds))
        nisa.rng(result, engine=nisa.engine.gpsimd)
        nisa.rand_get_state(after)
        return outputs(result, after)

    seeds = words(partitions, 6)
    result, after = both(kernel, seeds)
    for p in range(partitions):
        drawn, state = xorwow(seeds[p], 15)
        low = np.array(drawn, np.uint32).astype(dtype)
        np.testing.assert_array_equal(result[p].reshape(-1), low)
        assert after[p].tolist() == state


@pytest.mark.parametrize("count", [1, 6, 4, 64])
def test_vector_takes_turns_between_four_generators(trn3, count):
    def kernel(seeds):
        first, second, after = new((8, count), "uint32"), new((8, 3), "uint32", nl.psum), new((8, 24), "uint32")
        nisa.rand_set_state(tile(seeds), engine=nisa.engine.vector)
        nisa.rng(first)
        nisa.rng(second)
        nisa.rand_get_state(after, engine=nisa.engine.vector)
        return outputs(first, second, after)

    seeds = words(8, 24)
    first, second, after = both(kernel, seeds)
    for p in range(8):
        for stream in range(4):
            here, more = len(range(stream, count, 4)), len(range(stream, 3, 4))
            drawn, state = xorwow(seeds[p, 6 * stream : 6 * stream + 6], here + more)
            assert first[p, stream::4].tolist() == drawn[:here]
            assert second[p, stream::4].tolist() == drawn[here:]
            assert after[p, 6 * stream : 6 * stream + 6].tolist() == state


@pytest.mark.parametrize("level", CPU_LEVELS)
def test_every_cpu_and_view(monkeypatch, level):
    """Strided results of all kinds; numbers go to elements in row-major order."""
    monkeypatch.setenv("NKILITE_CPU", level)
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")

    def kernel(x, ends):
        result, dropped, drawn = new((48, 9, 10), "int16"), new((48, 10, 11), x.dtype), new((48, 90), "bfloat16")
        ends = tile(ends)
        nisa.memset(result, 0)
        nisa.memset(dropped, 7)
        nisa.rng(result[:, 1:8, ::3])
        nisa.dropout(dropped[32:, ::3, 1:10].permute((0, 2, 1)), tile(x)[32:, :9, :4], ends[32:, :1])
        nisa.rand2(drawn, ends[:, 0:1], ends[:, 1:2])
        return outputs(result, dropped, drawn)

    ends = np.stack([np.linspace(0, 0.5, 48), np.linspace(1, 5, 48)], axis=1).astype(np.float32)
    result, dropped, drawn = both(kernel, make((48, 9, 10), "float16", 2), ends)
    assert np.unique(result[:, 1:8, ::3]).size > 1300
    assert not result[:, 0].any()
    assert (dropped[:32] == 7).all()
    assert (drawn >= ends[:, :1] * 0.99).all()
    assert (drawn <= ends[:, 1:] * 1.01).all()


def test_same_numbers_for_any_number_of_threads(monkeypatch):
    def kernel(seed):
        bits, kept = new((128, 700), "uint32"), new((128, 700))
        nisa.set_rng_seed(tile(seed))
        nisa.rng(bits)
        nisa.memset(kept, 1.0)
        nisa.dropout(kept, kept, 0.25)
        return outputs(bits, kept)

    seed = np.array([[5]], np.int32)
    results = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("NKILITE_NUM_THREADS", threads)
        results.append(nki.jit(kernel)(seed))
    for other in results[1:]:
        for left, right in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("engine", ["vector", "gpsimd"])
def test_statistics_of_a_kernel_that_does_not_seed(engine):
    """Bits are balanced and bytes uniform, over partitions as well as along them."""

    def kernel():
        result = new((128, 512), "uint32")
        nisa.rng(result, engine=getattr(nisa.engine, engine))
        return outputs(result)

    (result,) = both(kernel)
    share = np.unpackbits(result.view(np.uint8)).reshape(-1, 32).mean(axis=0)
    assert abs(share - 0.5).max() < 0.012  # six deviations
    for lines in (result, result.T):
        for shift in (0, 12, 24):
            counts = np.bincount(((lines >> np.uint32(shift)) & np.uint32(255)).reshape(-1), minlength=256)
            assert scipy.stats.chisquare(counts).pvalue > 1e-4
    assert np.unique(result).size > 65500
    neighbours = np.corrcoef(result[:, :-1].reshape(-1) / 2**32, result[:, 1:].reshape(-1) / 2**32)[0, 1]
    across = np.corrcoef(result[:-1].reshape(-1) / 2**32, result[1:].reshape(-1) / 2**32)[0, 1]
    assert abs(neighbours) < 0.02
    assert abs(across) < 0.02


# --- state --------------------------------------------------------------------------------------------------


def test_state_lives_from_instruction_to_instruction_and_launch_to_launch():
    def kernel():
        first, second, again = (new((16, 40), "uint32") for _ in range(3))
        saved = new((128, 6), "uint32")
        gpsimd = nisa.engine.gpsimd
        nisa.rng(first, engine=gpsimd)
        nisa.rand_get_state(saved)
        nisa.rng(second, engine=gpsimd)
        nisa.rand_set_state(saved)
        nisa.rng(again, engine=gpsimd)
        return outputs(first, second, again)

    jitted = nki.jit(kernel)
    first, second, again = both(kernel)
    assert (first != second).mean() > 0.99
    np.testing.assert_array_equal(second, again)
    for _ in range(2):
        np.testing.assert_array_equal(jitted()[1], second)


def test_seeds():
    """The same seed repeats the numbers, another one does not, 0 is the default, and bits of floats count."""

    def kernel(seeds):
        results = [new((128, 33), "uint32") for _ in range(5)]
        seeds = tile(seeds)
        nisa.rng(results[0])
        for i in range(3):
            nisa.set_rng_seed(seeds[:, i : i + 1])
            nisa.rng(results[i + 1])
        nisa.set_rng_seed(seeds[:, 1:2].view(nl.float32))
        nisa.rng(results[4])
        return outputs(*results)

    default, zero, one, two, again = both(kernel, np.array([[0, 1, 2]], np.int32))
    np.testing.assert_array_equal(default, zero)
    np.testing.assert_array_equal(one, again)
    for left, right in ((zero, one), (one, two), (zero, two)):
        assert (left != right).mean() > 0.99


def test_engines_draw_different_numbers_and_do_not_disturb_each_other():
    def kernel():
        vector, gpsimd, more = (new((128, 16), "uint32") for _ in range(3))
        nisa.rng(vector)
        nisa.rng(gpsimd, engine=nisa.engine.gpsimd)
        nisa.rng(more)
        return outputs(vector, gpsimd, more)

    def alone():
        first = new((128, 32), "uint32")
        nisa.rng(first)
        return outputs(first)

    vector, gpsimd, more = both(kernel)
    (first,) = both(alone)
    np.testing.assert_array_equal(np.concatenate([vector, more], axis=1), first)
    assert not np.intersect1d(vector, gpsimd).size


def test_in_a_device_loop_state_goes_on():
    def kernel():
        result = nl.ndarray((5, 32, 8), dtype=nl.uint32, buffer=nl.shared_hbm)

        def body(i):
            bits = new((32, 8), "uint32")
            nisa.rng(bits)
            nisa.dma_copy(result.select(0, i), bits)

        nl.fori_loop(0, 5, body)
        return result

    (looped,) = both(kernel)

    def unrolled():
        tiles = [new((32, 8), "uint32") for _ in range(5)]
        for bits in tiles:
            nisa.rng(bits)
        return outputs(*tiles)

    np.testing.assert_array_equal(looped, np.stack(both(unrolled)))


def test_state_is_an_operand_in_the_text_of_a_program():
    def kernel():
        bits = new((8, 8), "uint32")
        nisa.rng(bits)
        nisa.rng(bits, engine=nisa.engine.gpsimd)
        return outputs(bits)

    text = print_program(nki.jit(kernel).trace())
    assert "buffer %vector_random_registers = registers registers uint32[128, 24]" in text
    assert "rng(dst=%sb0, engine=Engine.gpsimd, registers=%gpsimd_random_registers)" in text
    assert print_program(parse_program(text)) == text


# --- dropout and rand2 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e5m2", "int32", "uint8"])
@pytest.mark.parametrize("buffer", ["sbuf", "psum"])
def test_dropout(dtype, buffer):
    def kernel(x, prob):
        data, result, some = tile(x, getattr(nl, buffer)), new(x.shape, x.dtype), new(x.shape, x.dtype)
        nothing, everything = new(x.shape, x.dtype), new(x.shape, x.dtype)
        nisa.dropout(nothing, data, 1.0)
        nisa.dropout(everything, data, 0)
        nisa.dropout(result, data, 0.25)
        nisa.dropout(some, data, tile(prob))
        nisa.dropout(data, data, 0.25)
        return outputs(nothing, everything, result, some, data)

    x = np.where(make((128, 300), dtype) == 0, 1, make((128, 300), dtype)).astype(make((1,), dtype).dtype)
    prob = np.linspace(-0.1, 1.5, 128, dtype=np.float32)[:, None]
    nothing, everything, result, some, data = both(kernel, x, prob)
    assert not nothing.any()
    same(everything, x)
    for got in (result, data):
        assert abs((got == 0).mean() - 0.25) < 0.015
        same(got[got != 0], x[got != 0])
    assert (result != data).any()
    assert abs((some == 0).mean(axis=1) - np.clip(prob[:, 0], 0, 1)).max() < 0.15
    assert not (some[prob[:, 0] <= 0] == 0).any()
    assert not some[prob[:, 0] >= 1].any()


@pytest.mark.parametrize(
    "dtype", ["float32", "tfloat32", "bfloat16", "float16", "float8_e4m3", "float8_e5m2", *INTEGERS]
)
def test_rand2(trn3, dtype):
    def kernel(low, high):
        scalars, tiles, unit = (new((128, 200), dtype) for _ in range(3))
        nisa.rand2(scalars, 3.0, 100.0)
        nisa.rand2(tiles, tile(low), tile(high))
        nisa.rand2(unit, 0, 1)
        exact = [new((128, 200)) for _ in range(3)]
        for wide, narrow in zip(exact, (scalars, tiles, unit), strict=True):
            nisa.tensor_copy(wide, narrow)
        return outputs(*exact)

    low = np.arange(128, dtype=np.float32)[:, None] / 2
    scalars, tiles, unit = both(kernel, low, low + 10)
    step = 8.0 if "float8" in dtype else 0.6
    assert scalars.min() >= 3
    assert scalars.max() <= 100 + step
    assert abs(scalars.mean() - 51.5) < 1
    assert (tiles >= low - step).all()
    assert (tiles <= low + 10 + step).all()
    assert abs(unit.mean() - 0.5) < 0.01
    if dtype == "float32":
        assert unit.max() < 1
        assert scipy.stats.kstest(unit.reshape(-1), "uniform").pvalue > 1e-4


def test_rand2_stays_below_an_end_whose_distance_is_rounded_up(trn3):
    def kernel():
        result = new((128, 512))
        nisa.rand2(result, -1.0, 2.0**-25)
        return outputs(result)

    (result,) = both(kernel)
    assert result.max() <= 2.0**-25


# --- mistakes -----------------------------------------------------------------------------------------------


def test_operands():
    words = lambda columns=6: new((8, columns), "uint32")  # noqa: E731
    raises(errors.UnsupportedDtype, "dst has dtype float32", lambda x: nisa.rng(new((8, 8))))
    raises(errors.UnsupportedEngine, "engine scalar", lambda x: nisa.rng(words(), engine=nisa.engine.scalar))
    raises(
        errors.UnsupportedOnTarget, "nisa.rng on the GpSimd Engine needs trn2",
        lambda x: nisa.rng(words(), engine=nisa.engine.gpsimd), target="trn1",
    )
    raises(
        errors.WrongMemory, "dst is in PSUM",
        lambda x: nisa.rng(new((8, 6), "uint32", nl.psum), engine=nisa.engine.gpsimd),
    )
    raises(errors.UnsupportedOnTarget, "nisa.rand2 needs trn3", lambda x: nisa.rand2(x, 0, 1))
    raises(errors.InvalidOperand, "min is 2.* less than max, which is 1", lambda x: nisa.rand2(x, 2, 1), target="trn3")
    raises(errors.ShapeMismatch, "max has shape", lambda x: nisa.rand2(x, 0, x), target="trn3")
    raises(errors.UnsupportedOnTarget, "needs trn2", lambda x: nisa.rand_get_state(words()), target="trn1")
    raises(
        errors.UnsupportedOnTarget, "nisa.rand_get_state on the Vector Engine needs trn3",
        lambda x: nisa.rand_get_state(words(24), engine=nisa.engine.vector),
    )
    raises(errors.ShapeMismatch, "gpsimd engine has 6 elements", lambda x: nisa.rand_get_state(words(24)))
    raises(errors.UnsupportedDtype, "src_seeds has dtype float32", lambda x: nisa.rand_set_state(x))
    raises(errors.ShapeMismatch, r"it must be \(1, 1\)", lambda x: nisa.set_rng_seed(x))
    raises(
        errors.UnsupportedDtype, "src_seeds has dtype int16", lambda x: nisa.set_rng_seed(new((1, 1), "int16"))
    )
    raises(errors.InvalidOperand, "prob is 1.5; expected a number from 0 to 1", lambda x: nisa.dropout(x, x, 1.5))
    raises(errors.DtypeMismatch, "dst is bfloat16", lambda x: nisa.dropout(new((8, 16), "bfloat16"), x, 0.5))
    raises(
        errors.UnsupportedDtype, "prob has dtype bfloat16",
        lambda x: nisa.dropout(new((8, 4), "int32"), new((8, 4), "int32"), new((8, 1), "bfloat16")),
    )
