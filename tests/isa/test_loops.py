"""fori_loop, dynamic_range and while_loop: turns, state across iterations, nesting, scopes; simulated and compiled."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from isa_testing import BOUNDS, CPU_LEVELS, MODES, both, element

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.trace import active

ONE = np.ones((1, 1), np.int32)


def stored(tile):
    """In a kernel: an HBM copy of an SBUF tile."""
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(out, tile)
    return out


# --- counted loops --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", ["ints", "registers", "scalars", "upper"])
@pytest.mark.parametrize(("lower", "upper", "step"), BOUNDS)
def test_indices_are_those_of_range(bounds, lower, upper, step) -> None:
    def kernel(first, last):
        seen = nl.zeros((1, 16), dtype=nl.int32)
        count = nl.zeros((1, 1), dtype=nl.int32)
        make = {"ints": None, "registers": nisa.register_alloc, "scalars": nisa.scalar_load, "upper": nisa.scalar_load}
        load = make[bounds]
        begin = lower if load is None or bounds == "upper" else load(first)
        end = upper if load is None else load(last)

        def body(i):
            assert isinstance(i, nisa.NkiScalar) == (bounds != "registers")
            value = nl.ndarray((1, 1), dtype=nl.int32)
            nisa.register_store(value, i)
            at = nisa.scalar_load(count)
            nisa.tensor_copy(seen[:, nl.ds(at, 1)], value)
            nisa.tensor_scalar(count, count, op0=nl.add, operand0=1)

        nl.fori_loop(begin, end, body, step)
        return stored(seen), stored(count)

    seen, count = both(kernel, element(lower), element(upper))
    expected = list(range(lower, upper, step))
    assert count[0, 0] == len(expected)
    np.testing.assert_array_equal(seen[0], expected + [0] * (16 - len(expected)))


def test_the_largest_bounds_do_not_wrap() -> None:
    def kernel(x):
        count = nl.zeros((1, 1), dtype=nl.int32)

        def body(i):
            nisa.tensor_scalar(count, count, op0=nl.add, operand0=1)

        nl.fori_loop(2**31 - 10, 2**31 - 1, body, step=4)
        return stored(count)

    assert both(kernel, ONE)[0][0, 0] == 3


@pytest.mark.parametrize("cpu", CPU_LEVELS)
def test_rows_by_runtime_count(monkeypatch, cpu) -> None:
    """One compiled kernel serves every count."""
    monkeypatch.setenv("NKILITE_CPU", cpu)

    @nki.jit
    def kernel(x, rows):
        out = nl.zeros((6, 40), dtype=x.dtype, buffer=nl.shared_hbm)

        def body(i):
            tile = nl.ndarray((1, 40), dtype=x.dtype)
            nisa.dma_copy(tile, x[i])
            nisa.activation(tile, op=nl.exp, data=tile)
            nisa.dma_copy(out[i], tile)

        nl.fori_loop(0, nisa.register_alloc(rows), body)
        return out

    x = np.linspace(-1, 1, 240, dtype=np.float32).reshape(6, 40)
    for count in (0, 1, 6, 3):
        expected = np.where(np.arange(6)[:, None] < count, np.exp(x), 0)
        np.testing.assert_allclose(kernel(x, element(count)), expected, rtol=1e-6)
        np.testing.assert_allclose(nki.simulate(kernel)(x, element(count)), expected, rtol=1e-6)


def test_the_bound_is_read_once_and_the_index_is_a_copy() -> None:
    def kernel(x):
        count = nl.zeros((1, 1), dtype=nl.int32)
        end = nisa.register_alloc(x)

        def body(i):
            nisa.tensor_scalar(count, count, op0=nl.add, operand0=1)
            nisa.register_move(end, 100)
            nisa.register_move(i, 100)

        nl.fori_loop(0, end, body)
        return stored(count)

    assert both(kernel, element(4))[0][0, 0] == 4


def test_nested_loops() -> None:
    """A triangle: the inner bound is computed from the outer index; some inner loops do not run."""

    def kernel(x):
        table = nl.zeros((1, 36), dtype=nl.int32)

        def outer(i):
            def inner(j):
                cell = table[:, nl.ds(i * 6 + j, 1)]
                nisa.tensor_scalar(cell, cell, op0=nl.add, operand0=1)

            nl.fori_loop(0, i, inner)
            nl.fori_loop(i + 1, 6, inner, step=2)

        nl.fori_loop(0, 6, outer)
        return stored(table)

    expected = np.zeros((6, 6), np.int32)
    for i in range(6):
        for j in [*range(i), *range(i + 1, 6, 2)]:
            expected[i, j] += 1
    np.testing.assert_array_equal(both(kernel, ONE)[0].reshape(6, 6), expected)


def test_nested_loops_reuse_their_tiles() -> None:
    """A tile of the outer body outlives the inner loop it is filled in; one of the inner body does not."""

    def kernel(x):
        total = nl.zeros((8, 1), dtype=nl.float32)

        def outer(i):
            line = nl.zeros((8, 1), dtype=nl.float32)

            def inner(j):
                term = nl.ndarray((8, 1), dtype=nl.float32)
                nisa.dma_copy(term, x.select(1, j))
                nisa.tensor_tensor(line, line, term, op=nl.add)

            nl.fori_loop(i, 5, inner)
            nisa.tensor_tensor(total, total, line, op=nl.add)

        nl.fori_loop(0, 5, outer)
        return stored(total)

    x = np.arange(40, dtype=np.float32).reshape(8, 5)
    np.testing.assert_array_equal(both(kernel, x)[0][:, 0], x @ np.arange(1, 6))


def test_static_loops_inside_and_instructions_after() -> None:
    def kernel(x):
        tile = nl.load(x)

        def body(i):
            for column in range(3):
                nisa.tensor_scalar(tile[:, column:column + 1], tile[:, column:column + 1], op0=nl.add, operand0=column)

        nl.fori_loop(0, 4, body)
        nisa.tensor_scalar(tile, tile, op0=nl.multiply, operand0=2)
        return stored(tile)

    x = np.ones((16, 3), np.float32)
    np.testing.assert_array_equal(both(kernel, x)[0], (x + 4 * np.arange(3)) * 2)


# --- while loops ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", CPU_LEVELS)
def test_while(monkeypatch, cpu) -> None:
    monkeypatch.setenv("NKILITE_CPU", cpu)

    @nki.jit
    def kernel(value, count):
        added, left = nl.zeros((1, 1), dtype=nl.float32), nl.load(count)
        term = nl.load(value)

        def body(r):
            nisa.tensor_tensor(added, added, term, op=nl.add)
            nisa.tensor_scalar(left, left, op0=nl.subtract, operand0=1)
            nisa.register_load(r, left)
            return r

        nl.while_loop(nisa.register_alloc(left), body)
        return stored(added)

    for count in (0, 1, 7):
        for run in (kernel, nki.simulate(kernel)):
            assert run(np.array([[1.5]], np.float32), element(count))[0, 0] == 1.5 * count


def test_while_with_another_register_and_scalars() -> None:
    """The body sees a copy of the condition; a negative condition is not zero."""

    def kernel(x):
        count = nl.zeros((1, 1), dtype=nl.int32)
        first = nisa.scalar_load(x)

        def body(r):
            assert isinstance(r, nisa.NkiScalar)
            following = r + 1
            nisa.register_move(r, 77)
            nisa.tensor_scalar(count, count, op0=nl.add, operand0=1)
            return following

        nl.while_loop(first, body)
        return stored(count), stored(store(first))

    def store(scalar):
        tile = nl.ndarray((1, 1), dtype=nl.int32)
        nisa.scalar_store(tile, scalar)
        return tile

    count, first = both(kernel, element(-4))
    assert (count[0, 0], first[0, 0]) == (4, -4)


def test_loops_of_both_kinds_nested() -> None:
    """Collatz: the lengths of the sequences from 1 to n."""

    def kernel(table, steps):
        lengths = nl.zeros((1, 8), dtype=nl.int32)

        def body(i):
            nisa.memset(lengths[:, nl.ds(i, 1)], 0)

            def step(r):
                nisa.tensor_scalar(lengths[:, nl.ds(i, 1)], lengths[:, nl.ds(i, 1)], op0=nl.add, operand0=1)
                return nisa.scalar_load(table[:, nl.ds(r, 1)])

            nl.while_loop(nisa.scalar_load(table[:, nl.ds(i, 1)]), step)

        nl.fori_loop(0, 8, body)
        return stored(lengths)

    follow = [0, 0, *(n // 2 if n % 2 == 0 else 3 * n + 1 for n in range(2, 60))]
    table = np.array([follow], np.int32)

    def length(n):
        return 0 if follow[n] == 0 else 1 + length(follow[n])

    np.testing.assert_array_equal(both(kernel, table, ONE)[0][0], [length(n) for n in range(8)])


# --- accumulation and memory over iterations ------------------------------------------------------------------------


def matmul_inputs(k):
    rng = np.random.default_rng(0)
    a, b = rng.integers(-4, 5, (k, 32, 24)), rng.integers(-4, 5, (k, 32, 40))
    return a.astype(np.float32), b.astype(np.float32)


def product(a, b, psum, i):
    """In a kernel: add the product of slice i to a PSUM tile."""
    left, right = nl.ndarray((32, 24), dtype=a.dtype), nl.ndarray((32, 40), dtype=b.dtype)
    nisa.dma_copy(left, a.select(0, i))
    nisa.dma_copy(right, b.select(0, i))
    nisa.nc_matmul(psum, left, right)


def test_matmul_accumulates_over_iterations_onto_a_tile_from_outside() -> None:
    def kernel(a, b):
        psum = nl.ndarray((24, 40), dtype=nl.float32, buffer=nl.psum)
        nl.fori_loop(0, 5, lambda i: product(a, b, psum, i) and None)
        return stored(nl.copy(psum))

    a, b = matmul_inputs(5)
    np.testing.assert_array_equal(both(kernel, a, b)[0], np.einsum("kpm,kpn->mn", a, b))


def test_matmul_starts_anew_on_a_tile_of_the_body() -> None:
    def kernel(a, b):
        out = nl.ndarray((4, 24, 40), dtype=nl.float32, buffer=nl.shared_hbm)

        def body(i):
            psum = nl.ndarray((24, 40), dtype=nl.float32, buffer=nl.psum)
            nl.fori_loop(0, 2, lambda j: product(a, b, psum, i + j) and None)
            nisa.dma_copy(out.select(0, i), nl.copy(psum))

        nl.fori_loop(0, 4, body)
        return out

    a, b = matmul_inputs(5)
    each = np.einsum("kpm,kpn->kmn", a, b)
    np.testing.assert_array_equal(both(kernel, a, b)[0], each[:-1] + each[1:])


def test_matmul_continues_what_was_partly_written_before() -> None:
    def kernel(a, b):
        psum = nl.ndarray((24, 40), dtype=nl.float32, buffer=nl.psum)
        nisa.memset(psum[:, 10:20], 3)
        nl.fori_loop(0, 3, lambda i: product(a, b, psum, i) and None)
        return stored(nl.copy(psum))

    a, b = matmul_inputs(3)
    expected = np.einsum("kpm,kpn->mn", a, b)
    expected[:, 10:20] += 3
    np.testing.assert_array_equal(both(kernel, a, b)[0], expected)


def test_matmul_onto_a_runtime_position() -> None:
    """Columns are visited twice; the others keep what they have."""

    def kernel(a, b):
        psum = nl.ndarray((24, 120), dtype=nl.float32, buffer=nl.psum)
        nisa.memset(psum[:, 80:], 1)

        def body(i):
            product(a, b, psum[:, nl.ds(i * 40, 40)], i)

        nl.fori_loop(0, 2, body)
        nl.fori_loop(0, 3, body)
        return stored(nl.copy(psum))

    a, b = matmul_inputs(3)
    each = np.einsum("kpm,kpn->kmn", a, b)
    np.testing.assert_array_equal(both(kernel, a, b)[0], np.concatenate([2 * each[0], 2 * each[1], each[2] + 1], 1))


def test_state_carried_by_a_ring_of_tiles() -> None:
    """Fibonacci: every iteration reads what the one before wrote."""

    def kernel(x):
        tile = nl.zeros((1, 12), dtype=nl.int32)
        nisa.memset(tile[:, 0:2], 1)

        def body(i):
            nisa.tensor_tensor(tile[:, nl.ds(i, 1)], tile[:, nl.ds(i - 1, 1)], tile[:, nl.ds(i - 2, 1)], op=nl.add)

        nl.fori_loop(2, 12, body)
        return stored(tile)

    np.testing.assert_array_equal(both(kernel, ONE)[0][0], [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144])


def test_identity_loaded_in_a_body_that_never_runs() -> None:
    def kernel(x):
        def body(i):
            nl.shared_identity_matrix(8, dtype=nl.float32)

        nl.fori_loop(0, nisa.register_alloc(x), body)
        return stored(nl.shared_identity_matrix(8, dtype=nl.float32))

    for count in (0, 2):
        np.testing.assert_array_equal(both(kernel, element(count))[0], np.eye(8))


def test_simulated_iterations_give_their_memory_back() -> None:
    alive = []

    def kernel(x):
        count = nl.zeros((1, 1), dtype=nl.int32)

        def body(i):
            nl.zeros((128, 2048), dtype=nl.float32)
            buffers = active.builder().program.buffers
            alive.append(sum(b.size_bytes for b in buffers if b.region is nl.sbuf and b.data is not None))
            nisa.tensor_scalar(count, count, op0=nl.add, operand0=1)

        nl.fori_loop(0, 10, body)
        return stored(count)

    assert nki.simulate(kernel)(ONE)[0, 0] == 10
    assert alive == [4 + 128 * 2048 * 4] * 10


# --- mistakes -------------------------------------------------------------------------------------------------------


def step_register(x):
    nl.fori_loop(0, 4, lambda i: None, step=nisa.register_alloc(x))  # here


def step_zero(x):
    nl.fori_loop(0, 4, lambda i: None, step=0)  # here


def bound_is_a_float(x):
    nl.fori_loop(0, 4.0, lambda i: None)  # here


def bound_is_a_tile(x):
    nl.fori_loop(0, nl.load(x), lambda i: None)  # here


def bound_is_too_large(x):
    nl.fori_loop(0, 2**31, lambda i: None)  # here


def bound_was_never_written(x):
    nl.fori_loop(0, nisa.register_alloc(), lambda i: None)  # here


def body_returns(x):
    nl.fori_loop(0, 4, lambda i: i)  # here


def condition_is_an_int(x):
    nl.while_loop(3, lambda r: r)  # here


def condition_is_a_tile(x):
    nl.while_loop(nl.load(x), lambda r: r)  # here


def body_returns_nothing(x):
    nl.while_loop(nisa.register_alloc(x), lambda r: None)  # here


def tile_after_its_loop(x):
    made = []
    nl.fori_loop(0, 4, lambda i: made.append(nl.load(x)))
    nisa.tensor_copy(nl.ndarray((1, 1), dtype=nl.int32), made[0])  # here


def register_after_its_loop(x):
    made = []
    nl.fori_loop(0, 4, lambda i: made.append(nisa.register_alloc(3)))
    nisa.register_move(nisa.register_alloc(), made[0])  # here


def dependency_out_of_a_loop(x):
    made = []
    nl.fori_loop(0, 4, lambda i: made.append(nisa.memset(nl.ndarray((1, 1), dtype=nl.int32), 0)))
    nisa.memset(nl.ndarray((1, 1), dtype=nl.int32), 0).depends_on(made[0])  # here


def dependency_between_loops(x):
    made = []
    nl.fori_loop(0, 4, lambda i: made.append(nisa.memset(nl.ndarray((1, 1), dtype=nl.int32), 0)))

    def body(i):
        nisa.memset(nl.ndarray((1, 1), dtype=nl.int32), 0).depends_on(made[0])  # here

    nl.fori_loop(0, 4, body)


def read_before_it_is_written(x):
    tile, result = nl.ndarray((1, 1), dtype=nl.int32), nl.ndarray((1, 1), dtype=nl.int32)
    out = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.shared_hbm)

    def body(i):
        nisa.tensor_scalar(result, tile, op0=nl.add, operand0=1)  # here
        nisa.memset(tile, 0)

    nl.fori_loop(0, 4, body)
    nisa.dma_copy(out, result)
    return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("kernel", "error", "says"),
    [
        (step_register, errors.InvalidOperand, ["step", "a positive int"]),
        (step_zero, errors.InvalidOperand, ["step", "int 0", "a positive int"]),
        (bound_is_a_float, errors.InvalidOperand, ["upper", "float 4.0"]),
        (bound_is_a_tile, errors.InvalidOperand, ["upper", "int32 (1, 1) in SBUF", "nisa.register_load"]),
        (bound_is_too_large, errors.InvalidOperand, ["upper", "2147483648", "2147483647"]),
        (bound_was_never_written, errors.UninitializedRead, ["upper", "nisa.register_move"]),
        (body_returns, errors.InvalidOperand, ["body_fun", "NkiScalar", "carry state"]),
        (condition_is_an_int, errors.InvalidOperand, ["init", "int 3", "a register"]),
        (condition_is_a_tile, errors.InvalidOperand, ["init", "nisa.register_load"]),
        (body_returns_nothing, errors.InvalidOperand, ["body_fun", "None", "a register"]),
        (tile_after_its_loop, errors.TensorOfLoop, ["nisa.tensor_copy", "src", "before the loop"]),
        (register_after_its_loop, errors.TensorOfLoop, ["nisa.register_move", "src", "before the loop"]),
        (dependency_out_of_a_loop, errors.DependencyOnLoop, ["depends_on", "loop"]),
        (dependency_between_loops, errors.DependencyOnLoop, ["depends_on", "loop"]),
        (read_before_it_is_written, errors.UninitializedRead, ["data", "never written"]),
    ],
)
def test_mistakes(mode, kernel, error, says) -> None:
    with pytest.raises(error) as caught:
        mode(kernel)(element(4))
    lines, first = inspect.getsourcelines(kernel)
    marked = next(first + i for i, line in enumerate(lines) if line.rstrip().endswith("# here"))
    assert caught.value.location.line == marked, caught.value
    for text in says:
        assert text in str(caught.value)


def test_dependencies_within_a_loop_and_on_what_is_before_it() -> None:
    @nki.jit
    def kernel(x):
        tile = nl.load(x)
        before = nisa.tensor_copy(tile, tile)

        def body(i):
            inside = nisa.tensor_copy(tile, tile).depends_on(before)
            nl.fori_loop(0, 2, lambda j: nisa.tensor_copy(tile, tile).depends_on(inside, before) and None)

        nl.fori_loop(0, 2, body)
        return stored(tile)

    program = kernel.trace(ONE)
    assert len(program.dependencies) == 3
    both(kernel.function, ONE)


@pytest.mark.parametrize("mode", MODES)
def test_out_of_bounds_in_a_late_iteration(mode) -> None:
    def kernel(x):
        tile = nl.ndarray((1, 8), dtype=x.dtype)
        nl.fori_loop(0, 10, lambda i: nisa.dma_copy(tile, x[i]) and None)  # here
        return stored(tile)

    with pytest.raises(errors.IndirectOutOfBounds, match=r"6 is not in \[0, 6\)") as caught:
        mode(kernel)(np.zeros((6, 8), np.float32))
    assert caught.value.location.line == inspect.getsourcelines(kernel)[1] + 2


# --- errors inside of loops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_an_error_handled_in_the_kernel_leaves_no_half_loop(mode) -> None:
    def kernel(x):
        tile = nl.load(x)

        def body(i):
            nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=1)
            tile[:, 5]

        try:
            nl.fori_loop(0, 1, body)
        except errors.IndexOutOfBounds:
            nisa.memset(tile, 9)
        nl.fori_loop(0, 2, lambda i: nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=1) and None)
        return stored(tile)

    assert mode(kernel)(element(0))[0, 0] == 11
