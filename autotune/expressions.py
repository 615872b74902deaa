"""Constraints in words: arithmetic and comparisons over parameters, which may come from a storage and are not run.

They look like Python and mean what it means by them, but what is not in the tables below does not exist: no
attributes, no subscripts, no calls but those of four functions, no numbers beyond all bounds.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from autotune.errors import InvalidSpace

Values = Mapping[str, Any]
Evaluate = Callable[[Values], Any]

FUNCTIONS: dict[str, Callable[..., Any]] = {"abs": abs, "len": len, "max": max, "min": min}
_LONGEST = 2000  # characters
_LARGEST = 1 << 128  # of a number


def _power(base: Any, exponent: Any) -> Any:
    if abs(exponent) > 128 or abs(base) > 1 << 64:
        raise ArithmeticError("too large")
    return base**exponent


def _left_shift(value: Any, count: Any) -> Any:
    if count > 128:
        raise ArithmeticError("too large")
    return value << count


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: _power, ast.LShift: _left_shift,
    ast.RShift: operator.rshift, ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor,
}
_UNARY: dict[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_, ast.Invert: operator.invert,
}
_COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
    ast.Is: lambda a, b: a is b, ast.IsNot: lambda a, b: a is not b,
}


class Expression:
    """A condition in words.

    Attributes:
        names: the parameters it speaks of.
    """

    def __init__(self, text: str) -> None:
        """
        Raises:
            InvalidSpace: the text is not such an expression.
        """
        self._text = text
        self._names: set[str] = set()
        try:
            if len(text) > _LONGEST:
                raise ValueError("longer than any constraint")
            self._evaluate = self._read(ast.parse(text, mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self._refuse(getattr(error, "msg", None) or str(error))
        self.names = frozenset(self._names)

    def __call__(self, values: Values) -> bool:
        """
        Raises:
            InvalidSpace: it has no value for these.
        """
        try:
            return bool(self._evaluate(values))
        except (ArithmeticError, TypeError, ValueError) as error:
            self._refuse(f"cannot be told for {dict(values)}: {error}")

    def _refuse(self, problem: str) -> NoReturn:
        raise InvalidSpace(problem=f"constraint {self._text!r} is not an expression over parameters: {problem}")

    def _read(self, node: ast.AST) -> Evaluate:
        """The function of a node of the syntax tree."""
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str, bool, type(None))):
            value = node.value
            return lambda values: value
        if isinstance(node, ast.Name):
            name = node.id
            self._names.add(name)
            return lambda values: values[name]
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _bounded(_OPERATORS[type(node.op)], self._read(node.left), self._read(node.right))
        if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
            function, operand = _UNARY[type(node.op)], self._read(node.operand)
            return lambda values: function(operand(values))
        if isinstance(node, ast.BoolOp):
            return _all_or_any(isinstance(node.op, ast.And), [self._read(v) for v in node.values])
        if isinstance(node, ast.Compare):
            return _compared(self._read(node.left), [
                (_COMPARISONS[type(o)], self._read(c)) for o, c in zip(node.ops, node.comparators, strict=True)
            ])
        if isinstance(node, ast.IfExp):
            test, yes, no = self._read(node.test), self._read(node.body), self._read(node.orelse)
            return lambda values: yes(values) if test(values) else no(values)
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            items = [self._read(item) for item in node.elts]
            return lambda values: [item(values) for item in items]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            called, arguments = FUNCTIONS.get(node.func.id), [self._read(a) for a in node.args]
            if called is not None:
                return lambda values: called(*(a(values) for a in arguments))
        raise ValueError(f"it has a {type(node).__name__}, which only Python has")


def _bounded(function: Callable[[Any, Any], Any], left: Evaluate, right: Evaluate) -> Evaluate:
    def evaluate(values: Values) -> Any:
        one, other = left(values), right(values)
        if not (isinstance(one, (int, float)) and isinstance(other, (int, float))):
            raise TypeError("only numbers are computed with")
        result = function(one, other)
        if isinstance(result, int) and abs(result) > _LARGEST:
            raise ArithmeticError("too large")
        return result

    return evaluate


def _all_or_any(every: bool, parts: list[Evaluate]) -> Evaluate:
    def evaluate(values: Values) -> Any:
        value: Any = every
        for part in parts:
            value = part(values)
            if bool(value) != every:
                break
        return value

    return evaluate


def _compared(first: Evaluate, others: list[tuple[Callable[[Any, Any], Any], Evaluate]]) -> Evaluate:
    def evaluate(values: Values) -> bool:
        left = first(values)
        for function, other in others:
            right = other(values)
            if not function(left, right):
                return False
            left = right
        return True

    return evaluate
