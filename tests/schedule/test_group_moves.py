"""Groups of copies and transposes: what is decided, and that results are those of the single instructions."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels.transpose import transpose
from nkilite.host.cpu import available
from nkilite.schedule.moves import Axis, Move, behind
from nkilite.schedule.pipeline import scheduled
from nkilite.schedule.tree import Nowhere, Steps, Tree

DTYPES = [np.float32, ml_dtypes.bfloat16, np.int8]


def trees(kernel, *arrays) -> list[tuple[int, Tree]]:
    """Size and tree of every group of moves."""
    kernel = kernel if hasattr(kernel, "trace") else nki.jit(kernel)
    return [(g.size, g.tree) for g in scheduled(kernel.trace(*arrays)).groups if g.tree.moves]


def numbers(shape, dtype, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-100, 100, shape).astype(dtype)


def same(kernel, *arrays) -> None:
    """Compiled and simulated results agree bit by bit."""
    expected, found = np.asarray(nki.simulate(kernel)(*arrays)), np.asarray(nki.jit(kernel)(*arrays))
    np.testing.assert_array_equal(found.view(np.uint8), expected.view(np.uint8))


def sbuf(shape, dtype):
    return nl.ndarray(shape, dtype=dtype, buffer=nl.sbuf)


def psum(shape, dtype):
    return nl.ndarray(shape, dtype=dtype, buffer=nl.psum)


def output(shape, dtype):
    return nl.ndarray(shape, dtype=dtype, buffer=nl.shared_hbm)


# --- what is decided --------------------------------------------------------------------------------------------


def test_a_block_of_the_gallery_transpose_is_one_move():
    """1024 x 1024 elements, though 64 transposes, 16 copies and 9 transfers name them."""
    ((size, tree), *others) = trees(transpose, numbers((2048, 2048), np.float32))
    assert size == 89 and len(others) == 3 and all(t is tree for _, t in others)
    (move,) = tree.moves
    assert move.nontemporal
    assert set(move.loops) == {Steps(1024, (0, 4), (0, 8192)), Steps(1024, (0, 8192), (0, 4))}
    first, *_, last = ([use.place for use in op.uses] for op in tree.ops)
    assert (first, last) == ([Nowhere(), None], [None, Nowhere()])


def test_a_small_result_is_not_stored_past_the_caches():
    ((_, tree),) = trees(transpose, numbers((256, 256), np.float32))
    assert not tree.moves[0].nontemporal


def chain(spoil):
    """Load, transpose, copy and store, and something that makes a difference."""

    def kernel(x):
        rows, columns = x.shape
        tile, bank, turned = sbuf(x.shape, x.dtype), psum((columns, rows), x.dtype), sbuf((columns, rows), x.dtype)
        out = output((columns, 2 * rows), x.dtype)
        nisa.dma_copy(tile, x)
        if spoil == "changed":
            nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1)
        if spoil == "incomplete":
            nisa.memset(bank, 0.0)
            nisa.nc_transpose(bank[:, 0:8], tile[0:8, :], engine=nisa.engine.tensor)
        else:
            nisa.nc_transpose(bank, tile, engine=nisa.engine.tensor)
        nisa.tensor_copy(turned, bank)
        nisa.dma_copy(out[:, 0:rows], turned)
        if spoil == "twice":
            nisa.nc_transpose(bank, tile, engine=nisa.engine.tensor)
            nisa.tensor_copy(turned, bank)
        if spoil == "converted":
            other = sbuf((columns, rows), nl.float16)
            nisa.tensor_copy(other, bank)
            nisa.tensor_copy(turned, other)
        nisa.dma_copy(out[:, rows : 2 * rows], turned)
        return out

    return kernel


@pytest.mark.parametrize(
    ("spoil", "sizes"),
    [("", [5]), ("twice", [7]), ("changed", [4]), ("incomplete", []), ("converted", [2])],
)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=lambda d: np.dtype(d).name)
def test_groups_end_where_bits_change_or_are_seen(spoil, sizes, dtype):
    x = numbers((48, 32), dtype)
    assert [size for size, _ in trees(chain(spoil), x)] == sizes
    same(chain(spoil), x)


def test_what_is_read_is_not_written():
    """The second load reads what the first transpose was stored to."""

    def kernel(x):
        between, out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.private_hbm), output(x.shape, x.dtype)
        for source, target in ((x, between), (between, out)):
            tile, bank, turned = sbuf(x.shape, x.dtype), psum(x.shape, x.dtype), sbuf(x.shape, x.dtype)
            nisa.dma_copy(tile, source)
            nisa.nc_transpose(bank, tile, engine=nisa.engine.tensor)
            nisa.tensor_copy(turned, bank)
            nisa.dma_copy(target, turned)
        return out

    x = numbers((64, 64), np.float32)
    assert [size for size, _ in trees(kernel, x)] == [4, 4]
    same(kernel, x)


@pytest.mark.parametrize("shared", [True, False])
def test_tiles_at_addresses_may_be_others(shared):
    def kernel(x):
        tile, turned = sbuf(x.shape, x.dtype), sbuf(x.shape, x.dtype)
        bank = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.psum, address=(0, 0))
        same_bank = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.psum, address=(0, 0))
        out = output(x.shape, x.dtype)
        nisa.dma_copy(tile, x)
        nisa.nc_transpose(same_bank if shared else bank, tile, engine=nisa.engine.tensor)
        nisa.tensor_copy(turned, bank)
        nisa.dma_copy(out, turned)
        return out

    x = numbers((64, 64), np.float32)
    assert (trees(kernel, x) == []) == shared
    same(kernel, x)


def test_arguments_that_are_written_are_no_targets():
    def kernel(x, y):
        tile = sbuf((64, 64), x.dtype)
        nisa.dma_transpose(dst=tile, src=x)
        nisa.dma_copy(y, tile)
        return y

    x = numbers((64, 64), np.float32)
    assert [size for size, _ in trees(kernel, x, x.copy())] == []
    y = x.copy()
    nki.jit(kernel)(y, y)
    np.testing.assert_array_equal(y, x.T)


@pytest.mark.parametrize("shape", [(256, 256), (300, 257)])
def test_a_large_transposing_dma_is_shared(shape):
    def kernel(x):
        out = output(x.shape[::-1], x.dtype)
        nisa.dma_copy(out, x.permute((1, 0)))
        return out

    ((size, tree),) = trees(kernel, numbers(shape, np.float32))
    assert size == 1 and all(use.place is None for op in tree.ops for use in op.uses)
    same(kernel, numbers(shape, np.float32))


# --- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", available())
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("shape", [(128, 640), (257, 130), (1030, 7), (33, 1025)], ids=str)
def test_blocks_bands_and_edges(level, dtype, shape, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", level)

    def kernel(x):
        out = output(x.shape[::-1], x.dtype)
        nisa.dma_transpose(dst=out, src=x)
        return out

    same(kernel, numbers(shape, dtype))


@pytest.mark.parametrize("level", available())
@pytest.mark.parametrize("offset", [0, 4])
@pytest.mark.parametrize("rows", [1040, 1028])
def test_past_the_caches_in_lines_that_begin_anywhere(level, offset, rows, monkeypatch):
    """Rows of whole lines are written directly, others, of 4 and more elements, from scratch memory."""
    monkeypatch.setenv("NKILITE_CPU", level)
    x = numbers((rows, 1024), np.float32)
    memory = np.zeros(x.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    out = memory[start : start + x.nbytes].view(np.float32).reshape(1024, rows)
    transpose(x, out=out)
    np.testing.assert_array_equal(out, x.T)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_cut_of_a_copy_is_followed_back(data):
    """Moves to and from a buffer, as numbers in NumPy and as `behind` says."""
    shape = data.draw(st.tuples(*[st.sampled_from([1, 2, 3, 4])] * 3))
    size = int(np.prod(shape))
    order = data.draw(st.permutations(range(3)))
    source = np.arange(size, dtype=np.int64).reshape([shape[d] for d in order])
    buffer = np.transpose(source, np.argsort(order))  # dense in memory of its own
    strides = np.array(buffer.strides) // 8
    dense = [int(np.prod(shape[d + 1 :])) for d in range(3)]
    written = Move(0, 0, 0, 1, tuple(Axis(n, dense[d], int(strides[d])) for d, n in enumerate(shape)))
    starts = [data.draw(st.integers(0, n - 1)) for n in shape]
    counts = [data.draw(st.integers(1, n - s)) for n, s in zip(shape, starts)]
    axes = tuple(Axis(n, 100 ** (2 - d), dense[d]) for d, n in enumerate(counts))
    read = Move(1, sum(s * d for s, d in zip(starts, dense)), 0, 1, axes)
    (found,) = behind(read, [written])
    reached = np.ndindex(*(a.count for a in found.axes))
    ways = [[(i * a.to, i * a.origin) for i, a in zip(index, found.axes)] for index in reached]
    expected = {
        sum(i * a.to for i, a in zip(index, axes)): int(buffer[tuple(s + i for s, i in zip(starts, index))])
        for index in np.ndindex(*counts)
    }
    assert {sum(to for to, _ in way): found.origin + sum(origin for _, origin in way) for way in ways} == expected
