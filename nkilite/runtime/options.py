"""What `@nki.jit(...)` accepts: options of all releases, and the configurations of NKI 0.7, which are checked.

They steer the vendor's compiler and runtime; none has a meaning on a CPU. Source: public pages nki.compiler and
nki.jit; for older options, public kernels that use them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from nkilite.errors import InvalidOperand, UnknownKeyword, describe
from nkilite.runtime.settings import OPTIONS

__all__ = ["AddressRotation", "CompileConfig", "SpecializationConfig", "check_options", "require_none"]


class AddressRotation(Enum):
    """Whether the compiler may move a tile for a better layout."""

    AUTO = "auto"
    ENABLE = "enable"
    DISABLE = "disable"


class _Config:
    """A configuration: dataclass fields with defaults, whose types values must have."""

    def __init__(self, *values: Any, **named: Any) -> None:
        known = {field.name: field.default for field in fields(self)}  # type: ignore[arg-type]
        given = {**dict(zip(known, values, strict=False)), **named}
        for name in given:
            if name not in known:
                raise _unknown(f"nki.compiler.{type(self).__name__}", name, tuple(known))
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


_CONFIGS = {"compile_config": CompileConfig, "specialization_config": SpecializationConfig}
_KNOWN = (
    *_CONFIGS, "additional_compile_opt", "artifacts_dir", "debug", "debug_kernel", "disable_allocation_opt",
    "experimental_flags", "kernel_return", "mode", "platform_target", "save_neff_name", "save_trace_name",
    "show_compiler_tb", "working_directory",
)


def check_options(options: Mapping[str, Any]) -> None:
    """Check the keywords of a decorator.

    Raises:
        UnknownKeyword: no release has had it.
        InvalidOperand: a configuration of another type.
    """
    for name, value in options.items():
        if name not in _KNOWN:
            raise _unknown("nki.jit", name, (*_KNOWN, *OPTIONS))
        kind = _CONFIGS.get(name)
        if kind is not None and value is not None and not isinstance(value, kind):
            raise InvalidOperand(
                instruction="nki.jit", operand=name, found=describe(value),
                expected=f"an nki.compiler.{kind.__name__}",
            )


def require_none(function: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raise UnknownKeyword for what is left of keywords when all known ones have been taken."""
    for name in options:
        raise _unknown(function, name, known)


def _unknown(function: str, keyword: str, known: tuple[str, ...]) -> UnknownKeyword:
    near = difflib.get_close_matches(keyword, known, 1)
    hint = f"did you mean {near[0]}?" if near else "remove it."
    return UnknownKeyword(function=function, keyword=keyword, known=", ".join(known), hint=hint)
