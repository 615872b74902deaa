"""Tensor indirection: a tile whose columns are chosen by offsets in another tile, as an operand of an instruction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from nkilite.dtypes import DType
from nkilite.errors import InvalidOperand, TensorAsNumber, UnsupportedError, describe
from nkilite.ir.definition import Definition
from nkilite.ir.types import MemoryRegion
from nkilite.trace.view_arguments import is_int

if TYPE_CHECKING:
    from nkilite.trace.tensor import NkiTensor

_DMA_AND_TENSOR = ("dma_", "nc_matmul", "nc_transpose", "register_", "sendrecv", "core_barrier")


class IndirectTensor:
    """`tensor.indirect(index, count)`: gathered anew by each instruction that reads it."""

    __slots__ = ("count", "index", "tensor")

    def __init__(self, tensor: NkiTensor, index: Any, count: Any) -> None:
        from nkilite.trace.tensor import NkiTensor

        if not isinstance(index, NkiTensor):
            raise _invalid("index", index, "a tile of integers in SBUF")
        count = index.size if count is None else count
        if not is_int(count) or not 1 <= count <= index.size:
            raise _invalid("num_elem", count, f"an int from 1 to {index.size}, the offsets in index")
        self.tensor, self.index, self.count = tensor, index, int(count)

    @property
    def shape(self) -> tuple[int, int]:
        return self.tensor.shape[0], self.count

    @property
    def dtype(self) -> DType:
        return self.tensor.dtype

    @property
    def buffer(self) -> MemoryRegion:
        return self.tensor.buffer

    def is_indirect(self) -> bool:
        return True

    def __getitem__(self, key: Any) -> NoReturn:
        hint = "index the tensor or the offsets first."
        raise TensorAsNumber(use="something to index when it is indirect", hint=hint)

    def __repr__(self) -> str:
        return f"IndirectTensor({self.dtype} {self.shape} in {self.buffer})"


def _not_known(indirect: IndirectTensor) -> NoReturn:
    raise AssertionError("nkilite.isa was not imported")


# What an indirect tensor holds, in a new tile: set by nkilite.isa, which knows the instruction.
gather: list[Callable[[IndirectTensor], Any]] = [_not_known]


def resolved(definition: Definition, function: Callable[..., Any], values: tuple, name: Any) -> Any:
    """Call an instruction with what its indirect operands hold.

    Raises:
        UnsupportedError: an indirect destination, or an instruction of DMA or the Tensor Engine.
    """
    arguments = {}
    for parameter, value in zip(definition.parameters, values, strict=True):
        if value.__class__ is IndirectTensor:
            if definition.name.startswith(_DMA_AND_TENSOR):
                raise UnsupportedError(feature=f"NkiTensor.indirect as an operand of nisa.{definition.name}")
            if parameter.written:
                raise UnsupportedError(feature="NkiTensor.indirect as a destination")
            value = gather[0](value)
        arguments[parameter.name] = value
    return function(**arguments, name=name)


def _invalid(operand: str, found: Any, expected: str) -> InvalidOperand:
    return InvalidOperand(
        instruction="NkiTensor.indirect", operand=operand, found=describe(found), expected=expected
    )
