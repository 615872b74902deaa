"""Tensor indirection: a tile whose columns are chosen by offsets in another tile, as an operand of an instruction.

The instruction runs on new tiles in the place of such operands: what it reads is gathered into them before, and what it
writes is scattered from them after it. Whether it may is documented operand by operand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

from nkilite.dtypes import DType
from nkilite.errors import InvalidOperand, TensorAsNumber, UnsupportedError, WrongMemory, describe
from nkilite.ir.definition import Definition
from nkilite.ir.limits import first_partition, require_instruction
from nkilite.ir.program import Signature
from nkilite.ir.rules import ReadArguments
from nkilite.ir.types import MemoryRegion
from nkilite.machine.engine import Engine
from nkilite.trace import active
from nkilite.trace.view_arguments import is_int

if TYPE_CHECKING:
    from nkilite.trace.builder import NkiInstruction
    from nkilite.trace.tensor import NkiTensor

_QUADRANT = 32  # partitions; where indices start


class IndirectTensor:
    """`tensor.indirect(index, count)`: gathered by each instruction that reads it, scattered to by those that write."""

    __slots__ = ("count", "index", "tensor")

    def __init__(self, tensor: NkiTensor, index: NkiTensor, count: object) -> None:
        count = index.size if count is None else count
        if not is_int(count) or not 1 <= count <= index.size:
            raise invalid("num_elem", count, f"an int from 1 to {index.size}, the offsets in index")
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

    def __getitem__(self, key: object) -> NoReturn:
        hint = "index the tensor or the offsets first."
        raise TensorAsNumber(use="something to index when it is indirect", hint=hint)

    def __repr__(self) -> str:
        return f"IndirectTensor({self.dtype} {self.shape} in {self.buffer})"


def _not_known(indirect: IndirectTensor, tile: NkiTensor, engine: Engine) -> NoReturn:
    raise AssertionError("nkilite.isa was not imported")


# The instructions that gather an operand into a tile, and scatter one from it, for an engine: set by nkilite.isa.
gather: list[Callable[[IndirectTensor, NkiTensor, Engine], None]] = [_not_known]
scatter: list[Callable[[IndirectTensor, NkiTensor, Engine], None]] = [_not_known]


def resolved(
    definition: Definition, function: Callable[..., NkiInstruction], values: tuple[object, ...], name: object
) -> NkiInstruction:
    """Call an instruction with what its indirect operands hold, and give them what it writes.

    Raises:
        InvalidOperand: an operand that cannot be indirect, or partitions that do not fit.
        WrongMemory: the Scalar Engine would scatter to PSUM.
        UnsupportedError: what earlier instructions have written to dst would decide whether the call adds to it.
    """
    builder = active.builder(f"nki.isa.{definition.name}")
    given = dict(zip((p.name for p in definition.parameters), values, strict=True))
    indirect = {n: v for n, v in given.items() if v.__class__ is IndirectTensor}
    for parameter in indirect:
        _require_allowed(definition, parameter)
        feature = f"nisa.{definition.name}: NkiTensor.indirect as {parameter}"
        require_instruction("tensor_scatter" if parameter == "dst" else "tensor_indirection", builder.target, feature)
    tiles = {n: builder.allocate(v.buffer, v.shape, v.dtype) for n, v in indirect.items()}
    arguments = given | tiles
    call = builder.specialize(definition, tuple(arguments.values()))
    engine = definition.rule("cost")(call).engine
    _require_fit(call, engine, indirect)
    _require_starts(definition, given, indirect)
    for operand in call.operands:
        if operand.name in indirect and operand.reads:
            gather[0](indirect[operand.name], tiles[operand.name], engine)
    made = function(**arguments, name=name)
    for operand in call.operands:
        if operand.name in indirect and operand.writes:
            scatter[0](indirect[operand.name], tiles[operand.name], engine)
    return made


def _require_allowed(definition: Definition, operand: str) -> None:
    """Raise InvalidOperand unless an operand of an instruction may be indirect."""
    if operand not in definition.indirect:
        allowed = " and ".join(definition.indirect)
        raise InvalidOperand(
            instruction=f"nisa.{definition.name}", operand=operand, found="NkiTensor.indirect", expected="a tile",
            fix=f"copy it to a tile with nisa.tensor_copy; {allowed or 'no operand'} may be indirect here",
        )


def _require_fit(call: Signature, engine: Engine, indirect: Mapping[str, IndirectTensor]) -> None:
    """Check what an instruction and the engine that runs it ask of indirect operands."""
    rule = call.definition.rules.get("indirection")
    if rule is not None:
        rule(call, {n: (v.index.storage.id, v.index.byte_offset, v.index.type, v.count) for n, v in indirect.items()})
    if "dst" not in indirect:
        return
    if engine is Engine.scalar and indirect["dst"].buffer is MemoryRegion.psum:
        raise WrongMemory(
            instruction=f"nisa.{call.name}", operand="dst", found="PSUM",
            allowed="SBUF when the Scalar Engine scatters",
            hint="write to a plain tile, and scatter from it with the Vector Engine",
        )
    if call.arguments.get("accumulate", False) is None:
        raise UnsupportedError(feature=f"accumulate=None of nisa.{call.name} with an indirect dst, not True or False,")


def _require_starts(
    definition: Definition, given: ReadArguments, indirect: Mapping[str, IndirectTensor]
) -> None:
    """Raise InvalidOperand for operands and indices that start at partitions where an engine does not take them."""
    for name, operand in indirect.items():
        if name != "dst":
            _require_start(definition, name, operand.tensor, _start(operand.index), "that of its index")
        elif (other := given[definition.indirect[1]]).__class__ is IndirectTensor:
            there = other.tensor if other.buffer is MemoryRegion.sbuf else other.index
            _require_start(definition, "the index of dst", operand.index, _start(there), _same_as(definition))
        elif hasattr(other, "buffer") and other.buffer is MemoryRegion.sbuf:
            _require_start(definition, "the index of dst", operand.index, _start(other), _same_as(definition))
        found = _start(operand.index)
        if found % _QUADRANT:
            raise InvalidOperand(
                instruction=f"nisa.{definition.name}", operand=f"the index of {name}", found=f"at partition {found}",
                expected=f"at a multiple of {_QUADRANT}",
            )


def _same_as(definition: Definition) -> str:
    return f"that of {definition.indirect[1]}"


def _require_start(definition: Definition, operand: str, tensor: NkiTensor, expected: int, why: str) -> None:
    found = _start(tensor)
    if found != expected:
        raise InvalidOperand(
            instruction=f"nisa.{definition.name}", operand=operand, found=f"at partition {found}",
            expected=f"at partition {expected}, {why}",
        )


def _start(tensor: NkiTensor) -> int:
    return first_partition(tensor.storage, tensor.byte_offset)


def invalid(operand: str, found: object, expected: str) -> InvalidOperand:
    return InvalidOperand(
        instruction="NkiTensor.indirect", operand=operand, found=describe(found), expected=expected
    )
