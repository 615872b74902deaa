"""The ALU operator table: code agrees with the NumPy references, and lookup accepts what kernels pass."""

from __future__ import annotations

import copy
import pickle
import types

import numpy as np
import pytest

from nkilite.errors import UnknownOperator
from nkilite.isa import activation_functions, alu
from nkilite.machine.engine import Engine
from nkilite.machine.target import get_target

pytestmark = pytest.mark.all_combinations  # they take no time

ROWS = list(alu.TABLE.rows.values())
ARITHMETIC = [row for row in ROWS if not row.bitvec]
BITVEC = [row for row in ROWS if row.bitvec]
NATIVE = [row for row in ARITHMETIC if row.native]

DOCUMENTED = {
    "invert", "bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift",
    "add", "subtract", "multiply", "maximum", "minimum",
    "equal", "not_equal", "greater_equal", "greater", "less_equal", "less",
    "logical_and", "logical_or", "logical_xor", "power", "abs_max", "abs_min",
    "abs", "square", "relu", "rsqrt", "reciprocal",
}
LEGAL_REDUCTIONS = {
    "bitwise_and", "bitwise_or", "bitwise_xor", "add", "subtract", "multiply", "maximum", "minimum",
    "logical_and", "logical_or", "logical_xor",
}


def _pairs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(values, values)
    return x.ravel().copy(), y.ravel().copy()


def _floats() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(11)
    edges = [0, -0.0, 1, -1, 2.5, -2.5, 1e-40, 3e38, -3e38, np.inf, -np.inf, np.nan]
    values = np.concatenate([edges, random.normal(0, 3, 60), random.integers(-4, 4, 20)])
    return _pairs(values.astype(np.float32))


def _integers(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    limits = np.iinfo(dtype)
    random = np.random.default_rng(12)
    edges = [limits.min, limits.min + 1, 0, 1, 2, 7, 8, 15, 16, 31, 32, 33, limits.max - 1, limits.max]
    edges = [min(edge, limits.max) for edge in edges]
    return _pairs(np.concatenate([edges, random.integers(limits.min, limits.max, 40)]).astype(dtype))


@pytest.mark.parametrize("row", ARITHMETIC, ids=str)
def test_float_code_matches_reference(cpu, elementwise, row):
    x, y = _floats()
    function = elementwise(cpu, row.emit, ["float", "float"], "float", cpu.lanes)
    assert function.library_calls() == []
    # Powers and roots may differ in the last place; everything else is exact, up to the sign of zero.
    tolerance = 3e-7 if row.name in ("power", "rsqrt") else 0
    np.testing.assert_allclose(function(x, y, out=np.float32), row.numpy(x, y), rtol=tolerance)


@pytest.mark.parametrize("dtype", ["int32", "uint32"])
@pytest.mark.parametrize("row", NATIVE, ids=str)
def test_native_integers_match_reference(cpu, elementwise, row, dtype):
    x, y = _integers(dtype)
    function = elementwise(
        cpu, lambda e, a, b: row.emit(e, a, b, signed=dtype == "int32"), ["i32", "i32"], "i32", cpu.lanes
    )
    expected = row.numpy(x, y)
    assert expected.dtype == dtype
    np.testing.assert_array_equal(function(x, y, out=x.dtype), expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
@pytest.mark.parametrize("row", BITVEC, ids=str)
def test_bit_operations_match_reference(cpu, elementwise, row, dtype):
    x, y = _integers(dtype)
    scalar = f"i{8 * x.itemsize}"
    function = elementwise(cpu, row.emit, [scalar, scalar], scalar, cpu.lanes)
    expected = row.numpy(x, y)
    assert expected.dtype == dtype
    np.testing.assert_array_equal(function(x, y, out=x.dtype), expected)


def test_shifts_are_logical_and_clear_when_too_far():
    shift = alu.TABLE["right_shift"].numpy
    x = np.array([-1, -1, -1, 5], np.int32)
    np.testing.assert_array_equal(shift(x, np.array([28, 32, -1, 1], np.int32)), [15, 0, 0, 2])
    np.testing.assert_array_equal(alu.TABLE["left_shift"].numpy(x, np.int32(31)), np.int32(-(2**31)))


def test_every_documented_operator_is_a_row():
    rows = {row.name: row for row in ROWS}
    assert rows.keys() >= DOCUMENTED | {"bypass", "average"}
    assert {name for name in DOCUMENTED if rows[name].reduction} == LEGAL_REDUCTIONS
    assert {row.name for row in ROWS} & get_target("trn2").missing_operators == {"abs_max", "abs_min", "relu", "square"}
    assert alu.TABLE["rsqrt"].engines == (Engine.gpsimd,)


@pytest.mark.parametrize("row", [row for row in ROWS if row.identity is not None], ids=str)
def test_identity_and_commutativity(row):
    truths = row.name.startswith("logical")
    kind = np.int32 if row.bitvec else np.float32
    x = np.array([0, 1, 1, 0] if truths else [3, -5, 0, 70], kind)
    if row.name == "abs_max":
        x = np.abs(x)
    # A reduction that subtracts keeps the accumulator on the right.
    np.testing.assert_array_equal(row.numpy(x, kind(row.identity)), x)
    if row.commutative:
        np.testing.assert_array_equal(row.numpy(x, x[::-1]), row.numpy(x[::-1], x))


def test_ties_of_magnitude_return_the_second_operand():
    x, y = np.float32([1, -1]), np.float32([-1, 1])
    for name in ("abs_max", "abs_min"):
        np.testing.assert_array_equal(alu.TABLE[name].numpy(x, y), y)


def _language_function(name: str) -> types.FunctionType:
    """What nkilite.language would define."""
    function = types.FunctionType((lambda x: x).__code__, {}, name)
    function.__module__ = "nkilite.language"
    return function


def test_lookup_accepts_what_kernels_pass():
    add = alu.TABLE["add"]
    for op in (add, "add", np.add, _language_function("add")):
        assert alu.lookup(op, "nisa.tensor_tensor") is add
    assert alu.lookup(np.absolute, "nisa.tensor_scalar") is alu.TABLE["abs"]
    assert alu.lookup(_language_function("max"), "nisa.tensor_reduce") is alu.TABLE["maximum"]
    assert activation_functions.lookup(np.exp, "nisa.activation").name == "exp"
    assert activation_functions.lookup(_language_function("gelu"), "nisa.activation").name == "gelu"


def _foreign_add(x, y):
    return x + y


_foreign_add.__name__ = "add"


FOREIGN = [np.sin, "plus", None, 3, _foreign_add, [1], np.add.reduce, "average"]


@pytest.mark.parametrize("op", FOREIGN, ids=range(len(FOREIGN)))
def test_lookup_refuses_everything_else(op):
    with pytest.raises(UnknownOperator, match=r"nisa\.tensor_scalar"):
        alu.lookup(op, "nisa.tensor_scalar")


def test_lookup_keeps_to_what_the_instruction_allows():
    allowed = (alu.TABLE["add"], alu.TABLE["average"])
    assert alu.lookup("average", "nisa.tensor_partition_reduce", allowed) is allowed[1]
    with pytest.raises(UnknownOperator, match="supported: add, average"):
        alu.lookup(np.multiply, "nisa.tensor_partition_reduce", allowed)


@pytest.mark.parametrize("row", [alu.TABLE["add"], activation_functions.TABLE["gelu"]], ids=str)
def test_rows_are_singletons(row):
    assert pickle.loads(pickle.dumps(row)) is row
    assert copy.deepcopy(row) is row
    assert str(row) == row.name
