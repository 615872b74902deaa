"""The @instruction decorator: turns a documented function of nkilite.isa into an instruction.

The decorated function's signature and docstring are the public API; its body is never run. The generated replacement
looks the argument types up among the signatures already validated in this kernel and hands the operands to the active
builder; only the first use of a signature pays for normalization and checks. While a kernel is traced, a call on
tensors alone that a place in the kernel has made before costs one lookup, which also says the user's line.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ParamSpec, Protocol

from nkilite.deprecation import deprecated
from nkilite.errors import InvalidOperand, UnknownKeyword, describe
from nkilite.ir import rules
from nkilite.ir.access import Opaque, by_rows, parse
from nkilite.ir.definition import OPTIONAL_RULES, RULE_KINDS, Control, Definition, Meets, Parameter, Role, define
from nkilite.trace import active
from nkilite.trace.bounded import bounded, checked
from nkilite.trace.builder import NkiInstruction
from nkilite.trace.indirect import IndirectTensor, resolved
from nkilite.trace.register import VirtualRegister
from nkilite.trace.tensor import NkiTensor

P = ParamSpec("P")


class Instruction(Protocol[P]):
    """What checkers and editors know of an instruction: its parameters, and the decorators that attach its rules."""

    definition: Definition
    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> NkiInstruction: ...
    def check(self, rule: rules.CheckRule, /) -> rules.CheckRule: ...
    def reference(self, rule: rules.ReferenceRule, /) -> rules.ReferenceRule: ...
    def cost(self, rule: rules.CostRule, /) -> rules.CostRule: ...
    def lower(self, rule: rules.LowerRule, /) -> rules.LowerRule: ...
    def access(self, rule: rules.AccessRule, /) -> rules.AccessRule: ...
    def normalize(self, rule: rules.NormalizeRule, /) -> rules.NormalizeRule: ...
    def check_immediates(self, rule: rules.CheckImmediatesRule, /) -> rules.CheckImmediatesRule: ...
    def trips(self, rule: rules.TripsRule, /) -> rules.TripsRule: ...
    def panels(self, rule: rules.PanelsRule, /) -> rules.PanelsRule: ...
    def exchange(self, rule: rules.ExchangeRule, /) -> rules.ExchangeRule: ...
    def starts(self, rule: rules.StartsRule, /) -> rules.StartsRule: ...
    def equals(self, rule: rules.EqualsRule, /) -> rules.EqualsRule: ...
    def indirection(self, rule: rules.IndirectionRule, /) -> rules.IndirectionRule: ...
    def spelling(self, rule: rules.SpellingRule, /) -> rules.SpellingRule: ...


_NO_REGISTERS: Callable[[dict[str, object]], str | None] = lambda arguments: None  # noqa: E731
_NO_UPDATES: Callable[[dict[str, object]], tuple[str, ...]] = lambda arguments: ()  # noqa: E731


def instruction(
    writes: tuple[str, ...] = ("dst",),
    registers: Callable[[dict[str, object]], str | None] = _NO_REGISTERS,
    updates: Callable[[dict[str, object]], tuple[str, ...]] = _NO_UPDATES,
    access: str | Opaque | None = None,
    control: Control | None = None,
    least_rows: int = 1,
    by_row: int = 0,
    elementwise: bool = False,
    in_place: bool = True,
    indexed: bool = False,
    lists: Mapping[str, int] = MappingProxyType({}),
    partly_read: tuple[str, ...] = (),
    meets: Meets | None = None,
    wide: bool = False,
    zeroed: tuple[str, ...] = (),
    indirect: tuple[str, ...] = (),
) -> Callable[[Callable[P, None]], Instruction[P]]:
    """Define an instruction.

    Args:
        writes: parameters the instruction writes.
        registers: given the normalized arguments, the name of the registers (machine/registers.py) that the call reads
            and writes, or None.
        updates: given the normalized arguments, the written parameters whose previous content matters.
        access: the access rule of all calls (nkilite/ir/access.py); None where the call decides, for which
            `@name.access` attaches a rule.
        control: which end of a loop's body it is, if any.
        least_rows: the fewest partitions that the lower rule is efficient with.
        by_row: short for `least_rows` and an access rule: position i of dimension 0 of what is written depends on
            position i of the operands alone, if all have as many.
        elementwise: beside `by_row`: element i of such a row depends on element i of the operands alone and on operands
            with one element per row, as long as the call does not use registers.
        in_place: beside `elementwise`: whether an operand may be the view that is written.
        indexed: whether an operand holds positions in another, and one that is out of bounds is an error.
        lists: parameters that are lists of tensors, with the most they take. Item i of a list `x` is the operand x_i.
        partly_read: parameters of which it reads some elements only, so that the others need not have been written.
        meets: whom a core waits for at it, if anybody.
        wide: whether its operands may have 64-bit elements.
        zeroed: written parameters whose elements that it does not write become 0 where nothing has written them.
        indirect: operands that may be `NkiTensor.indirect`, dst first, then the one whose partitions its index follows.
    """

    def decorate(function: Callable[P, None]) -> Instruction[P]:
        definition = define(
            function, writes, registers, updates, control, by_row or least_rows, indexed, lists, partly_read, meets,
            wide, zeroed, indirect,
        )
        if access is not None:
            definition.rules["access"] = _constant_access(definition, access)
        elif by_row:
            definition.rules["access"] = by_rows(elementwise and in_place)
        wrapper: Instruction[P] = _compile_wrapper(definition)
        functools.update_wrapper(wrapper, function)
        wrapper.definition = definition
        for kind in (*RULE_KINDS, *OPTIONAL_RULES):
            setattr(wrapper, kind, _attach(definition, kind))
        return wrapper

    return decorate


def _constant_access(definition: Definition, stated: str | Opaque) -> Callable[[object], str | Opaque]:
    """The access rule of an instruction whose calls are all alike: that it names every tensor is checked here."""
    if isinstance(stated, str):
        named = parse(stated).operands.keys()
        tensors = {p.name for p in definition.parameters if p.role not in (Role.attribute, Role.immediate)}
        if definition.registers is not _NO_REGISTERS:
            tensors.add("registers")
        assert named == tensors, f"the access rule of {definition.name} is about {sorted(named)}, not {sorted(tensors)}"
    return lambda call: stated


def _attach(definition: Definition, kind: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    def attach(rule: Callable[..., object]) -> Callable[..., object]:
        assert kind not in definition.rules, f"{definition.name} has two {kind} rules"
        definition.rules[kind] = rule
        return rule

    return attach


def _compile_wrapper(definition: Definition) -> Any:
    """Generate the call path of one instruction: a key of types and attributes, one dict lookup, one record."""
    parameters = definition.parameters
    passed = [p.name for p in parameters if p.role is not Role.attribute]
    key = ", ".join(["D", *map(_key_of, parameters)])
    header, defaults = _header(definition)
    plain = all(p.role is Role.tensor for p in parameters if p.role is not Role.attribute)
    everything = ", ".join(p.name for p in parameters)
    operands = "".join(f"{name}, " for name in passed)
    fast, suits, writer = _fast(key, passed, plain), "plain" if plain else "direct", ""
    if not plain:
        writer = f", builder.writer(signature, ({operands}))"
    classes = "".join(f"{name}.__class__, " for name in passed)
    source = f"""
def {definition.name}({header}, name=None, **old):
    builder = current.builder
    if builder is None:
        builder = active_builder("nki.isa.{definition.name}")
    if old:
        accept_old(D, old){_unwrapped(definition)}{fast}
    try:
        signature = builder.known[({key})]
    except (KeyError, TypeError, AttributeError):
        if X in ({classes}):
            return resolved(D, {definition.name}, ({everything},), name)
        if bounded(({operands})):
            return checked(D, {definition.name}, ({everything},), name)
        signature = builder.find(D, lambda: ({key}), ({everything},))
    else:
        if builder.records and signature.{suits}:
            builder.remember(getframe(1), ({key}), signature{writer})
    return builder.emit(signature, ({operands}), name)
"""
    namespace: dict[str, object] = {
        "D": definition, "T": NkiTensor, "R": VirtualRegister, "current": active.current,
        "active_builder": active.builder, "accept_old": _accept_old, "getframe": sys._getframe,
        "Handle": NkiInstruction, "items_of": _items, "X": IndirectTensor, "resolved": resolved, "bounded": bounded,
        "checked": checked, **defaults,
    }
    exec(compile(source, f"<nkilite instruction {definition.name}>", "exec"), namespace)
    return namespace[definition.name]


def _key_of(p: Parameter) -> str:
    """What tells calls apart by one argument: its type if it is a tensor, else the attribute, or its class."""
    if p.role is Role.attribute:
        return p.name
    if p.role is Role.tensor:
        return f"{p.name}.type"
    return f"({p.name}.type if {p.name}.__class__ is T else {p.name}.__class__)"


def _header(definition: Definition) -> tuple[str, dict[str, object]]:
    """The parameters as they are declared, and the defaults they name. A list stands for its items."""
    header, defaults = [], {}
    for p in definition.parameters:
        if p.default is not inspect.Parameter.empty:
            defaults[f"d_{p.name}"] = p.default
            header.append(f"{p.name}=d_{p.name}")
        else:
            header.append(p.list or p.name)
    return ", ".join(dict.fromkeys(header)), defaults


def _unwrapped(definition: Definition) -> str:
    """Puts the tensors behind registers in their place, and the items in that of lists."""
    lines = [
        f"    if isinstance({p.name}, R):\n        {p.name} = {p.name}.register_tensor"
        for p in definition.parameters if p.register
    ]
    lists: dict[str, list[str]] = {}
    for p in definition.parameters:
        if p.list:
            lists.setdefault(p.list, []).append(p.name)
    lines += [f"    {', '.join(items)} = items_of(D, {name!r}, {len(items)}, {name})" for name, items in lists.items()]
    return "".join(f"\n{line}" for line in lines)


def _fast(key: str, passed: list[str], plain: bool) -> str:
    """Records a call like an earlier one of its line, unless instructions run as they come."""
    words = f"*write({', '.join(passed)})"
    if plain:
        words = "".join(f"{name}.storage.open_id, {name}.byte_offset, " for name in passed)
    return f"""
    if builder.records:
        frame = getframe(1)
        try:
            number, place{"" if plain else ", write"} = builder.sites[id(frame.f_code), frame.f_lasti, {key}]
            if place < 0:
                place = builder.place(frame)
            builder.words += (number, place, {words})
        except (KeyError, TypeError, AttributeError):
            pass  # new here, or refused: what follows explains
        else:
            program = builder.program
            index = program.count
            program.count = index + 1
            if name is not None:
                builder.name(index, number, name)
            handle = Handle()
            handle.builder = builder
            handle.index = index
            return handle"""


def _items(definition: Definition, parameter: str, most: int, given: object) -> tuple[object, ...]:
    """The items of a list of tensors, and None for those it has not.

    Raises:
        InvalidOperand: it is no list, or has other items or too many.
    """
    if not isinstance(given, (list, tuple)) or not all(isinstance(item, NkiTensor) for item in given):
        found = describe(given)
    elif len(given) > most:
        found = f"a list of {len(given)}"
    else:
        return (*given, *[None] * (most - len(given)))
    raise InvalidOperand(
        instruction=f"nisa.{definition.name}", operand=parameter, found=found,
        expected=f"a list of at most {most} tensors",
    )


def _accept_old(definition: Definition, old: dict[str, object]) -> None:
    """Keywords that instructions had before NKI 0.3: an empty mask, and a dtype (that of dst decides now).

    Raises:
        UnknownKeyword: any other keyword.
    """
    for keyword, value in old.items():
        instruction = f"nisa.{definition.name}"
        if keyword == "mask" and value is None:
            deprecated(f"mask= of {instruction}", "no mask")
        elif keyword == "dtype":
            deprecated(f"dtype= of {instruction}", "the dtype of dst, which decides")
        else:
            known = [*dict.fromkeys(p.list or p.name for p in definition.parameters), "name"]
            near = difflib.get_close_matches(keyword, known, 1)
            raise UnknownKeyword(
                function=instruction, keyword=keyword, known=", ".join(known),
                hint=f"did you mean {near[0]}?" if near else "remove it.",
            )
