"""Values at the edges, in every operator and dtype: simulated against compiled at every CPU level, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from isa_testing import CPU_LEVELS, new, outputs, same, tile

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.dtypes import ALL, as_dtype
from nkilite.isa import activation_functions, alu, arithmetic

FLOATS = np.array([
    0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, -1e-39, 1e-5, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5, 2.5, -2.5, 3.7, 6.0, 13.0,
    -14.0, 20.0, -21.0, 88.8, -89.0, -103.0, -104.5, 127.5, 128.5, -128.5, -200.0, 240.0, 255.5, 448.0, 464.0, 57344.0,
    65504.0, 65535.5, 65536.0, 2147483500.0, 2147483648.0, -2147483904.0, 4294967296.0, 1e10, -1e20, 3.4028235e38,
    -3.4028235e38, np.inf, -np.inf, np.nan,
], np.float32)
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "bool")
UNPACKED = [d for d in ALL.values() if d.kind != "x" and not d.is_wide]
BITVEC = [op for op in alu.ELEMENTWISE if op.bitvec]
PATTERNS = np.array([0, 1, 3, 7, 8, 15, 16, 31, 32, 33, 0x80, 0xFF, 0x8000, 0xF0F1, 0x80000000, 0xFFFFFFFF], np.uint32)


def agree(kernel: Callable, *arrays: np.ndarray, check: Callable = same) -> tuple[np.ndarray, ...]:
    """Run simulated and at every CPU level, and compare all results; returns the simulated ones."""
    expected = nki.simulate(kernel)(*(a.copy() for a in arrays))
    for level in CPU_LEVELS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NKILITE_CPU", level)
            got = nki.jit(kernel)(*(a.copy() for a in arrays))
        for number, (left, right) in enumerate(zip(got, expected, strict=True)):
            check(left, right, what=f"{level}, output {number}")
    return expected


def equal_bytes(got: np.ndarray, expected: np.ndarray, what: str) -> None:
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got.view(np.uint8), expected.view(np.uint8), err_msg=what)


def pairs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every value with every other: rows and columns."""
    across = np.broadcast_to(values, (len(values), len(values)))
    return np.ascontiguousarray(across.T), np.ascontiguousarray(across)


def elements(dtype: str) -> np.ndarray:
    """Values of a dtype, one row: numbers at the edges, or patterns of integers."""
    kind = as_dtype(dtype)
    if kind.is_integer:
        return PATTERNS.astype(f"u{kind.itemsize}").view(np.uint8 if kind.kind == "b" else kind.numpy)[None]
    with np.errstate(all="ignore"):
        return FLOATS.astype(kind.numpy)[None]


# --- bit operators --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS)
def test_bit_operators(dtype):
    """Alone and after each other; with vectors, tiles and immediates; into narrower and wider tiles."""
    kind = as_dtype(dtype)
    left, right = pairs(elements(dtype)[0])

    def kernel(x, y):
        a, b = tile(x).view(dtype), tile(y).view(dtype)
        narrow, results = new(x.shape, dtype), []

        def result(to=None):
            results.append(new(x.shape, to or dtype))
            return results[-1]

        for op in BITVEC:
            if not arithmetic.takes_operand(op):
                nisa.tensor_scalar(result(), a, op, None)
                nisa.tensor_scalar(result("uint32"), a, op, None)
                continue
            nisa.tensor_tensor(result(), a, b, op)
            nisa.tensor_tensor(result("int32"), a, b, op)
            nisa.tensor_tensor(result("uint8"), a, b, op)
            nisa.tensor_scalar(result(), a, op, b[:, 3:4])
            for immediate, reverse in product((-1, 4, 257, 65537, 0xF0F0F0F0), (False, True)):
                nisa.tensor_scalar(result(), a, op, immediate, reverse)
        for first, second in (("left_shift", "right_shift"), ("invert", "right_shift"), ("bitwise_xor", "right_shift")):
            one, two = alu.TABLE[first], alu.TABLE[second]
            operand = -1 if first == "bitwise_xor" else 4 if arithmetic.takes_operand(one) else None
            nisa.tensor_scalar(result(), a, one, operand, False, two, 4)
            nisa.tensor_scalar(result("uint16"), a, one, operand, False, two, b[:, 2:3])
        nisa.tensor_copy(narrow, a)
        nisa.tensor_scalar(narrow, narrow, nl.left_shift, 4, False, nl.right_shift, 4)
        results.append(narrow)
        for op in (nl.bitwise_and, nl.bitwise_or, nl.bitwise_xor):
            for to in (dtype, "uint32"):
                results.append(new((x.shape[0], 1), to))
                nisa.tensor_reduce(results[-1], op, a, 1)
        return outputs(*results)

    got = agree(kernel, left, right, check=equal_bytes)
    if kind.kind == "u":  # by the definition: patterns of 32 bits, of which the low ones are stored
        wide = left.astype(np.uint64)
        shifted = (wide << np.uint64(4) & np.uint64(0xFFFFFFFF)) >> np.uint64(4)
        np.testing.assert_array_equal(got[-7], shifted.astype(kind.numpy))


# --- numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3", "int8", "uint32"])
def test_arithmetic(dtype, monkeypatch):
    """Every arithmetic operator on every pair of values, and what it stores in float32 and in the dtype."""
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")  # it has them all
    left, right = pairs(elements(dtype)[0])

    def kernel(x, y):
        a, b, results = tile(x), tile(y), []
        for op in arithmetic.ARITHMETIC:
            if op.name in ("power", "rsqrt"):  # not correctly rounded
                continue
            for to in ("float32", dtype):
                results.append(new(x.shape, to))
                if arithmetic.takes_operand(op):
                    nisa.tensor_tensor(results[-1], a, b, op)
                else:
                    nisa.tensor_scalar(results[-1], a, op, None)
            if arithmetic.takes_operand(op):
                for immediate in (0.0, -0.0, -1.5):
                    results.append(new(x.shape, dtype))
                    nisa.tensor_scalar(results[-1], a, op, immediate, True)
        return outputs(*results)

    agree(kernel, left, right)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_activation_functions(dtype):
    """Zeros with their signs, infinities, and tails that are subnormal."""
    functions = [f for f in activation_functions.ALL if not f.takes_slope]

    def kernel(x):
        data, results = tile(x), []
        for function in functions:
            results.append(new(x.shape))
            nisa.activation(results[-1], function, data)
        return outputs(*results)

    def close(got, expected, what):
        zeros = expected == 0
        np.testing.assert_array_equal(np.signbit(got[zeros]), np.signbit(expected[zeros]), err_msg=what)
        np.testing.assert_allclose(got, expected, rtol=4e-6, atol=3e-45, err_msg=what)

    agree(kernel, elements(dtype), check=close)


def test_conversions():
    """To every dtype, by copies."""
    sources = ("float32", "tfloat32", "float8_e5m2", "bool", "uint32")

    def kernel(*arrays):
        results = []
        for dtype, x in zip(sources, arrays, strict=True):
            data = tile(x).view(dtype)
            for to in UNPACKED:
                results.append(new(x.shape, to))
                nisa.tensor_copy(results[-1], data)
        return outputs(*results)

    agree(kernel, *(elements(dtype) for dtype in sources))


# --- moves ------------------------------------------------------------------------------------------------------

WORDS = np.array(
    [0, 0x80000000, 0x3F9E0652, 0x7F800001, 0xFFC12345, 0x00000001, 0x02FF0780, 0xFF01FE02], np.uint32
)


@pytest.mark.parametrize("dtype", ["tfloat32", "float32", "bool", "bfloat16", "float16", "float8_e4m3fn"])
def test_moves_keep_all_bits(dtype):
    """NaN with their payloads, digits that tfloat32 has no room for, bytes of bools that are neither 0 nor 1."""
    bits = np.tile(WORDS, (16, 4))
    name = {1: "uint8", 2: "uint16", 4: "uint32"}[as_dtype(dtype).itemsize]

    def kernel(x, index):
        source, data, chosen = x.view(dtype), tile(x).view(dtype), tile(index)
        square, results = data[:, 0:16], []

        def result(shape, buffer=nl.sbuf):
            results.append(new(shape, dtype, buffer))
            return results[-1]

        nisa.tensor_copy(result(data.shape), data)
        nisa.dma_copy(result(data.shape), source)
        nisa.nc_transpose(result((16, 16)), square)
        nisa.dma_transpose(result((16, 16)), square)
        nisa.nc_stream_shuffle(result(data.shape), data, [i ^ 1 if i < 16 else 255 for i in range(32)])
        nisa.nc_n_gather(result((16, 16)), data, chosen)
        kept = result(data.shape)
        nisa.tensor_copy(kept, data)
        nisa.tensor_copy_predicated(kept[:, 0:16], data[:, 16:32], chosen)
        nisa.affine_select(result((16, 16)), [[-1, 16]], 1, square, 1.0, nl.greater_equal, offset=3)
        if dtype != "bool":
            nisa.nc_match_replace8(result(data.shape), data, data[:, 0:8], 0.0)
        indexed = result((16, 1))
        nisa.dma_copy(indexed, source[0:16, nl.ds(0, 1)])
        results = [r.view(name) for r in results]
        return outputs(*results)

    index = np.random.default_rng(0).integers(0, 16, (16, 16)).astype(np.uint32)
    expected = agree(kernel, bits.view(name), index, check=equal_bytes)
    np.testing.assert_array_equal(expected[0], bits.view(name))
    np.testing.assert_array_equal(expected[2], bits.view(name)[:, :16].T)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("dtype", ["tfloat32", "bool"])
def test_moves_in_fused_chains(dtype):
    """What passes from one instruction to the next in registers or scratch keeps its bits, too."""
    bits = np.tile(WORDS, (128, 64))
    name = "uint8" if dtype == "bool" else "uint32"

    def kernel(x):
        data = tile(x).view(dtype)
        copied, again, number, sum_ = (new(x.shape, dtype), new(x.shape, dtype), new(x.shape), new((x.shape[0], 1)))
        nisa.tensor_copy(copied, data)
        nisa.tensor_copy(again, copied)
        nisa.tensor_scalar(number, again, nl.multiply, 1.0)
        nisa.tensor_reduce(sum_, nl.maximum, again, 1)
        return outputs(again.view(name), number, sum_)

    agree(kernel, bits.view(name))


def test_bool_in_registers_and_indices():
    """A bool of byte 2 is 1 there, too."""

    def kernel(x):
        flags, register = tile(x).view("bool"), nisa.register_alloc()
        nisa.register_load(register, flags[0:1, 2:3])
        number = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.shared_hbm)
        nisa.register_store(number, register)
        chosen = nl.ndarray((1, 4), dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(chosen, x.ap([[4, 1], [1, 4]], scalar_offset=flags[0:1, 2:3]))
        return number, chosen

    number, chosen = agree(kernel, np.arange(12, dtype=np.uint8).reshape(3, 4), check=equal_bytes)
    assert number == 1
    np.testing.assert_array_equal(chosen, [[4, 5, 6, 7]])
