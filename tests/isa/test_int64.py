"""64-bit integers: scalars, loops, offsets into tensors of more than 2**31 elements, and tiles that DMA moves."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isa_testing import CPU_LEVELS, MODES

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.ir import parse_program, print_program

ZERO = np.zeros((1, 1), np.int64)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


def exact(kernel, *arrays):
    """Results of both modes, equal bit by bit."""
    simulated, compiled = (mode(kernel)(*(a.copy() for a in arrays)) for mode in (nki.simulate, nki.jit))
    if not isinstance(simulated, tuple):
        simulated, compiled = (simulated,), (compiled,)
    for left, right in zip(simulated, compiled, strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    return simulated


def stored(scalar):
    """In a kernel: an HBM tensor with the value of a scalar."""
    out = nl.ndarray((1, 1), dtype=scalar.dtype, buffer=nl.shared_hbm)
    nisa.scalar_store(out, scalar)
    return out


def moved(tile):
    """In a kernel: an HBM copy of a tile."""
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(out, tile)
    return out


def wrapped(value):
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


# --- scalars --------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(a=INT64, b=INT64, number=INT64)
def test_arithmetic_wraps_at_64_bits(a, b, number) -> None:
    def kernel(x):
        a, b = nisa.scalar_load(x[:, 0:1]), nisa.scalar_load(x[:, 1:2])
        assert (a + 1).dtype == nl.int64
        return tuple(map(stored, (a + b, a - b, a * b, -a, number + a, number - a, a * number)))

    got = [int(r[0, 0]) for r in exact(kernel, np.array([[a, b]]))]
    assert got == [wrapped(v) for v in (a + b, a - b, a * b, -a, number + a, number - a, a * number)]


@pytest.mark.parametrize("cpu", CPU_LEVELS)
def test_values_keep_their_bits_on_the_way(monkeypatch, cpu) -> None:
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(x):
        tile = nl.load(x)
        copied = nisa.scalar_load(tile[1:2, 0:1])
        nisa.register_move(copied, nisa.scalar_load(x[0:1, 0:1]))
        return stored(copied)

    (got,) = exact(kernel, np.array([[(1 << 60) + 1], [5]]))
    assert got[0, 0] == (1 << 60) + 1


# --- loops ----------------------------------------------------------------------------------------------------------

LARGEST = (1 << 63) - 1


@pytest.mark.parametrize(
    ("lower", "upper", "step"),
    [(0, 5, 2), (1 << 40, (1 << 40) + 3, 1), (-(1 << 62), -(1 << 62) + 9, 5), (LARGEST - 9, LARGEST, 4), (3, 3, 1)],
)
def test_loops_count_in_64_bits(lower, upper, step) -> None:
    def kernel(x):
        seen = nl.zeros((1, 8), dtype=nl.int32)
        last = nl.zeros((1, 1), dtype=nl.int64)
        count = nl.zeros((1, 1), dtype=nl.int32)

        def body(i):
            assert i.dtype == nl.int64
            nisa.scalar_store(last, i)
            at = nisa.scalar_load(count)
            nisa.tensor_copy(seen[:, nl.ds(at, 1)], nl.ones((1, 1), dtype=nl.int32))
            nisa.tensor_scalar(count, count, nl.add, 1)

        nl.fori_loop(nisa.scalar_load(x[:, 0:1]), nisa.scalar_load(x[:, 1:2]), body, step)
        return moved(last), moved(count)

    turns = range(lower, upper, step)
    last, count = exact(kernel, np.array([[lower, upper]]))
    assert (int(last[0, 0]), int(count[0, 0])) == (turns[-1] if turns else 0, len(turns))


def test_while_asks_all_64_bits() -> None:
    def kernel(x):
        count = nl.zeros((1, 1), dtype=nl.int32)

        def body(left):
            nisa.tensor_scalar(count, count, nl.add, 1)
            return left - (1 << 32)

        nl.while_loop(nisa.scalar_load(x), body)
        return moved(count)

    assert exact(kernel, np.array([[3 << 32]]))[0][0, 0] == 3


# --- offsets --------------------------------------------------------------------------------------------------------

PAST = 1 << 33  # elements
RUN = 96


@pytest.fixture
def sparse(tmp_path):
    """float32 arrays of more than 2**33 elements, of which few have memory."""

    def make():
        path = tmp_path / "sparse"
        with path.open("wb") as file:
            file.truncate(4 * (PAST + (1 << 20)))
        array = np.memmap(path, np.float32, "r+", shape=(PAST + (1 << 20),))
        array[PAST : PAST + RUN] = np.arange(RUN)
        return array

    return make


@pytest.mark.quick
@pytest.mark.parametrize("mode", MODES)
def test_offsets_past_32_bits(sparse, mode) -> None:
    """Read and written where a scalar says, where a pattern says, by rows, and by the index of a loop."""

    def kernel(x, where):
        at, flat = nisa.scalar_load(where), [[RUN, 1], [1, RUN]]
        tile = nl.ndarray((1, RUN), dtype=x.dtype)
        results = [tile]
        nisa.dma_copy(tile, x.ap(flat, scalar_offset=at))
        nisa.dma_copy(x.ap(flat, offset=PAST + RUN), tile)
        nisa.dma_copy(x.ap(flat, scalar_offset=at + 2 * RUN), tile)
        rows = x.reshape((x.shape[0] // 1024, 1024))
        row = nisa.scalar_load(nl.full((1, 1), PAST // 1024, nl.int64))
        for source in (rows[row, 0:RUN], rows.select(0, row).slice(0, 0, RUN), x[nl.ds(at, RUN)]):
            results.append(nl.ndarray((1, RUN), dtype=x.dtype))
            nisa.dma_copy(results[-1], source)
        last = nl.ndarray((1, 1), dtype=x.dtype)
        nl.fori_loop(at, at + 5, lambda i: nisa.dma_copy(last, x[i]) and None)
        return *map(moved, results), moved(last)

    array = sparse()
    *results, last = mode(kernel)(array, np.array([[PAST]]))
    for got in (*results, array[PAST + RUN : PAST + 2 * RUN], array[PAST + 2 * RUN : PAST + 3 * RUN]):
        np.testing.assert_array_equal(np.ravel(got), np.arange(RUN))
    assert last[0, 0] == 4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("index", [-1, (1 << 32) + 1, 8])
def test_an_offset_is_checked_in_64_bits(mode, index) -> None:
    def kernel(x, where):
        tile = nl.ndarray((1, 4), dtype=x.dtype)
        nisa.dma_copy(tile, x[nisa.scalar_load(where)])  # here
        return moved(tile)

    expect(errors.IndirectOutOfBounds, kernel, np.zeros((8, 4), np.float32), np.array([[index]]), mode=mode,
           says=[str(index)])


def test_text_and_clock() -> None:
    @nki.jit
    def kernel(x, where):
        at = nisa.scalar_load(where) + 3
        tile = nl.ndarray((1, 4), dtype=x.dtype)
        nisa.dma_copy(tile, x.ap([[4, 1], [1, 4]], scalar_offset=at))
        return moved(tile)

    arrays = np.zeros((64,), np.float32), np.array([[7]])
    text = print_program(kernel.trace(*arrays))
    assert "registers int64[1, 1]" in text
    assert print_program(parse_program(text)) == text
    assert nki.profile(kernel, *arrays).latency_us > 0


# --- tiles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_dma_moves_bits(monkeypatch, cpu, dtype) -> None:
    """Dense, strided, transposed in blocks, gathered and scattered."""
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(x, rows):
        tile, index = nl.load(x), nl.load(rows)
        turned = nl.ndarray((x.shape[1], x.shape[0]), dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(turned.permute((1, 0)), tile)
        gathered = nl.ndarray((8, x.shape[1]), dtype=x.dtype)
        pattern = [[x.shape[1], 8], [1, x.shape[1]]]
        nisa.dma_copy(gathered, x.ap(pattern, vector_offset=index))
        scattered = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(scattered, tile)
        nisa.dma_copy(scattered.ap(pattern, vector_offset=index), tile[0:8])
        low = nl.ndarray((x.shape[0], 2 * x.shape[1]), dtype=nl.int32, buffer=nl.shared_hbm)
        nisa.dma_copy(low, tile.view(nl.int32))
        return moved(tile[:, 1:20:3]), turned, moved(gathered), scattered, low

    x = np.random.default_rng(0).integers(0, 1 << 63, (40, 37), dtype=np.int64).astype(dtype)
    rows = np.array([[5, 0, 39, 7, 8, 20, 21, 22]], np.int32).T
    strided, turned, gathered, scattered, words = exact(kernel, x, rows)
    np.testing.assert_array_equal(strided, x[:, 1:20:3])
    np.testing.assert_array_equal(turned, x.T)
    np.testing.assert_array_equal(gathered, x[rows[:, 0]])
    written = x.copy()
    written[rows[:, 0]] = x[:8]
    np.testing.assert_array_equal(scattered, written)
    np.testing.assert_array_equal(words, x.view(np.int32))


def test_rows_of_them_go_through_groups() -> None:
    """Beside instructions that stay in registers."""

    def kernel(x, y):
        wide, narrow = (nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm) for a in (x, y))
        for rows in (slice(0, 128), slice(128, 256)):
            tile, other = nl.load(x[rows]), nl.load(y[rows])
            nisa.memset(tile[:, 3:5], 9)
            nl.store(wide[rows], tile)
            nl.store(narrow[rows], nl.add(nl.abs(other), other))
        return wide, narrow

    rng = np.random.default_rng(0)
    x, y = rng.integers(-(1 << 62), 1 << 62, (256, 300)), rng.standard_normal((256, 300), np.float32)
    got = exact(kernel, x, y)[0]
    x[:, 3:5] = 9
    np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize("dtype", [nl.int64, nl.uint64])
@pytest.mark.parametrize("value", [0, -1, (1 << 53) - 1, 1 << 62, 1 << 63, 1 << 70, -(1 << 70)])
def test_memset_saturates(dtype, value) -> None:
    def kernel(x):
        tile = nl.ndarray((3, 21), dtype=dtype)
        nisa.memset(tile, value)
        return moved(tile)

    limits = np.iinfo(dtype.numpy)
    assert (exact(kernel, ZERO)[0] == dtype.numpy.type(min(max(value, limits.min), limits.max))).all()


@pytest.mark.parametrize("mode", MODES)
def test_a_register_takes_the_low_word(mode) -> None:
    """As the error says that refuses to load 64 bits into a register, which has 32."""
    def kernel(x):
        low, out = nisa.register_alloc(), nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.shared_hbm)
        nisa.register_load(low, x.view(nl.int32)[..., 0:1])
        nisa.register_store(out, low)
        return out

    assert mode(kernel)(np.array([[(5 << 32) + 7]], np.int64)) == 7


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [nl.int64, nl.uint64])
def test_no_register_has_64_bits(mode, dtype) -> None:
    def kernel(x):
        nisa.register_load(nisa.register_alloc(), nl.zeros((1, 1), dtype=dtype))  # here
        return x

    said = ["register_load", "as many as a register has", "scalar_load", ".view(nl.int32)"]
    expect(errors.UnsupportedDtype, kernel, ZERO, mode=mode, says=said)


# --- what there is not ----------------------------------------------------------------------------------------------


def expect(error, kernel, *arrays, mode, says=()):
    """Require an error at the line of the kernel that is marked with `here`."""
    with pytest.raises(error) as caught:
        mode(kernel)(*arrays)
    lines, first = inspect.getsourcelines(kernel)
    marked = next(first + i for i, line in enumerate(lines) if line.rstrip().endswith("# here"))
    assert caught.value.location.line == marked, caught.value
    for text in says:
        assert text in str(caught.value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("compute", [
    lambda wide: nisa.tensor_copy(wide, wide), lambda wide: nisa.tensor_scalar(wide, wide, nl.add, 1),
    lambda wide: nisa.tensor_tensor(wide, wide, wide, nl.add), lambda wide: nisa.iota(wide, [[1, 4]], 0),
    lambda wide: nisa.activation(wide, nl.copy, wide), lambda wide: nisa.dma_transpose(wide, wide),
    lambda wide: nisa.register_alloc(wide[0:1, 0:1]),
], ids=["tensor_copy", "tensor_scalar", "tensor_tensor", "iota", "activation", "dma_transpose", "register_load"])
def test_no_engine_computes_with_64_bits(mode, compute) -> None:
    def kernel(x):
        tile = nl.zeros((4, 4), dtype=nl.int64)
        compute(tile)
        return moved(tile)

    with pytest.raises(errors.UnsupportedDtype, match="int64") as caught:
        mode(kernel)(ZERO)
    assert "register_load" in str(caught.value) or "low words" in str(caught.value)


@pytest.mark.parametrize("mode", MODES)
def test_dma_does_not_convert_them(mode) -> None:
    def kernel(x):
        tile = nl.ndarray((1, 1), dtype=nl.int32)
        nisa.dma_copy(tile, x)  # here

    expect(errors.DtypeMismatch, kernel, ZERO, mode=mode, says=["int64", "view(nl.int32)"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("operation", [
    lambda a, b: a + b, lambda a, b: b * a, lambda a, b: a < b, lambda a, b: nisa.register_move(a, b),
    lambda a, b: nl.fori_loop(a, b, lambda i: None),
    lambda a, b: nisa.scalar_store(nl.ndarray((1, 1), dtype=nl.int32), b),
], ids=["add", "multiply", "compare", "move", "loop", "store"])
def test_widths_do_not_mix(mode, operation) -> None:
    def kernel(x):
        wide, narrow = nisa.scalar_load(x), nisa.scalar_load(nl.zeros((1, 1), dtype=nl.int32))
        operation(narrow, wide)

    with pytest.raises((errors.DtypeMismatch, errors.UnsupportedDtype), match="int64"):
        mode(kernel)(ZERO)


@pytest.mark.parametrize("mode", MODES)
def test_scalars_of_64_bits_are_not_compared(mode) -> None:
    def kernel(x):
        return nisa.scalar_load(x) < 5  # here

    expect(errors.UnsupportedError, kernel, ZERO, mode=mode, says=["int64"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("by_vector", [True, False])
def test_tiles_and_rows_take_32_bits(mode, by_vector) -> None:
    def kernel(x, y):
        tile = nl.load(x)
        view = y.ap([[1, 1], [1, 1]], vector_offset=tile) if by_vector else tile[:, nisa.scalar_load(x)]  # here
        return moved(view)

    expect(errors.InvalidView, kernel, ZERO, np.zeros((4, 1), np.float32), mode=mode, says=["int32"])


@pytest.mark.parametrize("mode", MODES)
def test_numbers_have_53_bits(mode) -> None:
    def kernel(x):
        nisa.memset(nl.ndarray((1, 1), dtype=nl.int64), (1 << 60) + 1)  # here

    expect(errors.InvalidOperand, kernel, ZERO, mode=mode, says=["53 bits"])


@pytest.mark.parametrize("mode", MODES)
def test_unsigned_scalars(mode) -> None:
    def kernel(x):
        nisa.scalar_load(x)  # here

    expect(errors.UnsupportedDtype, kernel, ZERO.astype(np.uint64), mode=mode, says=["int32 or int64"])
