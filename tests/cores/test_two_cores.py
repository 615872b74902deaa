"""Launches on two cores: grids, memory of each core and of both, meetings, results, any number of threads."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
from cores_testing import X, half, launches, loaded, output

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.notices import GridIgnored

REDUCTIONS = {nl.add: np.add, nl.maximum: np.maximum, nl.minimum: np.minimum}


def crossed(x, repeat=1):
    """Exponentials of the other core's rows, through shared memory, with a barrier before they are read."""
    core, rows = nl.program_id(0), x.shape[0]
    out, between = output(x), output(x)
    for _ in range(repeat):
        tile = loaded(x[half(core, rows)])
        nisa.activation(tile, nl.exp, tile)
        nisa.dma_copy(between[half(core, rows)], tile)
        nisa.core_barrier(between, (0, 1))
        other = loaded(between[half(1 - core, rows)])
        nisa.core_barrier(between, [0, 1], engine=nisa.engine.vector)
    nisa.dma_copy(out[half(core, rows)], other)
    return out


def exchanged(x, op=nl.add, compute=True, engine=nisa.dma_engine.dma):
    core, rows = nl.program_id(0), x.shape[0]
    out = output(x)
    both = nl.ndarray((rows // 2, 2 * x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
    columns = [both[:, : x.shape[1]], both[:, x.shape[1] :]]
    nisa.dma_copy(columns[0], x[half(core, rows)])
    nisa.sendrecv(columns[0], columns[1], 1 - core, 1 - core, pipe_id=3, dma_engine=engine)
    if compute:
        nisa.sendrecv_compute(columns[0], columns[1], 1 - core, 1 - core, reduce_op=op)
    nisa.dma_copy(out[half(core, rows)], columns[1])
    return out


@pytest.mark.parametrize("threads", ["1", "2", "4"])
@pytest.mark.parametrize("shape", [(128, 32), (6, 1000)])
def test_barriers(threads, shape, monkeypatch):
    monkeypatch.setenv("NKILITE_NUM_THREADS", threads)
    x = np.random.default_rng(0).random(shape, np.float32)
    expected = np.exp(np.roll(x, -shape[0] // 2, axis=0))
    found = {mode: launch(x, repeat=3) for mode, launch in launches(crossed).items()}
    for result in found.values():
        np.testing.assert_allclose(result, expected, rtol=2e-6)
    again = nki.jit(crossed)[2](x, repeat=3)
    np.testing.assert_array_equal(again, found["compiled"])


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_exchanges(op, dtype):
    x = np.arange(128).reshape(16, 8).astype(nl.bfloat16 if dtype == "bfloat16" else dtype)
    for launch in launches(exchanged).values():
        np.testing.assert_array_equal(launch(x, compute=False), np.roll(x, 8, axis=0))
        halves = [x[half(core, 16)].astype(np.float32) for core in (0, 1)]
        whole = np.concatenate([REDUCTIONS[op](*halves)] * 2)
        clipped = np.clip(whole, -128, 127) if dtype == "int8" else whole
        np.testing.assert_array_equal(launch(x, op=op), clipped.astype(x.dtype))


@pytest.mark.parametrize("number", [int, np.int64, np.uint8])
def test_numbers_of_cores_and_pipes_are_pythons_or_numpys(number):
    def kernel(x):
        core, rows = nl.program_id(0), x.shape[0]
        out, tile = output(x), loaded(x[half(core, rows)])
        nisa.sendrecv(tile, tile, number(1 - core), number(1 - core), number(3))
        nisa.dma_copy(out[half(core, rows)], tile)
        return out

    for launch in launches(kernel).values():
        np.testing.assert_array_equal(launch(X), np.roll(X, 64, axis=0))


def test_exchange_in_private_memory():
    def kernel(x):
        core, rows = nl.program_id(0), x.shape[0]
        out = output(x)
        own = nl.ndarray((rows // 2, x.shape[1]), dtype=x.dtype, buffer=nl.private_hbm)
        nisa.dma_copy(own, x[half(core, rows)])
        nisa.sendrecv_compute(own, own, 1 - core, 1 - core, reduce_op=nl.add)
        nisa.dma_copy(out[half(core, rows)], own)
        return out

    for launch in launches(kernel).values():
        np.testing.assert_array_equal(launch(X), np.concatenate([X[:64] + X[64:]] * 2))


def test_what_belongs_to_a_core_stays_there():
    def kernel(x):
        core = nl.program_id(0)
        out = nl.ndarray((2, *x.shape), dtype=x.dtype, buffer=nl.shared_hbm)
        private = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.private_hbm)
        tile = loaded(x)
        nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=float(core + 1))
        nisa.dma_copy(private, tile)
        nisa.core_barrier(out, (0, 1))
        nisa.dma_copy(out[core], private)
        return out

    for launch in launches(kernel).values():
        np.testing.assert_array_equal(launch(X), [X + 1, X + 2])


def test_named_tensors_match_whatever_their_order():
    def kernel(x):
        core = nl.program_id(0)
        made = {name: output(x, name) for name in (("a", "b") if core == 0 else ("b", "a"))}
        if core == 0:
            nisa.dma_copy(output(x, "of core 0"), x)
        nisa.dma_copy(made["ab"[core]], x)
        nisa.core_barrier(made["a"], (0, 1))
        tile = loaded(made["ba"[core]])
        nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=float(core + 1))
        nisa.core_barrier(made["a"], (0, 1))
        nisa.dma_copy(made["ba"[core]], tile)
        return made["a"], {"b": made["b"]}

    for launch in launches(kernel).values():
        a, others = launch(X)
        np.testing.assert_array_equal(a, X + 2)
        np.testing.assert_array_equal(others["b"], X + 1)


@pytest.mark.parametrize("bound", [3, 0])
def test_barriers_in_loops_that_the_device_counts(bound):
    def kernel(x, count):
        core = nl.program_id(0)
        sums, out = output(x), output(x)
        tile = loaded(x[half(core, x.shape[0])])
        nisa.dma_copy(out[half(core, x.shape[0])], tile)
        turns = nisa.register_alloc(count)
        for _ in nl.dynamic_range(turns):
            nisa.dma_copy(sums[half(core, x.shape[0])], tile)
            nisa.core_barrier(sums, (0, 1))
            nisa.tensor_tensor(tile, tile, loaded(sums[half(1 - core, x.shape[0])]), nl.add)
            nisa.core_barrier(sums, (0, 1))
        nisa.dma_copy(out[half(core, x.shape[0])], tile)
        return out

    for launch in launches(kernel).values():
        found = launch(X, np.array([[bound]], np.int32))
        one, other = X[:64], X[64:]
        for _ in range(bound):
            one, other = one + other, other + one
        np.testing.assert_array_equal(found, np.concatenate([one, other]))


def test_loops_that_the_device_counts_differently():
    def kernel(x, counts):
        core = nl.program_id(0)
        out = output(x)
        nisa.dma_copy(out[half(core, x.shape[0])], x[half(core, x.shape[0])])
        for _ in nl.dynamic_range(nisa.register_alloc(counts[core : core + 1])):
            nisa.core_barrier(out, (0, 1))
        return out

    for launch in launches(kernel).values():
        launch(X, np.array([[2], [2]], np.int32))
        with pytest.raises(errors.Deadlock, match=r"core 1 waits in nisa.core_barrier for core 0"):
            launch(X, np.array([[2], [3]], np.int32))
        launch(X, np.array([[1], [1]], np.int32))


def grid(x):
    assert nl.program_id(0) in range(nl.num_programs())
    assert nl.num_programs([0]) == nl.num_programs(None) == nl.num_programs()
    assert (nl.program_id(1), nl.num_programs(1)) == (0, 1)
    out = nl.ndarray((2, 2), dtype=nl.int32, buffer=nl.shared_hbm)
    tile = nl.ndarray((1, 2), dtype=nl.int32, buffer=nl.sbuf)
    nisa.memset(tile[:, :1], nl.num_programs())
    nisa.memset(tile[:, 1:], nl.program_ndim())
    nisa.dma_copy(out[nl.program_id(0) : nl.program_id(0) + 1], tile)
    if nl.num_programs() == 1:
        nisa.dma_copy(out[1:2], tile)
    return out


class Size:
    size = 2


@pytest.mark.parametrize("wrap", [nki.jit, nki.simulate])
def test_grids(wrap, monkeypatch):
    kernel = wrap(grid)
    for two in (kernel[2], kernel[(2,)], kernel[[2]], kernel[np.int64(2)], kernel[Size], kernel[1][2]):
        np.testing.assert_array_equal(two(X), [[2, 1], [2, 1]])
    np.testing.assert_array_equal(kernel(X), [[1, 0], [1, 0]])
    np.testing.assert_array_equal(kernel[1](X), [[1, 1], [1, 1]])
    monkeypatch.setenv("NEURON_LOGICAL_NC_CONFIG", "2")
    np.testing.assert_array_equal(kernel(X), [[2, 1], [2, 1]])
    np.testing.assert_array_equal(kernel[1](X), [[1, 1], [1, 1]])
    monkeypatch.setenv("NEURON_LOGICAL_NC_CONFIG", "two")
    with pytest.raises(errors.InvalidGrid, match="'two' cores"):
        kernel(X)


@pytest.mark.parametrize("cores", [0, 3, 8, -1, True, 2.0, "2", (2, 2), None])
def test_what_is_no_grid(cores):
    with pytest.raises(errors.InvalidGrid, match="1 or 2"):
        nki.jit(grid)[cores](X)


def test_older_chips_have_one_core(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn1")
    with pytest.raises(errors.InvalidGrid, match="on trn1 that is 1"):
        nki.jit(grid)[2](X)


def test_a_barrier_of_one_core_waits_for_nobody():
    def kernel(x, cores):
        out = output(x)
        nisa.dma_copy(out, loaded(x))
        nisa.core_barrier(out, cores)
        return out

    for cores in ((0, 1), (0,), 0, [0]):
        for wrap in (nki.jit, nki.simulate):
            np.testing.assert_array_equal(wrap(kernel)(X, cores), X)


def test_a_barrier_may_name_a_tile():
    """Whatever it is called: only tensors that both cores see have to be the same."""

    def kernel(x):
        core = nl.program_id(0)
        for _ in range(core):
            nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
        between, out, tile, rows = output(x), output(x), loaded(x), x.shape[0]
        nisa.dma_copy(between[half(core, rows)], tile[half(core, rows)])
        nisa.core_barrier(tile, (0, 1))
        nisa.dma_copy(tile, between)
        nisa.dma_copy(out[half(1 - core, rows)], tile[half(1 - core, rows)])
        return out

    for launch in launches(kernel).values():
        np.testing.assert_array_equal(launch(X), X)


def test_values_are_there_on_both_cores(capsys):
    def kernel(x):
        core = nl.program_id(0)
        out = output(x)
        for i in range(2):
            tile = loaded(x[2 * core + i : 2 * core + i + 1])
            print(core, tile.numpy().tolist())
            nisa.dma_copy(out[2 * core + i : 2 * core + i + 1], tile)
        return out

    nki.simulate(kernel)[2](np.arange(4, dtype=np.float32).reshape(4, 1))
    assert capsys.readouterr().out.split("\n")[:4] == ["0 [[0.0]]", "1 [[2.0]]", "0 [[1.0]]", "1 [[3.0]]"]


def test_an_error_on_either_core_is_the_launchs():
    def kernel(x, bad):
        core = nl.program_id(0)
        out = output(x)
        tile = loaded(x[half(core, x.shape[0])])
        if core == bad:
            nisa.tensor_copy(tile, loaded(x))
        nisa.core_barrier(out, (0, 1))
        nisa.dma_copy(out[half(core, x.shape[0])], tile)
        return out

    before = threading.active_count()
    for mode, launch in launches(kernel).items():
        for bad in (0, 1):
            with pytest.raises(errors.ShapeMismatch) as caught:
                launch(X, bad)
            assert caught.value.location.source.startswith("nisa.tensor_copy"), mode
    assert threading.active_count() <= before + 1


def test_an_index_out_of_bounds_on_one_core():
    def kernel(x, index):
        core = nl.program_id(0)
        out = output(x)
        tile = nl.ndarray((1, x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
        row = nisa.register_alloc(index[core : core + 1])
        nisa.dma_copy(tile, x[nl.ds(row, 1)])
        nisa.core_barrier(out, (0, 1))
        nisa.dma_copy(out[core : core + 1], tile)
        return out

    for launch in launches(kernel).values():
        for bad in ([[0], [500]], [[500], [0]]):
            with pytest.raises(errors.IndirectOutOfBounds, match="500"):
                launch(X, np.array(bad, np.int32))
        np.testing.assert_array_equal(launch(X, np.array([[3], [7]], np.int32))[:2], X[[3, 7]])


def test_launches_from_several_threads():
    kernel = nki.jit(crossed)[2]
    expected, wrong = kernel(X), []

    def launch():
        for _ in range(20):
            if not np.array_equal(kernel(X), expected):
                wrong.append(1)

    threads = [threading.Thread(target=launch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_inputs_that_both_cores_write_and_given_outputs():
    def kernel(x):
        core = nl.program_id(0)
        rows = x[half(core, x.shape[0])]
        tile = loaded(rows)
        if core == 1:
            nisa.tensor_scalar(tile, tile, op0=nl.multiply, operand0=2.0)
            nisa.dma_copy(rows, tile)
        out = output(x)
        nisa.dma_copy(out[half(core, x.shape[0])], tile)
        return out

    for launch in launches(kernel).values():
        x, out = X.copy(), np.empty_like(X)
        assert launch(x, out=out) is out
        expected = np.concatenate([X[:64], 2 * X[64:]])
        np.testing.assert_array_equal(x, expected)
        np.testing.assert_array_equal(out, expected)
        x.flags.writeable = False
        with pytest.raises(errors.NonContiguousArgument):
            launch(x)


def test_a_launch_has_a_program_for_each_core():
    assert len(nki.jit(crossed)[2].programs(X)) == 2


@pytest.mark.parametrize("wrap", [nki.jit, nki.simulate])
def test_a_kernel_within_a_kernel_runs_on_its_cores(wrap):
    @nki.jit
    def inner(x):
        out = output(x)
        for rows in [half(nl.program_id(0), 128)] if nl.num_programs() == 2 else [half(0, 128), half(1, 128)]:
            nisa.dma_copy(out[rows], x[rows])
        return out

    def outer(x):
        return inner[2](x)

    with pytest.warns(GridIgnored, match=r"inner\[2\] is called within a kernel on 1 core") as caught:
        np.testing.assert_array_equal(wrap(outer)(X), X)
    assert {w.filename for w in caught} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error", GridIgnored)
        np.testing.assert_array_equal(wrap(outer)[2](X), X)
