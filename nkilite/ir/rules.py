"""What the rules of an instruction are called with, and what they return, kind by kind (nkilite/ir/definition.py).

A rule is a function beside its instruction, named after both: `_tensor_copy_check` is the check rule of tensor_copy.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Protocol, TypeAlias

from nkilite.ir.access import Opaque
from nkilite.machine.engine import Cost
from nkilite.machine.target import Target

if TYPE_CHECKING:
    from nkilite.ir.meeting import Arrival, Written
    from nkilite.ir.program import Signature
    from nkilite.ir.rank import Rank

__all__ = [
    "AccessRule", "ArgumentsByName", "CheckImmediatesRule", "CheckRule", "CostRule", "EqualsRule", "ExchangeRule",
    "IndirectionRule", "LowerRule", "NormalizeRule", "PanelsRule", "ReadArguments", "ReferenceRule", "StartsRule",
    "TripsRule",
]

#: The arguments of an instruction by name: types of tensors, IMMEDIATE and attributes; or what stands for them.
ArgumentsByName: TypeAlias = dict[str, Any]
ReadArguments: TypeAlias = Mapping[str, Any]


class CheckRule(Protocol):
    """Raises an error of nkilite.errors when the call breaks a hardware rule."""

    def __call__(self, call: Signature, /) -> None: ...


#: NumPy semantics: the value, or tuple of values, of the written operands, given the arguments by name.
ReferenceRule: TypeAlias = "Callable[Concatenate[Signature, ...], Any]"


class CostRule(Protocol):
    """What the call costs on its target."""

    def __call__(self, call: Signature, /) -> Cost: ...


class LowerRule(Protocol):
    """Writes a native micro-kernel (nkilite.codegen.kernel.MicroKernel)."""

    def __call__(self, call: Signature, kernel: Any, /) -> None: ...


class AccessRule(Protocol):
    """The text of the access rule, or Opaque with a reason."""

    def __call__(self, call: Signature, /) -> str | Opaque: ...


class NormalizeRule(Protocol):
    """Rewrites the arguments before they become a signature."""

    def __call__(self, arguments: ArgumentsByName, target: Target, /) -> None: ...


#: Checks the numbers of a single call, given by name.
CheckImmediatesRule: TypeAlias = "Callable[Concatenate[Signature, ...], None]"

#: How often the loop that the call begins runs, given its numbers by name; None if only the device knows.
TripsRule: TypeAlias = "Callable[Concatenate[Signature, ...], int | None]"


class PanelsRule(Protocol):
    """The operands that the lower rule also reads in panels."""

    def __call__(self, call: Signature, /) -> tuple[str, ...]: ...


class ExchangeRule(Protocol):
    """What each of those who meet writes."""

    def __call__(self, arrivals: Sequence[Arrival], rank: Rank, /) -> list[Written]: ...


class StartsRule(Protocol):
    """The partitions at which operands may start."""

    def __call__(self, call: Signature, /) -> dict[str, tuple[int, ...]]: ...


class EqualsRule(Protocol):
    """What tells the values that the call writes."""

    def __call__(self, call: Signature, reads: Mapping[str, int], theirs: Mapping[str, int], /) -> Hashable: ...


class IndirectionRule(Protocol):
    """Raises an error of nkilite.errors when the call cannot have these operands indirect."""

    def __call__(self, call: Signature, indices: Mapping[str, Hashable], /) -> None: ...


class SpellingRule(Protocol):
    """How the user wrote an operand."""

    def __call__(self, arguments: ReadArguments, operand: str, /) -> str: ...
