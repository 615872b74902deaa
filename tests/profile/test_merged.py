"""Loops whose iterations the vendor's compiler carries out at once, in programs that it manages."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
from nkilite import beta1
from nkilite.beta1 import isa as nisa
from nkilite.beta1 import language as nl

LOOPS = {"affine": nl.affine_range, "sequential": nl.sequential_range, "static": nl.static_range}


@beta1.jit
def windows(x, taps, loop, times, carried):
    """Sums of three neighbours, weighted, one position after the other."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile, weights = nl.load(x), nl.load(taps)
    sums = nl.zeros(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    row, near, far = nl.arange(128)[:, None], nl.arange(3)[None, :], nl.arange(1)[None, :]
    for i in LOOPS[loop](times):
        products = nisa.tensor_tensor(tile[row, near + i], weights[row, near], op=np.multiply)
        sums[row, far + i] = nisa.tensor_reduce(np.add, products, axis=[1], keepdims=True)
        if carried:
            weights[row, near] = nl.add(weights[row, near], products)
    nl.store(out, sums)
    return out


@beta1.jit
def attended(scores, values):
    """exp(scores) in sub-tiles, transposed and multiplied with values."""
    out = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.shared_hbm)
    s, v = nl.load(scores), nl.load(values)
    total = nl.zeros((128, 128), dtype=nl.float32, buffer=nl.psum)
    lowest = nl.max(s, axis=1)
    for j in nl.affine_range(4):
        e = nisa.activation(op=nl.exp, data=s[:, nl.ds(128 * j, 128)], bias=nl.negative(lowest))
        turned = nl.copy(nisa.nc_transpose(e))
        total += nisa.nc_matmul(turned, v[:, nl.ds(128 * j, 128)])
    nl.store(out, nl.copy(total))
    return out


def vector(kernel, *args, **how) -> int:
    return nki.profile(kernel, *args, target="trn1", **how).engines["Vector"].instructions


X, W = np.zeros((128, 300), np.float32), np.zeros((128, 3), np.float32)


@pytest.mark.quick
def test_a_small_loop_is_one_instruction_for_each_statement() -> None:
    assert vector(windows, X, W, "affine", 100, False) == 3  # with the zeros
    assert vector(windows, X, W, "affine", 100, False, order="program") == 201


@pytest.mark.parametrize(("loop", "times", "carried"), [
    ("sequential", 100, False), ("static", 100, False), ("affine", 200, False), ("affine", 100, True),
])
def test_other_loops_stay(loop, times, carried) -> None:
    """Loops whose iterations may depend on each other, or do; and more than 512 elements in a partition."""
    assert vector(windows, X, W, loop, times, carried) >= 2 * times


def test_statements_between_stay_apart() -> None:
    x = np.zeros((128, 512), np.float32)
    found = nki.profile(attended, x, x, target="trn1")
    names = [found.opcode(i) for i in range(len(found.workload))]
    assert names.count("nc_transpose") == 4
    assert names.count("nc_matmul") == 4
    plain = nki.profile(attended, x, x, target="trn1", order="program")
    assert len(names) == len(plain.workload) - 3 - 3 - 3  # exp, copies out of PSUM, and the bias
