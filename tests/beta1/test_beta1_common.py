"""What public Beta-1 kernels use, most frequent first: each construct in a kernel of its own, run both ways.

Files beside this one have load_transpose2d, loop_reduce, atomic_rmw and sums over instances; tests/test_compat.py has
kernels of the vendor, which are imported and refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from beta1_testing import check, random

from nkilite import beta1 as nki
from nkilite import errors
from nkilite.beta1 import compiler as ncc
from nkilite.beta1 import isa as nisa
from nkilite.beta1 import language as nl
from nkilite.beta1 import typing as nt

X, Y = random(8, 16), random(8, 16, seed=1)
ROWS: dict[str, tuple[Callable[..., Any], Any]] = {}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def row(name: str, want: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what a kernel makes of two tiles, as a tile: `made(x, y)`."""

    def add(made: Callable[..., Any]) -> Callable[..., Any]:
        ROWS[name] = made, want
        return made

    return add


CONSTRUCTS = [
    "ndarray, zeros, ones, full", "loops", "load and store", "activations and matmuls", "arithmetic", "copies",
    "index tensors", "affine arithmetic", "three dimensions", "mgrid", "par_dim", "blocks", "assignments",
    "operators", "psum +=", "carried +=", "numpy names", "constants", "functions", "gelu and silu", "masks",
    "comparisons", "allocation",
]


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_construct(name: str) -> None:
    made, want = ROWS[name]

    def kernel(x: nt.tensor, y: nt.tensor) -> Any:
        tile = made(nl.load(x), nl.load(y))
        out = nl.ndarray(tile.shape, dtype=np.float32, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out

    check(nki.jit(kernel), want, X, Y)


def test_every_construct_is_run() -> None:
    assert list(ROWS) == CONSTRUCTS


@row("ndarray, zeros, ones, full", X + 4)
def created(x: Any, y: Any) -> Any:
    made = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
    made[...] = x + nl.zeros(x.shape, nl.float32, buffer=nl.sbuf) + nl.ones(x.shape, dtype=np.float32)
    return made + nl.full(x.shape, 3, dtype=np.float32)


@row("loops", X + 2 * 3 + 2 * 2)
def looped(x: Any, y: Any) -> Any:
    made = nl.ndarray(x.shape, dtype=np.float32)
    made[...] = x
    for _ in nl.sequential_range(2):
        for _ in nl.static_range(3):
            made[...] = made + 1
    for i in nl.affine_range(4):
        made[nl.ds(i * 2, 2), :] = made[nl.ds(i * 2, 2), :] + 4
    return made


@row("load and store", X)
def moved(x: Any, y: Any) -> Any:
    scratch = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.hbm)
    nl.store(scratch[0:4], value=x[0:4, :])
    nl.store(dst=scratch[nl.arange(4)[:, None] + 4, nl.arange(16)[None, :]], value=x[4:8, :])
    return nl.load(scratch, dtype=np.float32)


@row("activations and matmuls", np.exp(2 * X) + X @ X.T @ X)
def engines(x: Any, y: Any) -> Any:
    turned = nisa.tensor_copy(nisa.nc_transpose(x))
    product = nisa.tensor_copy(nisa.nc_matmul(turned, turned))
    again = nisa.nc_matmul(product, x)
    return nisa.tensor_tensor(nisa.activation(op=nl.exp, data=x, scale=2.0), again, op=nl.add)


@row("arithmetic", (X * X.sum(1, keepdims=True) + Y) / np.maximum(abs(Y), 1))
def computed(x: Any, y: Any) -> Any:
    total = nisa.tensor_reduce(np.add, data=x, axis=(1,), keepdims=True)
    made = nisa.scalar_tensor_tensor(data=x, op0=np.multiply, operand0=total, op1=np.add, operand1=y)
    return made * nisa.reciprocal(nisa.tensor_scalar(nl.abs(y), op0=np.maximum, operand0=1.0))


@row("copies", np.where(np.tri(8, 16, dtype=bool), np.cumsum(Y, 1), -1))
def copied(x: Any, y: Any) -> Any:
    ones, sums = nl.ones(y.shape, dtype=y.dtype), nl.ndarray(y.shape, dtype=y.dtype, buffer=nl.hbm)
    nisa.dma_copy(dst=sums, src=nisa.tensor_tensor_scan(ones, y, initial=0, op0=np.multiply, op1=np.add))
    i_p, i_f = nl.arange(8)[:, None], nl.arange(16)[None, :]
    return nisa.affine_select(pred=(i_p >= i_f), on_true_tile=nl.load(sums), on_false_value=-1.0)


@row("index tensors", np.tile(X[:, 4:8], 4))
def indexed(x: Any, y: Any) -> Any:
    made = nl.ndarray(x.shape, dtype=x.dtype)
    i_p, i_f = nl.arange(8)[:, None], nl.arange(4)[None, :]
    for i in nl.affine_range(4):
        made[i_p, i * 4 + i_f] = x[i_p, 4 + i_f]
    return made


@row("affine arithmetic", X.reshape(8, 8, 2)[:, ::-1, 1])
def strided(x: Any, y: Any) -> Any:
    return nl.copy(x[nl.arange(8)[:, None], 15 - 2 * nl.arange(8)[None, :]])


@row("three dimensions", X.reshape(8, 4, 4).swapaxes(1, 2))
def turned(x: Any, y: Any) -> Any:
    i_p, i_x, i_y = nl.arange(8)[:, None, None], nl.arange(4)[None, :, None], nl.arange(4)[None, None, :]
    return nl.copy(x[i_p, i_x + 4 * i_y])


@row("mgrid", X[2:6, 1:11:2])
def gridded(x: Any, y: Any) -> Any:
    i = nl.mgrid[0:4, 0:5]
    made = nl.ndarray((4, 5), dtype=x.dtype)
    made[i.p, i.x] = nl.copy(x[i.p + 2, 2 * i.x + 1])
    return made


@row("par_dim", X * Y)
def partitions(x: Any, y: Any) -> Any:
    made = nl.ndarray((nl.par_dim(8), 16), dtype=nl.float32, buffer=nl.sbuf)
    made[...] = nl.multiply(x, y)
    return made


@row("blocks", np.concatenate([X, X + 1, X + 2], 1))
def blocks(x: Any, y: Any) -> Any:
    held = nl.zeros((3, nl.par_dim(8), 16), dtype=nl.float32, buffer=nl.sbuf)
    made = nl.ndarray((nl.par_dim(8), 48), dtype=nl.float32)
    for i in nl.affine_range(3):
        held[i] = nl.add(x, i)
    for i in nl.affine_range(3):
        made[:, nl.ds(i * 16, 16)] = nl.copy(held[i, :, :])
    return made


@row("assignments", np.concatenate([X[:, :8] - Y[:, :8], np.sqrt(abs(Y[:, 8:]))], 1))
def assigned(x: Any, y: Any) -> Any:
    made = nl.ndarray(x.shape, dtype=x.dtype)
    i_p, i_f = nl.arange(8)[:, None], nl.arange(8)[None, :]
    made[i_p, i_f] = x[i_p, i_f] - y[i_p, i_f]
    made[i_p, i_f + 8] = nisa.activation(nl.sqrt, nl.abs(y[i_p, i_f + 8]))
    return made


@row("operators", -X * 2 + Y / 4 - 1)
def operated(x: Any, y: Any) -> Any:
    return -x * 2 + y / 4 - 1


@row("psum +=", (X + Y).T @ Y)
def accumulated(x: Any, y: Any) -> Any:
    total = nl.zeros((16, 16), nl.float32, buffer=nl.psum)
    for i in nl.affine_range(2):
        rows = nl.arange(4)[:, None] + 4 * i, nl.arange(16)[None, :]
        total += nl.matmul(x[rows] + y[rows], y[rows], transpose_x=True)
    return nl.copy(total, dtype=nl.float32)


@row("carried +=", 3 * X + 3)
def carried(x: Any, y: Any) -> Any:
    total = nl.zeros(x.shape, dtype=x.dtype)
    for _ in nl.sequential_range(3):
        total += x
    total[...] = nl.add(total, 3)
    return total


@row("numpy names", np.tanh(X) + np.maximum(X, Y))
def numpy_names(x: Any, y: Any) -> Any:
    return np.add(nisa.activation(np.tanh, x), nisa.tensor_tensor(x, y, op=np.maximum, dtype=np.float32))


@row("constants", (X + np.arange(16)).reshape(8, 4, 4))
def constants(x: Any, y: Any) -> Any:
    held = nl.load(nl.shared_constant(np.arange(16, dtype=np.float32)[None]))
    return nl.add(x, held.broadcast_to((8, 16))).reshape((8, 4, 4))


@row("functions", np.where(X > Y, X.max(1, keepdims=True), X.mean(1, keepdims=True)) + Y.sum(1, keepdims=True))
def functions(x: Any, y: Any) -> Any:
    top, middle = nl.max(x, axis=1, keepdims=True), nl.mean(x, axis=[1], keepdims=True)
    chosen = nl.where(nl.greater(x, y), top.broadcast_to(x.shape), middle.broadcast_to(x.shape))
    return chosen + nl.sum(y, axis=1, keepdims=True)


@row("gelu and silu", X * sigmoid(X) + np.exp(Y) / np.exp(Y).sum(1, keepdims=True))
def activated(x: Any, y: Any) -> Any:
    assert nl.gelu(x).shape == x.shape
    return nl.silu(x) + nl.softmax(y, axis=-1)


@row("masks", np.concatenate([X[:, :10] * 2, Y[:, 10:]], 1))
def masked(x: Any, y: Any) -> Any:
    made = nl.ndarray(x.shape, dtype=x.dtype)
    made[...] = nl.copy(y)
    i_p, i_f = nl.arange(8)[:, None], nl.arange(16)[None, :]
    made[i_p, i_f] = nl.multiply(x[i_p, i_f], 2, mask=(i_f < 10))
    return made


@row("comparisons", np.where(np.add.outer(np.arange(8), np.arange(16)) % 16 < 8, X, 0))
def compared(x: Any, y: Any) -> Any:
    i_p, i_f = nl.arange(8)[:, None], nl.arange(16)[None, :]
    below = nisa.affine_select(pred=(i_p + i_f < 8), on_true_tile=x, on_false_value=0.0)
    return below + nisa.affine_select(pred=(i_p + i_f >= 16), on_true_tile=x, on_false_value=0.0)


@row("allocation", X.T @ Y)
def placed(x: Any, y: Any) -> Any:
    held = nl.ndarray((nl.par_dim(8), 16), dtype=x.dtype, buffer=ncc.sbuf.mod_alloc(base_addr=1024))
    held[...] = nl.copy(x)
    product = nl.ndarray(
        (nl.par_dim(16), 16), dtype=np.float32, buffer=ncc.psum.alloc(lambda idx, pdim_size, fdim_size: (0, 0, 0)),
    )
    product[...] = nisa.nc_matmul(held, y)
    return nl.copy(product)


# --- launches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(4,), (nl.nc(2) * 2,), (nl.spmd_dim(nl.nc(2), 2),)], ids=["4", "nc", "spmd_dim"])
def test_launch_grids(grid: Any) -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        i = nl.program_id(0) * 2 + nl.arange(2)[:, None], nl.arange(16)[None, :]
        nl.store(out[i], nl.load(x[i]) + nl.program_id(0))
        return out

    check(kernel, X + np.repeat(np.arange(4), 2)[:, None], X, grid=grid)


@pytest.mark.parametrize("decorate", [
    nki.baremetal, nki.benchmark(warmup=1, iters=2), ncc.skip_middle_end_transformations,
    lambda function: nki.jit(function, mode="simulation"),
], ids=["baremetal", "benchmark", "skip_middle_end_transformations", "simulation"])
def test_decorators_and_kernels_that_write_their_arguments(decorate: Any) -> None:
    def kernel(x: nt.tensor, out: nt.tensor[8, 16]) -> None:
        nl.store(out, nl.load(x) * 2)

    made = decorate(kernel) if decorate is not ncc.skip_middle_end_transformations else nki.jit(decorate(kernel))
    out = np.zeros_like(X)
    made(X, out)
    if hasattr(made, "benchmark_result"):
        assert made.benchmark_result.nc_latency.get_latency_percentile(99) > 0
    else:
        np.testing.assert_array_equal(out, 2 * X)


def test_operators_of_one_block() -> None:
    """A tensor whose block dimensions have one tile is that tile, for operators and NumPy's functions, too."""

    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tiles = nl.ndarray((1, nl.par_dim(8), 6), dtype=x.dtype, buffer=nl.sbuf)
        tiles[0] = nl.load(x)
        nl.store(out, value=2.0 * tiles - np.abs(tiles) / 4 + (tiles > 0.5))
        return out

    x = random(8, 6)
    check(kernel, 2 * x - np.abs(x) / 4 + (x > 0.5), x)


@pytest.mark.parametrize(("use", "error", "says"), [
    (lambda x: np.asarray(nl.load(x)), errors.TensorAsNumber, "a NumPy array"),
    (lambda x: 1.0 in nl.load(x), errors.TensorAsNumber, "nl.equal"),
    (lambda x: nl.ndarray((2, nl.par_dim(8), 6), dtype=x.dtype) + 1, errors.InvalidOperand, "block dimensions"),
    (lambda x: np.exp(nl.ndarray((2, nl.par_dim(8), 6), dtype=x.dtype)), errors.InvalidOperand, "block dimensions"),
    (lambda x: 1 / nl.sqrt(64), errors.InvalidOperand, "Python's math"),
    (lambda x: nl.ndarray((2, nl.par_dim(8), 6), dtype=x.dtype).sum(), errors.UnknownName, "block dimensions"),
    (lambda x: nl.load(x[nl.arange(8)[:, None] / 2, nl.arange(6)[None, :]]), errors.InvalidIndex, "/ of an index"),
    (lambda x: nl.load(x[nl.arange(8)[:, None] + 0.5, nl.arange(6)[None, :]]), errors.InvalidIndex, "a sum with 0.5"),
    (lambda x: nl.arange(8)[:, None].T, errors.UnknownName, "index tensor has no attribute 'T'"),
])
def test_mistakes_with_tiles_and_index_tensors(use: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        nki.jit(lambda x: use(x))(random(8, 6))
    assert (caught.value.location.file, caught.value.location.line) == (__file__, use.__code__.co_firstlineno)
