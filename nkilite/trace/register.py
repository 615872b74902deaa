"""Registers: an integer that only the device knows, and what Python cannot do with it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from nkilite.errors import RegisterInControlFlow, RegisterOperator, UnknownName
from nkilite.suggest import unknown_attribute
from nkilite.trace.tensor import NkiTensor

_OF_UFUNCS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "negative": operator.neg,
    "less": operator.lt, "less_equal": operator.le, "greater": operator.gt, "greater_equal": operator.ge,
    "equal": operator.eq, "not_equal": operator.ne,
}


class VirtualRegister:
    """A signed integer register of the engines' sequencers: of 32 bits, or of 64 behind a scalar of that width.

    nisa.register_alloc makes one; it serves as a loop bound or condition, and as a runtime index of a tensor:
    ``t[reg]``, ``t[nl.ds(reg, n)]``, ``t.select(dim, reg)`` and ``t.ap(..., scalar_offset=reg)``.

    Attributes:
        register_tensor: the one-element int32 or int64 tensor in `registers` memory behind it.

    Source: nki.isa.VirtualRegister.
    """

    __slots__ = ("register_tensor",)

    def __init__(self, register_tensor: NkiTensor) -> None:
        self.register_tensor = register_tensor

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.register_tensor.storage.label}>"

    __hash__ = object.__hash__

    def __bool__(self) -> NoReturn:
        raise RegisterInControlFlow(use="a condition")

    def __index__(self) -> NoReturn:
        raise RegisterInControlFlow(use="an int")

    __int__ = __index__

    def __float__(self) -> NoReturn:
        raise RegisterInControlFlow(use="a float")

    def __iter__(self) -> NoReturn:
        raise RegisterInControlFlow(use="an iterable")

    def __len__(self) -> NoReturn:
        raise RegisterInControlFlow(use="a sequence with a length")

    def __complex__(self) -> NoReturn:
        raise RegisterInControlFlow(use="a complex number")

    def __format__(self, format: str) -> str:
        if format:
            raise RegisterInControlFlow(use="a number to be formatted")
        return repr(self)

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise RegisterInControlFlow(use="a NumPy array")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: object, **_: object) -> object:
        """Numbers of NumPy are operands as those of Python are."""
        function = _OF_UFUNCS.get(ufunc.__name__)
        if function is None or method != "__call__":
            raise RegisterOperator(symbol=f"np.{ufunc.__name__}")
        return function(*(i.item() if isinstance(i, np.generic) else i for i in inputs))

    @classmethod
    def unknown_attribute(cls, name: str) -> UnknownName:
        """The error for an attribute it does not have, in the place of Python's."""
        return unknown_attribute(cls, "register", name, {})


def _equal(self: VirtualRegister, other: object) -> bool:
    return False if other is None else _refuse_comparison(self, other)  # None where a register is optional


def _refuse_comparison(self: VirtualRegister, other: object) -> NoReturn:
    raise RegisterInControlFlow(use="an operand of a comparison")


def _refuse(symbol: str) -> Callable[..., NoReturn]:
    def refusal(self: VirtualRegister, *_: object) -> NoReturn:
        raise RegisterOperator(symbol=symbol)

    return refusal


for _name in ("lt", "le", "gt", "ge"):
    setattr(VirtualRegister, f"__{_name}__", _refuse_comparison)
setattr(VirtualRegister, "__eq__", _equal)  # noqa: B010
setattr(VirtualRegister, "__ne__", lambda self, other: not _equal(self, other))  # noqa: B010
for _name, _symbol in (
    ("add", "+"), ("sub", "-"), ("mul", "*"), ("truediv", "/"), ("floordiv", "//"), ("mod", "%"), ("pow", "**"),
    ("and", "&"), ("or", "|"), ("xor", "^"), ("lshift", "<<"), ("rshift", ">>"), ("matmul", "@"),
    ("divmod", "divmod()"),
):
    setattr(VirtualRegister, f"__{_name}__", _refuse(_symbol))
    setattr(VirtualRegister, f"__r{_name}__", _refuse(_symbol))
for _name, _symbol in (("neg", "-"), ("pos", "+"), ("invert", "~"), ("abs", "abs()"), ("round", "round()")):
    setattr(VirtualRegister, f"__{_name}__", _refuse(_symbol))
