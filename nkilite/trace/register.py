"""Registers: an integer that only the device knows, and what Python cannot do with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from nkilite.errors import RegisterInControlFlow, RegisterOperator
from nkilite.trace.tensor import NkiTensor


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


def _equal(self: VirtualRegister, other: object) -> bool:
    return False if other is None else _refuse_comparison(self, other)  # None where a register is optional


def _refuse_comparison(self: VirtualRegister, other: object) -> NoReturn:
    raise RegisterInControlFlow(use="an operand of a comparison")


def _refuse(symbol: str) -> Callable[..., NoReturn]:
    def operator(self: VirtualRegister, *_: object) -> NoReturn:
        raise RegisterOperator(symbol=symbol)

    return operator


for _name in ("lt", "le", "gt", "ge"):
    setattr(VirtualRegister, f"__{_name}__", _refuse_comparison)
setattr(VirtualRegister, "__eq__", _equal)  # noqa: B010
setattr(VirtualRegister, "__ne__", lambda self, other: not _equal(self, other))  # noqa: B010
for _name, _symbol in (
    ("add", "+"), ("sub", "-"), ("mul", "*"), ("truediv", "/"), ("floordiv", "//"), ("mod", "%"), ("pow", "**"),
    ("and", "&"), ("or", "|"), ("xor", "^"), ("lshift", "<<"), ("rshift", ">>"),
):
    setattr(VirtualRegister, f"__{_name}__", _refuse(_symbol))
    setattr(VirtualRegister, f"__r{_name}__", _refuse(_symbol))
setattr(VirtualRegister, "__neg__", _refuse("-"))  # noqa: B010
