"""Masks of Beta 1 that select no rectangle: elements that are left out do not count."""

from __future__ import annotations

import numpy as np
import pytest
from beta1_testing import check, random

from nkilite import beta1 as nki
from nkilite.beta1 import isa as nisa
from nkilite.beta1 import language as nl
from nkilite.errors import InvalidIndex, UnsupportedError

SHAPE = (8, 12)
LOWER = np.tri(*SHAPE, 2, dtype=bool)


@pytest.mark.parametrize(
    ("op", "neutral", "of"), [(np.add, 0, np.sum), (np.max, -np.inf, np.max), (np.minimum, np.inf, np.min)]
)
@pytest.mark.parametrize("beyond", [0, 4])
def test_reductions(op, neutral, of, beyond):
    @nki.jit
    def kernel(x):
        rows, columns = x.shape
        out = nl.ndarray((rows, 1), dtype=x.dtype, buffer=nl.shared_hbm)
        i_p, i_f = nl.arange(rows)[:, None], nl.arange(columns + beyond)[None, :]
        tile = nl.load(x)
        inside = (i_f <= i_p + 2) & (i_f < columns)
        nl.store(out, nisa.tensor_reduce(op, tile[i_p, i_f], axis=[1], mask=inside, keepdims=True))
        return out

    x = random(*SHAPE)
    check(kernel, of(np.where(LOWER, x, neutral), axis=1, keepdims=True), x)


def test_means_divide_by_what_takes_part():
    @nki.jit
    def kernel(x):
        out = nl.ndarray((x.shape[0], 1), dtype=x.dtype, buffer=nl.shared_hbm)
        i_p, i_f = nl.mgrid[0 : x.shape[0], 0 : x.shape[1]]
        nl.store(out, nl.mean(nl.load(x), axis=[1], mask=i_f <= i_p + 2))
        return out

    x = random(*SHAPE)
    check(kernel, np.where(LOWER, x, 0).sum(1, keepdims=True) / LOWER.sum(1, keepdims=True), x)


def test_matmuls_and_transposes():
    @nki.jit
    def kernel(x, y):
        product = nl.ndarray((x.shape[1], y.shape[1]), dtype=x.dtype, buffer=nl.shared_hbm)
        flipped = nl.ndarray(x.shape[::-1], dtype=x.dtype, buffer=nl.shared_hbm)
        loaded = nl.zeros(x.shape[::-1], dtype=x.dtype, buffer=nl.shared_hbm)
        i_p, i_f = nl.mgrid[0 : x.shape[0], 0 : x.shape[1]]
        lower = i_f <= i_p + 2
        nl.store(product, nl.copy(nisa.nc_matmul(nl.load(x), nl.load(y), mask=lower)))
        nl.store(flipped, nl.copy(nisa.nc_transpose(nl.load(x), mask=lower)))
        nl.store(loaded, nl.load_transpose2d(x, mask=lower))
        return product, flipped, loaded

    x, y = random(*SHAPE), random(8, 5, seed=1)
    kept = np.where(LOWER, x, 0)
    check(kernel, (kept.T @ y, kept.T, kept.T), x, y)


def test_matmul_of_a_tile_in_psum_under_a_true_mask():
    @nki.jit
    def kernel(x):
        out = nl.ndarray((x.shape[1], x.shape[1]), dtype=x.dtype, buffer=nl.shared_hbm)
        held = nl.ndarray(x.shape, dtype=np.float32, buffer=nl.psum)
        held[...] = nl.load(x)
        nl.store(out, nl.copy(nisa.nc_matmul(held, held, mask=True)))
        return out

    x = random(*SHAPE)
    check(kernel, x.T @ x, x)


def test_scans_maxima_and_sums_in_place():
    @nki.jit
    def kernel(x):
        scanned = nl.zeros(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        largest = nl.ndarray((x.shape[0], 8), dtype=x.dtype, buffer=nl.shared_hbm)
        doubled = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        i_p, i_f = nl.mgrid[0 : x.shape[0], 0 : x.shape[1]]
        tile = nl.load(x)
        ones = nl.ones(x.shape, dtype=x.dtype)
        sums = nisa.tensor_tensor_scan(ones, tile, initial=0.0, op0=np.multiply, op1=np.add, mask=i_f <= i_p + 2)
        nl.store(scanned, sums, mask=i_f <= i_p + 2)
        nl.store(largest, nisa.max8(tile, mask=i_f <= i_p + 8))
        tile += nl.multiply(tile, 1.0, mask=i_f <= i_p + 2)
        nl.store(doubled, tile)
        return scanned, largest, doubled

    x = random(*SHAPE)
    largest = -np.sort(-np.where(np.tri(*SHAPE, 8, dtype=bool), x, -np.inf), axis=1)[:, :8]
    check(kernel, (np.where(LOWER, np.cumsum(x, 1), 0), largest, np.where(LOWER, 2 * x, x)), x)


@pytest.mark.parametrize("limit", [0, 5, 12])
def test_masks_as_subscripts(limit):
    @nki.jit
    def kernel(x, y):
        product = nl.ndarray((x.shape[1], y.shape[1]), dtype=x.dtype, buffer=nl.shared_hbm)
        stored = nl.zeros(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        i_p, i_f = nl.mgrid[0 : x.shape[0], 0 : x.shape[1]]
        acc = nl.zeros((x.shape[1], y.shape[1]), dtype=nl.float32, buffer=nl.psum)
        tile = nl.load(x)
        acc += nisa.nc_matmul(tile[i_p, i_f][i_f < limit], nl.load(y))
        nl.store(product, nl.copy(acc))
        nl.store(stored[i_p, i_f][i_f < limit], tile)
        return product, stored

    x, y = random(*SHAPE), random(8, 5, seed=1)
    kept = np.where(np.arange(12) < limit, x, 0)
    check(kernel, (kept.T @ y, kept), x, y)


def test_scans_that_skip_elements_are_refused():
    @nki.jit
    def kernel(x):
        i_p, i_f = nl.mgrid[0:8, 0:12]
        tile = nl.load(x)
        nisa.tensor_tensor_scan(tile, tile, initial=0.0, op0=np.multiply, op1=np.add, mask=i_f >= i_p)

    with pytest.raises(UnsupportedError, match="skips elements") as error:
        kernel.trace(random(*SHAPE))
    assert error.value.location.line == kernel.location.line + 3


def test_a_false_mask_leaves_transposes_that_nobody_reads():
    @nki.jit
    def kernel(x):
        out = nl.ndarray((8, 12), dtype=x.dtype, buffer=nl.shared_hbm)
        for m in nl.affine_range(2):
            acc = nl.zeros((8, 12), dtype=nl.float32, buffer=nl.psum)
            for k in nl.affine_range(2):
                turned = nl.ndarray((4, 8), dtype=x.dtype)
                turned[...] = nl.copy(nisa.nc_transpose(nl.load(x[:, k * 4 : k * 4 + 4])))
                acc += nisa.nc_matmul(turned, nl.load(x[0:4, :]), mask=m == 0)
            nl.store(out, value=acc, mask=m == 0)
        return out

    x = random(8, 12)
    check(kernel, x[:, :4] @ x[:4] + x[:, 4:8] @ x[:4], x)


PARTITIONS = (0, 3, 32, 40)


@pytest.mark.parametrize("first", PARTITIONS)
@pytest.mark.parametrize("beyond", [0, 4])
def test_masks_that_begin_at_any_partition(first, beyond):
    """Engines begin at few partitions, and vectors of one element per partition go with those that are computed."""
    rows, columns = 64, 6

    @nki.jit
    def kernel(x, v):
        out = nl.ndarray((5, rows, columns), dtype=x.dtype, buffer=nl.shared_hbm)
        i_p, i_f = nl.arange(rows)[:, None], nl.arange(columns + beyond)[None, :]
        inside = (i_p >= first) & (i_f < columns)
        tile, vector = nl.load(x), nl.load(v)
        results = (
            nisa.activation(np.exp, tile[i_p, i_f], bias=vector, mask=inside),
            nisa.tensor_scalar(tile[i_p, i_f], np.multiply, vector, mask=inside),
            nisa.scalar_tensor_tensor(tile[i_p, i_f], np.add, vector, np.multiply, tile[i_p, i_f], mask=inside),
            nl.mod(tile[i_p, i_f], 2.0, mask=inside),
            nl.where(tile[i_p, i_f], vector, tile[i_p, i_f], mask=inside),
        )
        for number, result in enumerate(results):
            made = nl.full((rows, columns + beyond), 7.0, dtype=x.dtype)
            made[i_p, i_f] = result
            nl.store(out[number], made[:, 0:columns])
        return out

    x, v = random(rows, columns), random(rows, 1, seed=1)
    wanted = np.stack([np.exp(x + v), x * v, (x + v) * x, np.mod(x, 2), np.where(x, v, x)])
    wanted[:, :first] = 7
    check(kernel, wanted, x, v)


@pytest.mark.parametrize("first", PARTITIONS)
def test_sums_under_masks_that_begin_at_any_partition(first):
    rows, columns = 64, 6

    @nki.jit
    def kernel(x):
        out = nl.ndarray((5, rows, 1), dtype=x.dtype, buffer=nl.shared_hbm)
        i_p, i_f = nl.mgrid[0:rows, 0:columns]
        tile = nl.load(x)
        sums = nl.full((5, nl.par_dim(rows), 1), 7.0, dtype=x.dtype)
        nisa.activation_reduce(np.exp, tile, reduce_op=np.add, reduce_res=sums[0], mask=i_p >= first)
        nisa.activation_reduce(np.exp, tile, np.add, sums[1], mask=(i_p >= first) & (i_f <= i_p - first))
        nisa.tensor_scalar_reduce(tile, np.multiply, 2.0, np.add, sums[2], mask=(i_p >= first) & (i_f < 3))
        sums[3, nl.arange(rows)[:, None], nl.arange(1)[None, :]] = nl.sum(tile, axis=[1], mask=i_p >= first)
        total = nisa.tensor_partition_reduce(np.add, tile, mask=i_p >= first)
        sums[4] = nl.copy(total[0:1, 0:1].broadcast_to((rows, 1)))
        for number in range(5):
            nl.store(out[number], sums[number])
        return out

    x = random(rows, columns)
    lower = np.arange(columns) <= np.arange(rows)[:, None] - first
    wanted = np.stack([
        np.exp(x).sum(1), np.where(lower, np.exp(x), 0).sum(1), 2 * x[:, :3].sum(1), x.sum(1),
        np.full(rows, x[first:, 0].sum()),
    ])[..., None]
    wanted[:4, :first] = 7
    check(kernel, wanted, x)


@pytest.mark.parametrize("first", PARTITIONS)
def test_matmuls_under_masks_that_begin_at_any_partition(first):
    @nki.jit
    def kernel(x):
        out = nl.ndarray((x.shape[1], x.shape[1]), dtype=x.dtype, buffer=nl.shared_hbm)
        i_p, i_f = nl.mgrid[0 : x.shape[0], 0 : x.shape[1]]
        tile = nl.load(x)
        nl.store(out, nl.copy(nisa.nc_matmul(tile[i_p, i_f], tile, mask=i_p >= first)))
        return out

    x = random(64, 6)
    check(kernel, x[first:].T @ x[first:], x)


def test_matmuls_under_one_mask_for_rows_and_columns():
    @nki.jit
    def kernel(x, y):
        out = nl.ndarray((x.shape[1], y.shape[1]), dtype=x.dtype, buffer=nl.shared_hbm)
        i_k, i_m = nl.mgrid[0:16, 0:8]
        j_k, j_n = nl.mgrid[0:16, 0:32]
        o_m, o_n = nl.mgrid[0:8, 0:32]
        left = nl.load(x[i_k, i_m], mask=(i_k < x.shape[0]) & (i_m < x.shape[1]))
        right = nl.load(y[j_k, j_n], mask=(j_k < y.shape[0]) & (j_n < y.shape[1]))
        total = nl.zeros((8, 32), dtype=nl.float32, buffer=nl.psum)
        inside = (i_k < x.shape[0]) & (i_m < x.shape[1]) & (j_n < y.shape[1])
        total[o_m, o_n] += nisa.nc_matmul(left[i_k, i_m], right[j_k, j_n], mask=inside)
        nl.store(out[o_m, o_n], total[o_m, o_n], mask=(o_m < x.shape[1]) & (o_n < y.shape[1]))
        return out

    x, y = random(11, 5), random(11, 21, seed=1)
    check(kernel, x.T @ y, x, y)


def test_conditions_on_grids_that_do_not_match():
    @nki.jit
    def kernel(x, y):
        i_m, j_n = nl.arange(x.shape[1])[None, :], nl.arange(y.shape[1])[None, :]
        return nl.copy(nisa.nc_matmul(nl.load(x), nl.load(y), mask=(i_m < 3) | (j_n < 3)))

    with pytest.raises(InvalidIndex, match=r"grids of shapes \(1, 4\) and \(1, 6\)(.|\n)*mask=\(i_m < 3\)"):
        kernel(random(8, 4), random(8, 6))


def test_numbers_under_masks():
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        i_p, i_f = nl.mgrid[0 : x.shape[0], 0 : x.shape[1]]
        tile = nl.load(x)
        tile[i_p, i_f] = nisa.memset(x.shape, 2.0, x.dtype, mask=i_f <= i_p + 2)
        nl.store(out, tile)
        return out

    x = random(*SHAPE)
    check(kernel, np.where(LOWER, 2, x), x)


def test_searches_under_masks_look_for_the_values_of_their_own_partitions():
    @nki.jit
    def kernel(x):
        out = nl.ndarray((2, x.shape[0], 8), dtype=np.float32, buffer=nl.shared_hbm)
        i_p, i_f = nl.mgrid[0 : x.shape[0], 0 : x.shape[1]]
        tile = nl.load(x)
        largest = nisa.max8(src=tile[i_p, i_f], mask=i_p >= 32)
        nl.store(out[0], largest)
        nl.store(out[1], nl.copy(nisa.nc_find_index8(tile[i_p, i_f], largest, mask=i_p >= 32), dtype=np.float32))
        return out

    x = random(64, 16)
    order = np.argsort(-x, axis=1)[:, :8]
    for found in (nki.simulate_kernel(kernel, x), kernel(x)):
        np.testing.assert_array_equal(found[0, 32:], np.take_along_axis(x, order, 1)[32:])
        np.testing.assert_array_equal(found[1, 32:], order[32:])


def test_numbers_that_are_chosen_have_a_dtype_that_holds_them():
    @nki.jit
    def kernel(x):
        out = [nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.shared_hbm) for _ in range(6)]
        tile = nl.load(x)
        i_p, i_f = nl.mgrid[0 : x.shape[0], 0 : x.shape[1]]
        nl.store(out[0], nl.where(tile > 0, 1.5, tile))
        nl.store(out[1], nl.where(tile > 0, tile, -0.5))
        nl.store(out[2], nl.where(nl.greater(tile, 0), 1.0, 0.25))
        nl.store(out[3], nl.where(tile > 0, 5, 3))
        nl.store(out[4], nl.where(i_f <= i_p, tile, -0.5))
        nl.store(out[5], nl.where(i_f < 0, tile, 0.75))
        return tuple(out)

    x = np.random.default_rng(0).integers(-5, 5, SHAPE).astype(np.int32)
    lower = np.tri(*SHAPE, dtype=bool)
    wanted = [np.where(x > 0, 1.5, x), np.where(x > 0, x, -0.5), np.where(x > 0, 1, 0.25), np.where(x > 0, 5, 3)]
    check(kernel, (*wanted, np.where(lower, x, -0.5), np.full(SHAPE, 0.75)), x)
