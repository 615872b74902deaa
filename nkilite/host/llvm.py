"""LLVM as llvmlite binds it, loaded when it is first asked for something: importing a kernel need not wait for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nkilite import forking
from nkilite.later import later

if TYPE_CHECKING:
    import llvmlite as _llvmlite
    from llvmlite import binding as _binding
else:
    _llvmlite, _binding = later("llvmlite"), later("llvmlite.binding")


_importing = forking.lock()


def _of_llvm() -> Iterator[forking.Lock]:
    """The lock that llvmlite has around every call of LLVM."""
    ffi = sys.modules.get("llvmlite.binding.ffi")
    if ffi is not None:
        yield ffi.lib._lock._lock


forking.hold(_of_llvm)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    with _importing:
        return getattr(_binding, name)


def versions() -> str:
    """Of llvmlite and of LLVM, which together decide what code is made."""
    return " ".join((_llvmlite.__version__, ".".join(map(str, _binding.llvm_version_info))))
