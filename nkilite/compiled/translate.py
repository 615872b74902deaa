"""The source of a function, in a small part of Python, as LLVM text.

Values are 64-bit ints, 64-bit floats and truth values; arrays are one-dimensional, of ints or of floats, and neither
their bounds nor the range of an int is checked. Everything else means what it means in Python: `//` and `%` round
down, `and` and `or` stop early, comparisons chain, and floating-point arithmetic is neither reordered nor fused.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

from nkilite.compiled.expressions import DECLARATIONS, Expressions, Value
from nkilite.compiled.interface import ARRAYS, INT, SCALARS, TRUTH, Interface

__all__ = ["DECLARATIONS", "translate"]


def translate(own: Interface, function: ast.FunctionDef, lookup: Callable[[str], object], external: bool) -> str:
    """The LLVM text of a function.

    Args:
        own: its interface.
        lookup: what a global name stands for: a number, or the Interface of a function.
        external: whether it is called from outside of its module.

    Raises:
        NotTranslatable: names the construct and its line.
    """
    return _Translator(own, function, lookup).text("" if external else "internal ")


class _Translator(Expressions):
    """Translates one function."""

    def __init__(self, own: Interface, function: ast.FunctionDef, lookup: Callable[[str], object]) -> None:
        super().__init__(own, function, lookup)
        self._loops: list[tuple[str, str]] = []  # where continue and break go

    def text(self, linkage: str) -> str:
        parameters = [
            f"ptr noalias %{name}" if kind in ARRAYS else f"{SCALARS[kind]} %{name}"
            for name, kind in self._own.arguments
        ]
        for name, kind in self._own.arguments:
            if kind in SCALARS:
                self._store(name, Value(f"%{name}", SCALARS[kind]))
        self._block(self._function.body)
        if not self._ended:
            if self._own.result is not None:
                raise self._error(self._function, "a function that may end without its result")
            self._emit("ret void")
        slots = [f"  %{name}.slot = alloca {type}" for name, type in self._slots.items()]
        result = "void" if self._own.result is None else SCALARS[self._own.result]
        head = f"define {linkage}{result} @{self._own.symbol}({', '.join(parameters)}) {{\nentry:"
        return "\n".join([head, *slots, *self._lines, "}", ""])

    # --- statements ---------------------------------------------------------------------------------------------------

    def _block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if self._ended:
                raise self._error(statement, "a statement that is never reached")
            handler = getattr(self, f"_{type(statement).__name__}", None)
            if handler is None:
                raise self._error(statement, type(statement).__name__)
            handler(statement)

    def _Pass(self, _: ast.Pass) -> None:
        pass

    def _Expr(self, statement: ast.Expr) -> None:
        if isinstance(statement.value, ast.Call):
            self._call(statement.value)
        elif not (isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)):
            raise self._error(statement, "an expression without effect")

    def _Assign(self, statement: ast.Assign) -> None:
        (target,) = statement.targets
        if isinstance(target, ast.Tuple):
            if not isinstance(statement.value, ast.Tuple) or len(target.elts) != len(statement.value.elts):
                raise self._error(statement, "unpacking anything but a tuple of that length")
            values = [self._value(v) for v in statement.value.elts]
            for one, value in zip(target.elts, values, strict=True):
                self._assign(one, value)
        else:
            self._assign(target, self._value(statement.value))

    def _AugAssign(self, statement: ast.AugAssign) -> None:
        target = statement.target
        if isinstance(target, ast.Subscript):
            place, type = self._place(target)
            before = self._new(f"load {type}, ptr {place}", type)
            after = self._arithmetic(statement, statement.op, before, self._value(statement.value))
            self._emit(f"store {type} {self._as(statement, after, type).text}, ptr {place}")
        else:
            before = self._value(target)
            self._assign(target, self._arithmetic(statement, statement.op, before, self._value(statement.value)))

    def _assign(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            if target.id in self._arrays:
                raise self._error(target, "another array under the name of an argument")
            known = self._slots.get(target.id)
            self._store(target.id, value if known is None else self._as(target, value, known))
        elif isinstance(target, ast.Subscript):
            place, type = self._place(target)
            self._emit(f"store {type} {self._as(target, value, type).text}, ptr {place}")
        else:
            raise self._error(target, "an assignment to this")

    def _Return(self, statement: ast.Return) -> None:
        if self._own.result is None:
            self._emit("ret void")
        elif statement.value is None:
            raise self._error(statement, "a return without its result")
        else:
            type = SCALARS[self._own.result]
            self._emit(f"ret {type} {self._as(statement, self._value(statement.value), type).text}")
        self._ended = True

    def _If(self, statement: ast.If) -> None:
        then, other, after = self._label("then"), self._label("else"), self._label("after")
        self._branch(self._truth(statement.test), then, other)
        self._start(then)
        self._block(statement.body)
        ended = self._goto(after)
        self._start(other)
        self._block(statement.orelse)
        ended = self._goto(after) and ended
        if not ended:
            self._start(after)
        self._ended = ended

    def _While(self, statement: ast.While) -> None:
        self._no_else(statement)
        head, body, after = self._label("head"), self._label("body"), self._label("after")
        self._goto(head)
        self._start(head)
        self._branch(self._truth(statement.test), body, after)
        self._looped(statement.body, body, head, after)
        self._start(after)

    def _For(self, statement: ast.For) -> None:
        """`for name in range(...)` with a positive step; the name keeps its last value afterwards, as in Python."""
        self._no_else(statement)
        call, name = statement.iter, statement.target
        counts = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"
        if not counts or not isinstance(name, ast.Name):
            raise self._error(statement, "a loop over anything but a range")
        assert isinstance(call, ast.Call)
        numbers = [self._as(call, self._value(a), INT) for a in call.args]
        begin = numbers[0] if len(numbers) > 1 else Value("0", INT)
        end = numbers[min(1, len(numbers) - 1)]
        step = numbers[2] if len(numbers) > 2 else Value("1", INT)
        counter = f"{name.id}.at{self._number()}"
        head, body, further, after = (self._label(n) for n in ("head", "body", "further", "after"))
        self._store(counter, begin)
        self._goto(head)
        self._start(head)
        at = self._load(counter)
        self._branch(self._new(f"icmp slt i64 {at.text}, {end.text}", TRUTH), body, after)
        self._start(body)
        self._store(name.id, at)
        self._looped(statement.body, None, further, after)
        self._start(further)
        at = self._load(counter)
        self._store(counter, self._new(f"add i64 {at.text}, {step.text}", INT))
        self._goto(head)
        self._start(after)

    def _looped(self, statements: list[ast.stmt], label: str | None, further: str, after: str) -> None:
        if label is not None:
            self._start(label)
        self._loops.append((further, after))
        self._block(statements)
        self._loops.pop()
        self._goto(further)

    def _Break(self, _: ast.Break) -> None:
        self._goto(self._loops[-1][1])
        self._ended = True

    def _Continue(self, _: ast.Continue) -> None:
        self._goto(self._loops[-1][0])
        self._ended = True

    def _no_else(self, statement: ast.For | ast.While) -> None:
        if statement.orelse:
            raise self._error(statement, "else after a loop")
