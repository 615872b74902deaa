"""How a translated function is called."""

from __future__ import annotations

import ast
from typing import NamedTuple

__all__ = ["ARRAYS", "FLOAT", "INT", "SCALARS", "TRUTH", "Instruction", "Interface", "NotTranslatable", "interface"]

INT, FLOAT, TRUTH = "i64", "double", "i1"  # LLVM's names
ARRAYS = {"Ints": INT, "Floats": FLOAT}
SCALARS = {"int": INT, "float": FLOAT, "bool": TRUTH}


class NotTranslatable(TypeError):
    """A function uses what has no translation."""


class Interface(NamedTuple):
    """How a function is called: its symbol, the kinds of its arguments and of its result.

    A kind is ``"Ints"``, ``"Floats"``, ``"int"``, ``"float"`` or ``"bool"``; of a result, ``None`` too.
    """

    symbol: str
    arguments: tuple[tuple[str, str], ...]
    result: str | None


class Instruction(NamedTuple):
    """What machine code can do and Python cannot, such as an atomic addition; called like a function of ints.

    Attributes:
        text: in LLVM's language, with {0} for the first argument; of several lines, all but the last name values, {t}.
        takes: types of the arguments: ints are addresses where they are ``ptr``, and lose their upper bits.
        gives: type of the result, an int or a truth value; ``void`` of none.
        declares: what the module has to declare for it.
    """

    text: str
    takes: tuple[str, ...]
    gives: str
    declares: tuple[str, ...] = ()

    def __call__(self, *arguments: int) -> int:
        raise TypeError(f"{self.text!r} has no meaning in Python")


def interface(symbol: str, function: ast.FunctionDef) -> Interface:
    """The interface that a function's annotations state."""
    arguments = tuple((a.arg, _kind(a.annotation)) for a in function.args.args)
    returns = function.returns
    nothing = isinstance(returns, ast.Constant) and returns.value is None
    return Interface(symbol, arguments, None if nothing else _kind(returns))


def _kind(annotation: ast.expr | None) -> str:
    if isinstance(annotation, ast.Name) and annotation.id in {**ARRAYS, **SCALARS}:
        return annotation.id
    raise NotTranslatable("arguments and results are int, float, bool, Ints or Floats")
