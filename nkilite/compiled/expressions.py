"""Expressions of a small part of Python as LLVM text."""

from __future__ import annotations

import ast
import struct
from collections.abc import Callable
from typing import NamedTuple

from nkilite.compiled.interface import ARRAYS, FLOAT, INT, SCALARS, TRUTH, Instruction, Interface, NotTranslatable

__all__ = ["DECLARATIONS", "Expressions", "Value"]

#: What every module declares.
DECLARATIONS = "declare i64 @llvm.ctlz.i64(i64, i1)"

_INT_OPERATORS = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.LShift: "shl", ast.RShift: "ashr", ast.BitAnd: "and",
    ast.BitOr: "or", ast.BitXor: "xor",
}
_FLOAT_OPERATORS = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}
_INT_COMPARISONS = {
    ast.Lt: "slt", ast.LtE: "sle", ast.Gt: "sgt", ast.GtE: "sge", ast.Eq: "eq", ast.NotEq: "ne",
}
_FLOAT_COMPARISONS = {
    ast.Lt: "olt", ast.LtE: "ole", ast.Gt: "ogt", ast.GtE: "oge", ast.Eq: "oeq", ast.NotEq: "une",
}


class Value(NamedTuple):
    """A register or a constant, and its LLVM type."""

    text: str
    type: str


class Expressions:
    """Writes the instructions of one function; variables are stack slots, which LLVM turns into registers.

    Args:
        own: the function's interface.
        function: it.
        lookup: what a global name stands for: a number, or the Interface of a function.
    """

    def __init__(self, own: Interface, function: ast.FunctionDef, lookup: Callable[[str], object]) -> None:
        self._own, self._function, self._lookup = own, function, lookup
        self._lines: list[str] = []
        self._slots: dict[str, str] = {}  # the type of every variable
        self._arrays = {name: ARRAYS[kind] for name, kind in own.arguments if kind in ARRAYS}
        self._numbers = 0
        self._ended = False  # nothing can follow in this block

    # --- expressions --------------------------------------------------------------------------------------------------

    def _value(self, node: ast.expr) -> Value:
        if isinstance(node, ast.Constant):
            return self._constant(node, node.value)
        if isinstance(node, ast.Name):
            return self._load(node.id) if node.id in self._slots else self._global(node)
        if isinstance(node, ast.Subscript):
            place, element = self._place(node)
            return self._new(f"load {element}, ptr {place}", element)
        if isinstance(node, ast.BinOp):
            return self._arithmetic(node, node.op, self._value(node.left), self._value(node.right))
        if isinstance(node, ast.UnaryOp):
            return self._unary(node)
        if isinstance(node, ast.BoolOp):
            return self._short_circuit(node)
        if isinstance(node, ast.Compare):
            return self._compare(node)
        if isinstance(node, ast.IfExp):
            return self._either(node)
        if isinstance(node, ast.Call):
            found = self._call(node)
            if found is not None:
                return found
        raise self._error(node, type(node).__name__)

    def _constant(self, node: ast.AST, value: object) -> Value:
        if isinstance(value, bool):
            return Value(str(value).lower(), TRUTH)
        if isinstance(value, int):
            return Value(str(value), INT)
        if isinstance(value, float):
            return Value(_exact(value), FLOAT)
        raise self._error(node, f"a constant like {value!r}")

    def _global(self, node: ast.Name) -> Value:
        if node.id in self._arrays:
            raise self._error(node, "an array without an index")
        return self._constant(node, self._lookup(node.id))

    def _place(self, node: ast.Subscript) -> tuple[str, str]:
        if not isinstance(node.value, ast.Name) or node.value.id not in self._arrays:
            raise self._error(node, "an index into anything but an argument")
        type = self._arrays[node.value.id]
        index = self._as(node, self._value(node.slice), INT)
        return self._new(f"getelementptr {type}, ptr %{node.value.id}, i64 {index.text}", "ptr").text, type

    def _arithmetic(self, node: ast.AST, operator: ast.operator, left: Value, right: Value) -> Value:
        kind = type(operator)
        if FLOAT in (left.type, right.type) or kind is ast.Div:
            left, right = self._as(node, left, FLOAT), self._as(node, right, FLOAT)
            if kind not in _FLOAT_OPERATORS:
                raise self._error(node, f"{kind.__name__} of floats")
            return self._new(f"{_FLOAT_OPERATORS[kind]} double {left.text}, {right.text}", FLOAT)
        left, right = self._as(node, left, INT), self._as(node, right, INT)
        if kind in (ast.FloorDiv, ast.Mod):
            return self._rounded_down(kind is ast.Mod, left, right)
        if kind not in _INT_OPERATORS:
            raise self._error(node, f"{kind.__name__} of ints")
        return self._new(f"{_INT_OPERATORS[kind]} i64 {left.text}, {right.text}", INT)

    def _rounded_down(self, modulo: bool, left: Value, right: Value) -> Value:
        """`//` or `%`: what rounds towards zero, moved by one divisor where there is a rest of another sign."""
        rest = self._new(f"srem i64 {left.text}, {right.text}", INT)
        signs = self._new(f"xor i64 {rest.text}, {right.text}", INT)
        differ = self._new(f"icmp slt i64 {signs.text}, 0", TRUTH)
        some = self._new(f"icmp ne i64 {rest.text}, 0", TRUTH)
        moves = self._new(f"and i1 {differ.text}, {some.text}", TRUTH)
        if modulo:
            moved = self._new(f"add i64 {rest.text}, {right.text}", INT)
            return self._new(f"select i1 {moves.text}, i64 {moved.text}, i64 {rest.text}", INT)
        quotient = self._new(f"sdiv i64 {left.text}, {right.text}", INT)
        by = self._new(f"zext i1 {moves.text} to i64", INT)
        return self._new(f"sub i64 {quotient.text}, {by.text}", INT)

    def _unary(self, node: ast.UnaryOp) -> Value:
        if isinstance(node.op, ast.Not):
            return self._new(f"xor i1 {self._truth(node.operand).text}, true", TRUTH)
        value = self._value(node.operand)
        if isinstance(node.op, ast.USub):
            if value.type == FLOAT:
                return self._new(f"fneg double {value.text}", FLOAT)
            return self._new(f"sub i64 0, {self._as(node, value, INT).text}", INT)
        if isinstance(node.op, ast.Invert):
            return self._new(f"xor i64 {self._as(node, value, INT).text}, -1", INT)
        raise self._error(node, type(node.op).__name__)

    def _short_circuit(self, node: ast.BoolOp) -> Value:
        """`and` and `or` of truth values."""
        name, end = f"truth.{self._number()}", self._label("known")
        for i, operand in enumerate(node.values):
            value = self._truth(operand)
            self._store(name, value)
            if i + 1 < len(node.values):
                more = self._label("more")
                self._branch(value, *((more, end) if isinstance(node.op, ast.And) else (end, more)))
                self._start(more)
        self._goto(end)
        self._start(end)
        return self._load(name)

    def _compare(self, node: ast.Compare) -> Value:
        values = [self._value(v) for v in (node.left, *node.comparators)]
        found = [self._one(node, op, a, b) for op, a, b in zip(node.ops, values, values[1:], strict=False)]
        whole = found[0]
        for other in found[1:]:
            whole = self._new(f"and i1 {whole.text}, {other.text}", TRUTH)
        return whole

    def _one(self, node: ast.AST, operator: ast.cmpop, left: Value, right: Value) -> Value:
        if type(operator) not in _INT_COMPARISONS:
            raise self._error(node, type(operator).__name__)
        if FLOAT in (left.type, right.type):
            left, right = self._as(node, left, FLOAT), self._as(node, right, FLOAT)
            return self._new(f"fcmp {_FLOAT_COMPARISONS[type(operator)]} double {left.text}, {right.text}", TRUTH)
        left, right = self._as(node, left, INT), self._as(node, right, INT)
        return self._new(f"icmp {_INT_COMPARISONS[type(operator)]} i64 {left.text}, {right.text}", TRUTH)

    def _either(self, node: ast.IfExp) -> Value:
        name = f"either.{self._number()}"
        then, other, after = self._label("then"), self._label("else"), self._label("after")
        self._branch(self._truth(node.test), then, other)
        self._start(then)
        self._store(name, self._value(node.body))
        self._goto(after)
        self._start(other)
        self._store(name, self._as(node, self._value(node.orelse), self._slots[name]))
        self._goto(after)
        self._start(after)
        return self._load(name)

    def _call(self, node: ast.Call) -> Value | None:
        if node.keywords:
            raise self._error(node, "an argument by name")
        if isinstance(node.func, ast.Attribute) and node.func.attr == "bit_length":
            value = self._as(node, self._value(node.func.value), INT)  # not negative
            zeros = self._new(f"call i64 @llvm.ctlz.i64(i64 {value.text}, i1 false)", INT)
            return self._new(f"sub i64 64, {zeros.text}", INT)
        if not isinstance(node.func, ast.Name):
            raise self._error(node, "a call of a method")
        if node.func.id in ("int", "float"):
            return self._converted(node, self._value(node.args[0]), SCALARS[node.func.id])
        if node.func.id in ("min", "max"):
            return self._extreme(node, node.func.id)
        called = self._lookup(node.func.id)
        if isinstance(called, Instruction):
            return self._instruction(node, called)
        if not isinstance(called, Interface) or len(called.arguments) != len(node.args):
            raise self._error(node, f"a call of {node.func.id}")
        given = [self._argument(a, kind) for a, (_, kind) in zip(node.args, called.arguments, strict=True)]
        if called.result is None:
            self._emit(f"call void @{called.symbol}({', '.join(given)})")
            return None
        type = SCALARS[called.result]
        return self._new(f"call {type} @{called.symbol}({', '.join(given)})", type)

    def _instruction(self, node: ast.Call, called: Instruction) -> Value | None:
        given = []
        for argument, type in zip(node.args, called.takes, strict=True):
            value = self._as(argument, self._value(argument), INT)
            change = {"ptr": "inttoptr", INT: ""}.get(type, "trunc")
            given.append(self._new(f"{change} i64 {value.text} to {type}", type).text if change else value.text)
        *before, last = called.text.format(*given, t=f"%t{self._number()}").split("\n")
        for line in before:
            self._emit(line)
        if called.gives == "void":
            self._emit(last)
            return None
        found = self._new(last, called.gives)
        return found if found.type in (INT, TRUTH) else self._new(f"zext {found.type} {found.text} to i64", INT)

    def _argument(self, node: ast.expr, kind: str) -> str:
        if kind in ARRAYS:
            if not isinstance(node, ast.Name) or self._arrays.get(node.id) != ARRAYS[kind]:
                raise self._error(node, f"an argument that is not of {kind}")
            return f"ptr %{node.id}"
        return f"{SCALARS[kind]} {self._as(node, self._value(node), SCALARS[kind]).text}"

    def _extreme(self, node: ast.Call, name: str) -> Value:
        """min or max of numbers of one type; of equal ones, the first, as in Python."""
        found = self._value(node.args[0])
        for argument in node.args[1:]:
            other = self._value(argument)
            if other.type != found.type:
                raise self._error(node, f"{name} of an int and a float")
            better = self._one(node, ast.Lt() if name == "min" else ast.Gt(), other, found)
            both = f"{found.type} {other.text}, {found.type} {found.text}"
            found = self._new(f"select i1 {better.text}, {both}", found.type)
        return found

    def _converted(self, node: ast.AST, value: Value, type: str) -> Value:
        if value.type == FLOAT and type == INT:
            return self._new(f"fptosi double {value.text} to i64", INT)
        return self._as(node, value, type)

    def _truth(self, node: ast.expr) -> Value:
        value = self._value(node)
        if value.type == TRUTH:
            return value
        if value.type == FLOAT:
            return self._new(f"fcmp une double {value.text}, 0.0", TRUTH)
        return self._new(f"icmp ne i64 {value.text}, 0", TRUTH)

    def _as(self, node: ast.AST, value: Value, type: str) -> Value:
        """A value where one of another type is wanted: truth values are ints, and ints are floats, as in Python."""
        if value.type == type:
            return value
        if value.type == TRUTH and type == INT:
            return self._new(f"zext i1 {value.text} to i64", INT)
        if value.type == INT and type == FLOAT:
            return self._new(f"sitofp i64 {value.text} to double", FLOAT)
        raise self._error(node, f"{value.type} where {type} is wanted")

    # --- text ---------------------------------------------------------------------------------------------------------

    def _emit(self, line: str) -> None:
        self._lines.append(f"  {line}")

    def _new(self, operation: str, type: str) -> Value:
        name = f"%v{self._number()}"
        self._emit(f"{name} = {operation}")
        return Value(name, type)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _label(self, name: str) -> str:
        return f"{name}.{self._number()}"

    def _start(self, label: str) -> None:
        self._lines.append(f"{label}:")
        self._ended = False

    def _goto(self, label: str) -> bool:
        """End the block; whether it had ended before."""
        ended, self._ended = self._ended, True
        if not ended:
            self._emit(f"br label %{label}")
        return ended

    def _branch(self, truth: Value, then: str, other: str) -> None:
        self._emit(f"br i1 {truth.text}, label %{then}, label %{other}")

    def _store(self, name: str, value: Value) -> None:
        self._slots.setdefault(name, value.type)
        self._emit(f"store {value.type} {value.text}, ptr %{name}.slot")

    def _load(self, name: str) -> Value:
        return self._new(f"load {self._slots[name]}, ptr %{name}.slot", self._slots[name])

    def _error(self, node: ast.AST, what: str) -> NotTranslatable:
        return NotTranslatable(f"{self._function.name}, line {getattr(node, 'lineno', 0)}: {what} has no translation")


def _exact(value: float) -> str:
    """A float as LLVM writes all its bits."""
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"

