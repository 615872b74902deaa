"""Memory that nothing has written: what is said about it, and that it holds the same simulated and compiled."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.ir.coverage import PartlyUninitialized
from nkilite.ir.unwritten import NothingReturned, PartlyUnwritten

X = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)


def new(dtype=nl.float32, buffer=nl.sbuf, shape=(64, 32)):
    return nl.ndarray(shape, dtype=dtype, buffer=buffer)


def stored(tile):
    out = new(tile.dtype, nl.shared_hbm, tile.shape)
    nisa.dma_copy(out, tile)
    return out


def part_of_a_tile(x):
    tile = new()
    nisa.dma_copy(tile[:, 0:10], x[:, 0:10])
    return stored(tile)


def part_of_psum(x):
    sums, tile = new(buffer=nl.psum), new()
    nisa.memset(sums[:, 3:7], 1.0)
    nisa.tensor_copy(tile, sums)
    return stored(tile)


def part_of_device_memory(x):
    between = new(buffer=nl.private_hbm)
    nisa.dma_copy(between[0:40], x[0:40])
    return stored(between)


def predicated_onto_nothing(x):
    tile, one, chosen = new(nl.int32), new(nl.int32), new(nl.uint8)
    nisa.memset(one, 5)
    nisa.iota(chosen, [[1, 32]])
    nisa.tensor_copy_predicated(tile, one, chosen)
    return stored(tile)


def scattered_rows(x):
    out, index, tile = new(buffer=nl.shared_hbm), new(nl.int32, shape=(8, 1)), new(shape=(8, 32))
    nisa.iota(index, [[1, 1]], 1, 3)
    nisa.dma_copy(tile, x[0:8])
    nisa.dma_copy(out.vector_select(0, index), tile)
    return out


def part_of_a_tile_of_a_loop(x):
    out = new(buffer=nl.shared_hbm, shape=(4, 64, 32))

    def body(i):
        tile = new()
        nisa.memset(tile[:, 3:10], 2.0)
        nisa.dma_copy(out[i], tile)

    nl.fori_loop(0, 4, body)
    return out


def tile_under_another(x):
    small, large = nl.ndarray((64, 16), nl.float32, address=(0, 64)), nl.ndarray((64, 64), nl.float32, address=(0, 0))
    nisa.dma_copy(small, x[:, 0:16])
    return stored(large)


def half_of_the_output(x):
    out = new(buffer=nl.shared_hbm)
    nisa.dma_copy(out[::2], x[::2])
    return out


KERNELS = {
    part_of_a_tile: PartlyUninitialized, part_of_psum: PartlyUninitialized, part_of_device_memory: PartlyUninitialized,
    predicated_onto_nothing: None, scattered_rows: None, part_of_a_tile_of_a_loop: PartlyUninitialized,
    tile_under_another: None, half_of_the_output: PartlyUnwritten,
}


@pytest.mark.parametrize("byte", [255, 0])
@pytest.mark.parametrize("kernel", KERNELS)
def test_contents(kernel, byte, monkeypatch, tmp_path) -> None:
    """The target's bytes, also where another launch, or another tile, has left something; and a warning at a line."""
    if byte != 255:
        file = tmp_path / "mine.toml"
        file.write_text(f'inherits = "trn2"\nunwritten_byte = {byte}\n')
        monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", str(file))
    want, results, category = None, [], KERNELS[kernel]
    for run in (nki.simulate(kernel), nki.jit(kernel)):
        for launch in range(2):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result = np.asarray(run(X.copy()))
            want = result.copy() if want is None else want
            np.testing.assert_array_equal(result.view(np.uint8), want.view(np.uint8))
            if launch == 0:
                assert {w.category for w in caught} == ({category} if category else set()), run
                assert all(w.filename == __file__ for w in caught)
            result.fill(7)
            results.append(result)
    words = {b: (want.view(np.uint32) == b * 0x01010101).any() for b in (0, 255)}
    assert words[byte]
    assert byte == 255 or not words[255]


def forgets_to_return(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.load(x))


def binds_the_argument_anew(x):
    tile = nl.load(x)
    nisa.tensor_scalar(tile, tile, nl.add, 1.0)
    x = tile


def writes_the_argument(x):
    nl.store(x, nl.load(x))


def shows_something(x):
    nl.device_print("x", nl.load(x[0:1, 0:1]))


@pytest.mark.parametrize("kernel", [forgets_to_return, binds_the_argument_anew, writes_the_argument, shows_something])
def test_nothing_comes_of_it(kernel) -> None:
    lost = kernel in (forgets_to_return, binds_the_argument_anew)
    first = kernel.__code__.co_firstlineno
    for run in (nki.simulate(kernel), nki.jit(kernel)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert run(X.copy()) is None
        assert [w.category for w in caught] == [NothingReturned] * lost
        assert all(w.filename == __file__ and first < w.lineno < first + 3 for w in caught)


def test_what_only_dead_instructions_read() -> None:
    def kernel(x):
        dead, unwritten, tile = new(), new(), nl.load(x)
        nisa.tensor_tensor(dead, unwritten, tile, nl.add)
        nisa.activation(dead, nl.exp, dead)
        return stored(tile)

    for run in (nki.simulate, nki.jit):
        np.testing.assert_array_equal(run(kernel)(X.copy()), X)


def test_loop_that_may_not_run() -> None:
    """The tile has its fill where the loop makes no turn, which nobody knows before."""

    def kernel(x, turns):
        loaded, register, tile = new(nl.int32, shape=(1, 1)), nisa.register_alloc(), new()
        nisa.dma_copy(loaded, turns)
        nisa.register_load(register, loaded)

        def body(i):
            nisa.dma_copy(tile, x)

        nl.fori_loop(0, register, body)
        return stored(tile)

    compiled = nki.jit(kernel)
    for turns in (2, 0, 1, 0):
        result = np.asarray(compiled(X, np.array([[turns]], np.int32)))
        if turns:
            np.testing.assert_array_equal(result, X)
        else:
            assert (result.view(np.uint8) == 255).all()
    with pytest.raises(errors.UninitializedRead):
        nki.simulate(kernel)(X, np.array([[0]], np.int32))


def test_written_programs_are_not_filled() -> None:
    def kernel(x):
        out = new(buffer=nl.shared_hbm)
        for rows in (slice(0, 32), slice(32, 64)):
            tile = new(shape=(32, 32))
            for columns in (slice(0, 8), slice(8, 32)):
                nisa.dma_copy(tile[:, columns], x[rows, columns])
            nisa.dma_copy(out[rows], tile)
        return out

    before = nki.jit(kernel).trace(X)
    after = nki.jit(kernel).check(X)
    assert len(before) == len(after)


def test_returned_views() -> None:
    """What is returned counts, not the tensor around it; two passes that write every other column are enough."""

    def kernel(x):
        out, more = new(buffer=nl.shared_hbm), new(buffer=nl.shared_hbm)
        nisa.dma_copy(out[0:40], x[0:40])
        for first in (0, 1):
            nisa.dma_copy(more[:, first::2], x[:, first::2])
        return out[8:40], more, x

    for run in (nki.simulate, nki.jit):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            part, whole, argument = run(kernel)(X.copy())
        np.testing.assert_array_equal(part, X[8:40])
        np.testing.assert_array_equal(whole, X)
        np.testing.assert_array_equal(argument, X)


def test_a_loop_that_does_not_run_may_be_what_writes():
    """Simulated as compiled: what a loop writes counts as written, also where this launch leaves it out."""

    def kernel(x, count):
        out = nl.ndarray((8, 4), dtype=x.dtype, buffer=nl.shared_hbm)

        def write(_):
            nisa.dma_copy(dst=out, src=x)

        nl.fori_loop(0, nisa.scalar_load(count), write)
        nisa.dma_copy(dst=out, src=out)
        return out

    x = np.arange(32, dtype=np.float32).reshape(8, 4)
    for run in (nki.simulate, nki.jit):
        np.testing.assert_array_equal(run(kernel)(x, np.array([[1]], np.int32)), x)
        assert np.isnan(run(kernel)(x, np.array([[0]], np.int32))).all()
