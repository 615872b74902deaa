"""dma_copy and dma_transpose: layouts, conversion, gathers and scatters, and their rules."""

from __future__ import annotations

import numpy as np
import pytest
from isa_testing import CPU_LEVELS, both, new, outputs, same, tile

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import dtypes, errors
from nkilite.testing import make

STORED = [str(d) for d in dtypes.ALL.values() if d.kind != "x" and d is not dtypes.tfloat32 and not d.is_wide]
SKIP, ERROR = nisa.oob_mode.skip, nisa.oob_mode.error


def hbm(shape, dtype="float32"):
    return nl.ndarray(shape, dtype=dtype, buffer=nl.shared_hbm)


# --- copies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 77), (128, 512), (96, 1024)])
def test_between_memories(cpu, dtype, shape, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(x):
        first, second, copy, back = new(shape, dtype), new(shape, dtype), hbm(shape, dtype), hbm(shape, dtype)
        nisa.dma_copy(first, x)
        nisa.dma_copy(second, first)
        nisa.dma_copy(back, second)
        nisa.dma_copy(copy, x)
        return back, copy

    x = make(shape, dtype)
    for result in both(kernel, x):
        same(result, x)


@pytest.mark.parametrize("source", STORED)
@pytest.mark.parametrize("target", STORED)
def test_converts(source, target):
    def kernel(x):
        loaded, stored = new(x.shape, target), hbm(x.shape, target)
        nisa.dma_copy(loaded, x)
        nisa.dma_copy(stored, loaded)
        strided = hbm((x.shape[0], 3 * x.shape[1]), target)
        zeros = new(strided.shape, target)
        nisa.memset(zeros, 0)
        nisa.dma_copy(strided, zeros)
        nisa.dma_copy(strided[:, 2::3], x)
        return stored, strided

    x = make((6, 45), source)
    stored, strided = both(kernel, x)
    expected = dtypes.cast(x, dtypes.as_dtype(target))
    same(stored, expected)
    same(strided[:, 2::3], expected)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((8, 24), (24, 8)), ((6, 35), (7, 30)), ((4, 6, 10), (5, 48)), ((1, 120), (120, 1)),
        ((9, 16), (16, 3, 3)),
    ],
)
def test_partitions_may_change(source, target):
    """Row-major order on both sides, through tiles whose rows are padded apart and through strided views."""

    def kernel(x):
        wide, narrow = new((source[0], 2 * int(np.prod(source[1:])))), new((*target, 2))
        nisa.memset(wide, 0)
        nisa.memset(narrow, 0)
        data = wide[:, : int(np.prod(source[1:]))].reshape(source)
        nisa.dma_copy(data, x)
        dst = narrow[..., 0]
        nisa.dma_copy(dst, data)
        result = hbm(target)
        nisa.dma_copy(result, dst)
        return result

    x = make(source, "float32")
    (result,) = both(kernel, x)
    same(result, x.reshape(target))


def test_strided_broadcast_and_reversed_sources():
    def kernel(x):
        rows, columns, repeated = new((4, 10)), new((10, 8)), new((16, 10))
        nisa.dma_copy(rows, x[::2])
        nisa.dma_copy(columns, x.permute((1, 0)))
        nisa.dma_copy(repeated, x.ap([[0, 16], [1, 10]], offset=30))
        backwards = new((8, 10))
        nisa.dma_copy(backwards, x[::-1, ::-1])
        return outputs(rows, columns, repeated, backwards)

    x = make((8, 10), "float32")
    rows, columns, repeated, backwards = both(kernel, x)
    same(rows, x[::2])
    same(columns, x.T)
    same(repeated, np.repeat(x[3:4], 16, axis=0))
    same(backwards, x[::-1, ::-1])


def test_in_place_hbm_argument():
    def kernel(x):
        nisa.dma_copy(x[:, 4:8], x[:, 0:4])
        return x

    x = make((3, 8), "float32")
    (result,) = both(kernel, x)
    same(result, np.concatenate([x[:, :4], x[:, :4]], axis=1))


# --- gathers and scatters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("index_dtype", ["int32", "uint32", "int16", "uint8"])
@pytest.mark.parametrize("columns", [1, 37, 512])
def test_gather_and_scatter(cpu, index_dtype, columns, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)
    rows, count = 90, 64

    def kernel(x, y, where):
        index = tile(where)
        gathered, selected = new((count, columns)), new((count, columns))
        narrow = new((count, columns), "bfloat16")
        nisa.dma_copy(gathered, x.ap([[columns, count], [1, columns]], vector_offset=index))
        nisa.dma_copy(selected, x.vector_select(0, index))
        nisa.dma_copy(narrow, x.vector_select(0, index))
        scattered = hbm((rows, columns))
        nisa.dma_copy(scattered, y)
        nisa.dma_copy(scattered.vector_select(0, index), gathered)
        return *outputs(gathered, selected, narrow), scattered

    x, y = make((rows, columns), "float32"), make((rows, columns), "float32", 1)
    where = np.random.default_rng(0).permutation(rows)[:count]
    results = both(kernel, x, y, where.reshape(-1, 1).astype(index_dtype))
    same(results[0], x[where])
    same(results[1], x[where])
    same(results[2], x[where].astype(results[2].dtype))
    expected = y.copy()
    expected[where] = x[where]
    same(results[3], expected)


@pytest.mark.parametrize("dtype", ["float8_e4m3", "float8_e5m2", "float16", "int8"])
def test_gather_and_scatter_of_narrow_elements(dtype):
    def kernel(x, where):
        index, gathered, scattered = tile(where), new((4, 5), dtype), hbm((7, 5), dtype)
        nisa.dma_copy(gathered, x.vector_select(0, index))
        nisa.dma_copy(scattered, x)
        nisa.dma_copy(scattered.vector_select(0, index), gathered)
        return *outputs(gathered), scattered

    x, where = make((7, 5), dtype), np.array([[6], [0], [3], [2]], np.int32)
    gathered, scattered = both(kernel, x, where)
    same(gathered, x[where[:, 0]])
    same(scattered, x)


def test_gather_of_multidimensional_rows_and_strided_columns():
    """Part of each row, with an offset, in another order; the index reads a multi-column tile column by
    column.
    """

    def kernel(x, where):
        index = tile(where)
        part = x.ap([[40, 12], [1, 4], [10, 3]], offset=2, vector_offset=index)
        dense, split = new((12, 4, 3)), new((6, 2, 12))
        nisa.dma_copy(dense, part)
        nisa.dma_copy(split, part)
        return outputs(dense, split)

    x = make((20, 4, 10), "float32")
    where = np.random.default_rng(1).integers(0, 20, (4, 3)).astype(np.int32)
    dense, split = both(kernel, x, where)
    expected = x[where.T.reshape(-1)][:, :3, 2:6].transpose(0, 2, 1)
    same(dense, expected)
    same(split, expected.reshape(6, 2, 12))


def test_gather_rows_that_do_not_nest_with_the_destination():
    def kernel(x, where):
        index, wide = tile(where), new((9, 12))
        nisa.memset(wide, 0)
        nisa.dma_copy(wide[:, :10], x.vector_select(0, index))
        return outputs(wide)

    x = make((7, 15), "float32")
    where = np.array([3, 0, 6, 6, 1, 2], np.int32)
    (wide,) = both(kernel, x, where.reshape(-1, 1))
    same(wide[:, :10], x[where].reshape(9, 10))


def test_gather_into_a_scatter():
    def kernel(x, y, source, target):
        out = hbm(y.shape)
        nisa.dma_copy(out, y)
        nisa.dma_copy(out.vector_select(0, tile(target)), x.vector_select(0, tile(source)))
        return out

    x, y = make((6, 5), "float32"), make((9, 5), "float32", 1)
    source, target = np.array([5, 0, 0, 2], np.int32), np.array([1, 8, 3, 0], np.int32)
    (out,) = both(kernel, x, y, source.reshape(-1, 1), target.reshape(-1, 1))
    expected = y.copy()
    expected[target] = x[source]
    same(out, expected)


def test_scalar_offsets():
    """The stride comes from indirect_dim of the tensor's shape, not from the pattern."""

    def kernel(x, where):
        at = tile(where)
        rows, columns, batch = new((3, 8)), new((6, 2)), new((6, 8))
        nisa.dma_copy(rows, x.ap([[8, 3], [1, 8]], offset=48, scalar_offset=at, indirect_dim=1))
        nisa.dma_copy(columns, x.ap([[8, 6], [1, 2]], scalar_offset=at, indirect_dim=2))
        nisa.dma_copy(batch, x.select(0, at))
        out = hbm(x.shape)
        nisa.dma_copy(out, x)
        nisa.dma_copy(out.select(0, at), batch.ap([[8, 6], [0, 8]]))
        return *outputs(rows, columns, batch), out

    x = make((4, 6, 8), "float32")
    rows, columns, batch, out = both(kernel, x, np.array([[3]], np.int32))
    same(rows, x[1, 3:6])
    same(columns, x[0, :, 3:5])
    same(batch, x[3])
    expected = x.copy()
    expected[3] = x[3][:, :1]
    same(out, expected)


@pytest.mark.parametrize("absent", [-1, 90])
@pytest.mark.parametrize("cpu", CPU_LEVELS)
def test_skipped_rows_stay(absent, cpu, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(x, y, where):
        index, gathered, narrow = tile(where), tile(y), new(y.shape, "bfloat16")
        nisa.tensor_copy(narrow, gathered)
        nisa.dma_copy(gathered, x.vector_select(0, index), oob_mode=SKIP)
        nisa.dma_copy(narrow, x.vector_select(0, index), oob_mode=SKIP)
        scattered = hbm(x.shape)
        nisa.dma_copy(scattered, x)
        nisa.dma_copy(scattered.vector_select(0, index), tile(y), oob_mode=SKIP)
        whole = tile(y[:1])
        nisa.dma_copy(whole, x.select(0, index[0:1, 0:1]).reshape((1, 33)), oob_mode=SKIP)
        return *outputs(gathered, narrow, whole), scattered

    x, y = make((90, 33), "float32"), make((16, 33), "float32", 1)
    where = np.arange(16) * 5
    where[[0, 7, 15]] = absent
    gathered, narrow, whole, scattered = both(kernel, x, y, where.reshape(-1, 1).astype(np.int32))
    kept = where == absent
    expected = np.where(kept[:, None], y, x[np.where(kept, 0, where)])
    same(gathered, expected)
    same(narrow, expected.astype(narrow.dtype))
    same(whole, y[:1])
    changed = x.copy()
    changed[where[~kept]] = y[~kept]
    same(scattered, changed)


def test_uint32_max_marks_an_absent_row():
    def kernel(x, where):
        gathered = new((2, 4))
        nisa.memset(gathered, 7)
        nisa.dma_copy(gathered, x.vector_select(0, tile(where)), oob_mode=SKIP)
        return outputs(gathered)

    x = make((5, 4), "float32")
    (gathered,) = both(kernel, x, np.array([[0xFFFFFFFF], [2]], np.uint32))
    same(gathered, np.stack([np.full(4, 7, np.float32), x[2]]))


@pytest.mark.parametrize("run", [nki.jit, nki.simulate])
@pytest.mark.parametrize("absent", [-5, 90, 1 << 30])
def test_out_of_bounds_names_index_limit_and_line(run, absent):
    def kernel(x, where):
        gathered = new((4, 33))
        nisa.dma_copy(gathered, x.vector_select(0, tile(where)))  # line of the error
        return outputs(gathered)

    where = np.array([[1], [2], [absent], [3]], np.int32)
    with pytest.raises(errors.IndirectOutOfBounds, match=rf"{absent} is not in \[0, 90\)") as caught:
        run(kernel)(make((90, 33), "float32"), where)
    assert caught.value.location.source.endswith("# line of the error")


@pytest.mark.parametrize("run", [nki.jit, nki.simulate])
def test_a_view_may_not_run_past_the_storage(run):
    """An index below the size of its dimension is still out of bounds when the rows after it do not exist."""

    def kernel(x, where):
        window = new((3, 4))
        nisa.dma_copy(window, x.ap([[4, 3], [1, 4]], scalar_offset=tile(where)))
        return outputs(window)

    x = make((10, 4), "float32")
    (window,) = both(kernel, x, np.array([[7]], np.int32))
    same(window, x[7:])
    with pytest.raises(errors.IndirectOutOfBounds, match=r"8 is not in \[0, 8\)"):
        run(kernel)(x, np.array([[8]], np.int32))


# --- transposes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize(
    "shape",
    [(1, 1), (5, 7), (128, 128), (77, 33), (512, 96), (3, 4, 5), (40, 3, 64), (6, 2, 3, 20)],
)
def test_transpose(cpu, dtype, shape, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)
    axes = {2: (1, 0), 3: (2, 1, 0), 4: (3, 1, 2, 0)}[len(shape)]
    out_shape = tuple(shape[a] for a in axes)

    def kernel(x):
        from_hbm = new(out_shape, dtype)
        nisa.dma_transpose(from_hbm, x)
        named = hbm(out_shape, dtype)
        nisa.dma_transpose(named, x, axes=axes)
        return *outputs(from_hbm), named

    x = make(shape, dtype)
    for result in both(kernel, x):
        same(result, x.transpose(axes))


def test_transpose_within_sbuf_and_onto_itself():
    def kernel(x):
        data, other = tile(x), new(x.shape, x.dtype)
        nisa.dma_transpose(other, data)
        nisa.dma_transpose(data, data)
        return outputs(other, data)

    x = make((64, 64), "bfloat16")
    for result in both(kernel, x):
        same(result, x.T)


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("index_shape", [(16, 1), (48, 1), (128, 1), (128, 2)])
@pytest.mark.parametrize("row", [(128,), (31,), (1, 4, 24), (3, 1, 8)])
def test_gather_transpose(cpu, index_shape, row, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)
    rows = index_shape[0] * index_shape[1]
    axes = (1, 0) if len(row) == 1 else (3, 1, 2, 0)
    size = int(np.prod(row))
    out_shape = tuple((rows, *row)[a] for a in axes)

    def kernel(x, where):
        strides = [int(np.prod(row[i + 1:])) for i in range(len(row))]
        pattern = [[size, rows], *([s, n] for s, n in zip(strides, row, strict=True))]
        dst, skipping = new(out_shape, x.dtype), new(out_shape, x.dtype)
        nisa.memset(skipping, 5)
        index = tile(where)
        nisa.dma_transpose(dst, x.ap(pattern, vector_offset=index), axes=axes, dge_mode=nisa.dge_mode.swdge)
        nisa.dma_transpose(skipping, x.ap(pattern, vector_offset=index), axes=axes, oob_mode=SKIP)
        return outputs(dst, skipping)

    x = make((60, *row), "bfloat16")
    where = np.random.default_rng(2).integers(0, 60, index_shape)
    for result in both(kernel, x, where.astype(np.uint32)):
        same(result, x[where.T.reshape(-1)].transpose(axes))


def test_gather_transpose_skips():
    def kernel(x, where):
        dst = new((8, 16), x.dtype)
        nisa.memset(dst, 5)
        nisa.dma_transpose(dst, x.ap([[8, 16], [1, 8]], vector_offset=tile(where)), oob_mode=SKIP)
        return outputs(dst)

    x, where = make((60, 8), "float16"), np.arange(16)
    where[[2, 9]] = 0xFFFFFFFF
    (dst,) = both(kernel, x, where.reshape(-1, 1).astype(np.uint32))
    expected = x[:16].T.copy()
    expected[:, [2, 9]] = 5
    same(dst, expected)


# --- rules --------------------------------------------------------------------------------------------------


def _raises(error, match, body, target="trn2"):
    """The body must fail, traced and simulated alike, at its own line."""

    def kernel(x):
        body()
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)
        for run in (nki.jit, nki.simulate):
            with pytest.raises(error, match=match) as caught:
                run(kernel)(np.zeros(1, np.float32))
            assert caught.value.location.line == body.__code__.co_firstlineno


def test_copy_rules():
    copy, mode = nisa.dma_copy, nisa.dge_mode

    def psum():
        return new((4, 8), "float32", nl.psum)

    def rows():
        return hbm((9, 8)).vector_select(0, new((4, 1), "int32"))

    def short():
        return hbm((9, 8)).ap([[8, 4], [1, 8]], vector_offset=new((3, 1), "int32"))

    _raises(errors.WrongMemory, "src is in PSUM", lambda: copy(new((4, 8)), psum()))
    _raises(errors.WrongMemory, "dst is in PSUM", lambda: copy(psum(), new((4, 8))))
    _raises(errors.ShapeMismatch, "32 elements, src .* has 36", lambda: copy(hbm((4, 8)), hbm((4, 9))))
    _raises(errors.DtypeMismatch, "float8_e5m2_x4", lambda: copy(new((4, 8)), hbm((4, 8), "float8_e5m2_x4")))
    _raises(
        errors.DtypeMismatch, "hwdge moves bytes",
        lambda: copy(new((4, 8)), hbm((4, 8), "bfloat16"), dge_mode=mode.hwdge),
    )
    _raises(
        errors.UnsupportedOnTarget, "trn2",
        lambda: copy(new((4, 8)), hbm((4, 8)), dge_mode=mode.hwdge), "trn1",
    )
    _raises(errors.InvalidOperand, "dge_mode is .*7", lambda: copy(new((4, 8)), hbm((4, 8)), dge_mode=7))
    _raises(errors.InvalidOperand, "oob_mode is .*1", lambda: copy(new((4, 8)), hbm((4, 8)), oob_mode=1))
    _raises(
        errors.InvalidOperand, "dge_mode is hwdge",
        lambda: copy(new((4, 8)), rows(), dge_mode=mode.hwdge),
    )
    _raises(errors.InvalidOperand, "dge_mode is none", lambda: copy(rows(), new((4, 8)), dge_mode=mode.none))
    _raises(errors.ShapeMismatch, r"\(3, 1\) for 4 rows", lambda: copy(new((4, 8)), short()))
    _raises(
        errors.InvalidOperand, "engine is sync",
        lambda: copy(new((4, 8)), hbm((4, 8)), engine=nisa.engine.sync),
    )
    _raises(
        errors.UnsupportedEngine, "vector.*sync, scalar",
        lambda: copy(new((4, 8)), hbm((4, 8)), dge_mode=mode.hwdge, engine=nisa.engine.vector),
    )
    _raises(errors.UnsupportedOnTarget, "trn3", lambda: copy(new((4, 8)), hbm((4, 8)), priority=1))
    _raises(
        errors.InvalidOperand, "priority is .*4; expected an integer from 0 to 3",
        lambda: copy(new((4, 8)), hbm((4, 8)), priority=4), "trn3",
    )


def test_options_without_effect_on_results(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")

    def kernel(x):
        data, result = new(x.shape), hbm(x.shape)
        nisa.dma_copy(data, x, priority=0, dge_mode=nisa.dge_mode.hwdge, engine=nisa.engine.sync, name="load")
        nisa.dma_copy(result, data, 3, ERROR, nisa.dge_mode.swdge)
        nisa.dma_copy(result, data, dge_mode=3)  # dge_mode.none by its value, as in the NKI Library
        return result

    x = make((4, 8), "float32")
    same(both(kernel, x)[0], x)


def test_transpose_rules():
    transpose, mode = nisa.dma_transpose, nisa.dge_mode

    def source(shape=(16, 8), dtype="bfloat16"):
        return hbm(shape, dtype)

    def rows(count=16, columns=8, dtype="bfloat16", index=(16, 1), index_dtype="uint32"):
        where = new(index, index_dtype)
        return hbm((64, columns), dtype).ap([[columns, count], [1, columns]], vector_offset=where)

    def out(shape=(8, 16), dtype="bfloat16"):
        return new(shape, dtype)

    _raises(
        errors.WrongMemory, "dst is in PSUM",
        lambda: transpose(new((8, 16), "bfloat16", nl.psum), source()),
    )
    _raises(errors.ShapeMismatch, r"has \(8, 16\)", lambda: transpose(out((16, 8)), source()))
    _raises(errors.ShapeMismatch, "1 dimensions", lambda: transpose(out((8, 1)), source((8,))))
    _raises(errors.InvalidOperand, r"axes is \(0, 1\)", lambda: transpose(out(), source(), (0, 1)))
    _raises(errors.DtypeMismatch, "float16", lambda: transpose(out(dtype="float16"), source()))
    _raises(errors.InvalidOperand, "swdge", lambda: transpose(out(), source(), dge_mode=mode.swdge))
    _raises(errors.InvalidOperand, "oob_mode is skip", lambda: transpose(out(), source(), oob_mode=SKIP))
    _raises(
        errors.ShapeMismatch, "16 rows",
        lambda: transpose(out((8, 32)), source((32, 8)), dge_mode=mode.hwdge),
    )
    _raises(
        errors.ShapeMismatch, "at most 128 elements",
        lambda: transpose(hbm((130, 16), "bfloat16"), source((16, 130)), dge_mode=mode.hwdge),
    )
    _raises(
        errors.UnsupportedDtype, "float32",
        lambda: transpose(out(dtype="float32"), source(dtype="float32"), dge_mode=mode.hwdge),
    )
    _raises(
        errors.UnsupportedDtype, "float32",
        lambda: transpose(out(dtype="float32"), rows(dtype="float32")),
    )
    _raises(errors.ShapeMismatch, "12 rows", lambda: transpose(out((8, 12)), rows(12)))
    _raises(errors.ShapeMismatch, r"shape \(20, 1\)", lambda: transpose(out(), rows(index=(20, 1))))
    _raises(errors.ShapeMismatch, "128 partitions", lambda: transpose(out(), rows(index=(16, 2))))
    _raises(errors.DtypeMismatch, "int32", lambda: transpose(out(), rows(index_dtype="int32")))
    _raises(errors.InvalidOperand, "none", lambda: transpose(out(), rows(), dge_mode=mode.none))
    _raises(errors.UnsupportedOnTarget, "trn2", lambda: transpose(out(), rows()), "trn1")


# --- modelled time ------------------------------------------------------------------------------------------


def test_costs_count_contiguous_runs():
    """A run is what one descriptor covers: a partition's row, or what strides leave of it."""

    def kernel(x):
        rows, columns = new((128, 512)), new((64, 512), "bfloat16")
        nisa.dma_copy(rows, x)
        nisa.dma_copy(rows[:, ::4], x[:, :128])
        nisa.dma_copy(columns, x[:64])
        nisa.dma_copy(hbm((64, 512)), x[64:])
        nisa.dma_transpose(hbm((512, 128)), x)
        return x

    program = nki.jit(kernel).trace(make((128, 512), "float32"))
    costs = [s.definition.rule("cost")(s) for s in program.signatures]
    assert {c.engine for c in costs} == {nisa.engine.dma}
    whole, strided, half, between, transposed = costs
    assert [c.bytes_moved for c in costs] == [128 * 2048, 128 * 512, 64 * 2048, 64 * 2048, 128 * 2048]
    assert [c.dma_engines for c in costs] == [16, 16, 8, 16, 16]
    assert strided.transfer_ns > whole.transfer_ns  # 128 times the descriptors for a quarter of the bytes
    assert half.transfer_ns == pytest.approx(whole.transfer_ns)
    assert between.transfer_ns < half.transfer_ns
    assert transposed.transfer_ns > between.transfer_ns
