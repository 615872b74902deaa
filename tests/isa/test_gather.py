"""nc_n_gather and local_gather."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from isa_testing import CPU_LEVELS, MODES, both, new, outputs, raises, tile

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.testing import make

DTYPES = ["float32", "bfloat16", "float8_e4m3", "int32", "uint8", "int16"]


def positions(shape, limit, kind=np.uint32, seed=0):
    return np.random.default_rng(seed).integers(0, limit, shape).astype(kind)


def bits(array):
    return array.view(f"u{array.dtype.itemsize}")


def gather(x, indices):
    data, chosen = tile(x), tile(indices)
    result = new(indices.shape, x.dtype)
    nisa.nc_n_gather(result, data, chosen)
    return outputs(result)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "count"), [((1, 1), 1), ((5, 37), 3), ((128, 64), 600), ((64, 1000), 17)])
def test_elements_of_a_partition(dtype, shape, count):
    x, indices = make(shape, dtype), positions((shape[0], count), shape[1])
    (result,) = both(gather, x, indices)
    np.testing.assert_array_equal(bits(result), np.take_along_axis(bits(x), indices.astype(np.int64), axis=1))


@pytest.mark.parametrize("level", CPU_LEVELS)
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
def test_views_on_every_cpu(monkeypatch, level, order):
    """Positions count the elements of a strided, permuted view; results and indices are strided as well."""
    monkeypatch.setenv("NKILITE_CPU", level)

    def kernel(x, indices):
        data, chosen, result = tile(x), tile(indices), new((20, 3, 10), x.dtype)
        nisa.memset(result, 0)
        nisa.nc_n_gather(result[:, 1, ::2], data[32:52, 1:9, ::3].permute(order), chosen[:20, 1:6])
        return outputs(result)

    x, indices = make((64, 10, 11), "float16", 4), positions((32, 7), 32)
    (result,) = both(kernel, x, indices)
    rows = x[32:52, 1:9, ::3].transpose(order).reshape(20, -1)
    wanted = np.zeros((20, 3, 10), x.dtype)
    wanted[:, 1, ::2] = np.take_along_axis(rows, indices[:20, 1:6].astype(np.int64), axis=1)
    np.testing.assert_array_equal(result, wanted)


def test_in_place():
    """Elements are read before any is written, as a reversal shows."""

    def kernel(x, indices):
        data = tile(x)
        nisa.nc_n_gather(data, data, tile(indices))
        return outputs(data)

    x = make((16, 40), "int32")
    (result,) = both(kernel, x, np.tile(np.arange(40, dtype=np.uint32)[::-1], (16, 1)))
    np.testing.assert_array_equal(result, x[:, ::-1])


def local(x, index, width, count, shape=None, given=None):
    """Simulated and compiled local_gather of arrays."""

    def kernel(x, index):
        data, chosen = tile(x), tile(index)
        result = new(shape or (x.shape[0], count * width), x.dtype)
        nisa.local_gather(result, data, chosen, width, given)
        return outputs(result)

    (result,) = both(kernel, x, index)
    return result


def expected(x, index, width, count):
    """Written out from the page: a loop over cores, indices and elements."""
    rows = x.reshape(x.shape[0], -1)
    result = np.empty((x.shape[0], count * width), x.dtype)
    for core in range(x.shape[0] // 16):
        for j in range(count):
            at = int(index.reshape(index.shape[0], -1)[16 * core + j % 16, j // 16])
            served = slice(16 * core, 16 * core + 16)
            result[served, j * width : (j + 1) * width] = rows[served, at : at + width]
    return result


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 2, 4, 8, 16, 32])
def test_runs_at_shared_indices(dtype, width):
    x, index = make((48, 70), dtype), positions((48, 4), 70 - width + 1, np.uint16)
    np.testing.assert_array_equal(bits(local(x, index, width, 64)), bits(expected(x, index, width, 64)))


@pytest.mark.parametrize("count", [1, 16, 27, 64])
def test_some_of_the_indices(count):
    x, index = make((128, 33), "bfloat16"), positions((128, 4), 30, np.uint16)
    got = local(x, index, 4, count, given=count)
    np.testing.assert_array_equal(bits(got), bits(expected(x, index, 4, count)))


def test_documented_shapes():
    """Blocks of four elements chosen by number, the result in four dimensions."""
    x, blocks = make((128, 512, 4), "float32"), positions((16, 4), 512, np.uint16)
    got = local(x, np.tile(blocks * 4, (8, 1)), 4, 64, (128, 4, 16, 4), 64)
    wanted = x[:, blocks.reshape(-1, order="F")]
    np.testing.assert_array_equal(got.reshape(128, 64, 4), wanted)


@pytest.mark.parametrize("level", CPU_LEVELS)
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
@pytest.mark.parametrize(("width", "count"), [(1, 26), (2, 13)], ids=["single", "runs across rows"])
def test_local_views_on_every_cpu(monkeypatch, level, order, width, count):
    """Strided views on every side; runs of two straddle the rows of 13 elements of the result."""
    monkeypatch.setenv("NKILITE_CPU", level)

    def kernel(x, index):
        data, chosen, result = tile(x), tile(index), new((16, 5, 26), x.dtype)
        nisa.memset(result, 0)
        view = data[32:, 1:9, ::3].permute(order)
        nisa.local_gather(result[:, 1:3, ::2], view, chosen[32:, ::3], width, count)
        return outputs(result)

    x, index = make((48, 10, 11), "float32", 4), positions((48, 4), 29, np.uint16)
    rows = x[32:, 1:9, ::3].transpose(order).reshape(16, -1)
    wanted = np.zeros((16, 5, 26), x.dtype)
    wanted[:, 1:3, ::2] = expected(rows, index[32:, ::3], width, count).reshape(16, 2, 13)
    (result,) = both(kernel, x, index)
    np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("threads", ["2", "3"])
def test_partitions_are_shared_by_threads(monkeypatch, threads):
    monkeypatch.setenv("NKILITE_NUM_THREADS", threads)

    def kernel(x, indices, index):
        data, single, runs = tile(x), new((128, 900), x.dtype), new((128, 1024), x.dtype)
        nisa.nc_n_gather(single, data, tile(indices))
        nisa.local_gather(runs, data, tile(index), 4)
        return outputs(single, runs)

    x, indices = make((128, 800), "float32"), positions((128, 900), 800)
    index = positions((128, 16), 797, np.uint16)
    single, runs = nki.jit(kernel)(x, indices, index)
    np.testing.assert_array_equal(single, np.take_along_axis(x, indices.astype(np.int64), axis=1))
    np.testing.assert_array_equal(runs, expected(x, index, 4, 256))
    indices[100, 5] = 800
    with pytest.raises(errors.IndirectOutOfBounds, match=r"800 is not in \[0, 800\)"):
        nki.jit(kernel)(x, indices, index)


# --- mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", MODES)
@pytest.mark.parametrize("bad", [21, 2**31, 2**32 - 1])
def test_an_index_outside_the_partition(run, bad):
    def kernel(x, indices):
        data, chosen, result = tile(x), tile(indices), new(indices.shape, x.dtype)
        nisa.nc_n_gather(result, data, chosen)
        return outputs(result)

    indices = positions((12, 50), 21)
    indices[7, 33] = bad
    with pytest.raises(errors.IndirectOutOfBounds, match=rf"nisa.nc_n_gather.* {bad} is not in \[0, 21\)") as caught:
        run(kernel)(np.zeros((12, 21), np.float32), indices)
    assert caught.value.location.line == kernel.__code__.co_firstlineno + 2


@pytest.mark.parametrize("run", MODES)
def test_a_run_that_leaves_the_partition(run):
    def kernel(x, index):
        data, chosen, result = tile(x), tile(index), new((32, 64), x.dtype)
        nisa.local_gather(result, data, chosen, 4)
        return outputs(result)

    index = positions((32, 1), 17, np.uint16)
    index[20] = 18
    with pytest.raises(errors.IndirectOutOfBounds, match=r"nisa.local_gather.* 18 is not in \[0, 18\)") as caught:
        run(kernel)(np.zeros((32, 21), np.float32), index)
    assert caught.value.location.line == kernel.__code__.co_firstlineno + 2


def test_both_lines_of_two_gathers_are_told_apart():
    def kernel(x, good, bad):
        data, result = tile(x), new(good.shape, x.dtype)
        nisa.nc_n_gather(result, data, tile(good))
        nisa.nc_n_gather(result, data, tile(bad))
        return outputs(result)

    good = positions((12, 50), 21)
    with pytest.raises(errors.IndirectOutOfBounds) as caught:
        nki.jit(kernel)(np.zeros((12, 21), np.float32), good, good + 21)
    assert caught.value.location.line == kernel.__code__.co_firstlineno + 3


def zeros(shape, dtype):
    result = new(shape, dtype)
    nisa.memset(result, 0)
    return result


def test_operands_of_nc_n_gather():
    def fails(error, match, dst, indices=((8, 4), "uint32")):
        raises(error, match, lambda x: nisa.nc_n_gather(new(*dst), x, zeros(*indices)))

    fails(errors.DtypeMismatch, "dst is bfloat16 and data float32", ((8, 4), "bfloat16"))
    fails(errors.UnsupportedDtype, "indices has dtype int32", ((8, 4),), ((8, 4), "int32"))
    fails(errors.ShapeMismatch, r"dst has shape \(8, 5\)", ((8, 5),))
    fails(errors.ShapeMismatch, "data has 8 partitions and indices 4", ((4, 4),), ((4, 4), "uint32"))
    fails(errors.WrongMemory, "dst is in PSUM", ((8, 4), "float32", nl.psum))


def test_operands_of_local_gather():
    def fails(error, match, dst, *options, index=((32, 2), "uint16"), shape=(32, 16)):
        raises(error, match, lambda x: nisa.local_gather(new(*dst), x, zeros(*index), *options), shape=shape)

    fails(errors.InvalidOperand, "num_elem_per_idx is 3", ((32, 96),), 3)
    fails(errors.InvalidOperand, "num_valid_indices is 33; expected 1 to 32", ((32, 33),), 1, 33)
    fails(errors.InvalidOperand, "num_valid_indices is 0", ((32, 1),), 1, 0)
    fails(errors.ShapeMismatch, "32 indices of 2 elements are 64", ((32, 32),), 2)
    fails(errors.UnsupportedDtype, "index has dtype uint32", ((32, 32),), index=((32, 2), "uint32"))
    fails(errors.DtypeMismatch, "dst is int32", ((32, 32), "int32"))
    fails(errors.FreeSizeExceeded, "4112 .*limit is 4096", ((32, 4112),), index=((32, 257), "uint16"))
    fails(errors.ShapeMismatch, "24 partitions", ((24, 32),), index=((24, 2), "uint16"), shape=(24, 16))
    fails(errors.ShapeMismatch, "src_buffer has 32 .*index 16", ((32, 32),), index=((16, 2), "uint16"))
    fails(errors.WrongMemory, "dst is in PSUM", ((32, 32), "float32", nl.psum))


# --- tensor indirection -------------------------------------------------------------------------------------


def test_indirect_operands(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")

    def kernel(x, index):
        data, chosen = tile(x), tile(index)
        result = new((32, 20), x.dtype)
        nisa.tensor_copy(result, data.indirect(chosen, 20))
        nisa.memset(data, 1.0)
        nisa.tensor_tensor(result, data.indirect(chosen, 20), result, nl.add)  # of what the tile holds now
        return outputs(result)

    x = make((32, 9), "float32")
    index = np.random.default_rng(1).integers(0, 9, (32, 2)).astype(np.int32)
    (result,) = both(kernel, x, index)
    for start in (0, 16):
        for i in range(20):
            at = index[start + i % 16, i // 16]
            np.testing.assert_array_equal(result[start : start + 16, i], x[start : start + 16, at] + 1)


@pytest.mark.parametrize(
    ("use", "error", "match"),
    [
        (lambda t, i: nisa.dma_copy(t, t.indirect(i)), errors.InvalidOperand, "src is NkiTensor.indirect.*a tile"),
        (lambda t, i: nisa.tensor_tensor(t, t, t.indirect(i), nl.add), errors.InvalidOperand, "dst and data1 may"),
        (lambda t, i: nisa.reciprocal(t, t.indirect(i)), errors.InvalidOperand, "no operand may be indirect"),
        (lambda t, i: nisa.tensor_copy(t, t.indirect(i), engine=nisa.engine.gpsimd), errors.UnsupportedEngine, "gps"),
        (lambda t, i: nisa.tensor_copy(t.indirect(i), t), errors.IndirectOutOfBounds, "99 is not in"),
        (lambda t, i: nisa.activation(t.indirect(i), nl.exp, t[:, 0:9]), errors.ShapeMismatch, "16 .*9"),
        (lambda t, i: t.indirect(3), errors.InvalidOperand, "index is int 3"),
        (lambda t, i: t.indirect(i, 17), errors.InvalidOperand, "num_elem is int 17.*from 1 to 16"),
        (lambda t, i: nisa.tensor_copy(t[:, 0:1], t.indirect(t, 1)), errors.UnsupportedDtype, "index is float32"),
        (lambda t, i: nisa.tensor_copy(t, t.indirect(i)), errors.IndirectOutOfBounds, "99 is not in"),
    ],
)
@pytest.mark.parametrize("mode", [nki.jit, nki.simulate])
def test_indirect_operands_that_are_refused(mode, use, error, match, monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")

    def kernel(x, index):
        data, chosen = tile(x), tile(index)
        use(data, chosen)
        return outputs(data)

    x, index = make((16, 16), "float32"), np.full((16, 1), 99, np.int32)
    with pytest.raises(error, match=match) as caught:
        mode(kernel)(x, index)
    assert caught.value.location.line == use.__code__.co_firstlineno


def places(index, count, group):
    """By partition, the columns that an index chooses."""
    found = np.empty((index.shape[0], count), int)
    for start in range(0, index.shape[0], group):
        found[start : start + group] = index[start : start + group].reshape(-1, order="F")[:count]
    return found


SCATTERS = {
    "tensor_copy": (lambda d, s, i: nisa.tensor_copy(d.indirect(i, 20), s), lambda d, s: s),
    "scalar engine": (
        lambda d, s, i: nisa.tensor_copy(d.indirect(i, 20), s, engine=nisa.engine.scalar), lambda d, s: s,
    ),
    "tensor_tensor": (lambda d, s, i: nisa.tensor_tensor(d.indirect(i, 20), s, s, nl.add), lambda d, s: s + s),
    "in place": (
        lambda d, s, i: nisa.tensor_scalar(d.indirect(i, 20), d.indirect(i, 20), nl.add, 1.0), lambda d, s: d + 1,
    ),
    "both": (
        lambda d, s, i: nisa.tensor_tensor(d.indirect(i, 20), d.indirect(i, 20), s, nl.subtract), lambda d, s: d - s,
    ),
    "activation": (lambda d, s, i: nisa.activation(d.indirect(i, 20), nl.square, s), lambda d, s: s * s),
    "tensor_scalar_reduce": (
        lambda d, s, i: nisa.tensor_scalar_reduce(
            d.indirect(i, 20), s, nl.multiply, 2.0, nl.add, new((32, 1)),
        ), lambda d, s: s * 2,
    ),
    "tensor_copy_predicated": (
        lambda d, s, i: nisa.tensor_copy_predicated(d.indirect(i, 20), s, s.view(nl.uint32)),
        lambda d, s: np.where(s != 0, s, d),
    ),
}


@pytest.mark.parametrize("name", SCATTERS)
@pytest.mark.parametrize("buffer", [nl.sbuf, nl.psum])
def test_indirect_destinations(name, buffer, monkeypatch):
    """Columns that an instruction writes; the others stay, and of those it reads it takes what they held."""
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")
    write, right = SCATTERS[name]
    if buffer is nl.psum and name in ("scalar engine", "activation"):
        return

    def kernel(x, values, index):
        data, source, chosen = tile(x, buffer), tile(values), tile(index)
        write(data, source, chosen)
        return outputs(data)

    rng = np.random.default_rng(2)
    x = rng.integers(-9, 9, (32, 41)).astype(np.float32)
    values = rng.integers(-1, 2, (32, 20)).astype(np.float32)
    index = np.stack([rng.permutation(41)[:32] for _ in range(2)]).reshape(2, 2, 16).transpose(0, 2, 1).reshape(32, 2)
    (got,) = both(kernel, x, values, index.astype(np.int32))
    at = places(index, 20, 16)
    want = x.copy()
    np.put_along_axis(want, at, right(np.take_along_axis(x, at, 1), values), 1)
    np.testing.assert_array_equal(got, want)


def test_of_equal_offsets_the_last_one_counts(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")

    def kernel(x, index):
        data = new((16, 4))
        nisa.memset(data, -1.0)
        nisa.tensor_copy(data.indirect(tile(index)), tile(x))
        return outputs(data)

    x = make((16, 16), "float32")
    (got,) = both(kernel, x, np.array([[0, 1, 2, 3] * 4], np.uint16).T)
    np.testing.assert_array_equal(got, x[:, 12:])


@pytest.mark.parametrize("accumulate", [False, True])
def test_indirect_matmuls(accumulate, monkeypatch):
    """All operands, whose offsets 32 partitions share."""
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")

    def kernel(left, right, before, index):
        stationary, moving, chosen = tile(left), tile(right), tile(index)
        result = new((32, 50), nl.float32, nl.psum)
        nisa.tensor_copy(result, tile(before))
        nisa.nc_matmul(
            result.indirect(chosen, 40), stationary.indirect(chosen, 32), moving.indirect(chosen, 40),
            accumulate=accumulate,
        )
        return outputs(result)

    rng = np.random.default_rng(3)
    left, right = (rng.integers(-3, 4, (32, 50)).astype(ml_dtypes.bfloat16) for _ in range(2))
    before = rng.integers(-3, 4, (32, 50)).astype(np.float32)
    chosen = rng.permutation(50)[:40]
    index = np.concatenate([chosen, np.zeros(24, int)]).reshape(2, 32).T.astype(np.uint16)
    (got,) = both(kernel, left, right, before, index)
    product = left[:, chosen[:32]].astype(np.float32).T @ right[:, chosen].astype(np.float32)
    want = before.copy()
    want[:, chosen] = product + (before[:, chosen] if accumulate else 0)
    np.testing.assert_array_equal(got, want)


def test_chosen_columns_are_not_rounded_on_their_way(monkeypatch):
    """Where rounding is stochastic, what is gathered and scattered keeps its bits; the instruction between rounds."""
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")

    def kernel(x, index):
        data, chosen = tile(x), tile(index)
        product, result = new((32, 32), nl.float32, nl.psum), new((32, 50), nl.bfloat16)
        nisa.memset(result, 0.0)
        nisa.nc_matmul(product, data.indirect(chosen, 32), data.indirect(chosen, 32), accumulate=False)
        nisa.tensor_scalar(result.indirect(chosen, 16), data[:, 0:16], nl.multiply, 0.3)
        return outputs(product, result)

    rng = np.random.default_rng(4)
    x = rng.standard_normal((32, 50)).astype(ml_dtypes.bfloat16)
    index = rng.permutation(50)[:32].reshape(1, 32).T.astype(np.uint16)
    simulated, compiled = (
        mode(kernel, stochastic_rounding=True, rounding_seed=3)(x, index) for mode in (nki.simulate, nki.jit)
    )
    np.testing.assert_array_equal(simulated[1].view(np.uint16), compiled[1].view(np.uint16))
    wide = x[:, index[:, 0]].astype(np.float32)
    np.testing.assert_allclose(compiled[0], wide.T @ wide, rtol=1e-5, atol=1e-5)


def test_where_indirect_operands_start(monkeypatch):
    """Indices start where a quadrant does, and with what they choose."""
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")

    def refused(use, match):
        def kernel(x, index):
            data, chosen = tile(x), tile(index)
            use(data, chosen)
            return outputs(data)

        with pytest.raises(errors.InvalidOperand, match=match):
            nki.jit(kernel)(make((64, 16), "float32"), np.zeros((64, 1), np.int32))

    refused(lambda t, i: nisa.tensor_copy(t[0:16], t[16:32].indirect(i[16:32])), "index of src is at partition 16.*32")
    refused(lambda t, i: nisa.tensor_copy(t[0:32], t[0:32].indirect(i[32:64], 16)), "src is at partition 0.* 32, that")
    refused(lambda t, i: nisa.tensor_copy(t[0:32].indirect(i[0:32], 16), t[32:64]), "index of dst.*0.*src")


def test_indirect_calls_that_the_pages_rule_out(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")

    def refused(error, match, use, dtype="bfloat16"):
        def kernel(x, index):
            use(tile(x), tile(index), new((32, 32), nl.float32, nl.psum))
            return outputs(tile(x))

        with pytest.raises(error, match=match):
            nki.jit(kernel)(make((32, 32), dtype), np.zeros((32, 1), np.int32))

    refused(errors.UnsupportedDtype, "moving has dtype float32",
            lambda t, i, p: nisa.nc_matmul(p, t, t.indirect(i), accumulate=False), "float32")
    refused(errors.InvalidOperand, "is_transpose",
            lambda t, i, p: nisa.nc_matmul(p, t, t.indirect(i), is_transpose=True))
    refused(errors.UnsupportedError, "accumulate=None", lambda t, i, p: nisa.nc_matmul(p.indirect(i), t, t))
    refused(errors.InvalidOperand, "tile_position", lambda t, i, p: nisa.nc_matmul(
        p, t, t.indirect(i), accumulate=False, tile_position=(32, 0), tile_size=(32, 128)))
    refused(errors.WrongMemory, "Scalar Engine", lambda t, i, p: nisa.activation(p.indirect(i), nl.exp, t))


@pytest.mark.parametrize("operand", ["dst", "src"])
def test_indirect_operands_need_trn3(operand):
    def kernel(x, index):
        data = tile(x)
        operands = {"dst": data, "src": data}
        nisa.tensor_copy(**operands | {operand: data.indirect(tile(index))})
        return outputs(data)

    with pytest.raises(errors.UnsupportedOnTarget, match=f"tensor_copy: NkiTensor.indirect as {operand} needs trn3"):
        nki.jit(kernel)(make((16, 16), "float32"), np.zeros((16, 1), np.int32))
