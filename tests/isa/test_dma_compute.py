"""dma_compute: sums, gathers and scatters that add, against independent NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from isa_testing import CPU_LEVELS, both, new, outputs, raises, tile

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import dtypes, errors
from nkilite.machine import get_target

BF16 = ml_dtypes.bfloat16
STORED = [d for d in dtypes.ALL.values() if d.kind not in "xb" and d != "tfloat32" and not d.is_wide]


@pytest.fixture(params=CPU_LEVELS)
def level(request, monkeypatch):
    """Every CPU level in turn."""
    monkeypatch.setenv("NKILITE_CPU", request.param)
    return request.param


def integers(shape, dtype=np.float32, seed=0, low=-50, high=50) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def total(*arrays: np.ndarray) -> np.ndarray:
    """Their float32 sum, in order."""
    result = arrays[0].astype(np.float32)
    for array in arrays[1:]:
        result = result + array.astype(np.float32).reshape(result.shape)
    return result


# --- sums ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 16])
@pytest.mark.parametrize("shape", [(128, 512), (7, 33), (1, 1), (128, 2, 5)], ids=str)
def test_sum_of_hbm_tensors(level, shape, count):
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(shape).astype(np.float32) for _ in range(count)]

    def kernel(*xs):
        out = new(shape)
        nisa.dma_compute(out, xs, nl.add, scales=[1.0] * len(xs))
        return outputs(out)

    (found,) = both(kernel, *arrays)
    np.testing.assert_array_equal(found, total(*arrays))


@pytest.mark.parametrize("target", STORED, ids=str)
@pytest.mark.parametrize("source", STORED, ids=str)
def test_dtypes_mix(source, target):
    """float32 inside; one rounding at the end."""
    if source == "float8_e8m0fnu":
        a = np.exp2(integers((16, 40), low=-3, high=3)).astype(source.numpy)
    else:
        a = integers((16, 40), source.numpy, low=0 if source.kind == "u" else -9, high=9)
    b = np.random.default_rng(2).standard_normal((16, 40)).astype(BF16)

    def kernel(a, b):
        out = new((16, 40), target)
        nisa.dma_compute(out, [a, tile(b), a], reduce_op=nl.add)
        return outputs(out)

    (found,) = both(kernel, a, b)
    expected = dtypes.cast(total(a, b, a), target).astype(np.float64)
    np.testing.assert_array_equal(found.astype(np.float64), expected)


def test_memories_and_shapes_mix(level):
    """HBM and SBUF on either side; element counts decide, in row-major order."""
    a, b, c = integers((24, 20)), integers((6, 80), seed=1), integers((480,), np.int32, seed=2)

    def kernel(a, b, c):
        inside = tile(a)
        out = nl.ndarray((12, 40), nl.float32, buffer=nl.shared_hbm)
        wide = new((40, 12), "bfloat16")
        nisa.dma_compute(out, [inside, b, c], nl.add)
        nisa.dma_compute(wide, [inside, b], nl.add)
        return out, *outputs(wide)

    out, wide = both(kernel, a, b, c)
    np.testing.assert_array_equal(out, total(a, b, c).reshape(12, 40))
    np.testing.assert_array_equal(wide.astype(np.float32), total(a, b).astype(BF16).astype(np.float32).reshape(40, 12))


def test_views(level):
    """Strides, broadcasts and permutations of sources; a window of the destination."""
    a, b = integers((32, 60)), integers((1, 30), seed=1)

    def kernel(a, b):
        out = nl.ndarray((32, 2, 30), nl.float32, buffer=nl.shared_hbm)
        nisa.dma_copy(out[:, 0, :], a[:, :30])
        nisa.dma_compute(out[:, 1, :], [a[:, ::2], b.broadcast(0, 32), tile(a)[:, 7:37]], nl.add)
        turned = new((32, 60))
        nisa.dma_compute(turned, [a.reshape((32, 6, 10)).permute((0, 2, 1)), a], nl.add)
        return out, *outputs(turned)

    out, turned = both(kernel, a, b)
    np.testing.assert_array_equal(out[:, 0], a[:, :30])
    np.testing.assert_array_equal(out[:, 1], total(a[:, ::2], np.repeat(b, 32, 0), a[:, 7:37]))
    np.testing.assert_array_equal(turned, a.reshape(32, 6, 10).transpose(0, 2, 1).reshape(32, 60) + a)


def test_destination_among_the_sources(level):
    """Added to in place, in HBM and in SBUF; where it overlaps a source elsewhere, old values are read."""
    a, b = integers((16, 64)), integers((16, 64), seed=1)

    def kernel(a, b):
        inside, out = tile(a), nl.ndarray((16, 64), nl.float32, buffer=nl.shared_hbm)
        nisa.dma_copy(out, b)
        for _ in range(2):
            nisa.dma_compute(inside, [b, inside], nl.add)
            nisa.dma_compute(out, [out, inside, out], nl.add)
        nisa.dma_compute(inside[:, 8:56], [inside[:, 0:48], inside[:, 16:64]], nl.add)
        nisa.dma_compute(out[1:15], [out[0:14], out[2:16]], nl.add)
        return out, *outputs(inside)

    out, inside = both(kernel, a, b)
    x, y = a, b
    for _ in range(2):
        x = b + x
        y = total(y, x, y)
    shifted, lifted = x.copy(), y.copy()
    shifted[:, 8:56], lifted[1:15] = x[:, 0:48] + x[:, 16:64], y[0:14] + y[2:16]
    np.testing.assert_array_equal(inside, shifted)
    np.testing.assert_array_equal(out, lifted)


def test_among_other_row_instructions(level):
    """Fused with what makes its sources and uses its result."""
    a, b = integers((128, 256), BF16), integers((128, 256), BF16, 1)

    def kernel(a, b):
        doubled, summed, out = new((128, 256)), new((128, 256)), nl.ndarray(a.shape, a.dtype, buffer=nl.shared_hbm)
        nisa.tensor_scalar(doubled, tile(a), nl.multiply, 2.0)
        nisa.dma_compute(summed, [doubled, b, a], nl.add)
        nisa.tensor_scalar(summed, summed, nl.maximum, 3.0)
        nisa.dma_compute(out, [summed, a], nl.add)
        return out

    (found,) = both(kernel, a, b)
    x, y = a.astype(np.float32), b.astype(np.float32)
    np.testing.assert_array_equal(found, (np.maximum(3 * x + y, 3) + x).astype(BF16))


# --- rows with indices --------------------------------------------------------------------------------------


def rows(tensor, index, count, columns):
    """`count` rows of a two-dimensional tensor, each with an index of its own."""
    return tensor.ap(pattern=[[tensor.shape[1], count], [1, columns]], vector_offset=index, indirect_dim=0)


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.int32], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("count", [1, 20, 128])
def test_gather_adds_to_the_destination(level, count, dtype):
    table, start = integers((200, 48), dtype), integers((count, 48), np.float32, 1)
    index = np.random.default_rng(3).permutation(200)[:count].astype(np.uint32).reshape(-1, 1)

    def kernel(table, start, index):
        out, place = tile(start), tile(index)
        nisa.dma_compute(out, [rows(table, place, count, 48), out], nl.add)
        nisa.dma_compute(out, [out, rows(table, place, count, 48)], nl.add, unique_indices=True)
        return outputs(out)

    (found,) = both(kernel, table, start, index)
    np.testing.assert_array_equal(found, start + 2 * table[index[:, 0]].astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("count", [1, 20, 128])
def test_scatter_adds_to_rows(level, count, dtype):
    table, data = integers((200, 48), dtype), integers((count, 48), np.float32, 1)
    index = np.random.default_rng(4).permutation(200)[:count].astype(np.int32).reshape(-1, 1)

    def kernel(table, data, index):
        out = nl.ndarray(table.shape, table.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out, table)
        chosen = rows(out, tile(index), count, 48)
        nisa.dma_compute(chosen, [chosen, tile(data)], nl.add)
        return out

    (found,) = both(kernel, table, data, index)
    expected = table.copy()
    expected[index[:, 0]] = (table[index[:, 0]].astype(np.float32) + data).astype(dtype)
    np.testing.assert_array_equal(found, expected)


def test_rows_out_of_bounds_are_skipped(level):
    table, data = integers((30, 16)), integers((8, 16), seed=1)
    data[2] = -0.0
    index = np.array([[3], [30], [-1], [0], [29], [1000], [7], [5]], np.int32)
    inside = [0, 3, 4, 6, 7]

    def kernel(table, data, index):
        out = nl.ndarray(table.shape, table.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out, table)
        place, grown = tile(index), tile(data)
        nisa.dma_compute(grown, [rows(table, place, 8, 16), grown], nl.add, oob_mode=nisa.oob_mode.skip)
        chosen = rows(out, place, 8, 16)
        nisa.dma_compute(chosen, [tile(data), chosen], nl.add, oob_mode=nisa.oob_mode.skip)
        return out, *outputs(grown)

    out, grown = both(kernel, table, data, index)
    gathered, scattered = data.copy(), table.copy()
    gathered[inside] += table[index[inside, 0]]
    scattered[index[inside, 0]] += data[inside]
    np.testing.assert_array_equal(grown, gathered)
    assert np.signbit(grown[2]).all()
    np.testing.assert_array_equal(out, scattered)


@pytest.mark.parametrize("run", [nki.jit, nki.simulate])
def test_rows_out_of_bounds_are_errors(run):
    def kernel(table, index):
        out, place = new((4, 16)), tile(index)
        nisa.memset(out, 0)
        nisa.dma_compute(out, [rows(table, place, 4, 16), out], nl.add)
        return outputs(out)

    with pytest.raises(errors.IndirectOutOfBounds, match="30"):
        run(kernel)(integers((30, 16)), np.array([[1], [30], [2], [3]], np.int32))


# --- what is refused ----------------------------------------------------------------------------------------


def index_tile(count=8):
    place = new((count, 1), "int32")
    nisa.memset(place, 1)
    return place


def private(shape=(8, 16)):
    return nl.ndarray(shape, nl.float32, buffer=nl.private_hbm)


REFUSED = {
    "one source": (errors.InvalidOperand, "a list of 1", lambda t: nisa.dma_compute(t, [t], nl.add)),
    "no source": (errors.InvalidOperand, "a list of 0", lambda t: nisa.dma_compute(t, [], nl.add)),
    "seventeen sources": (errors.InvalidOperand, "a list of 17", lambda t: nisa.dma_compute(t, [t] * 17, nl.add)),
    "a tensor for the list": (errors.InvalidOperand, "at most 16 tensors", lambda t: nisa.dma_compute(t, t, nl.add)),
    "a number in the list": (errors.InvalidOperand, "at most 16", lambda t: nisa.dma_compute(t, [t, 1], nl.add)),
    "another operator": (errors.UnknownOperator, "multiply", lambda t: nisa.dma_compute(t, [t, t], nl.multiply)),
    "other scales": (errors.InvalidOperand, "scales", lambda t: nisa.dma_compute(t, [t, t], nl.add, [1.0, 0.5])),
    "few scales": (errors.InvalidOperand, "2 sources", lambda t: nisa.dma_compute(t, [t, t], nl.add, [1.0])),
    "one scale": (errors.InvalidOperand, "scales", lambda t: nisa.dma_compute(t, [t, t], nl.add, 1.0)),
    "PSUM": (errors.WrongMemory, r"srcs\[1\] is in PSUM", lambda t: nisa.dma_compute(
        t, [t, new((8, 16), buffer=nl.psum)], nl.add)),
    "a packed dtype": (errors.UnsupportedDtype, "dst", lambda t: nisa.dma_compute(
        t.view("float8_e4m3fn_x4"), [t, t], nl.add)),
    "other counts": (errors.ShapeMismatch, r"128 elements, srcs\[1\]", lambda t: nisa.dma_compute(
        t, [t, t[:4]], nl.add
    )),
    "skip without indices": (errors.InvalidOperand, "oob_mode", lambda t: nisa.dma_compute(
        t, [t, t], nl.add, oob_mode=nisa.oob_mode.skip)),
    "no mode": (errors.InvalidOperand, "oob_mode", lambda t: nisa.dma_compute(t, [t, t], nl.add, oob_mode=3)),
    "repeated indices": (errors.InvalidOperand, "unique_indices", lambda t: nisa.dma_compute(
        t, [t, rows(private(), index_tile(), 8, 16)], nl.add, unique_indices=False)),
    "a gather that does not add": (errors.InvalidOperand, "same view as dst", lambda t: nisa.dma_compute(
        t, [t[:, ::-1], rows(private(), index_tile(), 8, 16)], nl.add)),
    "three with indices": (errors.InvalidOperand, "same view as dst", lambda t: nisa.dma_compute(
        t, [t, t, rows(private(), index_tile(), 8, 16)], nl.add)),
    "a gather into HBM": (errors.WrongMemory, "dst is in HBM", lambda t: (lambda out: nisa.dma_compute(
        out, [out, rows(private(), index_tile(), 8, 16)], nl.add))(private())),
    "a scatter from HBM": (errors.WrongMemory, r"srcs\[1\] is in HBM", lambda t: (lambda out: nisa.dma_compute(
        out, [out, private()], nl.add))(rows(private(), index_tile(), 8, 16))),
    "other rows": (errors.ShapeMismatch, "with runtime indices rows are added", lambda t: nisa.dma_compute(
        t, [t, rows(private((16, 8)), index_tile(16), 16, 8)], nl.add)),
    "one runtime index": (errors.InvalidOperand, "one index per row", lambda t: nisa.dma_compute(
        t, [t, private((4, 8, 16)).select(0, index_tile(1))], nl.add)),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_refused(case):
    error, match, body = REFUSED[case]
    raises(error, match, body)


def test_cost_counts_every_source():
    """A source more takes as long as its bytes take 16 DMA engines."""

    def summed(count):
        def kernel(a):
            out = new(a.shape)
            nisa.dma_compute(out, [a] * count, nl.add)
            return outputs(out)

        return kernel

    a = integers((128, 4096))
    two, three, four = (nki.profile(summed(n), a, target="trn2").latency_us for n in (2, 3, 4))
    assert three - two == pytest.approx(four - three)
    assert three - two == pytest.approx(a.nbytes / (16 * get_target("trn2").dma_bytes_per_ns) / 1000, rel=0.05)
