"""LLVM as llvmlite binds it, loaded when it is first asked for something: importing a kernel need not wait for it."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    from llvmlite import binding

    return getattr(binding, name)


def versions() -> str:
    """Of llvmlite and of LLVM, which together decide what code is made."""
    import llvmlite
    from llvmlite import binding

    return " ".join((llvmlite.__version__, ".".join(map(str, binding.llvm_version_info))))
