"""The ALU operators: one row per operator of "Supported Math Operators for NKI ISA" (nki.api.shared).

Bitvec operators work on the bits of integers. Arithmetic operators work in float32; where all tiles are int32
or uint32, GpSimd evaluates the same rows in native 32-bit integers. Comparisons and logical operators yield 1
or 0 in the type they compute in. Maximum and minimum hand a NaN on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nkilite.codegen import transcendental
from nkilite.codegen.emitter import Emitter, Value
from nkilite.ir import attributes
from nkilite.isa.operators import Table
from nkilite.machine.engine import Engine

Emit = Callable[[Emitter, Value, Value, bool], Value]
Reference = Callable[[Any, Any], Any]

_VECTOR = (Engine.vector, Engine.gpsimd)
_ANY = (Engine.vector, Engine.gpsimd, Engine.scalar)


@dataclass(frozen=True, eq=False, repr=False)
class AluOp:
    """An ALU operator; compared and hashed by identity.

    Attributes:
        name: its name in nki.language.
        kind: "bitvec", "arithmetic", or "unary" (arithmetic that ignores its second operand).
        numpy: reference on float32 arrays, on integer arrays for bitvec and for native integer arithmetic.
            Unary operators are called with a second operand like the others.
        code: `emit` with signedness as its last argument.
        commutative: operands may be exchanged.
        identity: what a reduction starts from; None when the operator cannot reduce.
        reduction: the documents list it as a legal reduction operator.
        native: has exact int32 and uint32 arithmetic.
        holds: of a comparison, where it holds.
        engines: where it can run, best first.
    """

    name: str
    kind: str
    numpy: Reference
    code: Emit
    commutative: bool = False
    identity: float | None = None
    reduction: bool = False
    native: bool = True
    engines: tuple[Engine, ...] = _VECTOR
    holds: np.ufunc | None = None

    def emit(self, e: Emitter, a: Value, b: Value, signed: bool = True) -> Value:
        """Lanes of `a op b`: float lanes for arithmetic, integer lanes for bitvec and native integers.

        `signed` says how native integers compare.
        """
        return self.code(e, a, b, signed)

    @property
    def bitvec(self) -> bool:
        return self.kind == "bitvec"

    @property
    def unary(self) -> bool:
        return self.kind == "unary"

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[object, ...]:
        return _row, (self.name,)


# --- helpers of the rows ------------------------------------------------------------------------------------


def _instruction(name: str) -> Emit:
    """An Emitter method of two operands."""
    return lambda e, a, b, signed: getattr(e, name)(a, b)


def _is_float(a: Value) -> bool:
    return a.scalar == "float"


def _flag(e: Emitter, condition: Value, like: Value) -> Value:
    """1 or 0 in the type of `like`."""
    one, zero = (e.const(like.scalar, n, like.lanes) for n in (1, 0))
    return e.select(condition, one, zero)


def _compare(predicate: str) -> Emit:
    def emit(e: Emitter, a: Value, b: Value, signed: bool) -> Value:
        return _flag(e, _order(e, predicate, a, b, signed), a)

    return emit


def _order(e: Emitter, predicate: str, a: Value, b: Value, signed: bool) -> Value:
    """An i1 per lane; a NaN is unequal to everything and in no order."""
    if _is_float(a):
        return e.compare(("u" if predicate == "ne" else "o") + predicate, a, b)
    if predicate not in ("eq", "ne"):
        predicate = ("s" if signed else "u") + predicate
    return e.compare(predicate, a, b)


def _compare_numpy(ufunc: np.ufunc) -> Reference:
    return lambda x, y: ufunc(x, y).astype(np.result_type(x))


def _logical(name: str) -> Emit:
    def emit(e: Emitter, a: Value, b: Value, signed: bool) -> Value:
        zero = e.const(a.scalar, 0, a.lanes)
        truths = (_order(e, "ne", x, zero, signed) for x in (a, b))
        return _flag(e, getattr(e, name)(*truths), a)

    return emit


def _extreme(predicate: str) -> Emit:
    """Maximum or minimum. With floats the selection is one instruction that keeps a NaN in b, not in a."""

    def emit(e: Emitter, a: Value, b: Value, signed: bool) -> Value:
        chosen = e.select(_order(e, predicate, a, b, signed), a, b)
        return e.select(e.compare("uno", a, a), a, chosen) if _is_float(a) else chosen

    return emit


def _magnitude(e: Emitter, a: Value) -> Value:
    if _is_float(a):
        return e.abs(a)
    negated = e.neg(a)
    return e.select(e.compare("slt", a, negated), negated, a)


def _extreme_magnitude(predicate: str) -> Emit:
    """The operand of larger or smaller magnitude, with its sign; b when they tie."""

    def emit(e: Emitter, a: Value, b: Value, signed: bool) -> Value:
        if not signed and not _is_float(a):
            return e.select(_order(e, predicate, a, b, False), a, b)
        return e.select(_order(e, predicate, _magnitude(e, a), _magnitude(e, b), True), a, b)

    return emit


def _emit_abs(e: Emitter, a: Value, b: Value, signed: bool) -> Value:
    return _magnitude(e, a) if signed or _is_float(a) else a


def _emit_relu(e: Emitter, a: Value, b: Value, signed: bool) -> Value:
    if not signed and not _is_float(a):
        return a
    zero = e.const(a.scalar, 0, a.lanes)
    return e.select(_order(e, "lt", a, zero, True), zero, a)


def _shift(name: str) -> Emit:
    """A logical shift; amounts of the element's width or more clear it (to LLVM they are undefined)."""

    def emit(e: Emitter, a: Value, b: Value, signed: bool) -> Value:
        width = e.const(a.scalar, int(a.scalar[1:]), a.lanes)
        zero = e.const(a.scalar, 0, a.lanes)
        return e.select(e.compare("ult", b, width), getattr(e, name)(a, b), zero)

    return emit


def _shift_numpy(ufunc: np.ufunc) -> Reference:
    def reference(x: object, y: object) -> object:
        x = np.asarray(x)
        unsigned = np.dtype(f"u{x.itemsize}")
        bits, amount = x.view(unsigned), np.asarray(y, x.dtype).view(unsigned)
        inside = amount < 8 * x.itemsize
        shifted = ufunc(bits, np.where(inside, amount, unsigned.type(0)))
        return np.where(inside, shifted, unsigned.type(0)).view(x.dtype)

    return reference


def _in_double(function: Reference) -> Reference:
    """A reference computed in float64 and rounded once."""

    def reference(x: Any, y: Any) -> object:
        with np.errstate(all="ignore"):
            return np.asarray(function(np.float64(x), np.float64(y))).astype(np.float32)

    return reference


def _quiet(function: Reference) -> Reference:
    def reference(x: object, y: object) -> object:
        with np.errstate(all="ignore"):
            return function(x, y)

    return reference


def _bitvec(name: str, numpy: Reference, emit: Emit, **facts: Any) -> AluOp:
    return AluOp(name, "bitvec", numpy, emit, **facts)


def _arithmetic(name: str, numpy: Reference, emit: Emit, **facts: Any) -> AluOp:
    return AluOp(name, "arithmetic", _quiet(numpy), emit, **facts)


def _comparison(name: str, ufunc: np.ufunc, predicate: str, **facts: object) -> AluOp:
    return _arithmetic(name, _compare_numpy(ufunc), _compare(predicate), holds=ufunc, **facts)


def _unary(name: str, numpy: Reference, emit: Emit, **facts: Any) -> AluOp:
    return AluOp(name, "unary", _quiet(numpy), emit, **facts)


def _reduces(identity: float) -> dict[str, object]:
    return {"commutative": True, "identity": identity, "reduction": True}


# --- the table ----------------------------------------------------------------------------------------------

_INF = float("inf")

TABLE = Table(
    "ALU operator",
    (
        _bitvec("invert", lambda x, y: np.invert(x), lambda e, a, b, signed: e.not_(a)),
        _bitvec("bitwise_and", np.bitwise_and, _instruction("and_"), **_reduces(-1)),
        _bitvec("bitwise_or", np.bitwise_or, _instruction("or_"), **_reduces(0)),
        _bitvec("bitwise_xor", np.bitwise_xor, _instruction("xor"), **_reduces(0)),
        _bitvec("left_shift", _shift_numpy(np.left_shift), _shift("shl")),
        _bitvec("right_shift", _shift_numpy(np.right_shift), _shift("lshr")),
        _arithmetic("add", np.add, _instruction("add"), engines=_ANY, **_reduces(0.0)),
        _arithmetic("subtract", np.subtract, _instruction("sub"), identity=0.0, reduction=True),
        _arithmetic("multiply", np.multiply, _instruction("mul"), engines=_ANY, **_reduces(1.0)),
        _arithmetic("maximum", np.maximum, _extreme("gt"), **_reduces(-_INF)),
        _arithmetic("minimum", np.minimum, _extreme("lt"), **_reduces(_INF)),
        _comparison("equal", np.equal, "eq", commutative=True),
        _comparison("not_equal", np.not_equal, "ne", commutative=True),
        _comparison("greater_equal", np.greater_equal, "ge"),
        _comparison("greater", np.greater, "gt"),
        _comparison("less_equal", np.less_equal, "le"),
        _comparison("less", np.less, "lt"),
        _arithmetic("logical_and", _compare_numpy(np.logical_and), _logical("and_"), **_reduces(1.0)),
        _arithmetic("logical_or", _compare_numpy(np.logical_or), _logical("or_"), **_reduces(0.0)),
        _arithmetic("logical_xor", _compare_numpy(np.logical_xor), _logical("xor"), **_reduces(0.0)),
        _arithmetic(
            "power",
            _in_double(np.power),
            lambda e, a, b, signed: transcendental.power(e, a, b),
            native=False,
            engines=(Engine.gpsimd, Engine.vector),
        ),
        _arithmetic(
            "abs_max",
            lambda x, y: np.where(np.abs(x) > np.abs(y), x, y),
            _extreme_magnitude("gt"),
            identity=0.0,
        ),
        _arithmetic(
            "abs_min",
            lambda x, y: np.where(np.abs(x) < np.abs(y), x, y),
            _extreme_magnitude("lt"),
            identity=_INF,
        ),
        _unary("abs", lambda x, y: np.abs(x), _emit_abs),
        _unary("square", lambda x, y: x * x, lambda e, a, b, signed: e.mul(a, a)),
        _unary("relu", lambda x, y: np.where(x < 0, np.zeros_like(x), x), _emit_relu),
        _unary(
            "rsqrt",
            _in_double(lambda x, y: 1.0 / np.sqrt(x)),
            lambda e, a, b, signed: transcendental.rsqrt(e, a),
            native=False,
            engines=(Engine.gpsimd,),
        ),
        _unary(
            "reciprocal",
            lambda x, y: np.float32(1) / x,
            lambda e, a, b, signed: transcendental.reciprocal(e, a),
            native=False,
        ),
        # Leaves its first operand alone; it stands where an instruction's operator is not wanted.
        _unary("bypass", lambda x, y: x, lambda e, a, b, signed: a),
        # For nisa.tensor_partition_reduce alone: a sum, which the instruction divides by the partitions.
        _arithmetic("average", np.add, _instruction("add"), engines=(Engine.gpsimd,), **_reduces(0.0)),
    ),
    # The reductions nl.max, nl.min and nl.mean are accepted where operators of their meaning are.
    aliases={"max": "maximum", "min": "minimum", "mean": "average"},
)

ELEMENTWISE = tuple(row for row in TABLE.rows.values() if row.name != "average")


# nl.abs_max of two tiles keeps the sign; a reduction by it is that of the magnitudes (isa: activate2).
_OF_MAGNITUDES = {
    "abs_max": _arithmetic(
        "abs_max",
        lambda x, y: np.maximum(np.abs(x), np.abs(y)),
        lambda e, a, b, signed: _extreme("gt")(e, _magnitude(e, a), _magnitude(e, b), signed),
        **_reduces(0.0),
    ),
    "abs_min": _arithmetic(
        "abs_min",
        lambda x, y: np.minimum(np.abs(x), np.abs(y)),
        lambda e, a, b, signed: _extreme("lt")(e, _magnitude(e, a), _magnitude(e, b), signed),
        **_reduces(_INF),
    ),
}


def reduction(op: AluOp) -> AluOp:
    """What combines elements in a reduction by an operator."""
    return _OF_MAGNITUDES.get(op.name, op)


def _row(name: str) -> AluOp:
    return TABLE[name]


def lookup(op: object, instruction: str, allowed: tuple[AluOp, ...] = ELEMENTWISE) -> AluOp:
    """The row an `op` argument names: an nl function, a NumPy ufunc of the same meaning, a row, or a name.

    Args:
        instruction: for the message, such as "nisa.tensor_tensor".
        allowed: the rows this instruction takes.

    Raises:
        UnknownOperator: it names none of `allowed`.
    """
    return TABLE.lookup(op, instruction, allowed)


attributes.register("alu", AluOp, lambda name: TABLE.rows[name])
