"""Tensors with dynamic dimensions as operands: an instruction gets views of them that are checked against the size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from nkilite.ir.definition import Definition
from nkilite.ir.program import Signature
from nkilite.ir.types import BOUNDED

if TYPE_CHECKING:
    from nkilite.trace.builder import NkiInstruction
    from nkilite.trace.indexing import RuntimeIndex
    from nkilite.trace.tensor import NkiTensor


def bounded(operands: tuple[object, ...]) -> bool:
    """Whether one of some operands has a dynamic dimension."""
    return any(getattr(getattr(o, "type", None), "problem", None) is BOUNDED for o in operands)


def checked(
    definition: Definition, function: Callable[..., NkiInstruction], values: tuple[object, ...], name: object
) -> NkiInstruction:
    """Call an instruction with its bounded operands checked."""
    return check[0](definition, function, values, name)


def _not_known(*_: object) -> NoReturn:
    raise AssertionError("nkilite.isa was not imported")


# How a call is checked, how runtime indices become one, and what an instruction that is told how much it may touch has
# touched: set by nkilite.isa, which knows the instructions.
_Check = Callable[[Definition, Callable[..., "NkiInstruction"], tuple[object, ...], object], "NkiInstruction"]
check: list[_Check] = [_not_known]
combine: list[Callable[[NkiTensor, Sequence[RuntimeIndex]], tuple[NkiTensor, int]]] = [_not_known]
touched: list[Callable[[Signature, dict[str, NkiTensor]], dict[str, NkiTensor]]] = [_not_known]
CUT = "dma_copy_within"  # the instruction that is told
