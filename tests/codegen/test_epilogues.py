"""Instructions that take the sums of matmuls away run with them, a few columns at a time, and make the same bits."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.host.cpu import available
from nkilite.schedule.pipeline import scheduled
from nkilite.schedule.tree import Register, Strip, column_loops

BF16 = ml_dtypes.bfloat16


@pytest.fixture(params=list(available()))
def level(request, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", request.param)
    return request.param


def tile(shape, dtype=nl.float32, buffer=nl.sbuf):
    return nl.ndarray(shape, dtype=dtype, buffer=buffer)


def evicting(*follow, products: int = 3, out_dtype=nl.float32):
    """A kernel of some matmuls that add up, and then each of `follow(psum, sbuf tiles)`, which say what is stored."""

    def kernel(a, b, old, scale):
        lefts, rights = ([tile(x.shape[1:], x.dtype) for _ in range(products)] for x in (a, b))
        for i in range(products):
            nisa.dma_copy(lefts[i], a[i])
            nisa.dma_copy(rights[i], b[i])
        shape = a.shape[2], b.shape[2]
        held = tile(shape)
        nisa.dma_copy(held, old)
        scales = tile((shape[0], 1))
        nisa.dma_copy(scales, scale)
        result = tile(shape, out_dtype)
        wide = tile((shape[0], shape[1] + 1))
        nisa.memset(wide, 0.0)
        psum = tile(shape, buffer=nl.psum)
        for i in range(products):
            nisa.nc_matmul(psum, lefts[i], rights[i], accumulate=i > 0)
        for one in follow:
            one(psum, held, scales, result, wide)
        out = nl.ndarray(shape, dtype=out_dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out, result)
        return out

    return kernel


def copied(psum, held, scales, result, wide):
    nisa.tensor_copy(result, psum)


def added(psum, held, scales, result, wide):
    nisa.tensor_tensor(result, held, psum, nl.add)


def added_in_place(psum, held, scales, result, wide):
    nisa.tensor_tensor(held, held, psum, nl.add)


def scaled(psum, held, scales, result, wide):
    nisa.tensor_scalar(result, psum, nl.multiply, scales)


def squared(psum, held, scales, result, wide):
    nisa.activation(result, nl.square, psum, scale=scales)


def combined(psum, held, scales, result, wide):
    nisa.scalar_tensor_tensor(result, psum, nl.multiply, scales, nl.add, held)


def moved_on(psum, held, scales, result, wide):
    nisa.tensor_copy(result, held)


def prepared(psum, held, scales, result, wide):
    nisa.tensor_scalar(held, held, nl.multiply, 2.0)


def doubled_in_psum(psum, held, scales, result, wide):
    nisa.tensor_scalar(psum, psum, nl.multiply, 2.0)


def columns_mixed(psum, held, scales, result, wide):
    n = psum.shape[1]
    nisa.tensor_copy(wide[:, 1 : n + 1], psum)
    nisa.tensor_tensor(result, psum, wide[:, 0:n], nl.add)


def rows_reduced(psum, held, scales, result, wide):
    nisa.tensor_reduce(scales, nl.add, psum, axis=1)
    nisa.tensor_scalar(result, psum, nl.multiply, scales)


def by_way_of_a_tile(psum, held, scales, result, wide):
    between = tile(psum.shape, nl.bfloat16)
    nisa.tensor_scalar(between, psum, nl.multiply, scales)
    nisa.tensor_tensor(result, held, between, nl.add)


CASES = {  # members of the epilogue, and whether the sums are kept out of PSUM
    "by way of a tile": (evicting(by_way_of_a_tile), 2, True),
    "copied": (evicting(copied), 1, True),
    "rounded": (evicting(copied, out_dtype=nl.bfloat16), 1, True),
    "one matmul": (evicting(added, products=1), 1, True),
    "two groups": (evicting(added, products=9), 1, False),
    "added": (evicting(added), 1, True),
    "scaled": (evicting(scaled), 1, True),
    "squared": (evicting(squared), 1, True),
    "combined": (evicting(combined), 1, True),
    "handed on": (evicting(added_in_place, moved_on), 2, True),
    "prepared": (evicting(prepared, added), 2, True),
    "unrelated": (evicting(added, prepared), 1, True),
    "used twice": (evicting(added_in_place, combined), 2, True),
    "written back": (evicting(doubled_in_psum, copied), 2, False),
    "columns mixed": (evicting(columns_mixed), 1, False),
    "rows reduced": (evicting(rows_reduced), 0, False),
    "read later": (evicting(copied, rows_reduced), 1, False),
}


def operands(products: int, m: int, n: int, dtype) -> list[np.ndarray]:
    """Small integers, so that sums are exact."""
    draw = np.random.default_rng(products * m * n)
    a, b = (draw.integers(-3, 4, (products, 64, side)).astype(dtype) for side in (m, n))
    return [a, b, draw.integers(-3, 4, (m, n)).astype(np.float32), draw.integers(1, 3, (m, 1)).astype(np.float32)]


def group_of(kernel, *arrays):
    """The last group of matmuls."""
    schedule = scheduled(nki.jit(kernel).trace(*arrays))
    return [g for g in schedule.groups if g.tree.terms][-1:]


@pytest.mark.parametrize("name", list(CASES))
def test_what_follows(name, monkeypatch):
    kernel, followers, in_scratch = CASES[name]
    arrays = operands(9, 128, 112, np.float32)
    (group,) = group_of(kernel, *arrays) or (None,)
    in_strip = any(use.place == Strip() for op in group.tree.ops[len(group.tree.terms):] for use in op.uses)
    assert (len(group.tree.ops[len(group.tree.terms):]), in_strip) == (followers, in_scratch)
    passing = any(use.place == Register() for op in group.tree.ops[len(group.tree.terms):] for use in op.uses)
    assert passing == (name == "by way of a tile")
    assert len(group.private) == in_scratch + passing
    assert [len(loop.body) for loop in column_loops(group.tree.loop)[1:]] == [followers] * (followers > 1)
    monkeypatch.setenv("NKILITE_FUSE", "0")
    assert all(g.size == len(g.tree.terms) for g in group_of(kernel, *arrays))


@pytest.mark.parametrize("shape", [(128, 512), (64, 33), (24, 200)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("name", list(CASES))
def test_same_bits(level, name, dtype, shape, monkeypatch):
    kernel = CASES[name][0]
    arrays = operands(9, *shape, dtype)
    found = np.asarray(nki.jit(kernel)(*arrays))
    expected = np.asarray(nki.simulate(kernel)(*arrays))
    np.testing.assert_array_equal(found.astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=lambda d: np.dtype(d).name)
def test_sums_are_added_in_the_order_of_the_program(level, dtype, monkeypatch):
    """Where sums are not exact, too, and whatever the number of threads."""
    kernel = CASES["added"][0]
    draw = np.random.default_rng(7)
    arrays = [draw.standard_normal(x.shape).astype(x.dtype) for x in operands(9, 128, 352, dtype)]
    monkeypatch.setenv("NKILITE_NUM_THREADS", "1")
    monkeypatch.setenv("NKILITE_FUSE", "0")
    expected = np.asarray(nki.jit(kernel)(*arrays)).tobytes()
    monkeypatch.setenv("NKILITE_FUSE", "1")
    for threads in ("1", "2", "3", "5"):
        monkeypatch.setenv("NKILITE_NUM_THREADS", threads)
        assert np.asarray(nki.jit(kernel)(*arrays)).tobytes() == expected
