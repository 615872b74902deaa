"""What the compiler knows about an instruction: its parameters and the five rules attached to it.

A `Definition` is made by the `@instruction` decorator (nkilite/trace/instruction.py) from a public function of
nkilite.isa. The rules are plain functions:

    check(call)                   raises an error of nkilite.errors when the call breaks a hardware rule
    reference(call, **arguments)  NumPy semantics; returns the value (or tuple of values) of the written operands
    cost(call)                    a nkilite.machine.engine.Cost on call.target
    lower(call, kernel)           writes the native micro-kernel with the algorithms of nkilite.codegen
    access(call)                  the text of its access rule (nkilite/ir/access.py), or Opaque with a reason

Eight rules are optional. normalize(arguments, target) rewrites the argument dict before it becomes a signature:
operators become table rows, an unset engine becomes the one that runs the call. check_immediates(call,
**immediates) checks the numbers of every single call, which are not part of the signature. trips(call,
**immediates) is the number of iterations of the loop a control instruction begins, or None when only the device
knows. panels(call) names the operands that the lower rule also reads in panels (nkilite/schedule/panels.py).
exchange(arrivals, rank), of an instruction at which cores meet (nkilite/ir/meeting.py), says what each of them writes.
starts(call) maps operands to the partitions at which they may start, where how many they cover does not tell.
equals(call, reads, theirs) says, where it is not simply what it reads, what tells the values that it writes
(nkilite/ir/values.py): `reads` are numbers for the values of its operands, `theirs` for those of the core it meets.
indirection(call, indices) checks a call some of whose operands are indirect: `indices` tells their indices apart.
spelling(arguments, operand) is how the user wrote an operand, where that is neither its name nor an item of a list.

Control instructions come in pairs that enclose the body of a loop (nkilite/isa/loops.py). Their reference rule
returns one value more, whether an iteration follows: the instruction that begins a loop is left past the loop's end
when none does, the one that ends it goes back to the body when one does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, overload

from nkilite.ir.rules import CheckRule, CostRule, LowerRule, ReferenceRule


class Role(Enum):
    """What values a parameter takes, read off its annotation."""

    tensor = "tensor"  # NkiTensor
    optional_tensor = "optional_tensor"  # NkiTensor | None
    scalar_or_tensor = "scalar_or_tensor"  # float | NkiTensor (| None)
    immediate = "immediate"  # int or float: a number in the instruction word, not part of the signature
    attribute = "attribute"  # anything else: a compile-time value, part of the signature


class Control(Enum):
    """Which end of a loop's body an instruction is."""

    begin = "begin"
    end = "end"


class Meets(Enum):
    """Whom a core waits for at an instruction."""

    nobody = "nobody"  # it only asks which rank it belongs to
    cores = "cores"  # the other core of its launch
    ranks = "ranks"  # the other core, and together with it the other ranks of a group


@dataclass(frozen=True)
class Parameter:
    """What a call gives an instruction.

    Attributes:
        optional: None may be given.
        register: a VirtualRegister may be given, and stands for the one-element tensor behind it.
        list: the list whose item it is, if calls give it in one.
    """

    name: str
    role: Role
    default: object
    written: bool
    optional: bool = True
    register: bool = False
    list: str = ""


Rule = Callable[..., Any]


@dataclass(eq=False)
class Definition:
    """One instruction: name, parameters in order, and rules.

    `registers(arguments)` names the registers of an engine that the call uses, or None; `updates(arguments)` names the
    written operands whose old content matters too (accumulation, predicated copies). Where the access rule has rows,
    the lower rule works well on `least_rows` of them or more. `indexed` says that it ends with an error at an element
    of an operand that is no position in another. `control` marks the instructions that enclose the body of a loop, and
    `meets` those at which cores wait for each other. Of the operands `partly_read` some elements do not matter; those
    `zeroed` become 0 where neither it nor anything before has written them. Only a `wide` instruction takes operands of
    64-bit elements. The operands `indirect` may be tensors whose columns an index chooses: what is written first, then
    the operand whose partitions those of its index follow.
    """

    name: str
    function: Callable[..., None]
    parameters: tuple[Parameter, ...]
    registers: Callable[[dict[str, object]], str | None]
    updates: Callable[[dict[str, object]], tuple[str, ...]]
    control: Control | None = None
    least_rows: int = 1
    indexed: bool = False
    partly_read: tuple[str, ...] = ()
    meets: Meets | None = None
    wide: bool = False
    zeroed: tuple[str, ...] = ()
    indirect: tuple[str, ...] = ()
    rules: dict[str, Rule] = field(default_factory=dict)

    @overload
    def rule(self, kind: Literal["check"]) -> CheckRule: ...
    @overload
    def rule(self, kind: Literal["reference"]) -> ReferenceRule: ...
    @overload
    def rule(self, kind: Literal["cost"]) -> CostRule: ...
    @overload
    def rule(self, kind: Literal["lower"]) -> LowerRule: ...
    @overload
    def rule(self, kind: str) -> Rule: ...
    def rule(self, kind: str) -> Rule:
        """A rule that the instruction has."""
        try:
            return self.rules[kind]
        except KeyError:
            raise AssertionError(f"instruction {self.name} has no {kind} rule") from None


#: What the parameters of a call take, in order: tensors, registers, numbers, None.
Values: TypeAlias = tuple[Any, ...]


def public_name(name: str, arguments: Mapping[str, object]) -> str:
    """How messages name a call: all collectives are one instruction."""
    return f"nki.collectives.{arguments['kind']}" if REGISTRY[name].meets is Meets.ranks else f"nisa.{name}"


def public_operand(name: str, arguments: Mapping[str, object], operand: str) -> str:
    """How messages name an operand of a call: as the function has it that the user called."""
    definition = REGISTRY[name]
    if "spelling" in definition.rules:
        return str(definition.rules["spelling"](arguments, operand))
    stem, _, rest = operand.rpartition("_")
    number, *index = rest.split(".", 1)
    if number.isdecimal() and any(p.list == stem for p in definition.parameters):
        return ".".join([f"{stem}[{number}]", *index])
    return operand


RULE_KINDS = ("check", "reference", "cost", "lower", "access")
OPTIONAL_RULES = (
    "normalize", "check_immediates", "trips", "panels", "exchange", "starts", "equals", "indirection", "spelling",
)
REGISTRY: dict[str, Definition] = {}
_REGISTER = "VirtualRegister"


def role_of(annotation: str) -> Role:
    """Classify a parameter by its (string) annotation."""
    parts = {part.strip() for part in annotation.split("|")}
    if parts & {"NkiTensor", _REGISTER}:
        if "float" in parts or "int" in parts:
            return Role.scalar_or_tensor
        return Role.optional_tensor if "None" in parts else Role.tensor
    return Role.immediate if parts <= {"float", "int", "None"} and parts & {"float", "int"} else Role.attribute


def define(
    function: Callable[..., None],
    writes: tuple[str, ...],
    registers: Callable[[dict[str, object]], str | None],
    updates: Callable[[dict[str, object]], tuple[str, ...]],
    control: Control | None = None,
    least_rows: int = 1,
    indexed: bool = False,
    lists: Mapping[str, int] = MappingProxyType({}),
    partly_read: tuple[str, ...] = (),
    meets: Meets | None = None,
    wide: bool = False,
    zeroed: tuple[str, ...] = (),
    indirect: tuple[str, ...] = (),
) -> Definition:
    """Make and register the definition of a public instruction function."""
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "name":
            continue
        if parameter.name in lists:
            parameters += [
                Parameter(
                    f"{parameter.name}_{i}", Role.optional_tensor, parameter.default, parameter.name in writes,
                    list=parameter.name,
                )
                for i in range(lists[parameter.name])
            ]
            continue
        annotation = parameter.annotation if isinstance(parameter.annotation, str) else ""
        written = parameter.name in writes
        role = role_of(annotation)
        optional = role is Role.attribute or "None" in annotation
        register = _REGISTER in annotation
        parameters.append(Parameter(parameter.name, role, parameter.default, written, optional, register))
    definition = Definition(
        function.__name__, function, tuple(parameters), registers, updates, control, least_rows, indexed, partly_read,
        meets, wide, zeroed, indirect,
    )
    assert definition.name not in REGISTRY, f"instruction {definition.name} is defined twice"
    REGISTRY[definition.name] = definition
    return definition
