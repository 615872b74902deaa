"""Stochastic rounding: the published example, no bias, and the same bits however a program runs."""

from __future__ import annotations

import pickle
import warnings

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import dtypes, errors
from nkilite.host.cpu import available
from nkilite.ir.digest import digest
from nkilite.rounding import STOCHASTIC, Sites, random_bits, round_to
from nkilite.rounding import launch_state as state_of

EN, SEED = "NEURON_RT_STOCHASTIC_ROUNDING_EN", "NEURON_RT_STOCHASTIC_ROUNDING_SEED"
NARROW = sorted(STOCHASTIC)
X = np.random.default_rng(0).standard_normal((128, 96)).astype(np.float32)


def halves(x):
    """1024 and 2,048 halves, rounded after each."""
    out = nl.ndarray(x.shape, dtype=nl.float16, buffer=nl.shared_hbm)
    total = nl.load(x)

    def body(_):
        nisa.tensor_scalar(total, total, nl.add, 0.5)

    nl.fori_loop(0, 2048, body)
    nl.store(out, total)
    return out


def scaled(x, dtype="bfloat16", factor=1.7):
    out = nl.ndarray(x.shape, dtype=dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(tile, nl.load(x), nl.multiply, factor)
    nl.store(out, tile)
    return out


def bits(array):
    """Bits, of any NaN the same."""
    single = np.asarray(array).astype(np.float32)
    return np.where(np.isnan(single), 0, np.asarray(array).view(f"u{array.dtype.itemsize}"))


def in_both(kernel, *arrays, cores=1, **options):
    """What a kernel returns compiled, which is what it returns simulated, bit for bit."""
    options = {"stochastic_rounding": True, **options}
    simulated = nki.simulate(kernel, **options)[cores](*[a.copy() for a in arrays])
    compiled = nki.jit(kernel, **options)[cores](*[a.copy() for a in arrays])
    left, right = (found if isinstance(found, tuple) else (found,) for found in (simulated, compiled))
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(bits(one), bits(other))
    return compiled


def test_published_example():
    x = np.full((128, 1), 1024, np.float16)
    assert (nki.jit(halves)(x) == 1024).all()
    found = in_both(halves, x, rounding_seed=1).astype(np.float64)
    # Up to 2048 numbers are 1 apart, so that 2,048 coins are tossed and a sum has a standard deviation of 22.6.
    assert abs(found.mean() - 2048) < 5 * 23 / np.sqrt(128)
    assert abs(found.std() - 22.6) < 5
    assert 2056 in found


@pytest.mark.parametrize("dtype", NARROW)
def test_unbiased(dtype):
    """Numbers go to one of their two neighbours, and up as often as they are near the upper one."""
    kind = dtypes.as_dtype(dtype)
    first, last = {"float16": (2e-8, 6e4), "float8_e3m4": (3e-3, 15)}.get(dtype, (3e-3, 200))
    numbers = np.geomspace(first, last, 64).astype(np.float32)
    if "float8" in dtype:
        numbers[:4] = [3e-4, 9e-4, 1.4e-3, 2.9e-3]  # subnormal
    values = np.tile(np.concatenate([numbers, -numbers])[:, None], (1, 4096))
    random = random_bits(state_of(3, 0, 128), 12345, values.shape)
    rounded = round_to(values, kind, random).astype(np.float64)
    for number, row in zip(values[:, 0].astype(np.float64), rounded, strict=True):
        low, high = neighbours(number, kind)
        assert set(row) <= {low, high}
        if low != high:
            share, expected = (row == high).mean(), (number - low) / (high - low)
            deviation = np.sqrt(expected * (1 - expected) / row.size)
            assert abs(share - expected) <= 5 * deviation + 2.0**-23, (number, share, expected)


def neighbours(number, kind):
    """The nearest numbers of a dtype below and above, found in the list of all of them."""
    if kind == "tfloat32":
        step = 2.0 ** (np.floor(np.log2(abs(number))) - 10)
        return np.floor(number / step) * step, np.ceil(number / step) * step
    every = np.arange(1 << 8 * kind.itemsize, dtype=np.uint32).astype(f"u{kind.itemsize}").view(kind.numpy)
    single = every.astype(np.float32)
    every = np.unique(single[np.isfinite(single)].astype(np.float64))
    return every[every <= number].max(), every[every >= number].min()


@pytest.mark.parametrize("dtype", NARROW)
def test_what_a_dtype_holds_stays(dtype):
    kind = dtypes.as_dtype(dtype)
    if kind == "tfloat32":
        every = (np.arange(1 << 19, dtype=np.uint32) << 13).view(np.float32)
    else:
        every = np.arange(1 << 8 * kind.itemsize, dtype=np.uint32).astype(f"u{kind.itemsize}").view(kind.numpy)
    rounded = round_to(every.astype(np.float32), kind, np.full(every.shape, 0xFFFFFFFF, np.uint32))
    np.testing.assert_array_equal(rounded.astype(np.float32), every.astype(np.float32))
    assert np.array_equal(np.signbit(rounded.astype(np.float32)), np.signbit(every.astype(np.float32)))


def test_beyond_the_largest_number():
    values = np.array([np.inf, -np.inf, 3.4e38, 70000.0, 65512.0], np.float32)
    up = round_to(values, dtypes.float16, np.full(5, 0xFFFFFFFF, np.uint32))
    down = round_to(values, dtypes.float16, np.zeros(5, np.uint32))
    assert up.tolist() == [np.inf, -np.inf, np.inf, np.inf, np.inf]
    assert down.tolist() == [np.inf, -np.inf, np.inf, np.inf, 65504]


def everything(x, halved):
    """Every engine, strided and offset destinations, operands that are updated, loops in loops."""
    tile = nl.load(x)
    bf16 = nl.ndarray((128, 4, 24), dtype=nl.bfloat16, buffer=nl.sbuf)
    nisa.tensor_scalar(bf16[:, ::2], tile[:, :48], nl.multiply, 1.3)
    nisa.tensor_tensor(bf16[:, 1::2], tile[:, 48:], tile[:, 48:], nl.multiply, engine=nisa.engine.gpsimd)
    small = nl.ndarray((128, 96), dtype=nl.float8_e5m2, buffer=nl.sbuf)
    nisa.activation(small, nl.copy, tile, scale=0.37)
    nisa.tensor_scalar(small[64:, 8:40], tile[64:, 8:40], nl.add, 0.1)
    half = nl.load(halved)
    chosen = nl.ndarray((128, 96), dtype=nl.uint8, buffer=nl.sbuf)
    nisa.tensor_scalar(chosen, tile, nl.greater, 0.0)
    nisa.tensor_copy_predicated(half, 0.1, chosen)
    sums = nl.ndarray((128, 1), dtype=nl.bfloat16, buffer=nl.sbuf)
    nisa.tensor_reduce(sums, nl.maximum, tile, axis=1)
    nisa.tensor_scalar(sums, sums, nl.multiply, 1.01)

    def outer(i):
        nisa.tensor_scalar(half, half, nl.multiply, 0.999)
        fresh = nl.ndarray((128, 96), dtype=nl.float16, buffer=nl.sbuf)
        nisa.tensor_tensor(fresh, half, tile, nl.add)

        def inner(_):
            nisa.tensor_scalar(fresh, fresh, nl.add, 0.0101)

        nl.fori_loop(0, i, inner)  # not once at first
        nisa.tensor_tensor(half, half, fresh, nl.add)

    nl.fori_loop(0, 3, outer)
    nisa.tensor_scalar(half, half, nl.multiply, 1.001)
    results = []
    for source in (bf16, small, half, sums):
        out = nl.ndarray(source.shape, dtype=source.dtype, buffer=nl.shared_hbm)
        nl.store(out, source)
        results.append(out)
    return tuple(results)


@pytest.mark.parametrize("level", list(available()))
@pytest.mark.parametrize("threads", ["1", "2"])
def test_same_bits_however_it_runs(monkeypatch, level, threads):
    monkeypatch.setenv("NKILITE_CPU", level)
    monkeypatch.setenv("NKILITE_NUM_THREADS", threads)
    if threads == "1":
        monkeypatch.setenv("NKILITE_FUSE", "0")
    monkeypatch.setenv("NKILITE_VERIFY", "1")
    in_both(everything, X, X.astype(np.float16), rounding_seed=9)


def test_bits_of_large_programs():
    """Groups of rows in registers, on all threads."""
    x = np.random.default_rng(1).standard_normal((256, 1000)).astype(np.float32)

    def kernel(x):
        out = nl.ndarray(x.shape, dtype=nl.bfloat16, buffer=nl.shared_hbm)
        for i in range(2):
            rows = slice(128 * i, 128 * i + 128)
            tile = nl.ndarray((128, 1000), dtype=nl.bfloat16, buffer=nl.sbuf)
            nisa.tensor_scalar(tile, nl.load(x[rows]), nl.multiply, 0.7)
            nisa.tensor_scalar(tile, tile, nl.add, 0.003)
            nl.store(out[rows], tile)
        return out

    found = in_both(kernel, x, rounding_seed=2)
    error = found.astype(np.float64) - (x.astype(np.float64) * 0.7 + 0.003)
    assert abs(error.mean()) < 5 * error.std() / np.sqrt(x.size)
    assert (found != nki.jit(kernel)(x)).mean() > 0.2


def test_seeds_and_launches():
    first = nki.jit(scaled, stochastic_rounding=True, rounding_seed=1)
    again, other = (nki.jit(scaled, stochastic_rounding=True, rounding_seed=s) for s in (1, 2))
    launches = [first(X) for _ in range(3)]
    assert np.array_equal(launches[0], again(X)) and np.array_equal(launches[1], again(X))
    assert not np.array_equal(launches[0], launches[1]) and not np.array_equal(launches[0], other(X))
    first.forget()
    assert np.array_equal(launches[0], first(X))
    assert np.array_equal(pickle.loads(pickle.dumps(first))(X), launches[0])
    assert not np.array_equal(first[1](X)[0], launches[0][1])  # rows have bits of their own


def test_environment(monkeypatch):
    kernel = nki.jit(scaled)
    nearest = kernel(X)
    monkeypatch.setenv(EN, "1")
    stochastic = kernel(X)
    assert not np.array_equal(nearest, stochastic)
    assert np.array_equal(stochastic, nki.simulate(scaled)(X))
    assert np.array_equal(stochastic, nki.jit(scaled, stochastic_rounding=True, rounding_seed=0)(X))
    monkeypatch.setenv(SEED, "5")
    assert np.array_equal(kernel(X), nki.jit(scaled, stochastic_rounding=True, rounding_seed=5)(X))
    assert np.array_equal(nki.jit(scaled, stochastic_rounding=False)(X), nearest)
    monkeypatch.setenv(EN, "false")
    assert np.array_equal(kernel(X), nearest)
    monkeypatch.setenv(EN, "true")
    monkeypatch.setenv(SEED, "often")
    with pytest.raises(errors.InvalidSetting, match="STOCHASTIC_ROUNDING_SEED='often' is not an integer"):
        kernel(X)


def test_programs_differ(monkeypatch):
    nearest = nki.program_digest(scaled, X)
    monkeypatch.setenv(EN, "1")
    assert nki.program_digest(scaled, X) != nearest


def test_moves_constants_and_transfers_keep_to_nearest():
    def kernel(x, bf16):
        tile = nl.load(x)
        loaded = nl.ndarray(x.shape, dtype=nl.bfloat16, buffer=nl.sbuf)
        nisa.dma_copy(loaded, x)
        constant = nl.ndarray(x.shape, dtype=nl.bfloat16, buffer=nl.sbuf)
        nisa.memset(constant, 0.1)
        moved = nl.ndarray(x.shape, dtype=nl.bfloat16, buffer=nl.sbuf)
        nisa.tensor_copy(moved, nl.load(bf16))
        results = []
        for source in (loaded, constant, moved, tile):
            out = nl.ndarray(x.shape, dtype=source.dtype, buffer=nl.shared_hbm)
            nl.store(out, source)
            results.append(out)
        return tuple(results)

    payload = X.astype(ml_dtypes.bfloat16)
    payload.view(np.uint16)[0, :4] = 0x7F81, 0xFF91, 0x7FC5, 0x0001
    loaded, constant, moved, _ = nki.jit(kernel, stochastic_rounding=True)(X, payload)
    assert np.array_equal(loaded, X.astype(ml_dtypes.bfloat16))
    assert (constant == np.float32(0.1).astype(ml_dtypes.bfloat16)).all()
    assert np.array_equal(moved.view(np.uint16), payload.view(np.uint16))


@pytest.mark.parametrize("target", ["trn2", "trn3"])
def test_the_tensor_engine_rounds_on_trn3(monkeypatch, target):
    """Sums in bfloat16 in PSUM: of whole numbers, so that they are exact before they are rounded."""
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)
    kind = nl.bfloat16 if target == "trn3" else nl.float32

    def kernel(a, b):
        sums = nl.ndarray((128, 64), dtype=kind, buffer=nl.psum)
        left, right = nl.load(a), nl.load(b)
        for _ in range(2):
            nisa.nc_matmul(sums, left, right)
        out = nl.ndarray((128, 64), dtype=kind, buffer=nl.shared_hbm)
        moved = nl.ndarray((128, 64), dtype=kind, buffer=nl.sbuf)
        nisa.tensor_copy(moved, sums)
        nl.store(out, moved)
        return out

    rng = np.random.default_rng(0)
    a, b = rng.integers(-40, 40, (64, 128)), rng.integers(-40, 40, (64, 64))
    exact = 2 * (a.T @ b)
    found = in_both(kernel, a.astype(ml_dtypes.bfloat16), b.astype(ml_dtypes.bfloat16)).astype(np.float64)
    error = found - exact
    if target == "trn2":
        assert not error.any()
    else:
        nearest = nki.jit(kernel)(a.astype(ml_dtypes.bfloat16), b.astype(ml_dtypes.bfloat16)).astype(np.float64)
        assert (found != nearest).mean() > 0.2
        assert abs(error.mean()) < 5 * error.std() / np.sqrt(error.size)


def test_evictions_to_operands_of_matmuls():
    """A product of whole numbers is rounded on its way to tiles in panels, and taken from there bit by bit."""

    def kernel(a, b, selection):
        left, right, one = nl.load(a), nl.load(b), nl.load(selection)
        sums = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(sums, left, right)
        rounded = nl.ndarray((128, 128), dtype=nl.bfloat16, buffer=nl.sbuf)
        nisa.activation(rounded, nl.copy, sums)
        moved = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(moved, one, rounded)
        out = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.shared_hbm)
        result = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_copy(result, moved)
        nl.store(out, result)
        return out

    rng = np.random.default_rng(0)
    a, b = (rng.integers(-40, 40, (128, 128)).astype(ml_dtypes.bfloat16) for _ in range(2))
    found = in_both(kernel, a, b, np.eye(128, dtype=ml_dtypes.bfloat16))
    exact = a.astype(np.float64).T @ b.astype(np.float64)
    error = found - exact
    assert (found != exact.astype(ml_dtypes.bfloat16)).mean() > 0.2
    assert abs(error.mean()) < 5 * error.std() / np.sqrt(error.size)


def test_two_cores():
    def kernel(x):
        core = nl.program_id(0)
        out = nl.ndarray((2, 128, 96), dtype=nl.bfloat16, buffer=nl.shared_hbm)
        tile = nl.ndarray(x.shape, dtype=nl.bfloat16, buffer=nl.sbuf)
        nisa.tensor_scalar(tile, nl.load(x), nl.multiply, 1.7)
        nl.store(out[core], tile)
        return out

    found = in_both(kernel, X, cores=2, rounding_seed=4)
    assert not np.array_equal(found[0], found[1])


def test_torch():
    torch = pytest.importorskip("torch", reason="the extra torch is not installed")
    rounds = {"stochastic_rounding": True, "rounding_seed": 6}
    expected = nki.jit(scaled, **rounds)(X)
    kernel = nki.jit(scaled, **rounds)
    found = kernel(torch.from_numpy(X))
    assert np.array_equal(found.view(torch.int16).numpy(), expected.view(np.int16))


def test_jax():
    jax = pytest.importorskip("jax", reason="the extra jax is not installed")
    rounds = {"stochastic_rounding": True, "rounding_seed": 6}
    expected = nki.jit(scaled, **rounds)(X)
    found = jax.jit(nki.jit(scaled, **rounds))(jax.numpy.asarray(X))
    assert np.array_equal(np.asarray(found).view(np.int16), expected.view(np.int16))


def test_who_calls_is_no_part_of_the_program():
    """So that the disk cache has a program once, whatever lines it is launched from."""
    kernel = nki.jit(scaled, stochastic_rounding=True)
    first = digest(kernel.trace(X))
    second = digest(kernel.trace(X))
    assert first == second
    assert {where.file for where in kernel.trace(X).locations} == {__file__}
    assert kernel.trace(X).locations[0] == kernel.location


def test_options_have_types():
    for name, value, expected in (
        ("stochastic_rounding", 1, "True, False or None"), ("rounding_seed", "7", "an int or None"),
    ):
        for make in (nki.jit, nki.simulate):
            with pytest.raises(errors.InvalidOperand, match=f"{name}.*{expected}") as caught:
                make(scaled, **{name: value})
            assert caught.value.location.file == __file__
    with pytest.raises(errors.UnknownKeyword, match="did you mean rounding_seed"):
        nki.simulate(scaled, rounding_sed=1)


def test_kernels_of_a_kernel_keep_its_options():
    kernel = nki.jit(stochastic_rounding=True, rounding_seed=8)(scaled)
    assert nki.simulate(kernel).settings == kernel.settings == kernel[1].settings == nki.jit(kernel).settings
    assert nki.jit(kernel, stochastic_rounding=False).settings == kernel.settings._replace(stochastic_rounding=False)


@settings(deadline=None, max_examples=8)
@given(
    rows=st.integers(1, 32), columns=st.integers(1, 70), start=st.sampled_from([0, 32, 64]), step=st.integers(1, 3),
    dtype=st.sampled_from(NARROW), seed=st.integers(0, 2**64), trips=st.integers(0, 3),
)
def test_any_view(rows, columns, start, step, dtype, seed, trips):
    """Shapes, steps, first partitions, dtypes and counts of iterations."""

    def kernel(x, count):
        tile = nl.zeros((128, 3 * 70), dtype=dtype)
        view = tile[start : start + rows, 0 : step * columns : step]
        nisa.tensor_scalar(view, nl.load(x), nl.multiply, 0.3)

        def body(_):
            nisa.tensor_scalar(view, view, nl.multiply, 0.9)

        nl.fori_loop(0, nisa.register_alloc(count), body)
        out = nl.ndarray(tile.shape, dtype=dtype, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out

    x = np.random.default_rng(rows).standard_normal((rows, columns)).astype(np.float32)
    in_both(kernel, x, np.array([[trips]], np.int32), rounding_seed=seed)


def test_what_passes_add_counts_for_nothing():
    """Bits are those of the kernel's instructions, also where unwritten memory is filled before them."""

    def kernel(x):
        out = nl.ndarray((64, 96), dtype=nl.bfloat16, buffer=nl.shared_hbm)
        tile, total = nl.ndarray((64, 96), dtype=nl.bfloat16), nl.ndarray((64, 96), dtype=nl.float32, buffer=nl.psum)
        loaded = nl.load(x)
        nisa.nc_matmul(total[:, 0:40], loaded[:, 0:64], loaded[:, 0:40], accumulate=False)
        nisa.nc_matmul(total, loaded[:, 0:64], loaded)  # adds to some columns
        nisa.tensor_scalar(tile[0:32], total[0:32], nl.multiply, 0.3)  # the other rows hold nothing
        nisa.dma_copy(out, tile)
        return out

    x = np.random.default_rng(3).integers(-4, 5, (64, 96)).astype(ml_dtypes.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of it is unwritten
        simulated, compiled = (
            np.asarray(f(kernel, stochastic_rounding=True, rounding_seed=5)(x))[:32] for f in (nki.simulate, nki.jit)
        )
    np.testing.assert_array_equal(simulated.view(np.uint16), compiled.view(np.uint16))


def _neighbours(state, launch):
    """Words that have next to everything in common, in pairs: columns, rows, instructions, iterations, launches."""
    sites = Sites(0)
    first, second = sites.next(), sites.next()
    shape = state.shape[0], 1536
    words = random_bits(state, first, shape)
    following = state.copy()
    following[:, :2] += following[:, 2:]
    yield "columns", words[:, :-1], words[:, 1:]
    yield "columns far apart", words[:, :-512], words[:, 512:]
    yield "rows", words[:-1], words[1:]
    for name, others in (
        ("instructions", random_bits(state, second, shape)), ("iterations", random_bits(following, first, shape)),
        ("launches", random_bits(launch, first, shape)),
    ):
        yield name, words, others
        both = words ^ others
        yield f"{name} and columns", both[:, :-1], both[:, 1:]
        yield f"{name} and rows", both[:-1], both[1:]
    both = words[:, :-1] ^ words[:, 1:]
    yield "columns and rows", both[:-1], both[1:]


@pytest.mark.parametrize("seed", [0, 1 << 40])
def test_no_bit_tells_another(seed):
    """Of two words the 16 highest bits, which decide, agree pairwise half of the time, within five deviations."""
    for name, one, other in _neighbours(state_of(seed, 0, 64), state_of(seed, 1, 64)):
        count = one.size
        places = np.arange(16, 32, dtype=np.uint32)
        left, right = ((w.reshape(-1)[:, None] >> places & 1).astype(np.float32) * 2 - 1 for w in (one, other))
        assert np.abs(left.T @ right).max() < 5 * np.sqrt(count), name
        assert np.abs(left.sum(0)).max() < 5 * np.sqrt(count), name
