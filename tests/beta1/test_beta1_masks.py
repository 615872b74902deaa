"""Masks of Beta 1 that select no rectangle: elements that are left out do not count."""

from __future__ import annotations

import numpy as np
import pytest
from beta1_testing import check, random

from nkilite import beta1 as nki
from nkilite.beta1 import isa as nisa
from nkilite.beta1 import language as nl
from nkilite.errors import UnsupportedError

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
