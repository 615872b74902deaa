"""Whole kernels in the Beta-1 dialect: matmuls, softmax, loops, grids, arguments that are written, benchmarks."""

from __future__ import annotations

import inspect
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from beta1_testing import check, random

import nkilite
from nkilite import beta1 as nki
from nkilite.beta1 import compiler as ncc
from nkilite.beta1 import isa as nisa
from nkilite.beta1 import language as nl
from nkilite.beta1 import typing as nt
from nkilite.errors import (
    InvalidIndex,
    InvalidOperand,
    InvalidReturn,
    MemoryOverflow,
    NoBenchmark,
    TensorAsNumber,
    TensorOperator,
    UnknownName,
    UnsupportedError,
)
from nkilite.passes.allocate import TilesSpilled


def test_matmul_accumulates_in_psum():
    @nki.jit
    def kernel(lhs_t, rhs):
        k_size, m_size = lhs_t.shape
        n_size = rhs.shape[1]
        out = nl.ndarray((m_size, n_size), dtype=lhs_t.dtype, buffer=nl.shared_hbm)
        named = nl.ndarray((m_size, n_size), dtype=lhs_t.dtype, buffer=nl.shared_hbm)
        acc = nl.zeros((m_size, n_size), nl.float32, buffer=nl.psum)
        other = nl.ndarray((nl.par_dim(m_size), n_size), dtype=np.float32, buffer=ncc.psum.mod_alloc(base_bank=0))
        i_p, i_m, i_n = nl.arange(4)[:, None], nl.arange(m_size)[None, :], nl.arange(n_size)[None, :]
        for k in nl.affine_range(k_size // 4):
            left, right = nl.load(lhs_t[k * 4 + i_p, i_m]), nl.load(rhs[k * 4 + i_p, i_n])
            acc += nl.matmul(left, right, transpose_x=True)
            other[...] += nisa.nc_matmul(left, right)
        nl.store(out, nl.copy(acc, dtype=out.dtype))
        nl.store(named, nl.copy(other))
        return out, named

    a, b = random(12, 5), random(12, 7, seed=1)
    check(kernel, (a.T @ b, a.T @ b), a, b)
    program = kernel.trace(a, b)
    assert sum(program.signatures[i.signature.id].name == "memset" for i in program) == 0


def test_matmuls_of_float32_and_a_narrower_dtype():
    @nki.jit
    def kernel(a, b):
        out = nl.ndarray((5, 7), dtype=nl.float32, buffer=nl.shared_hbm)
        again = nl.ndarray((5, 7), dtype=nl.float32, buffer=nl.shared_hbm)
        left, right = nl.copy(nl.load(a), dtype=nl.bfloat16), nl.load(b)
        nl.store(out, nl.copy(nl.matmul(left, right)))
        i_p, i_m = nl.arange(9)[:, None], nl.arange(5)[None, :]
        flipped = nl.copy(nl.transpose(left))
        nl.store(again, nl.copy(nisa.nc_matmul(flipped[i_p, i_m], right, mask=i_p < 6)))
        return out, again

    a, b = random(5, 9), random(9, 7, seed=1)
    rounded = a.astype(ml_dtypes.bfloat16).astype(np.float32)
    check(kernel, (rounded @ b, rounded[:, :6] @ b[:6]), a, b)


def test_softmax_and_numpy_functions_on_tiles():
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        again = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        powers = np.exp(tile - nl.max(tile, axis=1, keepdims=True))
        nl.store(out, powers / np.sum(powers, axis=1, keepdims=True))
        nl.store(again, nl.softmax(tile, axis=-1))
        return out, again

    x = random(6, 9)
    powers = np.exp(x - x.max(1, keepdims=True))
    want = powers / powers.sum(1, keepdims=True)
    check(kernel, (want, want), x)


def test_functions_of_jax_numpy_are_operators():
    jnp = pytest.importorskip("jax.numpy")

    @nki.jit
    def kernel(x):
        out = nl.ndarray((x.shape[0], 1), dtype=x.dtype, buffer=nl.shared_hbm)
        powers = nisa.activation(jnp.exp, nl.load(x))
        nl.store(out, nisa.tensor_reduce(jnp.add, nisa.tensor_scalar(powers, jnp.maximum, 1.0), axis=1, keepdims=True))
        return out

    x = random(8, 12)
    check(kernel, np.maximum(np.exp(x), 1).sum(1, keepdims=True), x)


def test_loops_carry_tiles():
    @nki.jit
    def kernel(x):
        out = nl.ndarray((4, 1), dtype=x.dtype, buffer=nl.shared_hbm)
        summed = nl.ndarray((4, 2), dtype=x.dtype, buffer=nl.shared_hbm)
        largest = nl.full((4, 1), -1e9, dtype=x.dtype)
        total = nl.zeros((4, 2), dtype=np.float32)
        for i in nl.sequential_range(3):
            part = nl.load(x[:, i * 2 : (i + 1) * 2])
            largest[...] = nl.maximum(largest, nl.max(part, axis=1, keepdims=True))
            total += part
            reduced = nl.loop_reduce(part, op=np.add, loop_indices=[i])
        nl.store(out, largest)
        nl.store(summed, (total + reduced) * 0.5)
        return out, summed

    x = random(4, 6)
    check(kernel, (x.max(1, keepdims=True), x[:, :2] + x[:, 2:4] + x[:, 4:]), x)


@pytest.mark.parametrize("loop", [nl.affine_range, nl.sequential_range, nl.static_range])
def test_bounds_of_loops_have_names(loop):
    every = [loop(6), loop(stop=6), loop(0, 6), loop(0, stop=6), loop(start=0, stop=6, step=1)]
    assert [list(r) for r in every] == [[0, 1, 2, 3, 4, 5]] * 5
    assert [list(r) for r in (loop(2, 9, step=3), loop(9, start=2, step=3), loop(2, 9, 3))] == [[2, 5, 8]] * 3
    with pytest.raises(InvalidOperand, match="a bound is None"):
        loop(step=2)


def test_what_a_name_holds_is_its_own():
    """The instruction that made a tile may only write elsewhere when nobody else can see the tile."""

    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        kept = nl.ndarray((4, 8), dtype=x.dtype)
        tile = nl.exp(nl.load(x))
        kept[...] = tile
        kept[...] = nl.multiply(kept, 0.0)
        nl.store(out, kept + tile)
        return out

    x = random(4, 8)
    check(kernel, np.exp(x), x)


@pytest.mark.parametrize(("op1", "start"), [
    (np.add, 0), (nl.subtract, 0), (np.multiply, 1), (nl.max, -np.inf), (np.minimum, np.inf),
], ids=["add", "subtract", "multiply", "max", "minimum"])
def test_tensor_scalar_cumulative(op1, start):
    """From where a command says, with numbers and with vectors; the mask leaves rows and columns out."""
    @nki.jit
    def kernel(x, by, first):
        out = [nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm) for _ in range(4)]
        tile, factors, starts = nl.load(x), nl.load(by), nl.load(first)
        to = [nl.zeros(x.shape, dtype=x.dtype) for _ in out]
        nisa.tensor_scalar_cumulative(to[0], tile, np.add, op1, 0.5)
        nisa.tensor_scalar_cumulative(dst=to[1], src=tile, op0=nl.multiply, op1=op1, imm0=factors,
                                      reduce_cmd=nisa.reduce_cmd.reduce)
        nisa.tensor_scalar_cumulative(dst=to[2], src=tile, op0=nl.multiply, op1=op1, imm0=factors, imm1=starts,
                                      reduce_cmd=nisa.reduce_cmd.load_reduce)
        i_p, i_f = nl.mgrid[0:4, 0:8]
        nisa.tensor_scalar_cumulative(to[3], tile, np.add, op1, 0.5, mask=(i_p < 3) & (i_f < 5))
        for dst, made in zip(out, to):
            nl.store(dst, made)
        return tuple(out)

    fold = {nl.subtract: np.subtract, nl.max: np.maximum}.get(op1, op1)

    def running(values, state):
        states = []
        for column in values.T:
            states.append(state := fold(column, state))
        return np.stack(states, 1)

    x, by, first = random(4, 8), random(4, 1, seed=1), random(4, 1, seed=2)
    plain = running(x + 0.5, np.full(4, start, np.float32))
    masked = np.zeros_like(x)
    masked[:3, :5] = plain[:3, :5]
    check(kernel, (plain, running(x * by, plain[:, -1]), running(x * by, first[:, 0]), masked), x, by, first)


def test_instructions_return_tiles():
    @nki.jit
    def kernel(x, g):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        scan = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        stats = nl.ndarray((4, 2), dtype=x.dtype, buffer=nl.shared_hbm)
        causal = nl.ndarray((4, 4), dtype=x.dtype, buffer=nl.shared_hbm)
        tile, row = nl.load(x), nl.load(g.reshape((1, 8)))
        squares = nl.ndarray((4, 1), dtype=np.float32)
        nisa.activation_reduce(op=np.square, data=tile, reduce_op=np.add, reduce_res=squares, bias=None)
        scale = nisa.activation(op=nl.rsqrt, data=squares, scale=1 / 8, bias=nisa.memset((4, 1), 1e-6, np.float32))
        normal = nisa.tensor_scalar(tile, np.multiply, scale)
        nl.store(out, nisa.tensor_tensor(normal, row.broadcast_to((4, 8)), np.multiply))
        nl.store(scan, nisa.tensor_tensor_scan(tile, tile, initial=0, op0=np.multiply, op1=np.add))
        nl.store(stats, nisa.bn_aggr(nisa.bn_stats(tile)))
        i_q, i_k = nl.mgrid[0:4, 0:4]
        transposed = nl.copy(nisa.nc_transpose(tile[i_q, i_k]))
        kept = nisa.affine_select(pred=(i_q >= i_k) & (i_k > 0), on_true_tile=transposed, on_false_value=-1.0)
        nl.store(causal, kept)
        return out, scan, stats, causal

    x, g = random(4, 8), random(8, seed=2)
    scan = np.zeros_like(x)
    state = np.zeros(4, np.float32)
    for i in range(8):
        scan[:, i] = state = x[:, i] * state + x[:, i]
    q, k = np.mgrid[0:4, 0:4]
    causal = np.where((q >= k) & (k > 0), x[:, :4].T, -1)
    want = x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-6) * g
    check(kernel, (want, scan, np.stack([x.mean(1), x.var(1)], 1), causal), x, g)


def test_grids_share_what_is_in_shared_memory():
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        i, j = nl.program_id(0), nl.program_id(axis=1)
        assert nl.num_programs(axes=[0, 1]) == 6
        rows, columns = nl.ds(i * 4, 4), slice(j * 5, (j + 1) * 5)
        nl.store(out[rows, columns], nl.load(x[rows, columns]) + (10 * i + j))
        return out

    @nki.jit
    def private(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.private_hbm)
        nl.store(out, nl.load(x))
        return out

    x = random(8, 15)
    want = x + np.kron(10 * np.arange(2)[:, None] + np.arange(3), np.ones((4, 5)))
    for grid in ((2, 3), (nl.nc(2), 3), (nl.spmd_dim(nl.nc(2), 1), 3)):
        check(kernel, want, x, grid=grid)
    with pytest.raises(InvalidReturn, match="every instance"):
        private[2](x)
    with pytest.raises(InvalidOperand, match="positive ints"):
        kernel[-1]


@pytest.mark.parametrize("memory", [nl.hbm, nl.private_hbm, nl.shared_hbm], ids=repr)
@pytest.mark.parametrize("grid", [None, (1,), (nl.nc(1), 1)], ids=str)
def test_one_instance_returns_what_it_makes_in_any_device_memory(memory, grid):
    @nki.jit
    def kernel(x):
        assert x.buffer == nl.hbm
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=memory)
        assert out.buffer in (nl.hbm, nl.private_hbm)
        nl.store(out, nl.load(x) * 2)
        return out

    x = random(4, 8)
    check(kernel, 2 * x, x, grid=grid)


def test_instances_have_device_memory_of_their_own():
    """What one leaves in it the next one does not find."""
    @nki.jit
    def kernel(x):
        out = nl.ndarray((3, *x.shape), dtype=x.dtype, buffer=nl.shared_hbm)
        sums = nl.zeros(x.shape, dtype=x.dtype, buffer=nl.hbm)
        nl.store(sums, nl.load(sums) + nl.load(x))
        nl.store(out[nl.program_id(0)], nl.load(sums))
        return out

    x = random(4, 8)
    check(kernel, np.stack([x] * 3), x, grid=(3,))


@pytest.mark.parametrize("dtype", [np.float32, nl.bfloat16, None], ids=str)
def test_the_identity_is_a_constant_in_device_memory(dtype):
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape[::-1], dtype=x.dtype, buffer=nl.shared_hbm)
        identity = nl.shared_identity_matrix(4) if dtype is None else nl.shared_identity_matrix(n=4, dtype=dtype)
        assert identity.buffer == nl.hbm
        tile = nl.load(identity, dtype=np.float32)
        nl.store(out, nl.copy(nisa.nc_matmul(nl.load(x), tile, is_moving_onezero=True)))
        return out

    x = random(4, 8)
    check(kernel, x.T, x)


def test_kernels_that_write_their_arguments():
    @nki.trace
    def kernel(x, out):
        nl.store(out, nl.load(x) * 2)

    x = random(4, 8)
    for run in (lambda *a: nki.simulate_kernel(kernel, *a), nki.baremetal(kernel)):
        out = np.zeros_like(x)
        assert run(x, out) is None
        np.testing.assert_array_equal(out, 2 * x)


def test_tiles_that_are_returned_are_stored():
    @nki.jit(mode="simulation")
    def kernel(x):
        return nl.load(x) + 1

    x = random(4, 8)
    np.testing.assert_array_equal(kernel(x), x + 1)


def test_benchmarks_are_modelled(capsys):
    @nki.benchmark(warmup=5, iters=10)
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, nl.load(x))
        return out

    with pytest.raises(NoBenchmark):
        kernel.benchmark_result  # noqa: B018
    kernel(nt.tensor[[4, 8], nl.float32])
    latency = kernel.benchmark_result.nc_latency.get_latency_percentile(99)
    assert latency > 0
    assert "modelled" in capsys.readouterr().out
    x = random(4, 8)
    np.testing.assert_array_equal(nki.profile(kernel.kernel)(x), x)
    with pytest.raises(InvalidOperand, match="0 or 1 or 10"):
        kernel.benchmark_result.nc_latency.get_latency_percentile(33)


def test_a_tile_is_no_number():
    @nki.jit
    def kernel(x):
        tile = nl.load(x)
        return range(tile)  # here

    with pytest.raises(TensorAsNumber) as caught:
        kernel(random(4, 8))
    assert caught.value.location.source.endswith("# here")


def test_loop_reduce_over_nested_loops():
    @nki.jit
    def kernel(x):
        out = nl.ndarray((2, 4, 3), dtype=x.dtype, buffer=nl.shared_hbm)
        for b in nl.affine_range(2):
            total = nl.ndarray((4, 3), dtype=x.dtype, buffer=nl.sbuf)
            for i in nl.affine_range(3):
                for j in nl.affine_range(2):
                    total[...] = nl.loop_reduce(nl.load(x[b, i, j]), op=np.add, loop_indices=[i, j])
            nl.store(out[b], total)
        return out

    x = random(2, 3, 2, 4, 3)
    check(kernel, x.sum((1, 2)), x)


def test_loop_reduce_keeps_the_sums_of_inner_loops_apart():
    def summed(tile, k):
        return nl.loop_reduce(tile, op=np.add, loop_indices=(k,))

    @nki.jit
    def kernel(x):
        out = nl.ndarray((3, 4, 2), dtype=x.dtype, buffer=nl.shared_hbm)
        twice = nl.ndarray((3, 4, 2), dtype=x.dtype, buffer=nl.shared_hbm)
        sums = nl.ndarray((3, nl.par_dim(4), 2), dtype=x.dtype, buffer=nl.sbuf)
        others = nl.ndarray((3, nl.par_dim(4), 2), dtype=x.dtype, buffer=nl.sbuf)
        for k in nl.affine_range(2):
            for q in nl.affine_range(3):
                if q >= k:
                    tile = nl.load(x[k, q])
                    sums[q] = summed(tile, k)
                    others[q] = summed(tile * 2.0, k)
        for q in nl.affine_range(3):
            nl.store(out[q], sums[q])
            nl.store(twice[q], others[q])
        return out, twice

    x = random(2, 3, 4, 2)
    wanted = x[0] + np.where(np.arange(3)[:, None, None] >= 1, x[1], 0)
    check(kernel, (wanted, 2 * wanted), x)


def test_tiles_that_do_not_fit_are_spilled_by_the_vendors_compiler():
    def kernel(x):
        out = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
        tiles = nl.ndarray((10, nl.par_dim(128), 512), dtype=np.float32, buffer=nl.psum)
        total = nl.zeros((128, 512), np.float32, buffer=nl.sbuf)
        for i in nl.affine_range(10):
            tiles[i] = nl.load(x[:, i])
        for i in 2 * list(range(10)):  # none can be read for the last time before all are there
            total[...] = nl.add(total, tiles[i])
        nl.store(out, total)
        return out

    x = random(128, 10, 512)
    with pytest.warns(TilesSpilled, match="PSUM of trn2 lacks 2048 bytes"):
        check(nki.jit(kernel), 2 * x.sum(1), x)
    check(nki.jit(ncc.skip_middle_end_transformations(kernel)), 2 * x.sum(1), x)  # it does not say where tiles are

    with pytest.raises(MemoryOverflow):
        nki.jit(lambda x: nl.store(x, nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.psum))).compile(random(128, 8192))


def test_simulate_of_the_new_dialect_runs_kernels_of_beta_1():
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, nl.load(x) + 1.0)
        return out

    x = random(4, 3)
    np.testing.assert_array_equal(nkilite.simulate(kernel)(x), x + 1)


def _condition(x):
    return nl.load(x) if nl.load(x)[0, 0] > 0 else x


def _largest(x):
    return max(nl.load(x), 0)


def _product(x):
    return nl.load(x) @ nl.load(x)


def _turned(x):
    return nl.load(x).T


def _summed(x):
    return nl.load(x).sum(axis=1)


def _printed(x):
    return f"{nl.load(x)[0, 0]:.2f}"


def _joined(x):
    return np.concatenate([nl.load(x), nl.load(x)], axis=1)


def _dotted(x):
    return np.matmul(nl.load(x), nl.load(x))


def _no_step(x):
    return nl.load(x[::0])


@pytest.mark.parametrize(
    ("function", "error", "remedy"),
    [
        (_condition, TensorAsNumber, "nl.where"), (_largest, TensorAsNumber, "nl.where"),
        (_product, TensorOperator, r"nl\.matmul"), (_turned, UnknownName, r"nl\.transpose"),
        (_summed, UnknownName, r"nl\.sum"), (_printed, TensorAsNumber, r"nl\.device_print"),
        (_joined, UnsupportedError, "compatibility"), (_dotted, UnsupportedError, "compatibility"),
        (_no_step, InvalidIndex, r"nl\.ds"),
    ],
)
def test_what_arrays_have_and_tiles_do_not(function, error, remedy):
    lines, first = inspect.getsourcelines(function)
    with pytest.raises(error, match=rf"{Path(__file__).name}:{first + len(lines) - 1}\n(.|\n)*fix: .*{remedy}"):
        nki.jit(function)(random(8, 8))


def test_a_tile_is_true_as_an_optional_argument():
    @nki.jit
    def kernel(x, bias=None):
        tile, bias = nl.load(x), nl.load(bias) if bias is not None else None
        return np.where(tile > 0, tile + bias if bias else tile, 0.0)

    x = random(8, 8)
    check(kernel, np.where(x > 0, x, 0), x)
    check(kernel, np.where(x > 0, 2 * x, 0), x, x)
