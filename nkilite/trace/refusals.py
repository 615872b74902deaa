"""What a tensor is not: a number, a sequence, a NumPy array, an operand of operators; and what to do instead."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import numpy as np

from nkilite.errors import TensorAsNumber, TensorOperator, UnknownName
from nkilite.suggest import unknown_attribute

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


_Tensor = TypeVar("_Tensor", bound="Refusals")
_COMPARE = dis.opmap["COMPARE_OP"]


def _same(tensor: object, other: object, symbol: str, function: str) -> bool:
    """Whether two objects are one, for None and for a container that is asked whether it holds a tensor.

    What a program compares by == or != are values, which nobody knows yet.
    """
    if other is None or tensor is other:
        return tensor is other
    if type(other) is type(tensor):
        frame = sys._getframe(2)
        if frame.f_code.co_code[frame.f_lasti] != _COMPARE:
            return False
    raise TensorOperator(symbol=symbol, function=function)


class Refusals:
    """Of tensors and of grids of them: true in a condition, equal to itself alone; everything else here raises."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return _same(self, other, "==", "equal")

    def __ne__(self, other: object) -> bool:
        return not _same(self, other, "!=", "not_equal")

    __hash__ = object.__hash__

    def __iter__(self) -> NoReturn:
        raise TensorAsNumber(
            use="something to iterate over or unpack",
            hint="loop over range(t.shape[0]) and index the tensor with the loop's variable.",
        )

    def __contains__(self, _: object) -> NoReturn:
        raise TensorAsNumber(use="a container that `in` looks through", hint="compare on the device, with nl.equal.")

    def __len__(self) -> NoReturn:
        raise TensorAsNumber(use="a sequence with a length", hint="its sizes are t.shape.")

    def __complex__(self) -> NoReturn:
        raise TensorAsNumber(use="a Python complex number", hint=_COMPILE_TIME)

    def __format__(self, format: str) -> str:
        if format:
            raise TensorAsNumber(use="a number to be formatted", hint="while simulating, numpy() shows the values.")
        return repr(self)

    def __copy__(self: _Tensor) -> _Tensor:
        return self

    def __deepcopy__(self: _Tensor, memo: object) -> _Tensor:
        return self  # a place in memory, of which there is one

    def __index__(self) -> NoReturn:
        raise TensorAsNumber(
            use="a Python index, slice bound or range bound",
            hint="index with the tensor itself (nl.ds, select, or .ap with scalar_offset), or " + _COMPILE_TIME,
        )

    def __int__(self) -> NoReturn:
        raise TensorAsNumber(use="a Python int", hint=_COMPILE_TIME)

    def __float__(self) -> NoReturn:
        raise TensorAsNumber(use="a Python float", hint="pass a [P, 1] tile as the operand instead of a number.")

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise TensorAsNumber(
            use="a NumPy array", hint="use instructions and nl functions; with nki.simulate, numpy() shows the values."
        )

    def __array_ufunc__(self, ufunc: np.ufunc, *_: object, **__: object) -> NoReturn:
        name = ufunc.__name__
        raise TensorOperator(symbol=f"np.{name}", function=_UFUNCS.get(name, name))


def _refuse(symbol: str, function: str) -> Callable[..., NoReturn]:
    def operator(self: Refusals, *_: object) -> NoReturn:
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
    ("neg", "-", "negative"), ("invert", "~", "invert"), ("abs", "abs()", "abs"), ("pos", "+", "copy"),
    ("divmod", "divmod()", "mod"), ("rdivmod", "divmod()", "mod"), ("round", "round()", "floor"),
    ("trunc", "math.trunc()", "trunc"), ("floor", "math.floor()", "floor"), ("ceil", "math.ceil()", "ceil"),
):
    setattr(Refusals, f"__{_name}__", _refuse(_symbol, _function))


class TensorBase(Refusals):
    """Base of NkiTensor alone, for those whom it knows."""

    __slots__ = ()

    @classmethod
    def unknown_attribute(cls, name: str) -> UnknownName:
        """The error for an attribute it does not have, in the place of Python's.

        No `__getattr__`: Python reads the attributes of classes that have one more slowly.
        """
        return unknown_attribute(cls, "tensor", name, _METHODS)
