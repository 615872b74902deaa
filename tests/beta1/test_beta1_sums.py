"""Products that are added to PSUM tiles: in PSUM where nothing else reads them,
else by the Vector Engine."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from beta1_testing import random

from nkilite import beta1 as nki
from nkilite.beta1 import isa as nisa
from nkilite.beta1 import language as nl


def _loaded(x, w):
    return nisa.nc_matmul(nl.load(w), nl.load(x))


@nki.jit
def temporary(x, w):
    out = nl.ndarray((128, 64), dtype=np.float32, buffer=nl.shared_hbm)
    total = nl.zeros((nl.par_dim(128), 64), dtype=np.float32, buffer=nl.psum)
    for k in nl.affine_range(3):
        total += _loaded(x[k], w[k])
    nl.store(out, total)
    return out


@nki.jit
def named(x, w):
    out = nl.ndarray((128, 64), dtype=np.float32, buffer=nl.shared_hbm)
    total = nl.zeros((nl.par_dim(128), 64), dtype=np.float32, buffer=nl.psum)
    for k in nl.affine_range(3):
        part = _loaded(x[k], w[k])
        total += part
    nl.store(out, total)
    return out


@nki.jit
def named_blocks(x, w):
    out = nl.ndarray((128, 64), dtype=np.float32, buffer=nl.shared_hbm)
    totals = nl.zeros((2, nl.par_dim(128), 64), dtype=np.float32, buffer=nl.psum)
    i, j = nl.arange(128)[:, None], nl.arange(64)[None, :]
    for k in nl.affine_range(3):
        part = nl.matmul(nl.load(w[k]), nl.load(x[k]), transpose_x=True)
        totals[1, i, j] += part
    nl.store(out, nl.copy(totals[1]))
    return out


@nki.jit
def read_again(x, w):
    out = nl.ndarray((128, 64), dtype=np.float32, buffer=nl.shared_hbm)
    total = nl.zeros((nl.par_dim(128), 64), dtype=np.float32, buffer=nl.psum)
    for k in nl.affine_range(3):
        part = _loaded(x[k], w[k])
        total += part
    nl.store(out, total + part - part)
    return out


@nki.jit
def read_next_turn(x, w):
    out = nl.ndarray((128, 64), dtype=np.float32, buffer=nl.shared_hbm)
    total = nl.zeros((nl.par_dim(128), 64), dtype=np.float32, buffer=nl.psum)
    rest = nl.zeros((nl.par_dim(128), 64), dtype=np.float32)
    part = None
    for k in nl.affine_range(3):
        if part is not None:
            rest += part
        part = _loaded(x[k], w[k])
        total += part
    nl.store(out, total + rest - rest)
    return out


@nki.jit
def read_by_a_view(x, w):
    out = nl.ndarray((128, 64), dtype=np.float32, buffer=nl.shared_hbm)
    total = nl.zeros((nl.par_dim(128), 64), dtype=np.float32, buffer=nl.psum)
    for k in nl.affine_range(3):
        part = _loaded(x[k], w[k])
        view = part[nl.arange(128)[:, None], nl.arange(64)[None, :]]
        total += part
    nl.store(out, total + view - view)
    return out


@nki.jit
def read_by_a_handler(x, w):
    out = nl.ndarray((128, 64), dtype=np.float32, buffer=nl.shared_hbm)
    total = nl.zeros((nl.par_dim(128), 64), dtype=np.float32, buffer=nl.psum)
    for k in nl.affine_range(3):
        part = _loaded(x[k], w[k])
        try:
            total += part
            raise ValueError
        except ValueError:
            rest = part * 1.0
    nl.store(out, total + rest - rest)
    return out


@nki.jit
def kept_elsewhere(x, w):
    out = nl.ndarray((128, 64), dtype=np.float32, buffer=nl.shared_hbm)
    total = nl.zeros((nl.par_dim(128), 64), dtype=np.float32, buffer=nl.psum)
    kept = []
    for k in nl.affine_range(3):
        part = _loaded(x[k], w[k])
        kept.append(part)
        total += part
    nl.store(out, total + kept[0] - kept[0])
    return out


@pytest.mark.parametrize("kernel", [temporary, named, named_blocks], ids=lambda k: k.__name__)
def test_products_that_nothing_else_reads_are_added_in_psum(kernel):
    x, w = random(3, 128, 64), random(3, 128, 128)
    used = Counter(instruction.signature.name for instruction in kernel.trace(x, w))
    assert used == {"dma_copy": 7, "nc_matmul": 3, "tensor_copy": 1}
    _check(kernel, x, w)


@pytest.mark.parametrize(
    "kernel", [read_again, read_next_turn, read_by_a_view, read_by_a_handler, kept_elsewhere], ids=lambda k: k.__name__
)
def test_products_that_something_else_reads_keep_their_values(kernel):
    x, w = random(3, 128, 64), random(3, 128, 128)
    used = Counter(instruction.signature.name for instruction in kernel.trace(x, w))
    assert used["tensor_tensor"] > 3
    _check(kernel, x, w)


def _check(kernel, x, w):
    wanted = np.einsum("kij,kil->jl", w.astype(np.float64), x)
    np.testing.assert_allclose(kernel(x, w), wanted, rtol=2e-5, atol=2e-4)
    np.testing.assert_array_equal(kernel(x, w), nki.simulate_kernel(kernel, x, w))
