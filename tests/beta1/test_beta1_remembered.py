"""Calls that repeat are recorded as if each of them ran: with and without what is remembered the programs are equal."""

from __future__ import annotations

import re

import numpy as np
import pytest
from beta1_testing import random

from nkilite import beta1 as nki
from nkilite.beta1 import isa as nisa
from nkilite.beta1 import language as nl
from nkilite.beta1 import remembered
from nkilite.errors import InvalidIndex, StaleTensor


@nki.jit
def numbers(x):
    """Attributes that are equal, but not the same."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    i, j = nl.arange(128)[:, None], nl.arange(64)[None, :]
    for block in nl.affine_range(4):
        tile = nl.load(x[i, j + 64 * block], mask=i < 100 + block)
        for number in (0.0, -0.0, 1, 1.0, True, np.float32(1), np.int32(1), 0, -0.0, 0.0, 2.5, 2.5):
            tile = nl.maximum(tile, number)
            tile[i, j] = nisa.tensor_scalar(tile, np.multiply, number, op1=np.add, operand1=-number)
        nl.store(out[i, j + 64 * block], value=tile)
    return out


@nki.jit
def same_tiles(x):
    """Operands that are one tile, and two."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    i, j = nl.arange(128)[:, None], nl.arange(64)[None, :]
    for block in nl.sequential_range(4):
        one, two = nl.load(x[i, j + 64 * block]), nl.load(x[i, j + 64 * block], dtype=nl.float32)
        for a, b in ((one, one), (one, two), (two, one), (two, two), (one, two)):
            one = a * b
            one += nl.exp(b) - a
            two = nisa.activation(np.exp, a, bias=b[i, 0], scale=a[i, 1])
        nl.store(out[i, j + 64 * block], value=one + two)
    return out


@nki.jit
def sums(x):
    """Blocks, zeros that matmuls add to, results in PSUM, reductions with lists of axes."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    parts = nl.ndarray((4, 2, nl.par_dim(128), 64), dtype=x.dtype, buffer=nl.sbuf)
    totals = nl.zeros((2, 4, nl.par_dim(64), 64), dtype=np.float32, buffer=nl.psum)
    i, j = nl.arange(128)[:, None], nl.arange(64)[None, :]
    for a in nl.affine_range(2):
        for b in nl.affine_range(4):
            parts[b, a, i, j] = nl.load(x[i, j + 64 * b])
        for b in nl.affine_range(4):
            for c in nl.affine_range(4):
                totals[a, b] += nl.matmul(parts[c, a, i, j], parts[c, a], transpose_x=True)
            small = nl.copy(totals[a, b, nl.arange(64)[:, None], nl.arange(64)[None, :]], dtype=x.dtype)
            total = nl.sum(small, axis=[1], keepdims=True)
            turned = nisa.nc_transpose(small)
            nl.store(out[nl.arange(64)[:, None], j + 64 * b], value=turned)
            nl.store(out[64 + nl.arange(64)[:, None], j + 64 * b], value=nl.softmax(small, axis=1) * total)
    return out


@nki.jit
def ragged(x):
    """Calls under masks that are made again, that differ, and that are joined."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    i, j, k = nl.arange(128)[:, None], nl.arange(64)[None, :], nl.arange(64)[:, None]
    for block in nl.affine_range(4):
        tile = nl.load(x[i, j + 64 * block])
        for limit in (40, 50, 40, 50):
            part = nisa.nc_matmul(tile[i, j], tile[i, j], mask=j < limit)
            square = nl.copy(part, dtype=x.dtype, mask=(k >= 3) & (j < limit + block))
            square = nisa.affine_select(pred=(k - j >= 0) & (j < limit), on_true_tile=square, on_false_value=-1.0)
            tile[k, j] = nl.exp(square, mask=j < limit)
            tile[k + 64, j + 30] = nl.multiply(square, 0.5, mask=j + 30 < 64)
        nl.store(out[i, j + 64 * block], value=tile, mask=i < 100 + block)
        nl.store(out[i, j + 64 * block], value=tile, mask=i >= 100 + block)
    return out


@nki.jit
def broadcasts(x):
    """A row that reaches all partitions through the Tensor Engine, with a constant of ones and names."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for block in nl.affine_range(4):
        columns = slice(64 * block, 64 * (block + 1))
        tile = nl.load(x[0:128, columns])
        for row in nl.affine_range(4):
            tile += nl.load(x[row : row + 1, columns]).broadcast_to((128, 64))
        nl.store(out[0:128, columns], value=tile)
    return out


@pytest.mark.parametrize("kernel", [numbers, same_tiles, sums, ragged, broadcasts], ids=lambda k: k.__name__)
def test_remembered_calls_record_the_same(kernel, monkeypatch):
    x = random(128, 256)
    found = kernel.trace(x)
    monkeypatch.setattr(remembered, "_pattern", lambda *_: None)
    wanted = kernel.trace(x)
    assert _renumbered(found) == _renumbered(wanted)
    assert found.names == wanted.names


def _renumbered(program):
    """The program's text and the lines of its buffers, in the order in which instructions use them: what is assigned
    at once has no buffer of its own if it is remembered."""
    order = {}
    instructions = [line for line in str(program).splitlines() if not line.startswith("buffer ")]
    for label in re.findall(r"%\w+", "\n".join(instructions)):
        order.setdefault(label[1:], f"b{len(order)}")
    used = {b.label: b for b in program.buffers if b.label in order}
    text = re.sub(r"%(\w+)", lambda m: order[m[1]], "\n".join(instructions))
    return text, [(str(used[label].type), used[label].location) for label in order]


def test_most_calls_are_remembered(monkeypatch):
    first = []
    real = remembered._first
    monkeypatch.setattr(remembered, "_first", lambda *given: first.append(given[1][0].__name__) or real(*given))
    program = sums.trace(random(128, 256))
    assert program.count > 100
    assert len(first) < 30


def test_subscripts_that_only_equal_ints_are_refused():
    @nki.jit
    def kernel(x, number):
        tiles = nl.ndarray((2, nl.par_dim(128), 4, 64), dtype=x.dtype, buffer=nl.sbuf)
        i, j = nl.arange(128)[:, None], nl.arange(64)[None, :]
        for block in nl.affine_range(2):
            tiles[block, i, block, j] = nl.load(x[i, j])
        tiles[1, i, number, j] = nl.load(x[i, j])
        nl.store(x[i, j], value=tiles[number, i, 1, j])

    x = random(128, 64)
    kernel.trace(x, 1)
    for number in (1.0, True, np.float32(1)):
        with pytest.raises(InvalidIndex):
            kernel.trace(x, number)


def test_tiles_of_another_kernel_are_refused():
    kept = []

    @nki.jit
    def kernel(x):
        i, j = nl.arange(128)[:, None], nl.arange(64)[None, :]
        for _ in nl.affine_range(3):
            tile = nl.load(x[i, j])
            kept.append(tile)
            nl.store(x[i, j], value=nl.exp(kept[0]))

    x = random(128, 64)
    kernel.trace(x)
    with pytest.raises(StaleTensor):
        kernel.trace(x)


def test_slices_beside_index_tensors():
    @nki.jit
    def kernel(x, end):
        out = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 4, 64), dtype=x.dtype, buffer=nl.sbuf)
        j = nl.arange(64)
        for block in nl.affine_range(4):
            tile[0:128, block, j] = nl.load(x[0:128, 64 * block + nl.arange(64)])
            tile[0:64, block, 0:64] += tile[0:64, block, 0:end]
        nl.store(out, tile[0:128, 1, 0:64] + tile[:, 2, 0:64])
        return out

    x = random(128, 256)
    wanted = x[:, 64:128] + x[:, 128:192]
    wanted[:64] *= 2
    np.testing.assert_allclose(kernel(x, 64), wanted, rtol=1e-6)
    with pytest.raises(InvalidIndex):
        kernel.trace(x, 64.0)


def test_comparisons_that_are_the_same_everywhere_are_bools():
    i = nl.arange(8)[:, None] + 10
    assert ((i < 18) is True, (i < 10) is False, (i >= 10) is True, (i >= 18) is False) == (True,) * 4
    assert (i < 17).numpy().sum() == 7
    assert (i >= 11).numpy().sum() == 7
