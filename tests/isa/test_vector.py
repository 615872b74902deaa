"""tensor_tensor, tensor_scalar, scalar_tensor_tensor and reciprocal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from isa_testing import CPU_LEVELS, both, new, outputs, raises, same, tile

import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.testing import make

FLOATS = ("float32", "bfloat16", "float16", "float8_e4m3")
DTYPES = (*FLOATS, "int8", "uint8", "int16", "uint16", "int32", "uint32")
SHAPES = [(128, 64), (100, 37), (1, 1), (3, 5, 7), (16, 2, 3, 9)]

ARITHMETIC: dict[str, Callable] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "greater_equal": np.greater_equal,
    "greater": np.greater,
    "less_equal": np.less_equal,
    "less": np.less,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}
BITVEC: dict[str, Callable] = {
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
    "left_shift": lambda x, n: np.where(n < 32, x << np.minimum(n, 31), 0),
    "right_shift": lambda x, n: np.where(n < 32, x >> np.minimum(n, 31), 0),
}


def rounded(x: np.ndarray, dtype: Any) -> np.ndarray:
    """What the documents say a write does: nearest even, and saturation for integers."""
    if np.dtype(dtype).kind not in "iu":
        return x.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(x.astype(np.float64)), limits.min, limits.max).astype(dtype)


# --- tensor_tensor ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", sorted(ARITHMETIC))
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensor_tensor_computes_in_float32(op, dtype):
    def kernel(a, b):
        x, y, z = tile(a), tile(b), new(a.shape, a.dtype)
        nisa.tensor_tensor(z, x, y, op, engine=nisa.engine.vector)
        return outputs(z)

    a, b = make((100, 37), dtype, seed=1), make((100, 37), dtype, seed=2)
    b[:, ::3] = a[:, ::3]
    (z,) = both(kernel, a, b)
    same(z, rounded(ARITHMETIC[op](a.astype(np.float32), b.astype(np.float32)).astype(np.float32), a.dtype))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cpu", CPU_LEVELS)
def test_tensor_tensor_shapes_on_every_cpu(shape, cpu, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(a, b):
        x, y, z = tile(a), tile(b), new(a.shape, "bfloat16")
        nisa.tensor_tensor(z, x, y, nl.subtract)
        nisa.tensor_tensor(x, x, y, np.multiply)
        nisa.tensor_tensor(y, y, y, nl.add)
        return outputs(z, x, y)

    a, b = make(shape, "float32", seed=1), make(shape, "float16", seed=2)
    z, x, y = both(kernel, a, b)
    same(z, (a - b.astype(np.float32)).astype(z.dtype))
    same(x, a * b.astype(np.float32))
    same(y, b + b)


def test_tensor_tensor_access_patterns():
    """Slices, strides, permutations, broadcasts and differently shaped free dimensions."""

    def kernel(a, b):
        x, y = tile(a), tile(b)
        results = [new((60, 4, 6)) for _ in range(5)]
        nisa.tensor_tensor(results[0], x[:60, 0:4, 1:7], y[:60, 4:8, 2:8], nl.add)
        nisa.tensor_tensor(results[1], x[:60, ::2, 0:6], y[:60, 1::2, 1:7], nl.add)
        nisa.tensor_tensor(results[2], x[:60, 0:6, 0:4].permute((0, 2, 1)), y[:60, 0:4, 0:6], nl.add)
        nisa.tensor_tensor(results[3], x[:60, 0:4, 0:1].broadcast(2, 6), y[:60, 2:3, 0:6].broadcast(1, 4), nl.add)
        nisa.tensor_tensor(results[4], x[:60, 0:3].reshape((60, 4, 6)), y[:60, 0:3].reshape((60, 24)), nl.add)
        return outputs(*results)

    a, b = make((64, 8, 8), "float32", seed=1), make((64, 8, 8), "float32", seed=2)
    p = slice(60)
    results = both(kernel, a, b)
    same(results[0], a[p, 0:4, 1:7] + b[p, 4:8, 2:8])
    same(results[1], a[p, ::2, 0:6] + b[p, 1::2, 1:7])
    same(results[2], a[p, 0:6, 0:4].transpose(0, 2, 1) + b[p, 0:4, 0:6])
    same(results[3], np.broadcast_to(a[p, 0:4, 0:1], (60, 4, 6)) + b[p, 2:3, 0:6])
    same(results[4], (a[p, 0:3] + b[p, 0:3]).reshape(60, 4, 6))


@pytest.mark.parametrize("dtype", ["int32", "uint32"])
@pytest.mark.parametrize("op", ["add", "subtract", "multiply", "maximum", "minimum", "greater", "less_equal"])
def test_all_32_bit_integers_are_exact_on_gpsimd(op, dtype):
    def kernel(a, b):
        x, y, exact, through_float = tile(a), tile(b), new(a.shape, a.dtype), new(a.shape, a.dtype)
        nisa.tensor_tensor(exact, x, y, op)
        nisa.tensor_tensor(through_float, x, y, op, engine=nisa.engine.vector)
        return outputs(exact, through_float)

    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype)
    a, b = (rng.integers(limits.min, limits.max, (128, 33), dtype, endpoint=True) for _ in range(2))
    exact, through_float = both(kernel, a, b)
    wide = ARITHMETIC[op](a.astype(object), b.astype(object)).astype(object)
    same(exact, (wide & 0xFFFFFFFF).astype(np.uint32).view(dtype))
    single = ARITHMETIC[op](a.astype(np.float32), b.astype(np.float32)).astype(np.float32)
    same(through_float, rounded(single, dtype))


@pytest.mark.parametrize("op", sorted(BITVEC))
@pytest.mark.parametrize("dtype", [d for d in DTYPES if "int" in d])
def test_bitvec_operators_see_bit_patterns(op, dtype):
    def kernel(a, b):
        x, y, z, wide = tile(a), tile(b), new(a.shape, a.dtype), new(a.shape, "uint32")
        nisa.tensor_tensor(z, x, y, op)
        nisa.tensor_tensor(wide, x, y, op)
        return outputs(z, wide)

    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype)
    a = rng.integers(limits.min, limits.max, (50, 41), dtype, endpoint=True)
    b = rng.integers(0, 40, a.shape).astype(dtype) if "shift" in op else np.roll(a, 3)
    z, wide = both(kernel, a, b)
    unsigned = np.dtype(f"u{a.itemsize}")
    expected = BITVEC[op](a.view(unsigned).astype(np.uint32), b.view(unsigned).astype(np.uint32)).astype(np.uint32)
    same(wide, expected)
    same(z, expected.astype(unsigned).view(dtype))


def test_tensor_tensor_power_and_psum():
    def kernel(a, b):
        x, y, psum = tile(a), tile(b, nl.psum), new(a.shape, "float32", nl.psum)
        power = new(a.shape)
        nisa.tensor_tensor(power, x, tile(b), nl.power)
        nisa.tensor_tensor(psum, x, y, nl.add)
        return outputs(power, psum)

    a, b = np.abs(make((64, 50), "float32", seed=1)) + 0.1, make((64, 50), "float32", seed=2)
    power, total = both(kernel, a, b, rtol=1e-6)
    same(power, np.power(a.astype(np.float64), b), rtol=1e-6)
    same(total, a + b)


def test_maximum_hands_nan_on():
    def kernel(a, b):
        x, y, high, low = tile(a), tile(b), new(a.shape), new(a.shape)
        nisa.tensor_tensor(high, x, y, nl.maximum)
        nisa.tensor_tensor(low, x, y, nl.minimum)
        return outputs(high, low)

    values = np.array([np.nan, np.inf, -np.inf, 0, 1], np.float32)
    a, b = (m.reshape(1, -1).astype(np.float32) for m in np.meshgrid(values, values))
    high, low = both(kernel, a, b)
    same(high, np.maximum(a, b))
    same(low, np.minimum(a, b))


def test_tensor_tensor_errors():
    tt = nisa.tensor_tensor
    raises(errors.ShapeMismatch, r"\(8, 16\) and data2 \(8, 15\)", lambda x: tt(x, x, x[:, :15], nl.add))
    raises(errors.ShapeMismatch, r"dst \(4, 16\)", lambda x: tt(new((4, 16)), x, x, nl.add))
    raises(errors.UnknownOperator, "'abs' .*add", lambda x: tt(x, x, x, nl.abs))
    raises(errors.UnknownOperator, "'exp'", lambda x: tt(x, x, x, nl.exp))
    raises(errors.DtypeMismatch, "data1 is float32", lambda x: tt(x, x, x, nl.bitwise_and))
    raises(errors.UnsupportedEngine, "scalar.*vector", lambda x: tt(x, x, x, nl.add, engine=nisa.engine.scalar))
    raises(errors.UnsupportedEngine, "vector.*gpsimd", lambda x: tt(x, x, x, nl.power, nisa.engine.vector))
    raises(errors.WrongMemory, "PSUM", lambda x: tt(x, *[tile(x, nl.psum)] * 2, nl.add))
    raises(errors.WrongMemory, "dst.*PSUM", lambda x: tt(new((8, 16), buffer=nl.psum), x, x, nl.power))
    raises(errors.WrongMemory, "HBM", lambda x: tt(new((8, 16), buffer=nl.shared_hbm), x, x, nl.add))
    packed = "float8_e4m3fn_x4"
    raises(errors.UnsupportedDtype, packed, lambda x: tt(new((8, 16), packed), x, x, nl.add))
    raises(errors.UnsupportedOnTarget, "abs_max.*trn3.*trn2", lambda x: tt(x, x, x, "abs_max"), "trn2")


# --- tensor_scalar ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(100, 37), (128, 64), (3, 5, 7), (2, 1)])
def test_tensor_scalar_two_operators(dtype, shape):
    def kernel(a, v):
        x, vector = tile(a), tile(v)
        results = [new(a.shape, a.dtype) for _ in range(4)]
        nisa.tensor_scalar(results[0], x, nl.multiply, 3.0, op1=nl.add, operand1=vector)
        nisa.tensor_scalar(results[1], x, nl.subtract, vector, True, nl.multiply, -2.0)
        nisa.tensor_scalar(results[2], x, nl.subtract, vector, False, nl.subtract, 1.5, True)
        nisa.tensor_scalar(results[3], x, nl.maximum, vector[:, 0], op1=nl.minimum, operand1=2.0)
        return outputs(*results)

    a, v = make(shape, dtype), make((shape[0], 1), "float32", seed=1)
    f, s = a.astype(np.float32), v.reshape(shape[0], *(1,) * (len(shape) - 1))
    results = both(kernel, a, v)
    two, three = np.float32(2), np.float32(3)
    expected = [f * three + s, (s - f) * -two, np.float32(1.5) - (f - s), np.minimum(np.maximum(f, s), two)]
    for got, right in zip(results, expected, strict=True):
        same(got, rounded(right, a.dtype))


@pytest.mark.parametrize("cpu", CPU_LEVELS)
def test_tensor_scalar_unary_operators(cpu, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")

    def kernel(a):
        x = tile(a)
        results = [new(a.shape) for _ in range(5)]
        nisa.tensor_scalar(results[0], x, nl.abs, None)
        nisa.tensor_scalar(results[1], x, nl.square, 0.0)  # square and relu from trn3 on
        nisa.tensor_scalar(results[2], x, nl.relu, 0, op1=nl.add, operand1=1.0)
        nisa.tensor_scalar(results[3], x, nl.abs, None, op1=nl.rsqrt)
        nisa.tensor_scalar(results[4], x, nl.add, 5.0, op1=nl.reciprocal)
        return outputs(*results)

    a = make((77, 19), "float32")
    results = both(kernel, a, rtol=3e-7)
    one = np.float32(1)
    for got, right in zip(
        results,
        [np.abs(a), a * a, np.maximum(a, 0) + one, 1 / np.sqrt(np.abs(a)), one / (a + np.float32(5))],
        strict=True,
    ):
        same(got, right, rtol=3e-7)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if "int" in d])
def test_tensor_scalar_bitvec(dtype):
    def kernel(a, v):
        x, vector = tile(a), tile(v)
        results = [new(a.shape, a.dtype) for _ in range(4)]
        nisa.tensor_scalar(results[0], x, nl.bitwise_and, 0x55, op1=nl.bitwise_xor, operand1=vector)
        nisa.tensor_scalar(results[1], x, nl.right_shift, 3, op1=nl.left_shift, operand1=2)
        nisa.tensor_scalar(results[2], x, nl.invert, None, op1=nl.bitwise_or, operand1=1)
        nisa.tensor_scalar(results[3], x, nl.left_shift, 1, reverse0=True)
        return outputs(*results)

    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype)
    a = rng.integers(limits.min, limits.max, (30, 29), dtype, endpoint=True)
    a[:, ::2] = rng.integers(0, 8 * a.itemsize, a[:, ::2].shape)
    v = rng.integers(limits.min, limits.max, (30, 1), dtype, endpoint=True)
    unsigned = np.dtype(f"u{a.itemsize}")
    bits, vector = a.view(unsigned).astype(np.uint32), v.view(unsigned).astype(np.uint32)
    expected = [
        (bits & 0x55) ^ vector,
        (bits >> 3) << 2,
        ~bits | 1,
        np.where(bits < 32, np.uint32(1) << np.minimum(bits, 31), 0),
    ]
    for got, right in zip(both(kernel, a, v), expected, strict=True):
        same(got, right.astype(np.uint32).astype(unsigned).view(dtype))


def test_tensor_scalar_integers_go_through_float32():
    """With int32 tiles everywhere, as address arithmetic has them."""

    def kernel(a, v):
        x, vector, z, y = tile(a), tile(v), new(a.shape, "int32"), new(a.shape, "int32")
        nisa.tensor_scalar(z, x, nl.multiply, 3, op1=nl.add, operand1=vector)
        nisa.tensor_scalar(y, x, nl.add, 1)
        return outputs(z, y)

    a = np.array([[0, 7, -5, 2**24 + 1, 2**31 - 1]], np.int32)
    z, y = both(kernel, a, np.array([[11]], np.int32))
    single = a.astype(np.float32)
    same(z, rounded(single * np.float32(3) + np.float32(11), np.int32))
    same(y, rounded(single + np.float32(1), np.int32))
    assert y[0, 3] == 2**24  # 2**24 + 1 is no float32


def test_tensor_scalar_immediates_share_a_micro_kernel():
    def kernel(a):
        x = tile(a)
        results = [new(a.shape) for _ in range(3)]
        for factor, result in zip((2.0, -0.5, 1e30), results, strict=True):
            nisa.tensor_scalar(result, x, nl.multiply, factor)
        return outputs(*results)

    a = make((16, 16), "float32")
    for factor, got in zip((2.0, -0.5, 1e30), both(kernel, a), strict=True):
        same(got, a * np.float32(factor))


@pytest.mark.parametrize(
    ("target", "works"), [("trn1", False), ("trn2", True), ("trn3", True)]
)
def test_tensor_scalar_on_the_scalar_engine(target, works):
    scalar = nisa.engine.scalar
    if not works:
        raises(
            errors.UnsupportedOnTarget, "Scalar Engine.*trn2.*trn1",
            lambda x: nisa.tensor_scalar(x, x, nl.add, 1.0, engine=scalar), target,
        )
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)

        def kernel(a):
            x, z = tile(a), new(a.shape)
            nisa.tensor_scalar(z, x, nl.multiply, 2.0, op1=nl.add, operand1=1.0, engine=scalar)
            return outputs(z)

        a = make((8, 8), "float32")
        same(both(kernel, a)[0], a * np.float32(2) + np.float32(1))
    body = lambda x: nisa.tensor_scalar(x, x, nl.maximum, 2.0, engine=scalar)  # noqa: E731
    raises(errors.UnsupportedEngine, "scalar.*vector", body, target)


def test_tensor_scalar_errors():
    ts = nisa.tensor_scalar
    i32 = "int32"
    raises(errors.InvalidOperand, "operand0 is None", lambda x: ts(x, x, nl.add, None))
    raises(errors.InvalidOperand, "operand0.*tile.*unary", lambda x: ts(x, x, nl.abs, x[:, :1]))
    raises(errors.InvalidOperand, "operand1.*op1 is None", lambda x: ts(x, x, nl.add, 1.0, operand1=2.0))
    raises(errors.InvalidOperand, "operand1 is None", lambda x: ts(x, x, nl.add, 1.0, op1=nl.add))
    raises(errors.ShapeMismatch, r"operand0 .*\(8, 2\).*\(8, 1\)", lambda x: ts(x, x, nl.add, x[:, :2]))
    raises(errors.ShapeMismatch, r"operand0 .*\(4, 1\).*\(8, 1\)", lambda x: ts(x, x, nl.add, x[:4, :1]))
    raises(
        errors.UnsupportedDtype, "operand0.*bfloat16.*float32",
        lambda x: ts(x, x, nl.add, new((8, 1), "bfloat16")),
    )
    raises(
        errors.DtypeMismatch, "op0=add is arithmetic and op1=bitwise_or is bitvec",
        lambda x: ts(x, x, nl.add, 1.0, op1=nl.bitwise_or, operand1=1),
    )
    raises(errors.DtypeMismatch, "float32", lambda x: ts(new((8, 16), i32), x, nl.bitwise_or, 1))
    raises(
        errors.UnsupportedEngine, "gpsimd.*vector",
        lambda x: ts(*[new((8, 16), i32)] * 2, nl.invert, None, engine=nisa.engine.gpsimd),
    )


# --- scalar_tensor_tensor and reciprocal ------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("shape", [(100, 37), (128, 64), (3, 5, 7)])
def test_scalar_tensor_tensor(cpu, shape, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(a, b, v):
        x, y, vector = tile(a), tile(b), tile(v)
        results = [new(a.shape), new(a.shape), new(a.shape, "bfloat16")]
        nisa.scalar_tensor_tensor(results[0], x, nl.multiply, vector, nl.subtract, y)
        nisa.scalar_tensor_tensor(results[1], x, nl.subtract, 2.0, nl.subtract, y, True, True)
        nisa.scalar_tensor_tensor(results[2], x, nl.abs, None, nl.maximum, y)
        nisa.scalar_tensor_tensor(x, x, nl.add, 1.0, nl.multiply, y)
        return outputs(*results, x)

    a, b = make(shape, "float32"), make(shape, "bfloat16", seed=1)
    v = make((shape[0], 1), "float32", seed=2)
    s, f = v.reshape(-1, *(1,) * (len(shape) - 1)), b.astype(np.float32)
    expected = [a * s - f, f - (np.float32(2) - a), np.maximum(np.abs(a), f), (a + np.float32(1)) * f]
    for got, right in zip(both(kernel, a, b, v), expected, strict=True):
        same(got, right.astype(got.dtype))


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("op", ["add", "multiply", "maximum", "minimum"])
@pytest.mark.parametrize("shape", [(100, 37), (3, 5, 70)])
def test_scalar_tensor_tensor_that_reduces(cpu, op, shape, monkeypatch):
    """What is not rounded yet is reduced, and the registers go on from one instruction to the next."""
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(a, b):
        x, y, narrow = tile(a), tile(b), new(a.shape, "bfloat16")
        one, both_halves = new((a.shape[0], 1)), new((a.shape[0], 1))
        stt, go_on = nisa.scalar_tensor_tensor, nisa.reduce_cmd.reduce
        stt(narrow, x, nl.multiply, 0.5, nl.add, y, reduce_op=getattr(nl, op), reduce_res=one)
        stt(x, x, nl.add, 1.0, nl.multiply, y, reduce_op=...)
        stt(x, x, nl.subtract, 0.01, nl.maximum, y, reduce_cmd=go_on, reduce_op=getattr(nl, op), reduce_res=both_halves)
        return outputs(narrow, one, x, both_halves)

    a, b = (np.random.default_rng(0).uniform(low, low + 0.1, shape).astype(np.float32) for low in (0.95, 0.45))
    narrow, one, wide, both_halves = both(kernel, a, b, rtol=1e-5, atol=1e-6)
    first, combine = a * np.float32(0.5) + b, getattr(np, op)
    second = np.maximum((a + np.float32(1)) * b - np.float32(0.01), b)
    same(narrow, first.astype(narrow.dtype))
    same(wide, second)
    of_first, of_second = (combine.reduce(values.reshape(shape[0], -1), 1) for values in (first, second))
    same(one[:, 0], of_first, rtol=1e-5)
    same(both_halves[:, 0], combine(of_first, of_second), rtol=1e-5)


def test_scalar_tensor_tensor_errors():
    stt = nisa.scalar_tensor_tensor
    raises(errors.UnknownOperator, "bitwise_and", lambda x: stt(x, x, nl.bitwise_and, 1, nl.add, x))
    raises(errors.UnknownOperator, "abs", lambda x: stt(x, x, nl.add, 1.0, nl.abs, x))
    raises(errors.ShapeMismatch, r"\(8, 4\)", lambda x: stt(x, x, nl.add, 1.0, nl.add, x[:, :4]))
    raises(errors.WrongMemory, "PSUM", lambda x: stt(x, *[tile(x, nl.psum), nl.add, 1.0] , nl.add, tile(x, nl.psum)))
    plain = (nl.add, 1.0, nl.add)
    raises(errors.UnknownOperator, "'subtract'", lambda x: stt(x, x, *plain, x, reduce_op=nl.subtract))
    raises(errors.InvalidOperand, "reduce_op is not given", lambda x: stt(x, x, *plain, x, reduce_res=x[:, 0:1]))
    load = nisa.reduce_cmd.load_reduce
    raises(errors.InvalidOperand, "reduce_cmd.*load", lambda x: stt(x, x, *plain, x, reduce_op=nl.add, reduce_cmd=load))
    raises(errors.ShapeMismatch, "reduce_res", lambda x: stt(x, x, *plain, x, reduce_op=nl.add, reduce_res=x[:, 0:2]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_reciprocal(dtype):
    def kernel(a):
        x, z, narrow = tile(a), new(a.shape), new(a.shape, "bfloat16", nl.psum)
        nisa.reciprocal(z, x)
        nisa.reciprocal(narrow, z)
        return outputs(z, narrow)

    a = make((90, 45), dtype)
    a[a == 0] = 1
    z, narrow = both(kernel, a)
    same(z, np.float32(1) / a.astype(np.float32))
    same(narrow, (np.float32(1) / z).astype(narrow.dtype))


def test_reciprocal_of_zero_and_errors():
    def kernel(a):
        x = tile(a)
        nisa.reciprocal(x, x)
        return outputs(x)

    (z,) = both(kernel, np.array([[0.0, -0.0, np.inf, -np.inf, np.nan]], np.float32))
    same(z, np.array([[np.inf, -np.inf, 0.0, -0.0, np.nan]]))
    raises(errors.ShapeMismatch, r"\(8, 16\).*\(8, 15\)", lambda x: nisa.reciprocal(new((8, 15)), x))
