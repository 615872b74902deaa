"""tensor_reduce, tensor_partition_reduce and tensor_scalar_reduce."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import isa_testing
import numpy as np
import pytest
from isa_testing import CPU_LEVELS, both, new, outputs, same, tile

import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.testing import make

raises = functools.partial(isa_testing.raises, shape=(8, 4, 16))

reduce_cmd = nisa.reduce_cmd

FREE: dict[str, Callable] = {
    "add": lambda x, axis: x.sum(axis),
    "multiply": lambda x, axis: x.prod(axis),
    "maximum": lambda x, axis: x.max(axis),
    "minimum": lambda x, axis: x.min(axis),
    "logical_and": lambda x, axis: (x != 0).all(axis),
    "logical_or": lambda x, axis: (x != 0).any(axis),
    "logical_xor": lambda x, axis: (x != 0).sum(axis) % 2,
}
BITVEC: dict[str, Callable] = {
    "bitwise_and": operator.and_, "bitwise_or": operator.or_, "bitwise_xor": operator.xor,
}


# --- tensor_reduce ----------------------------------------------------------------------------------------------


def reducer(op, axis, shape, dtype="float32", **options):
    def kernel(a):
        z = new(shape, dtype)
        nisa.tensor_reduce(z, op, tile(a), axis, **options)
        return outputs(z)

    return kernel


@pytest.mark.parametrize("op", sorted(FREE))
@pytest.mark.parametrize("free", [1, 2, 15, 16, 37, 130, 512, 1000])
def test_one_dimension(op, free):
    a = make((33, free), "float32")
    a[::3, free // 2] = 0
    (z,) = both(reducer(op, 1, (33, 1)), a, rtol=1e-5, atol=1e-5)
    same(z[:, 0], FREE[op](a.astype(np.float64), 1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e5m2", "int8", "uint8", "int16", "int32"])
@pytest.mark.parametrize("op", ["add", "maximum", "minimum"])
def test_dtypes(op, dtype):
    """Reductions run in float32; small integers in it are exact."""
    a = np.random.default_rng(0).integers(0, 8, (128, 65)).astype(make((1,), dtype).dtype)
    expected = FREE[op](a.astype(np.float32), 1)
    for out in ("float32", dtype):
        (z,) = both(reducer(op, 1, (128, 1), out), a)
        limit = np.iinfo(z.dtype).max if z.dtype.kind in "iu" else np.inf
        same(z[:, 0], np.minimum(expected, limit).astype(z.dtype))


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize(
    ("shape", "order", "axis", "kept"),
    [
        ((16, 5, 9), None, (1, 2), (1,)),
        ((16, 5, 90), None, 2, (5,)),
        ((16, 5, 90), (0, 2, 1), -1, (90,)),  # strided, dense across
        ((16, 90, 3), (0, 2, 1), [2], (3, 1)),
        ((8, 4, 6, 10), (0, 2, 1, 3), (2, 3), (6,)),
        ((8, 4, 6, 10), (0, 3, 1, 2), (2, 3), (2, 5)),  # dst shaped differently
        ((8, 4, 6, 10), (0, 3, 2, 1), (1, 2, 3), (1,)),
        ((8, 40, 6, 2), (0, 1, 3, 2), 3, (40, 2, 1)),
        ((8, 40, 4), None, 2, (40, 1)),
    ],
)
def test_axes_and_access_patterns(cpu, shape, order, axis, kept, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(a):
        x = tile(a)
        view = x if order is None else x.permute(order)
        results = [new((shape[0], *kept)) for _ in range(3)]
        nisa.tensor_reduce(results[0], nl.add, view, axis, keepdims=True)
        nisa.tensor_reduce(results[1], np.maximum, view, axis, negate=True)
        nisa.tensor_reduce(results[2], nl.subtract, view, axis)
        return outputs(*results)

    a = make(shape, "float32")
    view = a.astype(np.float64).transpose(order or range(a.ndim))
    axes = tuple(x % a.ndim for x in (axis if isinstance(axis, (tuple, list)) else [axis]))
    rows = view.reshape(*(n for i, n in enumerate(view.shape) if i not in axes), -1)
    expected = [rows.sum(-1), -rows.max(-1), 2 * rows[..., 0] - rows.sum(-1)]
    for got, right in zip(both(kernel, a, rtol=1e-5, atol=1e-4), expected, strict=True):
        same(got, right.reshape(got.shape), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("cpu", CPU_LEVELS)
def test_dst_that_does_not_nest(cpu, monkeypatch):
    """Kept dimensions (4, 6) into a strided dst of (3, 8): no common loops."""
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(a):
        wide = new((16, 3, 16))
        nisa.memset(wide, 7.0)
        nisa.tensor_reduce(wide[:, :, ::2], nl.add, tile(a)[:, :, 1:7], 3)
        return outputs(wide)

    a = np.random.default_rng(0).integers(-9, 9, (16, 4, 8, 5)).astype(np.float32)
    (z,) = both(kernel, a)
    same(z[:, :, ::2].reshape(16, 24), a[:, :, 1:7].sum(3).reshape(16, 24))
    assert (z[:, :, 1::2] == 7).all()


def test_broadcast_and_strided_sources():
    def kernel(a):
        x = tile(a)
        results = [new((32, 1)) for _ in range(3)]
        nisa.tensor_reduce(results[0], nl.add, x[:, 3:4].broadcast(1, 100), 1)
        nisa.tensor_reduce(results[1], nl.add, x[:, 1::2], 1)
        nisa.tensor_reduce(results[2], nl.maximum, x[:, ::-1], 1)
        return outputs(*results)

    a = np.random.default_rng(0).integers(-9, 9, (32, 77)).astype(np.float32)
    total, odd, high = both(kernel, a)
    same(total[:, 0], 100 * a[:, 3])
    same(odd[:, 0], a[:, 1::2].sum(1))
    same(high[:, 0], a.max(1))


def test_subtract_keeps_an_infinite_first_element():
    a = np.ones((2, 3, 5), np.float32)
    a[0, 0, 0] = np.inf

    (z,) = both(reducer(nl.subtract, (1, 2), (2, 1)), a)
    same(z, [[np.inf], [-13]])


def test_nan_and_psum():
    def kernel(a):
        x, z = tile(a, nl.psum), new((4, 1), "float32", nl.psum)
        nisa.tensor_reduce(z, nl.maximum, x, 1)
        return outputs(z)

    a = make((4, 70), "float32")
    a[0, 69], a[1, 0], a[2, 33] = np.nan, np.nan, np.inf
    (z,) = both(kernel, a)
    same(z[:, 0], [np.nan, np.nan, np.inf, a[3].max()])


@pytest.mark.parametrize("op", sorted(BITVEC))
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
def test_bitvec(op, dtype):
    def kernel(a):
        x, z, across = tile(a), new((21, 1), a.dtype), new((21, 70), "uint32")
        nisa.tensor_reduce(z, op, x, (1, 2))
        nisa.tensor_reduce(across, op, x.permute((0, 2, 1)), 2)
        return outputs(z, across)

    limits = np.iinfo(dtype)
    a = np.random.default_rng(0).integers(limits.min, limits.max, (21, 3, 70), dtype, endpoint=True)
    if op == "bitwise_and":
        a |= np.array(0x5).astype(a.dtype)
    if op == "bitwise_or":
        a &= np.array(0x12).astype(a.dtype)
    z, across = both(kernel, a)
    rows = a.reshape(21, -1)
    same(z[:, 0], functools.reduce(BITVEC[op], rows.T))
    unsigned = a.view(f"u{a.itemsize}")
    same(across, functools.reduce(BITVEC[op], unsigned.transpose(1, 0, 2)))


def test_tensor_reduce_errors():
    tr, add = nisa.tensor_reduce, nl.add
    z = functools.partial(new, (8, 1))
    raises(errors.InvalidOperand, r"axis is int 1 for shape \(8, 4, 16\)", lambda x: tr(new((8, 16)), add, x, 1))
    raises(errors.InvalidOperand, r"(?s)\(0, 1, 2\).*tensor_partition_reduce", lambda x: tr(z(), add, x, (0, 1, 2)))
    raises(errors.InvalidOperand, "axis is int 3", lambda x: tr(z(), add, x, 3))
    raises(errors.InvalidOperand, r"axis is .*\(2, 2\)", lambda x: tr(z(), add, x, [2, 2]))
    raises(errors.InvalidOperand, "axis is None", lambda x: tr(z(), add, x, None))
    raises(errors.ShapeMismatch, r"8 partitions of 4 elements.*\(8, 1\)", lambda x: tr(z(), add, x, 2))
    raises(errors.UnknownOperator, "'greater'", lambda x: tr(z(), nl.greater, x, (1, 2)))
    raises(errors.DtypeMismatch, "data is float32", lambda x: tr(z(), nl.bitwise_or, x, (1, 2)))
    i = functools.partial(new, (8, 1), "int32")
    raises(errors.InvalidOperand, "negate is True", lambda x: tr(i(), nl.bitwise_or, i(), 1, negate=True))
    raises(errors.WrongMemory, "dst is in HBM", lambda x: tr(z(buffer=nl.shared_hbm), add, x, (1, 2)))


# --- tensor_partition_reduce ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("shape", [(128, 64), (100, 37), (1, 5), (7, 3, 50)])
def test_across_partitions(cpu, shape, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(a):
        x = tile(a)
        results = [new((1, *shape[1:])) for _ in range(4)]
        for result, op in zip(results, (nl.add, "average", nl.maximum, nl.mean), strict=True):
            nisa.tensor_partition_reduce(result, op, x)
        return outputs(*results)

    a = make(shape, "float32")
    total, mean, high, again = both(kernel, a, rtol=1e-6, atol=1e-5)
    same(total[0], a.astype(np.float64).sum(0), rtol=1e-6, atol=1e-4)
    same(mean[0], a.astype(np.float64).mean(0), rtol=1e-6, atol=1e-6)
    same(high[0], a.max(0))
    same(again, mean)


@pytest.mark.parametrize("op", list(BITVEC))
def test_bits_across_partitions(op):
    def kernel(a):
        z = new((1, a.shape[1]), a.dtype)
        nisa.tensor_partition_reduce(z, op, tile(a))
        return outputs(z)

    a = np.random.default_rng(0).integers(0, 255, (3, 77), np.uint8, endpoint=True)
    (z,) = both(kernel, a)
    same(z[0], functools.reduce(BITVEC[op], a))


def test_tensor_partition_reduce_errors():
    pr = nisa.tensor_partition_reduce
    one = functools.partial(new, (1, 64))
    raises(errors.UnknownOperator, "'multiply'", lambda x: pr(one(), nl.multiply, x))
    raises(errors.ShapeMismatch, r"\(1, 63\).*64 elements", lambda x: pr(new((1, 63)), nl.add, x))
    raises(errors.ShapeMismatch, r"\(2, 32\)", lambda x: pr(new((2, 32)), nl.add, x))
    raises(errors.WrongMemory, "data is in PSUM", lambda x: pr(one(), nl.add, tile(x, nl.psum)))
    raises(errors.ShapeMismatch, "6 dim", lambda x: pr(one(), nl.add, x.reshape((8, 2, 2, 2, 2, 4))))


# --- tensor_scalar_reduce ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("op", ["add", "multiply", "maximum", "minimum"])
@pytest.mark.parametrize("shape", [(128, 64), (50, 37), (3, 5, 70), (2, 1)])
def test_fused_reduction(cpu, op, shape, monkeypatch):
    """What is reduced is not rounded to dst's dtype first."""
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(a, v):
        x, vector = tile(a), tile(v)
        scaled, shifted = new(a.shape, "bfloat16"), new(a.shape)
        one, two = new((a.shape[0], 1)), new((a.shape[0], 1))
        nisa.tensor_scalar_reduce(scaled, x, nl.multiply, vector, op, one)
        nisa.tensor_scalar_reduce(shifted, x, nl.subtract, 0.5, op, two, reduce_res_negate=True)
        nisa.tensor_scalar_reduce(x, x, nl.abs, 0.0, op)
        return outputs(scaled, one, shifted, two, x)

    a = np.random.default_rng(0).uniform(0.9, 1.1, shape).astype(np.float32)
    v = np.random.default_rng(1).uniform(-1.1, -0.9, (shape[0], 1)).astype(np.float32)
    scaled, one, shifted, two, absolute = both(kernel, a, v, rtol=1e-5, atol=1e-6)
    first = a * v.reshape(-1, *(1,) * (a.ndim - 1))
    second = a - np.float32(0.5)
    same(scaled, first.astype(scaled.dtype))
    same(shifted, second)
    same(absolute, a)
    for got, values, sign in ((one, first, 1), (two, second, -1)):
        expected = FREE[op](values.reshape(shape[0], -1).astype(np.float64), 1)
        same(got[:, 0], sign * expected, rtol=1e-5, atol=1e-5)


def test_registers_chain():
    """reduce continues, load_reduce starts from reduce_init; the registers keep the sign reduce_res negates."""

    def kernel(a, v):
        x, vector, scratch = tile(a), tile(v), new(a.shape)
        results = [new((16, 1)) for _ in range(4)]
        tsr = nisa.tensor_scalar_reduce
        tsr(scratch, x, nl.add, 0.0, nl.add)
        tsr(scratch, x, nl.add, 1.0, nl.add, results[0], reduce_cmd=reduce_cmd.reduce, reduce_res_negate=True)
        tsr(scratch, x, nl.add, 2.0, nl.maximum, results[1], reduce_cmd=reduce_cmd.reduce)
        load = reduce_cmd.load_reduce
        tsr(scratch, x, nl.add, 0.0, nl.add, results[2], reduce_cmd=load, reduce_init=vector)
        tsr(scratch, x, nl.add, 0.0, nl.minimum, results[3], reduce_cmd=load, reduce_init=-100.0)
        return outputs(*results)

    rng = np.random.default_rng(0)
    a = rng.integers(-9, 9, (16, 20)).astype(np.float32)
    v = rng.integers(-9, 9, (16, 1)).astype(np.float32)
    negated, highest, loaded, lowest = both(kernel, a, v)
    sums = a.sum(1, keepdims=True)
    same(negated, -(2 * sums + 20))
    same(highest, np.maximum(2 * sums + 20, a.max(1, keepdims=True) + 2))
    same(loaded, v + sums)
    same(lowest, np.full((16, 1), -100.0))


def test_tensor_scalar_reduce_errors():
    tsr, add = nisa.tensor_scalar_reduce, nl.add
    z = functools.partial(new, (8, 1))
    load = reduce_cmd.load_reduce
    raises(errors.UnknownOperator, "'subtract'", lambda x: tsr(x, x, add, 1.0, nl.subtract, z()))
    raises(errors.UnknownOperator, "'invert'", lambda x: tsr(x, x, nl.invert, None, add, z()))
    raises(errors.InvalidOperand, "reduce_init.*load_reduce", lambda x: tsr(x, x, add, 1.0, add, reduce_cmd=load))
    raises(errors.InvalidOperand, "reduce_init.*reset_reduce", lambda x: tsr(x, x, add, 1., add, reduce_init=0.0))
    idle = reduce_cmd.idle
    raises(errors.InvalidOperand, "reduce_cmd.*idle", lambda x: tsr(x, x, add, 1.0, add, reduce_cmd=idle))
    raises(errors.ShapeMismatch, r"reduce_res.*\(8, 2\)", lambda x: tsr(x, x, add, 1.0, add, new((8, 2))))
    raises(errors.UnsupportedDtype, "reduce_res.*int32", lambda x: tsr(x, x, add, 1.0, add, z("int32")))
    raises(errors.InvalidOperand, "operand0 is None", lambda x: tsr(x, x, add, None, add))
    deep = (8, 2, 2, 2, 8)  # of (8, 4, 16)
    raises(errors.ShapeMismatch, "5 dim", lambda x: tsr(x, x.reshape(deep), add, 1.0, add))
    raises(errors.ShapeMismatch, "5 dim", lambda x: tsr(x.reshape(deep), x, add, 1.0, add))
