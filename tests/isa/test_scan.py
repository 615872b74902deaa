"""tensor_tensor_scan and tensor_scalar_cumulative."""

from __future__ import annotations

import numpy as np
import pytest
from isa_testing import CPU_LEVELS, both, new, outputs, raises, same, tile

import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.testing import make

reduce_cmd = nisa.reduce_cmd


def recurrence(a, b, first, op0, op1):
    """h[i] = op1(op0(a[i], h[i - 1]), b[i]) in float32, over flattened free dimensions."""
    rows, others = (x.astype(np.float32).reshape(len(x), -1) for x in (a, b))
    result = np.empty_like(rows)
    state = np.broadcast_to(np.float32(first).reshape(-1), len(rows))
    for i in range(rows.shape[1]):
        state = result[:, i] = op1(op0(rows[:, i], state), others[:, i])
    return result.reshape(a.shape)


# --- tensor_tensor_scan -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize(
    "shape", [(128, 64), (128, 37), (100, 50), (1, 5), (2, 129), (7, 3, 6), (16, 16), (33, 1), (5, 4, 20)]
)
def test_linear_recurrence(cpu, shape, monkeypatch):
    """Bit for bit: the order of operations in a partition is the documented one."""
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(a, b, v):
        x, y, start = tile(a), tile(b), tile(v)
        h, rounded = new(a.shape), new(a.shape, "bfloat16")
        nisa.tensor_tensor_scan(h, x, y, start, nl.multiply, nl.add)
        nisa.tensor_tensor_scan(rounded, x, y, 0.25, np.multiply, np.add)
        nisa.tensor_tensor_scan(y, x, y, -1, nl.multiply, nl.add)
        return outputs(h, rounded, y)

    a, b, v = make(shape, "float32"), make(shape, "float32", seed=1), make((shape[0], 1), "float32", seed=2)
    h, rounded, in_place = both(kernel, a, b, v)
    same(h, recurrence(a, b, v, np.multiply, np.add))
    same(rounded, recurrence(a, b, 0.25, np.multiply, np.add).astype(rounded.dtype))
    same(in_place, recurrence(a, b, -1, np.multiply, np.add))


@pytest.mark.parametrize(
    ("op0", "op1"), [("add", "subtract"), ("subtract", "multiply"), ("maximum", "minimum"), ("less", "maximum")]
)
@pytest.mark.parametrize("reverse0", [False, True])
@pytest.mark.parametrize("reverse1", [False, True])
def test_operators_and_reversal(op0, op1, reverse0, reverse1):
    def kernel(a, b):
        h = new(a.shape)
        nisa.tensor_tensor_scan(h, tile(a), tile(b), 0.5, op0, op1, reverse0, reverse1)
        return outputs(h)

    def numpy_op(name, reverse):
        function = getattr(np, name)
        return lambda x, y: (function(y, x) if reverse else function(x, y)).astype(np.float32)

    a, b = make((20, 33), "float32"), make((20, 33), "float32", seed=1)
    (h,) = both(kernel, a, b)
    same(h, recurrence(a, b, 0.5, numpy_op(op0, reverse0), numpy_op(op1, reverse1)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3", "int8", "uint16", "int32"])
@pytest.mark.parametrize("cpu", CPU_LEVELS)
def test_dtypes(dtype, cpu, monkeypatch):
    """The state stays in float32 however narrow the tiles are."""
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(a, b):
        h, narrow = new(a.shape), new(a.shape, a.dtype)
        x, y = tile(a), tile(b, nl.psum)
        nisa.tensor_tensor_scan(h, x, y, 0.0, nl.maximum, nl.add)
        nisa.tensor_tensor_scan(narrow, x, y, 0.0, nl.minimum, nl.add)
        return outputs(h, narrow)

    a = np.random.default_rng(0).integers(0, 4, (40, 45)).astype(make((1,), dtype).dtype)
    b = np.random.default_rng(1).integers(0, 3, (40, 45)).astype(a.dtype)
    h, narrow = both(kernel, a, b)
    same(h, recurrence(a, b, 0, np.maximum, np.add))
    same(narrow, recurrence(a, b, 0, np.minimum, np.add).astype(narrow.dtype))


@pytest.mark.parametrize("cpu", CPU_LEVELS)
def test_access_patterns(cpu, monkeypatch):
    """Strided, permuted and repeated tiles, and free dimensions that do not nest."""
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(a, b):
        x, y = tile(a), tile(b)
        results = [new((24, 6, 8)) for _ in range(4)]
        scan = nisa.tensor_tensor_scan
        scan(results[0], x[:24, :, ::2], y[:24, :, 8:], 0.0, nl.multiply, nl.add)
        scan(results[1], x[:24, 0:1, 0:1].broadcast(1, 6).broadcast(2, 8), y[:24, :, :8], 0.0, nl.multiply, nl.add)
        scan(results[2].permute((0, 2, 1)), x[:24, :, :8], y[:24, :, :8], 0.0, nl.add, nl.add)
        scan(results[3][:, :, 0:4], x[:24, 0:3, 0:8], y[:24, :, 0:4], 0.0, nl.add, nl.add)
        scan(results[3][:, :, 4:8], x[:24, 0:2, 0:12], y[:24, 0:3, 0:8], 0.0, nl.add, nl.add)
        return outputs(*results)

    a, b = make((30, 6, 16), "float32"), make((30, 6, 16), "float32", seed=1)
    p = slice(24)
    results = both(kernel, a, b)
    same(results[0], recurrence(a[p, :, ::2], b[p, :, 8:], 0, np.multiply, np.add))
    gate = np.broadcast_to(a[p, :1, :1], (24, 6, 8))
    same(results[1], recurrence(gate, b[p, :, :8], 0, np.multiply, np.add))
    flat = recurrence(a[p, :, :8], b[p, :, :8], 0, np.add, np.add)
    same(results[2], flat.reshape(24, 8, 6).transpose(0, 2, 1))
    same(results[3][:, :, :4], recurrence(b[p, :, 0:4] * 0 + a[p, 0:3, :8].reshape(24, 6, 4), b[p, :, 0:4], 0,
                                          np.add, np.add))
    same(results[3][:, :, 4:], recurrence(a[p, 0:2, :12].reshape(24, 6, 4), b[p, 0:3, :8].reshape(24, 6, 4), 0,
                                          np.add, np.add))


def test_chained_tiles():
    """A sequence cut into tiles, each starting from the last state of the one before, as in selective scans."""

    def kernel(a, b):
        x, y, h = tile(a), tile(b), new(a.shape)
        for start in range(0, 96, 32):
            part = slice(start, start + 32)
            initial = h[:, start - 1 : start] if start else 0
            nisa.tensor_tensor_scan(h[:, part], x[:, part], y[:, part], initial, nl.multiply, nl.add)
        return outputs(h)

    a, b = make((64, 96), "float32"), make((64, 96), "float32", seed=1)
    same(both(kernel, a, b)[0], recurrence(a, b, 0, np.multiply, np.add))


def test_tensor_tensor_scan_errors():
    scan, mul, add = nisa.tensor_tensor_scan, nl.multiply, nl.add
    raises(errors.UnknownOperator, "bitwise_or", lambda x: scan(x, x, x, 0, nl.bitwise_or, add))
    raises(errors.UnknownOperator, "'abs'", lambda x: scan(x, x, x, 0, mul, nl.abs))
    raises(errors.ShapeMismatch, r"\(8, 16\) and data1 \(8, 4\)", lambda x: scan(x, x, x[:, :4], 0, mul, add))
    raises(errors.ShapeMismatch, r"initial.*\(8, 2\).*\(8, 1\)", lambda x: scan(x, x, x, x[:, :2], mul, add))
    raises(errors.WrongMemory, "data1.*PSUM", lambda x: scan(x, *[tile(x, nl.psum)] * 2, 0, mul, add))
    raises(errors.InvalidOperand, "initial", lambda x: scan(x, x, x, "zero", mul, add))


# --- tensor_scalar_cumulative -----------------------------------------------------------------------------------


IDENTITIES = {"add": 0, "subtract": 0, "multiply": 1, "maximum": -np.inf, "minimum": np.inf}


def cumulative(x, op, start):
    """r[i] = op(x[i], r[i - 1]) in float32."""
    return recurrence(x, x, start, lambda value, state: getattr(np, op)(value, state), lambda r, _: r)


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("op", sorted(IDENTITIES))
@pytest.mark.parametrize("shape", [(128, 64), (50, 37), (3, 5, 7)])
def test_running_reduction(cpu, op, shape, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(a, v):
        x, vector = tile(a), tile(v)
        results = [new(a.shape), new(a.shape, "bfloat16"), new(a.shape)]
        nisa.tensor_scalar_cumulative(results[0], x, nl.multiply, op, vector)
        load = reduce_cmd.load_reduce
        nisa.tensor_scalar_cumulative(results[1], x, nl.abs, op, None, vector, reduce_cmd=load)
        nisa.tensor_scalar_cumulative(results[2], x, np.add, op, 0.5, imm1=2.0, reduce_cmd=load)
        return outputs(*results)

    a, v = make(shape, "float32"), make((shape[0], 1), "float32", seed=1)
    results = both(kernel, a, v)
    column = v.reshape(-1, *(1,) * (a.ndim - 1))
    same(results[0], cumulative(a * column, op, IDENTITIES[op]))
    same(results[1], cumulative(np.abs(a), op, v).astype(results[1].dtype))
    same(results[2], cumulative(a + np.float32(0.5), op, 2.0))


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3", "int8", "uint16"])
def test_registers_continue(dtype):
    """Two calls in a row are one over the concatenation, and tensor_scalar_reduce sees the same registers."""

    def kernel(a):
        x, first, second = tile(a), new(a.shape), new(a.shape)
        total = new((a.shape[0], 1))
        go_on = reduce_cmd.reduce
        nisa.tensor_scalar_cumulative(first, x, nl.multiply, nl.add, 2.0)
        nisa.tensor_scalar_cumulative(second, x, nl.multiply, nl.add, 1.0, reduce_cmd=go_on)
        nisa.tensor_scalar_reduce(new(a.shape), x, nl.multiply, 0.0, nl.add, total, reduce_cmd=go_on)
        return outputs(first, second, total)

    a = np.random.default_rng(0).integers(0, 5, (21, 33)).astype(make((1,), dtype).dtype)
    first, second, total = both(kernel, a)
    wide = np.concatenate([2 * a.astype(np.float32), a.astype(np.float32)], axis=1).cumsum(1)
    same(np.concatenate([first, second], axis=1), wide)
    same(total, wide[:, -1:])


def test_tensor_scalar_cumulative_errors():
    tsc, add = nisa.tensor_scalar_cumulative, nl.add
    load, integers = reduce_cmd.load_reduce, (8, 16)
    raises(errors.UnknownOperator, "'power'", lambda x: tsc(x, x, add, nl.power, 1.0))
    raises(errors.UnknownOperator, "bitwise_or", lambda x: tsc(x, x, nl.bitwise_or, add, 1.0))
    raises(errors.InvalidOperand, "imm1.*load_reduce", lambda x: tsc(x, x, add, add, 1.0, reduce_cmd=load))
    raises(errors.InvalidOperand, "imm0 is None", lambda x: tsc(x, x, add, add, None))
    raises(errors.InvalidOperand, "idle", lambda x: tsc(x, x, add, add, 1.0, reduce_cmd=reduce_cmd.idle))
    raises(errors.UnsupportedDtype, "dst.*int32", lambda x: tsc(new(integers, "int32"), x, add, add, 1.0))
    raises(errors.ShapeMismatch, r"imm0.*\(8, 3\)", lambda x: tsc(x, x, add, add, x[:, :3]))
    raises(errors.UnsupportedDtype, "imm0.*float16", lambda x: tsc(x, x, add, add, new((8, 1), "float16")))
