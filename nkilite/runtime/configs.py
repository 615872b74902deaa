"""The configurations of NKI 0.7: they steer the vendor's compiler, and a launch has those of one kernel.

What is computed does not depend on them. Source: public pages nki.compiler and nki.jit.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from enum import Enum
from typing import NamedTuple

from nkilite.errors import InvalidOperand, NestedConfig, UnknownKeyword, describe
from nkilite.location import here
from nkilite.notices import Notice, give

__all__ = ["AddressRotation", "CompileConfig", "Configs", "NestedConfigIgnored", "SpecializationConfig", "unknown"]


class AddressRotation(Enum):
    """Whether the compiler may move a tile for a better layout."""

    AUTO = "auto"
    ENABLE = "enable"
    DISABLE = "disable"


class _Config:
    """A configuration: dataclass fields with defaults, whose types values must have."""

    def __init__(self, *values: object, **named: object) -> None:
        known = {field.name: field.default for field in fields(self)}  # type: ignore[arg-type]
        given = {**dict(zip(known, values, strict=False)), **named}
        for name in given:
            if name not in known:
                raise unknown(f"nki.compiler.{type(self).__name__}", name, tuple(known))
        for name, default in known.items():
            value = given.get(name, default)
            if type(value) is not type(default):
                expected = "True or False" if isinstance(default, bool) else f"a member of {type(default).__name__}"
                raise InvalidOperand(
                    instruction=f"nki.compiler.{type(self).__name__}", operand=name, found=describe(value),
                    expected=expected,
                )
            object.__setattr__(self, name, value)


@dataclass(frozen=True, init=False)
class CompileConfig(_Config):
    """How the vendor's compiler treats a kernel; what is computed does not depend on it."""

    address_rotation: AddressRotation = AddressRotation.AUTO
    non_ssa_legalization: bool = False
    dead_code_elim: bool = True
    barrier_check: bool = False
    prefetch_auto: bool = False
    nki_alloc_fallback: bool = True


@dataclass(frozen=True, init=False)
class SpecializationConfig(_Config):
    """How the vendor traces a kernel; what is computed does not depend on it."""

    allow_nested_config_override: bool = False


class NestedConfigIgnored(UserWarning):
    """A kernel that another one calls has a configuration, which the other one's replaces."""


class Configs(NamedTuple):
    """Those that a kernel's decorator has.

    Attributes:
        compile: None where it has none, which is as good as the defaults, but agrees with that of any caller.
        specialization: the same.
    """

    compile: CompileConfig | None = None
    specialization: SpecializationConfig | None = None

    def require_agreement(self, nested: Configs, name: str) -> None:
        """Check the configuration of a kernel, of this name, that one with these has called.

        Warns NestedConfigIgnored where this one's `allow_nested_config_override` allows another one.

        Raises:
            NestedConfig: it is another one.
        """
        own, theirs = self.compile or CompileConfig(), nested.compile
        if theirs is None or theirs == own:
            return
        wrong = ", ".join(
            f"{field.name} is {getattr(theirs, field.name)} there and {getattr(own, field.name)} here"
            for field in fields(own) if getattr(theirs, field.name) != getattr(own, field.name)
        )
        if not (self.specialization or SpecializationConfig()).allow_nested_config_override:
            raise NestedConfig(kernel=name, wrong=wrong)
        where = here()
        message = f"the compile_config of kernel {name} is ignored, for another kernel calls it: {wrong}"
        give(Notice(message, NestedConfigIgnored, where.file, where.line))


NO_CONFIGS = Configs()


def unknown(function: str, keyword: str, known: tuple[str, ...]) -> UnknownKeyword:
    """The error for a keyword that a function has not."""
    near = difflib.get_close_matches(keyword, known, 1)
    hint = f"did you mean {near[0]}?" if near else "remove it."
    return UnknownKeyword(function=function, keyword=keyword, known=", ".join(known), hint=hint)
