"""Registers and scalars: values in and out, arithmetic, indexing, and what Python cannot do with them."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from isa_testing import CPU_LEVELS, MODES, both

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors

INTEGERS = ["int8", "int16", "int32", "uint8", "uint16", "uint32"]


def stored(register, dtype=nl.int32):
    """In a kernel: an HBM tensor of one element with the value of a register."""
    out = nl.ndarray((1, 1), dtype=dtype, buffer=nl.shared_hbm)
    nisa.register_store(out, register)
    return out


def expect(error, kernel, *arrays, mode=nki.jit, says=()):
    """Require an error at the line of the kernel that is marked with `here`."""
    with pytest.raises(error) as caught:
        mode(kernel)(*arrays)
    lines, first = inspect.getsourcelines(kernel)
    marked = next(first + i for i, line in enumerate(lines) if line.rstrip().endswith("# here"))
    assert caught.value.location.line == marked, caught.value
    for text in says:
        assert text in str(caught.value)


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", CPU_LEVELS)
def test_moves(monkeypatch, cpu) -> None:
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(x):
        a = nisa.register_alloc(-5)
        b = nisa.register_alloc(a)
        c = nisa.register_alloc()
        nisa.register_move(c, 2**31 - 1)
        nisa.register_move(dst=a, src=c)
        return stored(a), stored(b), stored(c), stored(nisa.register_alloc(-(2**31)))

    assert [int(r[0, 0]) for r in both(kernel, np.zeros((1, 1), np.int32))] == [2**31 - 1, -5, 2**31 - 1, -(2**31)]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_loads_extend_and_stores_truncate(dtype) -> None:
    limits = np.iinfo(dtype)

    def kernel(x):
        tile = nl.load(x)
        return [
            stored(nisa.register_alloc(source), out)
            for source in (tile[0:1, 0:1], tile[0:1, 1:2], x[1, 1:2]) for out in (nl.int32, dtype)
        ]

    x = np.array([[limits.min, limits.max], [1, limits.max - 1]], dtype)
    got = both(kernel, x)
    for value, wide, same in zip((limits.min, limits.max, limits.max - 1), got[::2], got[1::2], strict=True):
        assert wide[0, 0] == np.array(value).astype(np.int32)
        assert same[0, 0] == value


@pytest.mark.parametrize("value", [0, 256, -1])
def test_narrow_and_bool_destinations(value) -> None:
    def kernel(x):
        register = nisa.register_alloc(value)
        return stored(register, nl.uint8), stored(register, nl.bool_), stored(register, nl.int16)

    low, truth, short = both(kernel, np.zeros((1, 1), np.int32))
    assert (low[0, 0], bool(truth[0, 0]), short[0, 0]) == (value % 256, value != 0, value)


@pytest.mark.parametrize(
    ("value", "dtype", "want"),
    [(2.5, nl.float32, 2), (-3.0, nl.bfloat16, -3), (7.0, nl.float8_e5m2, 7), (1e20, nl.float32, 2**31 - 1)],
)
def test_a_float_becomes_the_nearest_int(value, dtype, want) -> None:
    def kernel(x):
        return stored(nisa.register_alloc(nl.full((1, 1), value, dtype)))

    (got,) = both(kernel, np.zeros((1, 1), np.int32))
    assert got[0, 0] == np.float32(want).astype(np.int64) if want < 2**31 - 1 else got[0, 0] >= 2**31 - 128


def test_one_element_shapes() -> None:
    def kernel(x):
        ones = nl.ones([1], dtype=nl.int32, buffer=nl.sbuf)
        register = nisa.register_alloc()
        nisa.register_load(register, ones)
        flat = nl.ndarray([1], dtype=nl.int32, buffer=nl.shared_hbm)
        nisa.register_store(flat, register)
        return flat

    (got,) = both(kernel, np.zeros((1, 1), np.int32))
    np.testing.assert_array_equal(got, [1])


@pytest.mark.parametrize("cpu", CPU_LEVELS)
def test_scalar_arithmetic_wraps(monkeypatch, cpu) -> None:
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(x):
        tile = nl.load(x)
        a, b = nisa.scalar_load(tile[:, 0:1]), nisa.scalar_load(tile[:, 1:2])
        results = [a + b, a - b, a * b, 3 + a, 3 - a, 3 * a, -a, a + 1, a - 1, a * 4 + 1]
        out = nl.ndarray((1, len(results)), dtype=nl.int32, buffer=nl.shared_hbm)
        for i, scalar in enumerate(results):
            nisa.scalar_store(out[:, i:i + 1], scalar)
        return out

    for a, b in [(7, -3), (2**31 - 1, 1), (100000, 100000), (-(2**31), -1)]:
        (got,) = both(kernel, np.array([[a, b]], np.int32))
        exact = [a + b, a - b, a * b, 3 + a, 3 - a, 3 * a, -a, a + 1, a - 1, a * 4 + 1]
        np.testing.assert_array_equal(got[0], np.array(exact, np.int64).astype(np.int32))


# --- as indices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [0, 2, 5])
def test_indices(row) -> None:
    """One register chooses rows of HBM and columns of SBUF, by every way of indexing."""

    def kernel(x, where):
        at = nisa.register_alloc(where)
        tile = nl.ndarray((6, 8), dtype=x.dtype)
        nisa.dma_copy(tile, x)
        results = []
        for source, shape in [
            (x[at], (1, 8)), (x[nl.ds(at, 1), 2:5], (1, 3)), (x.select(0, at), (1, 8)),
            (x.ap([[8, 1], [1, 8]], scalar_offset=at, indirect_dim=0), (1, 8)),
            (tile[:, at], (6, 1)), (tile[:, nl.ds(at, 3)], (6, 3)), (tile.select(1, at), (6, 1)),
            (tile.ap([[8, 6], [1, 2]], scalar_offset=at, indirect_dim=1), (6, 2)),
        ]:
            out = nl.ndarray(shape, dtype=x.dtype, buffer=nl.shared_hbm)
            nisa.dma_copy(out, source)
            results.append(out)
        return tuple(results)

    x = np.arange(48, dtype=np.float32).reshape(6, 8)
    got = both(kernel, x, np.array([[row]], np.int32))
    line, column = x[row][None], x[:, row:row + 1]
    expected = [line, line[:, 2:5], line, line, column, x[:, row:row + 3], column, x[:, row:row + 2]]
    for result, right in zip(got, expected, strict=True):
        np.testing.assert_array_equal(result, right)


def test_writes_through_an_index() -> None:
    def kernel(where):
        at = nisa.scalar_load(where)
        tile = nl.zeros((4, 8), dtype=nl.float32)
        nisa.memset(tile[:, nl.ds(at, 2)], 1)
        nisa.tensor_scalar(tile[:, at + 2], tile[:, at], op0=nl.add, operand0=4)
        out = nl.ndarray((4, 8), dtype=nl.float32, buffer=nl.shared_hbm)
        nisa.dma_copy(out, tile)
        return out

    (got,) = both(kernel, np.array([[3]], np.int32))
    np.testing.assert_array_equal(got, np.broadcast_to(np.float32([0, 0, 0, 1, 1, 5, 0, 0]), (4, 8)))


# --- mistakes -------------------------------------------------------------------------------------------------------

ONE = np.ones((1, 1), np.int32)


def condition(x):
    if nisa.register_alloc(x):  # here
        pass


def loop_condition(x):
    register = nisa.register_alloc(x)
    while register:  # here
        pass


def python_range(x):
    register = nisa.register_alloc(x)
    for _ in range(register):  # here
        pass


def as_int(x):
    int(nisa.register_alloc(x))  # here


def as_float(x):
    float(nisa.register_alloc(x))  # here


def compared(x):
    return nisa.register_alloc(x) == 1  # here


def ordered(x):
    return bool(nisa.scalar_load(x) < 1)  # here


def iterated(x):
    list(nisa.register_alloc(x))  # here


def old_affine_range(x):
    register = nisa.register_alloc(x)
    for _ in nl.affine_range(register):  # here
        pass


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "kernel",
    [
        condition, loop_condition, python_range, as_int, as_float, compared, ordered, iterated, old_affine_range,
    ],
)
def test_python_cannot_look_into_registers(mode, kernel) -> None:
    assert issubclass(errors.RegisterInControlFlow, TypeError)
    expect(errors.RegisterInControlFlow, kernel, ONE, mode=mode, says=("nl.fori_loop",))


def no_arithmetic(x):
    return nisa.register_alloc(x) + 1  # here


def half_a_scalar(x):
    return nisa.scalar_load(x) * 0.5  # here


def scalar_and_register(x):
    return nisa.scalar_load(x) + nisa.register_alloc(x)  # here


def no_division(x):
    return nisa.scalar_load(x) // 2  # here


def float_value(x):
    nisa.register_alloc(1.5)  # here


def too_large(x):
    nisa.register_alloc(2**31)  # here


def float_move(x):
    register = nisa.register_alloc()
    nisa.register_move(register, 0.5)  # here


def string_move(x):
    nisa.register_move(nisa.register_alloc(), "3")  # here


def tile_as_register(x):
    nisa.register_move(nl.load(x), 3)  # here


def number_as_register(x):
    nisa.register_load(3, nl.load(x))  # here


def many_elements(x):
    nisa.register_alloc(nl.zeros((1, 2), dtype=nl.int32))  # here


def many_partitions(x):
    nisa.register_store(nl.ndarray((2, 1), dtype=nl.int32), nisa.register_alloc(1))  # here


def packed_tile(x):
    nisa.register_alloc(nl.ndarray((1, 1), dtype=nl.float8_e4m3fn_x4))  # here


def float_destination(x):
    nisa.register_store(nl.ndarray((1, 1), dtype=nl.bfloat16), nisa.register_alloc(1))  # here


def psum_source(x):
    tile = nl.zeros((1, 1), dtype=nl.int32, buffer=nl.psum)
    nisa.register_alloc(tile)  # here


def never_written(x):
    out = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.shared_hbm)
    nisa.register_store(out, nisa.register_alloc())  # here
    return out


def partition_index(x):
    tile = nl.zeros((4, 4), dtype=nl.int32)
    tile[nisa.register_alloc(1)]  # here


def counted(x):
    len(nisa.register_alloc(1))  # here


def array_of(x):
    np.asarray(nisa.register_alloc(1))  # here


def power_of_two(x):
    np.exp2(nisa.register_alloc(1))  # here


def magnitude(x):
    abs(nisa.scalar_load(nl.zeros((1, 1), dtype=nl.int32)))  # here


def formatted(x):
    return f"{nisa.register_alloc(1):3d}"  # here


def misspelt(x):
    return nisa.register_alloc(1).register_tensors  # here


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("kernel", "error", "says"),
    [
        (counted, errors.RegisterInControlFlow, ["a sequence with a length"]),
        (array_of, errors.RegisterInControlFlow, ["a NumPy array"]),
        (power_of_two, errors.RegisterOperator, ["np.exp2"]),
        (magnitude, errors.RegisterOperator, ["abs()", "register_store"]),
        (formatted, errors.RegisterInControlFlow, ["formatted"]),
        (misspelt, errors.UnknownName, ["register_tensors", "did you mean register.register_tensor?"]),
        (no_arithmetic, errors.RegisterOperator, ["+", "nisa.scalar_load"]),
        (half_a_scalar, errors.InvalidOperand, ["float 0.5", "an int from -2147483648 to 2147483647"]),
        (scalar_and_register, errors.InvalidOperand, ["VirtualRegister", "nisa.scalar_load"]),
        (no_division, errors.RegisterOperator, ["//"]),
        (float_value, errors.InvalidOperand, ["nisa.register_alloc", "float 1.5", "an int from"]),
        (too_large, errors.InvalidOperand, ["2147483648", "2147483647"]),
        (float_move, errors.InvalidOperand, ["nisa.register_move", "float 0.5"]),
        (string_move, errors.InvalidOperand, ["str '3'", "a number or a register"]),
        (tile_as_register, errors.WrongMemory, ["SBUF", "a register", "nisa.register_load"]),
        (number_as_register, errors.InvalidOperand, ["int 3", "a register"]),
        (many_elements, errors.ShapeMismatch, ["(1, 2)", "(1, 1)"]),
        (many_partitions, errors.ShapeMismatch, ["(2, 1)", "(1, 1)"]),
        (packed_tile, errors.UnsupportedDtype, ["float8_e4m3fn_x4", "float32"]),
        (float_destination, errors.UnsupportedDtype, ["bfloat16", "int32"]),
        (psum_source, errors.WrongMemory, ["PSUM", "SBUF or HBM"]),
        (never_written, errors.UninitializedRead, ["register reg", "nisa.register_move"]),
        (partition_index, errors.InvalidView, ["partition dimension"]),
    ],
)
def test_mistakes(mode, kernel, error, says) -> None:
    expect(error, kernel, ONE, mode=mode, says=says)


@pytest.mark.parametrize("mode", MODES)
def test_numbers_of_numpy_are_operands(mode) -> None:
    def kernel(x):
        out, tile = nl.ndarray((1, 1), nl.int32, nl.shared_hbm), nl.ndarray((1, 1), nl.int32)
        nisa.dma_copy(tile, x)
        scalar = nisa.scalar_load(tile)
        nisa.scalar_store(out, np.int64(3) * scalar + np.int32(5) - np.add(scalar, 1))
        return out

    assert mode(kernel)(np.array([[7]], np.int32)).item() == 3 * 7 + 5 - 8


@pytest.mark.parametrize("mode", MODES)
def test_index_out_of_bounds(mode) -> None:
    def kernel(x, where):
        out = nl.ndarray((1, 8), dtype=x.dtype, buffer=nl.shared_hbm)
        at = nisa.register_alloc(where)
        nisa.dma_copy(out, x[at])  # here
        return out

    x = np.zeros((6, 8), np.float32)
    for row in (-1, 6):
        expect(errors.IndirectOutOfBounds, kernel, x, np.array([[row]], np.int32), mode=mode, says=(f"{row} ", "6)"))
