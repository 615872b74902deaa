"""Index tensors, masks, subscripts and block dimensions of Beta 1, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from beta1_testing import check, random

import nkilite
from nkilite import beta1 as nki
from nkilite.beta1 import isa as nisa
from nkilite.beta1 import language as nl
from nkilite.errors import IndexOutOfBounds, InvalidIndex, ShapeMismatch


def test_affine_subscripts():
    @nki.jit
    def kernel(x):
        rows, columns = x.shape
        even = nl.ndarray((rows, columns // 2), dtype=x.dtype, buffer=nl.shared_hbm)
        flipped = nl.ndarray((columns, rows), dtype=x.dtype, buffer=nl.shared_hbm)
        swapped = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        i_p, i_f = nl.mgrid[0:rows, 0:columns]
        half = nl.arange(columns // 2)[None, :]
        tile = nl.load(x[i_p, i_f])
        nl.store(even[i_p, half], tile[i_p, 2 * half + 1])
        nl.store(flipped[i_f, i_p], tile)
        a, b, c = nl.arange(rows)[:, None, None], nl.arange(3)[None, :, None], nl.arange(4)[None, None, :]
        turned = nl.ndarray((rows, 12), dtype=x.dtype)
        turned[a, c * 3 + b] = nl.copy(tile[a, b * 4 + c])
        nl.store(swapped, value=turned)
        return even, flipped, swapped

    x = random(5, 12)
    check(kernel, (x[:, 1::2], x.T, x.reshape(5, 3, 4).transpose(0, 2, 1).reshape(5, 12)), x)


@pytest.mark.parametrize("rows", [4, 150])
def test_ragged_edges(rows):
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        i_p, i_f = nl.mgrid[0:128, 0:8]
        for i in nl.affine_range((x.shape[0] + 127) // 128):
            for j in nl.affine_range((x.shape[1] + 7) // 8):
                at = x[i * 128 + i_p, j * 8 + i_f]
                inside = (i * 128 + i_p < x.shape[0]) & (j * 8 + i_f <= x.shape[1] - 1)
                tile = nl.load(at, mask=inside)
                nl.store(out[i * 128 + i_p, j * 8 + i_f], nl.square(tile, mask=inside), mask=inside)
        return out

    x = random(rows, 13)
    check(kernel, x * x, x)


def test_masks_that_are_no_rectangle():
    @nki.jit
    def kernel(x):
        out = nl.zeros(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        upper = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        i_p, i_f = nl.mgrid[0:6, 0:6]
        tile = nl.load(x)
        nl.store(out[i_p, i_f], tile, mask=(i_p > i_f) | (i_f == 5))
        kept = nl.zeros((6, 6), dtype=x.dtype)
        kept[i_p, i_f] = nl.copy(tile[i_p, i_f], mask=(i_f >= i_p) & (i_p != 2))
        nl.store(upper, kept)
        return out, upper

    x = random(6, 6)
    p, f = np.mgrid[0:6, 0:6]
    check(kernel, (np.where((p > f) | (f == 5), x, 0), np.where((f >= p) & (p != 2), x, 0)), x)


def test_masked_reductions_leave_out_what_is_masked():
    @nki.jit
    def kernel(x):
        out = nl.ndarray((4, 3), dtype=x.dtype, buffer=nl.shared_hbm)
        i_p, i_f = nl.mgrid[0:4, 0:8]
        tile = nl.load(x[i_p, i_f], mask=i_f < 5)
        found = nl.ndarray((4, 3), dtype=x.dtype)
        found[:, 0] = nl.sum(tile, axis=1, mask=i_f < 5)
        found[:, 1] = nisa.tensor_reduce(np.min, tile[i_p, i_f], axis=(1,), mask=i_f < 5)
        found[:, 2] = nl.mean(tile, axis=1, mask=i_f < 5)
        nl.store(out, found)
        return out

    x = np.abs(random(4, 5)) + 1
    check(kernel, np.stack([x.sum(1), x.min(1), x.mean(1)], axis=1), x)


def test_masks_of_loop_variables_skip_instructions():
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        total = nl.zeros(x.shape, dtype=x.dtype)
        tile = nl.load(x)
        for i in nl.sequential_range(4):
            total[...] = nl.add(total, tile, mask=i < 3)
        nl.store(out, total)
        return out

    x = random(4, 8)
    check(kernel, 3 * x, x)


def test_block_dimensions():
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tiles = nl.ndarray((2, 2, nl.par_dim(4), 6), dtype=x.dtype, buffer=nl.sbuf)
        sums = nl.zeros((4, nl.par_dim(4), 1), dtype=x.dtype)
        i_p, i_f = nl.mgrid[0:4, 0:6]
        for i in nl.affine_range(2):
            for j in nl.affine_range(2):
                tiles[i, j, i_p, i_f] = nl.load(x[(2 * i + j) * 4 + i_p, i_f])
                sums[2 * i + j] = nl.sum(tiles[i, j], axis=1, keepdims=True)
        for i in range(2):
            row = tiles[i]
            for j in range(2):
                row[j] -= sums[2 * i + j]
                nl.store(out[(2 * i + j) * 4 + i_p, i_f], row[j, i_p, i_f])
        return out

    x = random(16, 6)
    check(kernel, x - x.sum(1, keepdims=True), x)


def test_indices_the_device_reads():
    @nki.jit
    def kernel(x, order, offsets):
        gathered = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        scattered = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        picked = nl.ndarray((8, 3), dtype=x.dtype, buffer=nl.shared_hbm)
        i_p, i_f = nl.arange(8)[:, None], nl.arange(6)[None, :]
        at = nl.load(order[i_p])
        tile = nl.load(x)
        nl.store(gathered[i_p, i_f], nl.load(x[at[i_p, 0], i_f]))
        nl.store(scattered[at, i_f], tile)
        begin = nl.load(offsets)
        columns = nl.ndarray((8, 3), dtype=x.dtype)
        for i in nl.affine_range(3):
            columns[i_p, i] = nisa.tensor_copy_dynamic_src(tile[i_p, begin[0, i] + nl.arange(1)[None, :]])
        nl.store(picked, columns)
        return gathered, scattered, picked

    x, order, offsets = random(8, 6), np.array([3, 1, 0, 2, 7, 6, 5, 4], np.int32), np.array([[5, 0, 2]], np.int32)
    scattered = np.empty_like(x)
    scattered[order] = x
    check(kernel, (x[order], scattered, x[:, [5, 0, 2]]), x, order, offsets)


@nki.jit
def leaves(x):
    i_p, i_f = nl.mgrid[0:4, 0:8]
    tile = nl.load(x[i_p, i_f + 1])  # leaves
    nl.store(x, tile)


@nki.jit
def number(x):
    i_f = nl.arange(8)[None, :]
    tile = nl.load(x[7, i_f])  # number
    nl.store(x[0, i_f], tile)


@nki.jit
def numbers(x):
    nl.store(x[0:2, 9], nl.load(x[0:2, 0]))  # numbers


@nki.jit
def crossed(x):
    tile = nl.load(x)
    nl.store(x, tile[nl.arange(4)[None, :], nl.arange(4)[:, None]])  # crossed


@nki.jit
def conjunction(x):
    i_p, i_f = nl.mgrid[0:4, 0:8]
    nl.store(x[i_p, i_f], 0.0, mask=(i_p < 2 and i_f < 2))  # conjunction


@nki.jit
def product(x):
    i_p, i_f = nl.mgrid[0:4, 0:8]
    nl.load(x[i_p, i_p * i_f])  # product


@nki.jit
def shapes(x):
    nl.load(x[nl.arange(4)[:, None], nl.arange(4)[:, None] + nl.arange(3)[:, None]])  # shapes


@pytest.mark.parametrize(
    ("kernel", "error"),
    [
        (leaves, IndexOutOfBounds), (number, IndexOutOfBounds), (numbers, IndexOutOfBounds), (crossed, InvalidIndex),
        (conjunction, InvalidIndex), (product, InvalidIndex), (shapes, ShapeMismatch),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_mistakes_are_at_the_users_line(kernel, error):
    with pytest.raises(error) as caught:
        kernel(np.ones((4, 8), np.float32))
    assert caught.value.location.file == __file__
    assert caught.value.location.source.endswith(f"# {kernel.__name__}")


@pytest.mark.parametrize("dtype", [nl.int32, nl.uint32, nl.float32])
def test_an_element_of_a_tile_is_an_index_beside_slices(dtype):
    @nki.jit
    def kernel(table, scores):
        found = nisa.nc_find_index8(data=nl.load(scores), vals=nisa.max8(src=nl.load(scores)))
        best = nl.ndarray(found.shape, dtype=dtype, buffer=nl.sbuf)
        best[...] = found
        one = nl.ndarray((1, 1), dtype=dtype, buffer=nl.sbuf)
        chosen = nl.ndarray((3, *table.shape[1:]), dtype=table.dtype, buffer=nl.shared_hbm)
        rows = nl.ndarray((3, 2, table.shape[2]), dtype=table.dtype, buffer=nl.shared_hbm)
        for i in nl.static_range(3):
            nisa.dma_copy(dst=one[0:1, 0:1], src=best[i : i + 1, 0:1])
            nl.store(chosen[i], value=nl.load(table[one[0, 0], :, :]))
            nl.store(rows[i], value=nl.load(table[one[0, 0], 1:3, :]))
        return chosen, rows

    table, scores = random(8, 4, 16), random(3, 8, seed=1)
    wanted = table[scores.argmax(1)]
    check(kernel, (wanted, wanted[:, 1:3]), table, scores)


def test_numbers_are_assigned_to_any_partition():
    @nki.jit
    def kernel():
        out = nl.ndarray((5, 3), dtype=nl.int32, buffer=nl.shared_hbm)
        tile = nl.zeros((5, 3), dtype=nl.int32)
        for i in nl.static_range(5):
            tile[i, i % 3] = i + 1
        nl.store(out, value=tile)
        return out

    wanted = np.zeros((5, 3))
    wanted[range(5), np.arange(5) % 3] = range(1, 6)
    check(kernel, wanted)


def test_rows_are_read_and_written_at_any_partition():
    @nki.jit
    def kernel(x):
        out = nl.ndarray((8, 12), dtype=x.dtype, buffer=nl.shared_hbm)
        rows, made = nl.load(x), nl.ndarray((nl.par_dim(8), 12), dtype=x.dtype, buffer=nl.sbuf)
        for i in nl.static_range(8):
            made[i : i + 1, 0:12] = nl.add(rows[i : i + 1], rows[7 - i : 8 - i]) * 2
            made[i : i + 1, 3] *= nl.max(rows[i : i + 1, 0:3], axis=1)
        nl.store(out, nl.multiply(made, rows[3:4]))
        return out

    x = random(8, 12)
    made = 2 * (x + x[::-1])
    made[:, 3] *= x[:, :3].max(1)
    check(kernel, made * x[3], x)
    np.testing.assert_allclose(nkilite.simulate(kernel)(x), made * x[3], rtol=1e-6)


def test_slices_of_block_dimensions():
    @nki.jit
    def kernel(x):
        out = nl.ndarray((4, 8, 12), dtype=x.dtype, buffer=nl.shared_hbm)
        tiles = nl.ndarray((2, 4, nl.par_dim(8), 12), dtype=x.dtype, buffer=nl.sbuf)
        for i in nl.affine_range(2):
            for j in nl.affine_range(4):
                tiles[i, j] = nl.load(x[i, j])
        odd = tiles[1:2, 1:4:2, :, 2:8]  # two blocks of (8, 6)
        assert odd.shape == (1, 2, 8, 6)
        later = tiles[0, 2:][:, 0:8]
        for k in nl.affine_range(2):
            nl.store(out[k, :, 0:6], odd[0, k])
            nl.store(out[k, :, 6:12], odd[0][k])
            nl.store(out[2 + k], later[k])
        odd[0, :] = 0.0
        nl.store(out[1, :, 6:12], tiles[1, 3, :, 2:8])
        return out

    x = random(2, 4, 8, 12)
    halves = np.concatenate([x[1, 1::2, :, 2:8], x[1, 1::2, :, 2:8]], 2)
    halves[1, :, 6:] = 0
    check(kernel, np.concatenate([halves, x[0, 2:]]), x)
    for broken, error in ((np.s_[0:3], IndexOutOfBounds), (np.s_[2:2], InvalidIndex)):
        with pytest.raises(error, match="tiles float32"):
            nki.jit(lambda x, key=broken: nl.ndarray((2, nl.par_dim(4), 4), dtype=x.dtype)[key]).trace(x)


@pytest.mark.parametrize("step", [1, -1])
def test_places_that_differ_from_partition_to_partition_are_refused(step):
    @nki.jit
    def kernel(x):
        i = nl.arange(6)[:, None]
        nl.store(x[0:6, 0:1], nl.load(x)[i, 3 - 3 * step + step * i])

    with pytest.raises(InvalidIndex, match="differ from partition to partition") as found:
        kernel.trace(np.zeros((6, 7), np.float32))
    assert found.value.location.file == __file__


def test_a_dynamic_slice_alone_is_no_pair_of_indices():
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile, loaded = nl.ndarray(x.shape, dtype=x.dtype), nl.load(x)
        tile[nl.ds(0, 32)] = 3
        tile[nl.ds(32, 32)] = loaded[nl.ds(32, 32)]
        for half in nl.affine_range(2):
            nl.store(out[nl.ds(half * 32, 32)], tile[nl.ds(half * 32, 32)])
        return out

    x = random(64, 4)
    check(kernel, np.concatenate([np.full((32, 4), 3), x[32:]]), x)


@pytest.mark.parametrize(("wide", "narrow"), [("int32", "uint32"), ("int8", "uint8")])
def test_integers_of_one_width_are_stored_as_they_are(wide, narrow):
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=wide, buffer=nl.shared_hbm)
        nl.store(out, nl.load(x))
        return out

    x = np.array([[0, 1, np.iinfo(narrow).max, np.iinfo(wide).max]], narrow)
    check(kernel, x.astype(wide), x)


@pytest.mark.parametrize(("columns", "dtype"), [(1, np.int32), (40, np.float32), (3, np.float16)])
def test_atomic_additions_count_indices_that_repeat(columns, dtype):
    @nki.jit
    def kernel(rows, values, totals):
        for first in nl.affine_range(0, 256, step=128):
            chosen, added = nl.load(rows[first : first + 128]), nl.load(values[first : first + 128])
            i_p, i_f = nl.mgrid[0:128, 0:columns]
            nl.atomic_rmw(totals[chosen[i_p, 0], i_f], value=added, op=np.add)
        return totals

    rng = np.random.default_rng(0)
    rows, values = rng.integers(0, 9, (256, 1)).astype(np.int32), rng.integers(-3, 4, (256, columns)).astype(dtype)
    wanted = np.zeros((9, columns))
    np.add.at(wanted, rows[:, 0], values)
    for run in (kernel, lambda *args: nki.simulate_kernel(kernel, *args)):
        np.testing.assert_array_equal(run(rows, values, np.zeros((9, columns), dtype)), wanted)
