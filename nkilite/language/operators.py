"""Operators that only exist as `op` of an instruction, not as functions of tiles."""

from __future__ import annotations

from typing import NoReturn

from nkilite.errors import InvalidOperand

__all__ = ["average", "bypass", "prelu"]


class Operator:
    """A name to pass as `op`, `op0`, `op1` or `reduce_op` of an nki.isa instruction."""

    def __init__(self, name: str, use: str) -> None:
        self.__name__ = name
        self.__doc__ = use

    def __call__(self, *_: object, **__: object) -> NoReturn:
        raise InvalidOperand(
            instruction=f"nl.{self.__name__}",
            operand="use",
            found="a call",
            expected=f"nl.{self.__name__} as the op of an nki.isa instruction",
        )

    def __repr__(self) -> str:
        return f"nl.{self.__name__}"

    def __reduce__(self) -> str:
        return self.__name__


average = Operator("average", "The mean over the reduced elements, as the op of a reduction.")
bypass = Operator("bypass", "Data passes unchanged, as an op of tensor_scalar and its relatives.")
prelu = Operator("prelu", "x where x > 0 and relu_param * x elsewhere, as the op of nisa.activate2.")
