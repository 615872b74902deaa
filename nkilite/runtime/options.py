"""What `@nki.jit(...)` accepts: options of all releases, none of which has a meaning on a CPU.

Source: public page nki.jit; for older options, public kernels that use them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nkilite.errors import InvalidOperand, describe
from nkilite.runtime.configs import CompileConfig, Configs, SpecializationConfig, unknown
from nkilite.runtime.settings import OPTIONS

__all__ = ["check_options", "check_vendor", "require_none"]

_CONFIGS = {"compile_config": CompileConfig, "specialization_config": SpecializationConfig}
_KNOWN = (
    *_CONFIGS, "additional_compile_opt", "artifacts_dir", "debug", "debug_kernel", "disable_allocation_opt",
    "enable_out_of_bound_check", "experimental_flags", "kernel_return", "mode", "platform_target", "save_neff_name",
    "save_trace_name", "show_compiler_tb", "working_directory",
)
# Of the decorators that run a kernel on a chip. Source: the pages nki.baremetal, nki.benchmark and nki.profile.
_RUNS = ("device_count", "iters", "overwrite", "profile_nth", "warmup")


def check_vendor(function: str, options: Mapping[str, object]) -> None:
    """Check the keywords of a decorator of older releases, none of which has a meaning here.

    Raises:
        UnknownKeyword: no release has had it.
    """
    known = *_KNOWN, *_RUNS
    require_none(function, [name for name in options if name not in known], known)


def check_options(options: Mapping[str, Any], given: Configs) -> Configs:
    """Check the keywords of a decorator; its configurations, those given before where it has none.

    Raises:
        UnknownKeyword: no release has had it.
        InvalidOperand: a configuration of another type.
    """
    for name, value in options.items():
        if name not in _KNOWN:
            raise unknown("nki.jit", name, (*_KNOWN, *OPTIONS))
        kind = _CONFIGS.get(name)
        if kind is not None and value is not None and not isinstance(value, kind):
            raise InvalidOperand(
                instruction="nki.jit", operand=name, found=describe(value),
                expected=f"an nki.compiler.{kind.__name__}",
            )
    return Configs(
        options.get("compile_config") or given.compile, options.get("specialization_config") or given.specialization
    )


def require_none(function: str, options: Iterable[str], known: tuple[str, ...]) -> None:
    """Raise UnknownKeyword for what is left of keywords when all known ones have been taken."""
    for name in options:
        raise unknown(function, name, known)
