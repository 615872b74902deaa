"""Tensors as grids of tiles and blocks: coordinates, operands, storage, and what does not fit; ranges as indices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors

RAGGED = np.arange(7 * 11, dtype=np.float32).reshape(7, 11)


def both(kernel, *arrays):
    compiled, simulated = nki.jit(kernel)(*arrays), nki.simulate(kernel)(*arrays)
    np.testing.assert_array_equal(compiled, simulated)
    return np.asarray(compiled)


def traced(kernel, *arrays):
    """For kernels that assert and compute nothing."""

    def whole(*tensors):
        kernel(*tensors)
        return nl.zeros((1, 1), nl.float32, buffer=nl.shared_hbm)

    nki.simulate(whole)(*arrays)


def like(x):
    return nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)


def cells(grid):
    return itertools.product(*map(range, grid.shape))


def through(source, held, target):
    """Copies tile by tile to storage, and from there."""
    for cell in cells(source):
        nisa.dma_copy(held[cell].data, source[cell].data)
    for cell in cells(target):
        nisa.dma_copy(target[cell].data, held[cell].data)


@pytest.mark.parametrize("memory", [nl.sbuf, nl.shared_hbm])
@pytest.mark.parametrize(
    ("shape", "tile", "block"),
    [((7, 11), (3, 4), (2, 2)), ((2, 7, 11), (3, 4), (1, 3)), ((5, 6, 7), (2, 4, 3), (2, 1, 2))],
)
def test_tiles_and_blocks_hold_what_is_put_in(shape, tile, block, memory):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)

    def by_tiles(x):
        out = like(x)
        held = nl.alloc_tiles(tile_shape=tile, element_shape=x.shape, buffer=memory, dtype=x.dtype)
        through(nl.tiles(x, tile_shape=tile), held, nl.tiles(out, tile_shape=tile))
        return out

    def by_blocks(x):
        out = like(x)
        held = nl.alloc_blocks(
            tile_shape=tile, block_shape=block, element_shape=x.shape, buffer=memory, dtype=x.dtype
        )
        source, target = (nl.blocks(t, tile_shape=tile, block_shape=block) for t in (x, out))
        assert held.shape == source.shape == target.shape
        for cell in reversed(list(cells(source))):
            through(nl.tiles(source[cell]), nl.tiles(held[cell]), nl.tiles(target[cell]))
        return out

    np.testing.assert_array_equal(both(by_tiles, values), values)
    np.testing.assert_array_equal(both(by_blocks, values), values)


def test_coordinates():
    def kernel(x):
        grid = nl.tiles(x, tile_shape=(3, 4))
        assert isinstance(grid, nl.NkiTileGrid)
        assert isinstance(grid, nl.NkiGrid)
        assert (grid.shape, grid.tile_shape, grid.element_shape) == ((3, 3), (3, 4), (7, 11))
        assert (grid.index_step_elements, grid.dtype, grid.buffer) == ((3, 4), nl.float32, x.buffer)
        assert grid[-1, 0].element_shape == (1, 4)
        assert [grid[0, 0].is_remainder, grid[0:2].is_remainder, grid[2, 2].is_remainder] == [False, True, True]
        row = grid[1]
        assert (row.shape, row.element_shape, row[2].element_shape) == ((3,), (3, 11), (3, 3))
        gaps = grid[::2, 1:]
        assert (gaps.shape, gaps.element_shape, gaps.index_step_elements) == ((2, 2), (4, 7), (6, 4))
        assert [gaps.is_data_representable, gaps[1].is_data_representable] == [False, True]
        assert gaps[1, 0].element_shape == (1, 4)
        assert nl.tiles(grid[1:, 1:]).shape == (2, 2)

    traced(kernel, RAGGED)


def test_coordinates_of_blocks():
    def kernel(x):
        grid = nl.blocks(x, tile_shape=(2, 2), block_shape=(2, 3))
        assert isinstance(grid, nl.NkiBlockGrid)
        assert (grid.shape, grid.block_shape, grid.tile_shape) == ((2, 2), (2, 3), (2, 2))
        assert (grid.index_step_elements, grid[1, 1].element_shape) == ((4, 6), (3, 5))
        assert nl.tiles(grid[1, 1]).shape == (2, 3)
        other = nl.blocks(grid[:, 0], block_shape=(1, 2))
        assert (other.shape, other.element_shape) == ((4, 2), (7, 6))

    traced(kernel, RAGGED)


def test_a_dimension_before_the_tiles_is_indexed_by_element():
    def kernel(x):
        grid = nl.tiles(x, tile_shape=(2, 3))
        assert (grid.shape, grid[1].shape, grid[1].element_shape) == ((2, 2, 2), (2, 2), (3, 5))
        return nl.tiles(nl.copy(nl.load(grid[1, :, 1].data)), tile_shape=(3, 2))

    def stored(x):
        out = nl.ndarray((3, 2), x.dtype, buffer=nl.shared_hbm)
        nl.store(out, kernel(x).data)
        return out

    x = np.arange(30, dtype=np.float32).reshape(2, 3, 5)
    np.testing.assert_array_equal(both(stored, x), x[1, :, 3:])


def test_a_row_of_tiles_is_one_operand():
    def kernel(x):
        out = like(x)
        held = nl.alloc_tiles(tile_shape=(4, 4), element_shape=x.shape, buffer=nl.sbuf, dtype=x.dtype)
        source, target = (nl.tiles(t, tile_shape=(4, 4)) for t in (x, out))
        for i in range(2):
            assert held[i].data.shape == held[i].element_shape
            nisa.dma_copy(held[i].data, source[i].data)
            nisa.tensor_scalar(held[i].data, held[i].data, nl.add, 1.0)
            nisa.dma_copy(target[i].data, held[i].data)
        return out

    np.testing.assert_array_equal(both(kernel, RAGGED), RAGGED + 1)


def test_empty_like():
    def kernel(x):
        gaps = nl.blocks(x, tile_shape=(2, 2), block_shape=(1, 2))[::2, 1:]
        packed = nl.empty_like(gaps, buffer=nl.sbuf)
        assert type(packed) is type(gaps)
        assert (packed.shape, packed.element_shape, packed.block_shape) == ((2, 2), (4, 7), (1, 2))
        out = nl.ndarray((4, 7), x.dtype, buffer=nl.shared_hbm)
        whole = nl.blocks(out, tile_shape=(2, 2), block_shape=(1, 2))
        through(gaps, packed, whole)
        return out

    np.testing.assert_array_equal(both(kernel, RAGGED), RAGGED[[0, 1, 4, 5], 4:])


def test_empty_like_transposed():
    def kernel(x):
        tile = nl.empty_like(x, buffer=nl.sbuf, transpose_axes=(1, 0), address=(0, 64))
        assert (tile.shape, tile.address) == ((5, 16), (0, 64))
        grid = nl.tiles(x, tile_shape=(16, 3))
        turned = nl.empty_like(grid, buffer=nl.sbuf, transpose_axes=(1, 0))
        assert (turned.shape, turned.tile_shape, turned.element_shape) == ((2, 1), (3, 16), (5, 16))
        out = nl.ndarray((5, 16), x.dtype, buffer=nl.shared_hbm)
        for i in range(2):
            nisa.dma_transpose(turned[i, 0].data, grid[0, i].data)
            nisa.dma_copy(nl.tiles(out, tile_shape=(3, 16))[i, 0].data, turned[i, 0].data)
        return out

    x = np.arange(80, dtype=np.float16).reshape(16, 5)
    np.testing.assert_array_equal(both(kernel, x), x.T)


def test_a_tensor_is_its_own_data():
    def kernel(x):
        assert x.data is x

    traced(kernel, RAGGED)


def index_tile(x):
    tile = nl.ndarray(x.shape, x.dtype)
    nisa.dma_copy(tile, x)
    return tile


WIDE = np.arange(12 * 16, dtype=np.float32).reshape(12, 16)


def test_rows_gathered_and_scattered_by_a_vector_of_indices():
    """The last tile of indices is a part of one; destinations are cells, too."""

    def gather(x, at):
        out = nl.ndarray((at.shape[0], x.shape[1]), x.dtype, buffer=nl.shared_hbm)
        source, numbers, target = (nl.tiles(t, tile_shape=s) for t, s in ((x, (4, 8)), (at, (4, 1)), (out, (4, 8))))
        for i, j in cells(target):
            chosen = source[index_tile(numbers[i, 0].data), j]
            assert (chosen.shape, chosen.element_shape) == ((), target[i, j].element_shape)
            held = nl.empty_like(chosen, buffer=nl.sbuf)
            nisa.dma_copy(held.data, chosen.data)
            nisa.dma_copy(target[i, j].data, held.data)
        return out

    def scatter(x, at):
        numbers, target = nl.tiles(at, tile_shape=(4, 1)), nl.tiles(x, tile_shape=(4, 8))
        for i in range(numbers.shape[0]):
            for j in range(2):
                rows = target[index_tile(numbers[i, 0].data), j]
                held = nl.empty_like(rows, buffer=nl.sbuf)
                nisa.memset(held.data, float(j))
                nisa.dma_copy(rows.data, held.data)
        return x

    at = np.array([[11], [0], [7], [3], [5], [10]], np.int32)
    np.testing.assert_array_equal(both(gather, WIDE, at), WIDE[at[:, 0]])
    expected = WIDE.copy()
    expected[at[:, 0], :8], expected[at[:, 0], 8:] = 0, 1
    for run in (nki.jit, nki.simulate):
        np.testing.assert_array_equal(run(scatter)(WIDE.copy(), at), expected)


@pytest.mark.parametrize("index", [index_tile, lambda x: nisa.scalar_load(index_tile(x)) + 0])
def test_cells_chosen_on_the_device(index):
    def kernel(x, experts, at):
        chosen = index(at)
        tile = nl.tiles(x, tile_shape=(4, 8))[chosen, -1]
        assert (tile.shape, tile.element_shape, tile.is_data_representable) == ((), (4, 8), True)
        expert = nl.tiles(experts, tile_shape=(2, 8))[chosen]
        assert (expert.shape, expert[1, 0].element_shape) == ((2, 2), (1, 8))
        inner = nl.tiles(nl.blocks(x, tile_shape=(2, 4), block_shape=(2, 2))[chosen, 0])[1, 0]
        columns = nl.tiles(nl.load(x), tile_shape=(12, 5))[0, chosen]
        return tuple(kept(cell.data) for cell in (tile, expert[1, 1], inner)), kept(nl.copy(columns.data))

    def kept(view):
        out = nl.ndarray(view.shape, view.dtype, buffer=nl.shared_hbm)
        if view.buffer.on_chip:
            nisa.dma_copy(out, view)
        else:
            nl.store(out, nl.load(view))
        return out

    experts, at = np.arange(4 * 3 * 16, dtype=np.float32).reshape(4, 3, 16), np.array([[2]], np.int32)
    for run in (nki.jit, nki.simulate):
        (tile, expert, inner), columns = run(kernel)(WIDE, experts, at)
        np.testing.assert_array_equal(tile, WIDE[8:12, 8:])
        np.testing.assert_array_equal(expert, experts[2, 2:, 8:])
        np.testing.assert_array_equal(inner, WIDE[10:12, :4])
        np.testing.assert_array_equal(columns, WIDE[:, 10:15])


@pytest.mark.parametrize("run", [nki.jit, nki.simulate])
def test_only_whole_cells_are_chosen_on_the_device(run):
    def kernel(x, at):
        out = nl.ndarray((5, 16), x.dtype, buffer=nl.shared_hbm)
        nl.store(out, nl.load(nl.tiles(x, tile_shape=(5, 16))[index_tile(at), 0].data))
        return out

    np.testing.assert_array_equal(run(kernel)(WIDE, np.array([[1]], np.int32)), WIDE[5:10])
    with pytest.raises(errors.IndirectOutOfBounds, match=r"2 is not in \[0, 2\)"):
        run(kernel)(WIDE, np.array([[2]], np.int32))


def one():
    return nl.zeros((1, 1), nl.int32)


REFUSED = [
    (lambda x: nl.tiles(x), errors.InvalidOperand, "tile_shape is None"),
    (lambda x: nl.tiles(x, tile_shape=[3, 4]), errors.InvalidOperand, "tile_shape is .*tuple of positive ints"),
    (lambda x: nl.tiles(x, tile_shape=(3,)), errors.InvalidOperand, r"tile_shape is \(3,\).*2 to 2 sizes"),
    (lambda x: nl.tiles(x, tile_shape=(3, 0)), errors.InvalidOperand, r"tile_shape is \(3, 0\)"),
    (lambda x: nl.tiles(3, tile_shape=(3, 4)), errors.InvalidOperand, "source is .*a tensor or a grid"),
    (lambda x: nl.blocks(x, tile_shape=(3, 4), block_shape=(2,)), errors.InvalidOperand, "block_shape is .*2 numbers"),
    (lambda x: nl.tiles(nl.load(x).expand_dim(1), tile_shape=(1, 4)), errors.InvalidOperand, "every dimension"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4))[3, 0], errors.IndexOutOfBounds, r"index 3.*size 3 of a grid"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4))[0, 0, 0], errors.TooManyIndices, "3 indices"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4))[0, 2:2], errors.EmptySlice, "selects no elements"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4))[::-1], errors.InvalidIndex, "a step of -1"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4))[1.0], errors.InvalidIndex, "when it is a grid"),
    (lambda x: list(nl.tiles(x, tile_shape=(3, 4))), errors.TensorAsNumber, "iterate"),
    (lambda x: len(nl.tiles(x, tile_shape=(3, 4))), errors.TensorAsNumber, "sizes are t.shape"),
    (lambda x: np.exp(nl.tiles(x, tile_shape=(3, 4))), errors.TensorOperator, "np.exp"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4))[0, 0] + 1.0, errors.TensorOperator, r"operator \+"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4))[0, 0].reshape((12, 1)), errors.UnknownName, "grid.data is a tensor"),
    (lambda x: nl.load(x[nl.ds(nl.tiles(x, tile_shape=(3, 4))[0, 0], 2)]), errors.InvalidView, "index is NkiTileGrid"),
    (lambda x: nl.load(x.select(0, nl.tiles(x, tile_shape=(3, 4)))), errors.InvalidView, "index is NkiTileGrid"),
    (lambda x: nl.load(nl.tiles(x, tile_shape=(3, 4))[0, 0]), errors.InvalidOperand, "pass its .data"),
    (lambda x: nl.exp(nl.tiles(nl.load(x), tile_shape=(3, 4))[0, 0]), errors.InvalidOperand, "pass its .data"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4))[one(), one()], errors.InvalidIndex, "2 runtime indices"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4))[nl.zeros((4, 1), nl.int32), 0], errors.InvalidIndex, "have 3 rows"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4))[0, nl.zeros((2, 1), nl.int32)], errors.InvalidIndex, "first dimension"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4))[::2][one(), 0], errors.InvalidIndex, "with a step"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4))[nl.zeros((1, 1), nl.float32), 0], errors.InvalidView, "float32 in sbuf"),
    (lambda x: nl.tiles(nl.load(x), tile_shape=(3, 4))[one(), 0], errors.InvalidView, "partition"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4)).tileshape, errors.UnknownName, "did you mean grid.tile_shape"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4)).__setitem__((0, 0), x), errors.InvalidView, r"grid\[i, j\].data"),
    (lambda x: nl.tiles(x, tile_shape=(3, 4))[::2].data, errors.InvalidView, "gaps"),
    (lambda x: nl.tiles(nl.tiles(x, tile_shape=(3, 4))[::2]), errors.InvalidView, "gaps"),
    (lambda x: nl.load(nl.tiles(x, tile_shape=(3, 4))), errors.InvalidOperand, "NkiTileGrid"),
    (
        lambda x: nl.empty_like(nl.tiles(x, tile_shape=(3, 4)), buffer=nl.sbuf).data,
        errors.InvalidView, "3 rows of tiles lie in the same partitions of SBUF",
    ),
    (lambda x: nl.empty_like(x, transpose_axes=(1, 0)), errors.InvalidOperand, "buffer is .*nl.sbuf"),
    (lambda x: nl.empty_like(x, buffer=nl.sbuf, transpose_axes=(0, 1)), errors.InvalidOperand, r"\(1, 0\) for 2"),
]


@pytest.mark.parametrize(("use", "error", "match"), REFUSED)
def test_refused(use, error, match):
    def kernel(x):
        use(x)

    with pytest.raises(error, match=match) as caught:
        nki.jit(kernel)(RAGGED)
    assert (caught.value.location.file, caught.value.location.line) == (__file__, use.__code__.co_firstlineno)


# --- ranges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "same"),
    [
        (range(7), slice(0, 7)),
        ((slice(None), range(2, 11, 3)), (slice(None), slice(2, 11, 3))),
        ((range(4, -1, -2), range(4)), (slice(4, None, -2), slice(4))),
        ((..., nl.affine_range(9, 11)), (..., slice(9, 11))),
    ],
)
def test_a_range_is_a_slice(key, same):
    want = RAGGED[same]

    def kernel(x):
        out = nl.ndarray(want.shape, x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out, x[key])
        return out

    np.testing.assert_array_equal(both(kernel, RAGGED), want)


@pytest.mark.parametrize("key", [range(8), range(-1, 3), range(3, 9, 2)])
def test_ranges_outside(key):
    def kernel(x):
        return nl.load(x[key])

    with pytest.raises(errors.IndexOutOfBounds) as caught:
        nki.jit(kernel)(RAGGED)
    assert caught.value.location.line == kernel.__code__.co_firstlineno + 1
