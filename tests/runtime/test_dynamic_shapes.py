"""Kernels with dynamic dimensions: traced once for their bounds, and right for every size below."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors

BOTH = pytest.mark.parametrize("run", [lambda k: k, nki.simulate], ids=["compiled", "simulated"])
M, N = nki.Dim("m", max=200), nki.Dim("n", max=300)
CORES, D = 2, 24
SKIP = nisa.oob_mode.skip


def doubled_rows(x, block=64):
    """2 x, for x [n, ...], by blocks of rows."""
    out = nl.ndarray((N, *x.shape[1:]), dtype=x.dtype, buffer=nl.shared_hbm)

    def body(first):
        tile = nl.zeros((block, *x.shape[1:]), dtype=x.dtype)
        nisa.dma_copy(dst=tile, src=x[nl.ds(first, block)], oob_mode=SKIP)
        nisa.tensor_tensor(dst=tile, data1=tile, data2=tile, op=nl.add)
        nisa.dma_copy(dst=out[nl.ds(first, block)], src=tile, oob_mode=SKIP)

    nl.fori_loop(0, nl.dimension_size(x, 0), body, step=block)
    return out


def doubled_columns(x, block=128):
    """2 x, for x [P, n], by blocks of columns."""
    out = nl.ndarray((x.shape[0], N), dtype=x.dtype, buffer=nl.shared_hbm)

    def body(first):
        tile = nl.zeros((x.shape[0], block), dtype=x.dtype)
        nisa.dma_copy(dst=tile, src=x[:, nl.ds(first, block)], oob_mode=SKIP)
        nisa.tensor_tensor(dst=tile, data1=tile, data2=tile, op=nl.add)
        nisa.dma_copy(dst=out[:, nl.ds(first, block)], src=tile, oob_mode=SKIP)

    nl.fori_loop(0, nl.dimension_size(x, -1), body, step=block)
    return out


def outer_sum(a, b, block=48):
    """a [m, 1] + b [1, n], by blocks of both."""
    out = nl.ndarray((M, N), dtype=nl.float32, buffer=nl.shared_hbm)

    def rows(i):
        column = nl.zeros((block, 1), dtype=nl.float32)
        nisa.dma_copy(dst=column, src=a[nl.ds(i, block)], oob_mode=SKIP)

        def columns(j):
            row = nl.zeros((1, block), dtype=nl.float32)
            nisa.dma_copy(dst=row, src=b[:, nl.ds(j, block)], oob_mode=SKIP)
            tile = nl.broadcast_to(row, (block, block))
            nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=column)
            nisa.dma_copy(dst=out[nl.ds(i, block), nl.ds(j, block)], src=tile, oob_mode=SKIP)

        nl.fori_loop(0, nl.dimension_size(b, 1), columns, step=block)

    nl.fori_loop(0, nl.dimension_size(a, 0), rows, step=block)
    return out


def exchanged(x, block=32):
    """x [m, n, D] as [n, m, D], by blocks of m and one of n."""
    out = nl.ndarray((N, M, x.shape[2]), dtype=x.dtype, buffer=nl.shared_hbm)

    def rows(i):
        def column(j):
            tile = nl.zeros((block, x.shape[2]), dtype=x.dtype)
            nisa.dma_copy(dst=tile, src=x[nl.ds(i, block), j], oob_mode=SKIP)
            nisa.dma_copy(dst=out[j, nl.ds(i, block)], src=tile, oob_mode=SKIP)

        nl.fori_loop(0, nl.dimension_size(x, 1), column)

    nl.fori_loop(0, nl.dimension_size(x, 0), rows, step=block)
    return out


def sum_of_rows(x):
    """The sum over n of x [H, n, D], a row at a time and with a check of each."""
    heads, _, width = x.shape
    out = nl.ndarray((heads, width), dtype=nl.float32, buffer=nl.shared_hbm)
    for head in range(heads):
        total = nl.zeros((1, width), dtype=nl.float32)

        def body(i, head=head, total=total):
            nisa.tensor_tensor(dst=total, data1=total, data2=nl.load(x[head, nl.ds(i, 1)]), op=nl.add)

        nl.fori_loop(0, nl.dimension_size(x, 1), body)
        nl.store(out[head : head + 1], total)
    return out


ROWS = nki.jit(doubled_rows, dynamic_shapes={"x": {0: N}})
COLUMNS = nki.jit(doubled_columns, dynamic_shapes={"x": {1: N}})
OUTER = nki.jit(outer_sum, dynamic_shapes={"a": {0: M}, "b": {1: N}})
EXCHANGED = nki.jit(exchanged, dynamic_shapes={"x": {0: M, 1: N}})
SUM = nki.jit(sum_of_rows, dynamic_shapes={"x": {1: N}})


def numbers(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).integers(-40, 40, shape).astype(dtype)


@BOTH
@settings(deadline=None, max_examples=15)
@given(size=st.integers(1, N.max), dtype=st.sampled_from(["float32", "int32", "int8"]))
def test_rows(run, size, dtype):
    kernel = ROWS if run is not nki.simulate else nki.simulate(ROWS)
    memory = numbers(size + 8, 5, 3, dtype=dtype)
    x, behind = memory[:size], memory[size:].copy()
    found = kernel(x)
    assert found.dtype == x.dtype and found.flags.c_contiguous
    np.testing.assert_array_equal(found, 2 * x)
    np.testing.assert_array_equal(memory[size:], behind)


@BOTH
@settings(deadline=None, max_examples=15)
@given(size=st.integers(1, N.max))
def test_columns(run, size):
    x = numbers(7, size)
    np.testing.assert_array_equal(run(COLUMNS)(x), 2 * x)
    cache = numbers(7, N.max)  # a part of it is no copy
    np.testing.assert_array_equal(run(COLUMNS)(cache[:, :size]), 2 * cache[:, :size])


@BOTH
@settings(deadline=None, max_examples=6)
@given(m=st.integers(1, M.max), n=st.integers(1, N.max))
def test_two_dimensions(run, m, n):
    a, b = numbers(m, 1), numbers(1, n)
    np.testing.assert_array_equal(run(OUTER)(a, b), a + b)


@BOTH
@pytest.mark.parametrize("shape", [(1, 1, 1), (33, 5, 2), (70, 3, 4)], ids=str)
def test_two_dimensions_of_one_array(run, shape):
    x = numbers(*shape)
    np.testing.assert_array_equal(run(EXCHANGED)(x), x.transpose(1, 0, 2))


@BOTH
@pytest.mark.parametrize("size", [1, 5, 70])
def test_inner_dimension(run, size):
    x = numbers(3, size, 4)
    np.testing.assert_array_equal(run(SUM)(x), x.sum(1))


def test_one_trace():
    for size in (1, 100, N.max):
        ROWS(numbers(size, D))
        COLUMNS(numbers(9, size))
    launches = [len(ROWS._calls._launches), len({*map(id, ROWS._specializations.values())})]
    ROWS(numbers(77, D))
    assert launches == [len(ROWS._calls._launches), len({*map(id, ROWS._specializations.values())})]
    digests = {nki.program_digest(ROWS, numbers(size, D)) for size in (1, 2, 299)}
    other = nki.jit(doubled_rows, dynamic_shapes={"x": {0: nki.Dim("n", max=301)}})
    assert len(digests) == 1
    with pytest.raises(errors.InvalidOperand, match="that an argument has"):  # N is none of its dimensions
        other(numbers(2, D))


@BOTH
def test_a_second_launch_does_not_see_the_first(run):
    kernel = run(ROWS)
    np.testing.assert_array_equal(kernel(numbers(N.max, D)), 2 * numbers(N.max, D))
    small = kernel(numbers(3, D))
    assert small.shape == (3, D)
    np.testing.assert_array_equal(small, 2 * numbers(3, D))
    large = numbers(N.max, 4096)  # recycled
    first = kernel(large)
    del first
    np.testing.assert_array_equal(kernel(large[:290]), 2 * large[:290])


@BOTH
def test_in_place(run):
    @nki.jit(dynamic_shapes={"x": {0: N}})
    def increment(x):
        def body(first):
            tile = nl.zeros((32, D), dtype=x.dtype)
            nisa.dma_copy(dst=tile, src=x[nl.ds(first, 32)], oob_mode=SKIP)
            nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
            nisa.dma_copy(dst=x[nl.ds(first, 32)], src=tile, oob_mode=SKIP)

        nl.fori_loop(0, nl.dimension_size(x, 0), body, step=32)
        return x

    for size in (1, 31, 33):
        memory = numbers(size + 4, D)
        before, x = memory.copy(), memory[:size]
        assert run(increment)(x) is x
        np.testing.assert_array_equal(memory[:size], before[:size] + 1)
        np.testing.assert_array_equal(memory[size:], before[size:])


@BOTH
def test_two_cores(run):
    @nki.jit(dynamic_shapes={"x": {0: N}})
    def halves(x):
        out = nl.ndarray((N, D), dtype=x.dtype, buffer=nl.shared_hbm)

        def body(first):
            tile = nl.zeros((32, D), dtype=x.dtype)
            nisa.dma_copy(dst=tile, src=x[nl.ds(first, 32)], oob_mode=SKIP)
            nisa.tensor_tensor(dst=tile, data1=tile, data2=tile, op=nl.add)
            nisa.dma_copy(dst=out[nl.ds(first, 32)], src=tile, oob_mode=SKIP)

        nl.fori_loop(32 * nl.program_id(0), nl.dimension_size(x, 0), body, step=32 * CORES)
        return out

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in (1, 32, 33, 300):
            np.testing.assert_array_equal(run(halves[CORES])(numbers(size, D)), 2 * numbers(size, D))


def halves_of_columns(x, race=False):
    """2 x, for x [P, n], even blocks of columns by one core and odd ones by the other."""
    out = nl.ndarray((x.shape[0], N), dtype=x.dtype, buffer=nl.shared_hbm)

    def body(first):
        tile = nl.zeros((x.shape[0], 64), dtype=x.dtype)
        nisa.dma_copy(dst=tile, src=x[:, nl.ds(first, 64)], oob_mode=SKIP)
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0 + race * nl.program_id(0))
        nisa.dma_copy(dst=out[:, nl.ds(first, 64)], src=tile, oob_mode=SKIP)

    nl.fori_loop(0 if race else 64 * nl.program_id(0), nl.dimension_size(x, 1), body, step=64 * (1 if race else CORES))
    return out


@BOTH
def test_columns_on_two_cores(run):
    """Where rows are shorter than the last block, what is beyond is none of a core's business."""
    kernel = run(nki.jit(halves_of_columns, dynamic_shapes={"x": {1: N}})[CORES])
    for size in (1, 64, 65, 270, 300):
        np.testing.assert_array_equal(kernel(numbers(7, size)), 2 * numbers(7, size))


def test_races_are_found():
    kernel = nki.simulate(nki.jit(halves_of_columns, dynamic_shapes={"x": {1: N}})[CORES])
    with pytest.warns(errors.RaceWarning):
        kernel(numbers(7, 270), race=True)


@settings(deadline=None, max_examples=20)
@given(size=st.integers(1, 64), first=st.integers(0, 60), count=st.integers(1, 20), data=st.data())
def test_what_is_beyond_the_size_is_an_error(size, first, count, data):
    """Of slices and runtime indices alike, in loads and stores; simulated as compiled."""
    count = min(count, 64 - first)
    moved, store = data.draw(st.booleans()), data.draw(st.booleans())
    bounded = nki.Dim("n", max=64)

    @nki.jit(dynamic_shapes={"x": {0: bounded}})
    def kernel(x, start):
        out = nl.zeros((count, 6), dtype=x.dtype, buffer=nl.shared_hbm)
        rows = x[nl.ds(nisa.scalar_load(start), count)] if moved else x[first : first + count]
        if store:
            nisa.dma_copy(dst=rows, src=out)
        else:
            nisa.dma_copy(dst=out, src=rows)
        return out

    line = kernel.function.__code__.co_firstlineno + (5 if store else 7)
    for run in (kernel, nki.simulate(kernel)):
        x = numbers(size, 6)
        if first + count <= size:
            found, expected = run(x, np.array([[first]], np.int32)), numbers(size, 6)
            np.testing.assert_array_equal(found, 0 * found if store else expected[first : first + count])
            expected[first : first + count] *= 0 if store else 1
            np.testing.assert_array_equal(x, expected)
        else:
            with pytest.raises(errors.BeyondDimension, match=rf"position {first + count - 1} of a size of {size}") as e:
                run(x, np.array([[first]], np.int32))
            assert e.value.location.line == line
            np.testing.assert_array_equal(x, numbers(size, 6))


@BOTH
def test_scalars_of_64_bits(run):
    @nki.jit(dynamic_shapes={"x": {0: N}})
    def row(x, at):
        out = nl.ndarray((1, D), dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=x.ap([[D, 1], [1, D]], scalar_offset=nisa.scalar_load(at), indirect_dim=0))
        return out

    x = numbers(9, D)
    np.testing.assert_array_equal(run(row)(x, np.array([[8]], np.int64)), x[8:])
    for index in (9, 1 << 33, -1):
        with pytest.raises(errors.IndirectOutOfBounds):
            run(row)(x, np.array([[index]], np.int64))


def test_other_instructions_are_checked():
    @nki.jit(dynamic_shapes={"x": {0: N}})
    def element(x, at):
        out = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.shared_hbm)
        nisa.scalar_store(out, nisa.scalar_load(x[nl.ds(nisa.scalar_load(at), 1)]))
        return out

    @nki.jit(dynamic_shapes={"x": {0: N}})
    def transposed(x):
        out = nl.ndarray((3, 16), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_transpose(dst=out, src=x[0:16])
        result = nl.ndarray((3, 16), dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(result, out)
        return result

    x = numbers(9, 1, dtype=np.int32)
    for run in (element, nki.simulate(element)):
        assert run(x, np.array([[8]], np.int32)) == x[8]
        for index in (9, 200, -1, -8):
            with pytest.raises(errors.IndirectOutOfBounds):
                run(x, np.array([[index]], np.int32))
    for run in (transposed, nki.simulate(transposed)):
        np.testing.assert_array_equal(run(numbers(16, 3)), numbers(16, 3).T)
        with pytest.raises(errors.BeyondDimension):
            run(numbers(15, 3))


def test_sizes_that_do_not_fit():
    cases = [
        (ROWS, [numbers(N.max + 1, D)], "dimension 0 is Dim"), (ROWS, [3], "is no array"),
        (COLUMNS, [numbers(5)], "without a dimension 1"),
    ]
    for kernel, arguments, message in cases:
        for run in (kernel, nki.simulate(kernel)):
            with pytest.raises(errors.InvalidDynamicShape, match=message):
                run(*arguments)
    same = nki.jit(lambda x, y: x, dynamic_shapes={"x": {0: N}, "y": {0: N}})
    with pytest.raises(errors.InvalidDynamicShape, match="of which 'x' has 3"):
        same(numbers(3, D), numbers(4, D))
    least = nki.jit(lambda x: x, dynamic_shapes={"x": {0: nki.Dim("n", min=2, max=4)}})
    with pytest.raises(errors.InvalidDynamicShape, match="from 2 to 4"):
        least(numbers(1, D))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: nki.Dim("1n", max=3), lambda: nki.Dim("n", max=0), lambda: nki.Dim("n", max=3, min=4),
        lambda: nki.Dim("n", max=2.0), lambda: nki.jit(dynamic_shapes=[N])(lambda x: x),
        lambda: nki.jit(dynamic_shapes={"x": N})(lambda x: x), lambda: nki.jit(dynamic_shapes={"x": {}})(lambda x: x),
    ],
)
def test_declarations_that_are_none(wrong):
    with pytest.raises(errors.InvalidOperand):
        wrong()


def returns_view(x):
    return x[0:1]


def gathers(x):
    index = nl.zeros((4, 1), dtype=nl.int32)
    tile = nl.ndarray((4, D), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x.ap([[D, 4], [1, D]], vector_offset=index))


def unknown_dimension(x):
    return nl.ndarray((M, D), dtype=x.dtype, buffer=nl.shared_hbm)


def tile_of_dimension(x):
    return nl.ndarray((N, D), dtype=x.dtype, buffer=nl.sbuf)


def size_of_view(x):
    nl.dimension_size(x[0:2], 0)


@BOTH
@pytest.mark.parametrize(
    ("function", "error"),
    [
        (returns_view, errors.InvalidReturn), (gathers, errors.UnsupportedError),
        (unknown_dimension, errors.InvalidOperand), (tile_of_dimension, errors.InvalidOperand),
        (size_of_view, errors.InvalidOperand),
    ],
)
def test_what_cannot_be_done(run, function, error):
    with pytest.raises(error) as found:
        run(nki.jit(function, dynamic_shapes={"x": {0: N}}))(numbers(8, D))
    assert found.value.location.file == __file__


def test_access_that_asks_for_no_size(monkeypatch):
    """A program with one would be a mistake of ours."""
    from nkilite.trace import bounded
    from nkilite.trace.tensor import NkiTensor

    def unchecked(definition, function, values, name):
        plain = [NkiTensor.of(v.storage, v.storage.type) if getattr(v, "storage", v) is not v else v for v in values]
        return function(*plain)

    monkeypatch.setattr(bounded, "check", [unchecked])
    kernel = nki.jit(lambda x: nl.store(x, nl.load(x)), dynamic_shapes={"x": {0: nki.Dim("n", max=8)}})
    with pytest.raises(errors.InternalError, match="does not ask for a size"):
        kernel(numbers(8, D))


def test_a_static_dimension_has_a_number():
    @nki.jit(dynamic_shapes={"x": {0: N}})
    def kernel(x):
        assert (nl.dimension_size(x, 1), nl.dimension_size(x, -1)) == (D, D)
        assert x.shape == (N.max, D)
        return x

    assert kernel(x := numbers(3, D)) is x


def test_out():
    x, out = numbers(11, D), np.empty((11, D), np.float32)
    assert ROWS(x, out=out) is out
    np.testing.assert_array_equal(out, 2 * x)
    for run in (ROWS, nki.simulate(ROWS)):
        with pytest.raises(errors.InvalidOutput, match="11, 24"):
            run(x, out=np.empty((N.max, D), np.float32))
    wide = np.empty((7, 11), np.float32)
    COLUMNS(numbers(7, 11), out=wide)
    np.testing.assert_array_equal(wide, 2 * numbers(7, 11))


@pytest.mark.parametrize(("kernel", "shape"), [(ROWS, (9, D)), (COLUMNS, (7, 9))], ids=["rows", "columns"])
def test_launchers(kernel, shape):
    """Bound to the arrays of a call, here and as data for another process."""
    x = numbers(*shape)
    np.testing.assert_array_equal(kernel.launcher(x).run(), 2 * x)
    (found,) = pickle.loads(pickle.dumps(kernel.portable(x))).launcher(kernel.memory(x)).run()
    np.testing.assert_array_equal(found, 2 * x)


def test_one_array_for_two_arguments():
    @nki.jit(dynamic_shapes={"x": {0: N}, "y": {0: N}})
    def incremented(x, y):
        def body(first):
            tile = nl.zeros((8, D), dtype=x.dtype)
            nisa.dma_copy(dst=tile, src=x[nl.ds(first, 8)], oob_mode=SKIP)
            nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
            nisa.dma_copy(dst=y[nl.ds(first, 8)], src=tile, oob_mode=SKIP)

        nl.fori_loop(0, nl.dimension_size(x, 0), body, step=8)

    for run in (incremented, nki.simulate(incremented)):
        for size in (3, 9, 9, 20):
            memory = np.zeros((size + 5, D), np.float32)
            one, other = memory[:size], np.zeros((size, D), np.float32)
            run(one, one)
            run(one, other)
            assert (one == 1).all() and (other == 2).all() and not memory[size:].any()
            with pytest.raises(errors.OverlappingArguments):
                run(memory[:size], memory[1 : size + 1])


def test_pickled():
    assert pickle.loads(pickle.dumps(N)) == N != M and hash(N) == hash(nki.Dim("n", max=300))
    assert repr(nki.Dim("k", min=2, max=3)) == "Dim('k', max=3, min=2)"
    with pytest.raises(AttributeError):
        N.max = 3


def test_torch():
    torch = pytest.importorskip("torch")
    compiled = torch.compile(lambda x: ROWS(x) + 1, backend="aot_eager")
    for size in (3, 211):
        x = torch.from_numpy(numbers(size, D))
        for found, expected in ((ROWS(x), 2 * x), (compiled(x), 2 * x + 1), (COLUMNS(x.T), 2 * x.T)):
            assert torch.equal(found, expected)
    assert torch.vmap(ROWS)(torch.ones(2, 5, D)).shape == (2, 5, D)


def test_jax():
    jax = pytest.importorskip("jax")
    for size in (3, 97):
        x = jax.numpy.asarray(numbers(size, D))
        for call in (ROWS, jax.jit(ROWS), COLUMNS, jax.jit(COLUMNS)):
            np.testing.assert_array_equal(call(x), 2 * x)


def test_the_timing_model_knows_the_sizes():
    """Loops up to a size run as often as it says, also where bounds are computed of it."""
    times = {n: nki.profile(ROWS, numbers(n, D)) for n in (64, 65, 256)}
    assert not any(profile.guessed for profile in times.values())
    repeated = nki.profile(nki.jit(doubled_rows, dynamic_shapes={"x": {0: N}}), numbers(100, D))
    assert times[64].latency_us < times[65].latency_us == repeated.latency_us < times[256].latency_us


@BOTH
def test_a_bound_costs_nothing(run):
    """A tensor of 64 GiB of which a launch has some rows."""
    bound = nki.Dim("n", max=1 << 24)

    @nki.jit(dynamic_shapes={"x": {0: bound}})
    def copied(x):
        out = nl.ndarray((bound, 1024), dtype=x.dtype, buffer=nl.shared_hbm)

        def body(first):
            tile = nl.zeros((8, 1024), dtype=x.dtype)
            nisa.dma_copy(dst=tile, src=x[nl.ds(first, 8)], oob_mode=SKIP)
            nisa.dma_copy(dst=out[nl.ds(first, 8)], src=tile, oob_mode=SKIP)

        nl.fori_loop(0, nl.dimension_size(x, 0), body, step=8)
        return out

    np.testing.assert_array_equal(run(copied)(numbers(9, 1024)), numbers(9, 1024))
