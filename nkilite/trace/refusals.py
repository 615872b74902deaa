"""What a tensor is not: a Python number, a NumPy array, an operand of Python operators; and what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from nkilite.errors import TensorAsNumber, TensorOperator, UnknownName
from nkilite.suggest import unknown_name

_COMPILE_TIME = "pass the value as a compile-time kernel argument."
_METHODS = {
    "T": "use nisa.nc_transpose or nisa.dma_transpose; permute() reorders free dimensions.",
    "astype": "use nisa.tensor_copy (or nl.copy) into a tile of that dtype; view() reinterprets the bits.",
    "copy": "use nl.copy.",
    "item": "the value is not known while the kernel is traced; use a tile of one element as an operand.",
    "max": "use nl.max.",
    "mean": "use nl.mean.",
    "min": "use nl.min.",
    "sum": "use nl.sum.",
    "tolist": "return the tensor from the kernel, or use numpy() while simulating.",
    "transpose": "use nisa.nc_transpose or nisa.dma_transpose; permute() reorders free dimensions.",
}
_UFUNCS = {"absolute": "abs", "remainder": "mod", "true_divide": "divide"}


class Refusals:
    """Base of NkiTensor. It is always true in a condition, and everything here raises."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return True

    def __index__(self) -> NoReturn:
        raise TensorAsNumber(
            use="a Python index, slice bound or range bound",
            hint="index with the tensor itself (nl.ds, select, or .ap with scalar_offset), or " + _COMPILE_TIME,
        )

    def __int__(self) -> NoReturn:
        raise TensorAsNumber(use="a Python int", hint=_COMPILE_TIME)

    def __float__(self) -> NoReturn:
        raise TensorAsNumber(use="a Python float", hint="pass a [P, 1] tile as the operand instead of a number.")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TensorAsNumber(
            use="a NumPy array", hint="use instructions and nl functions; with nki.simulate, numpy() shows the values."
        )

    def __array_ufunc__(self, ufunc: np.ufunc, *_: Any, **__: Any) -> NoReturn:
        name = ufunc.__name__
        raise TensorOperator(symbol=f"np.{name}", function=_UFUNCS.get(name, name))

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _no_attribute(self, name)


def _no_attribute(tensor: object, name: str) -> UnknownName:
    known = [n for n in dir(type(tensor)) if not n.startswith("_")]
    return unknown_name("a tensor", "tensor", name, known, _METHODS, why="")


def _refuse(symbol: str, function: str) -> Callable[..., NoReturn]:
    def operator(self: Refusals, *_: Any) -> NoReturn:
        raise TensorOperator(symbol=symbol, function=function)

    return operator


for _name, _symbol, _function in (
    ("add", "+", "add"), ("sub", "-", "subtract"), ("mul", "*", "multiply"), ("truediv", "/", "divide"),
    ("floordiv", "//", "divide"), ("pow", "**", "power"), ("matmul", "@", "matmul"), ("mod", "%", "mod"),
    ("and", "&", "bitwise_and"), ("or", "|", "bitwise_or"), ("xor", "^", "bitwise_xor"),
    ("lshift", "<<", "left_shift"), ("rshift", ">>", "right_shift"),
):
    setattr(Refusals, f"__{_name}__", _refuse(_symbol, _function))
    setattr(Refusals, f"__r{_name}__", _refuse(_symbol, _function))
for _name, _symbol, _function in (
    ("lt", "<", "less"), ("le", "<=", "less_equal"), ("gt", ">", "greater"), ("ge", ">=", "greater_equal"),
    ("neg", "-", "negative"), ("invert", "~", "invert"), ("abs", "abs()", "abs"),
):
    setattr(Refusals, f"__{_name}__", _refuse(_symbol, _function))
