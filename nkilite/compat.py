"""Makes `import nki` and its submodules mean nkilite, so that public kernels run unmodified."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

from nkilite.errors import LegacyDialect, PackageShadowed, VendorModule

__all__ = ["install"]

_MODULES = {
    "nki": "nkilite",
    "nki.collectives": "nkilite.collectives",
    "nki.builtin": "nkilite.builtin",
    "nki.compiler": "nkilite.compiler",
    "nki.compiler.frontend": "nkilite.compiler.frontend",
    "nki.dtype": "nkilite.dtypes",
    "nki.isa": "nkilite.isa",
    "nki.isa.constants": "nkilite.isa.constants",
    "nki.language": "nkilite.language",
    "nki.language.dtypes": "nkilite.dtypes",
    "nki.tensor": "nkilite.trace.tensor",
    "nki.typing": "nkilite.typing",
}


def install(force: bool = False) -> None:
    """Make the `nki` modules resolve to nkilite in this process.

    These are nki, nki.language, nki.isa, nki.isa.constants, nki.typing, nki.collectives, nki.compiler and its frontend,
    and of older releases nki.builtin, nki.dtype, nki.language.dtypes and nki.tensor.
    Imports of the Beta-1 package `neuronxcc` fail with an explanation from then on.

    Args:
        force: take the place of an installed nki or neuronxcc package, too.

    Raises:
        PackageShadowed: one of them is installed, and `force` is off.
    """
    if any(isinstance(finder, _Refuse) for finder in sys.meta_path):
        return
    if not force:
        for package in ("nki", "neuronxcc"):
            path = _installed(package)
            if path is not None:
                raise PackageShadowed(package=package, path=path)
    for name in [n for n in sys.modules if n == "nki" or n.startswith(("nki.", "neuronxcc"))]:
        del sys.modules[name]
    for name, ours in _MODULES.items():
        sys.modules[name] = importlib.import_module(ours)
    sys.meta_path.insert(0, _Refuse())


def _installed(package: str) -> str | None:
    """Where a package is installed; None when it is not, or is only a folder of that name on the path."""
    spec = importlib.util.find_spec(package)
    return spec.origin if spec is not None and spec.has_location else None


class _Refuse(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what `nki` lacks in nkilite, and all of `neuronxcc`; loading it raises the explanation.

    The error comes with loading, not with finding, so that code may ask importlib.util.find_spec what exists.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.startswith("nki.") or fullname.split(".")[0] == "neuronxcc":
            return importlib.machinery.ModuleSpec(fullname, self)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        if spec.name.startswith("nki."):
            raise VendorModule(module=spec.name)
        raise LegacyDialect(module="neuronxcc.nki", replacement="nki")

    def exec_module(self, module: ModuleType) -> None:
        """Never reached: create_module raises."""
