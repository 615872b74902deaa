"""The @instruction decorator: turns a documented function of nkilite.isa into an instruction.

The decorated function's signature and docstring are the public API; its body is never run. The generated replacement
looks the argument types up among the signatures already validated in this kernel and hands the operands to the active
builder; only the first use of a signature pays for normalization and checks.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from nkilite.ir.definition import OPTIONAL_RULES, RULE_KINDS, Definition, Role, define
from nkilite.trace import active
from nkilite.trace.tensor import NkiTensor

_NO_REGISTERS: Callable[[dict[str, Any]], str | None] = lambda arguments: None  # noqa: E731
_NO_UPDATES: Callable[[dict[str, Any]], tuple[str, ...]] = lambda arguments: ()  # noqa: E731


def instruction(
    writes: tuple[str, ...] = ("dst",),
    registers: Callable[[dict[str, Any]], str | None] = _NO_REGISTERS,
    updates: Callable[[dict[str, Any]], tuple[str, ...]] = _NO_UPDATES,
    in_place: bool = True,
) -> Callable[[Callable[..., None]], Any]:
    """Define an instruction.

    Args:
        writes: parameters the instruction writes.
        registers: given the normalized arguments, the engine ("vector", "scalar") whose accumulation registers the
            call reads and writes, or None.
        updates: given the normalized arguments, the written parameters whose previous content matters.
        in_place: whether the micro-kernel works when an operand is the written view itself; False for instructions
            that move elements (transposes, shuffles), whose operand is then copied first.
    """

    def decorate(function: Callable[..., None]) -> Any:
        definition = define(function, writes, registers, updates, in_place)
        wrapper = _compile_wrapper(definition)
        functools.update_wrapper(wrapper, function)
        wrapper.definition = definition
        for kind in (*RULE_KINDS, *OPTIONAL_RULES):
            setattr(wrapper, kind, _attach(definition, kind))
        return wrapper

    return decorate


def _attach(definition: Definition, kind: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def attach(rule: Callable[..., Any]) -> Callable[..., Any]:
        assert kind not in definition.rules, f"{definition.name} has two {kind} rules"
        definition.rules[kind] = rule
        return rule

    return attach


def _compile_wrapper(definition: Definition) -> Any:
    """Generate the call path of one instruction: a key of types and attributes, one dict lookup, one emit."""
    header, key, passed = [], ["D"], []
    defaults: dict[str, Any] = {}
    for p in definition.parameters:
        if p.default is not inspect.Parameter.empty:
            defaults[f"d_{p.name}"] = p.default
            header.append(f"{p.name}=d_{p.name}")
        else:
            header.append(p.name)
        if p.role is Role.attribute:
            key.append(p.name)
            continue
        passed.append(p.name)
        if p.role is Role.tensor:
            key.append(f"{p.name}.type")
        else:
            key.append(f"({p.name}.type if {p.name}.__class__ is T else {p.name}.__class__)")
    plain = all(p.role is Role.tensor for p in definition.parameters if p.role is not Role.attribute)
    words = "".join(f"{name}.storage.id, {name}.byte_offset, " for name in passed)
    fast = f"""
    if builder.records and signature.plain:
        return builder.record((signature.id, builder.where(), {words}), name)""" if plain else ""
    everything = ", ".join(p.name for p in definition.parameters)
    operands = "".join(f"{name}, " for name in passed)
    source = f"""
def {definition.name}({", ".join(header)}, name=None):
    builder = active_builder("nki.isa.{definition.name}")
    try:
        signature = builder.known[({", ".join(key)})]
    except (KeyError, TypeError, AttributeError):
        signature = builder.specialize(D, ({everything},))
        try:
            builder.known[({", ".join(key)})] = signature
        except TypeError:
            pass  # a list among the attributes{fast}
    return builder.emit(signature, ({operands}), name)
"""
    namespace: dict[str, Any] = {"D": definition, "T": NkiTensor, "active_builder": active.builder, **defaults}
    exec(compile(source, f"<nkilite instruction {definition.name}>", "exec"), namespace)
    return namespace[definition.name]

