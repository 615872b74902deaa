"""nki.compiler: configurations of a kernel and decorators of older releases, all of them without a meaning on a CPU;
nothing of the vendor's compiler is behind it."""

from __future__ import annotations

import typing as _typing
from typing import NoReturn as _NoReturn

from nkilite.compiler.directives import enable_stack_allocator, force_auto_alloc, skip_middle_end_transformations
from nkilite.errors import VendorModule as _VendorModule
from nkilite.runtime.configs import AddressRotation, CompileConfig, SpecializationConfig

__all__ = [
    "AddressRotation",
    "CompileConfig",
    "SpecializationConfig",
    "enable_stack_allocator",
    "force_auto_alloc",
    "skip_middle_end_transformations",
]


if not _typing.TYPE_CHECKING:  # a checker that sees it believes that every name exists

    def __getattr__(name: str) -> _NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _VendorModule(module=f"nki.compiler.{name}")
