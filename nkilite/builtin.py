"""nki.builtin: what the vendor's parser took for Python's builtins. Kernels here are Python, so there is nothing in it;
programs that import the module can."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from nkilite.errors import VendorModule

__all__: list[str] = []


if not TYPE_CHECKING:  # a checker that sees it believes that every name exists

    def __getattr__(name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise VendorModule(module=f"nki.builtin.{name}")
