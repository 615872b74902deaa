"""Makes `import nki` and `import neuronxcc.nki` mean nkilite, so that public kernels of both run unmodified."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
from collections.abc import Sequence
from types import ModuleType

from nkilite import xla_stub
from nkilite.beta1.vendor import VendorModules
from nkilite.errors import PackageShadowed, VendorModule

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
    "nki.language.constants": "nkilite.language.constants",
    "nki.language.dtypes": "nkilite.dtypes",
    "nki.simulator": "nkilite.simulator",
    "nki.tensor": "nkilite.trace.tensor",
    "nki.typing": "nkilite.typing",
    "neuronxcc.nki": "nkilite.beta1",
    "neuronxcc.nki.compiler": "nkilite.beta1.compiler",
    "neuronxcc.nki.isa": "nkilite.beta1.isa",
    "neuronxcc.nki.isa.constants": "nkilite.isa.constants",
    "neuronxcc.nki.language": "nkilite.beta1.language",
    "neuronxcc.nki.language.constants": "nkilite.language.constants",
    "neuronxcc.nki.typing": "nkilite.beta1.typing",
}


def install(force: bool = False, torch_xla: bool = False) -> None:
    """Make the `nki` modules resolve to nkilite in this process.

    These are nki, nki.language, nki.isa, nki.isa.constants, nki.typing, nki.collectives, nki.simulator, nki.compiler
    and its frontend, and of older releases nki.builtin, nki.dtype, nki.language.dtypes and nki.tensor; and those of
    Beta 1 below neuronxcc.nki: language, isa, typing and compiler. What else is imported from neuronxcc is the
    vendor's; it says so when it is used. `nki_op`, `wrap_nki`, `nki_jit` and `xla_impl.custom_op` come from
    torch_neuronx, `nki_call` from jax_neuronx, unless these are installed.

    Args:
        force: take the place of an installed nki or neuronxcc package, too.
        torch_xla: also let torch_xla, torch_neuronx and torch's device "neuron" be stand-ins that keep tensors on the
            CPU.

    Raises:
        PackageShadowed: one of them is installed, and `force` is off.
    """
    if torch_xla:
        xla_stub.install()
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
    _spell(torch_xla)
    sys.meta_path[:0] = [_Refuse(), VendorModules("neuronxcc")]
    neuronxcc = importlib.import_module("neuronxcc")
    neuronxcc.nki = sys.modules["neuronxcc.nki"]  # type: ignore[attr-defined]
    if not hasattr(logging, "OFF"):  # a level that importing neuronxcc adds, and that scripts use
        logging.OFF = logging.CRITICAL + 10  # type: ignore[attr-defined]


def _spell(torch_xla: bool) -> None:
    """Make importable what names nkilite's own things in packages that are not installed (`xla_stub.SPELLINGS`)."""
    packages = {name for name in xla_stub.SPELLINGS if "." not in name}
    missing = {name for name in packages if _installed(name) is None} - ({"torch_neuronx"} if torch_xla else set())
    for name, contents in xla_stub.SPELLINGS.items():
        if name.partition(".")[0] in missing:
            module = sys.modules[name] = ModuleType(name)
            vars(module).update(contents, __path__=[])


def _installed(package: str) -> str | None:
    """Where a package is installed; None when it is not, or is only a folder of that name on the path."""
    spec = importlib.util.find_spec(package)
    return spec.origin if spec is not None and spec.has_location else None


class _Refuse(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what `nki` lacks in nkilite; loading it raises the explanation.

    The error comes with loading, not with finding, so that code may ask importlib.util.find_spec what exists.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.startswith("nki."):
            return importlib.machinery.ModuleSpec(fullname, self)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        raise VendorModule(module=spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Never reached: create_module raises."""
