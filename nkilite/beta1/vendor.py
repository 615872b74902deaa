"""Names of the vendor's package that are not part of the dialect: importing them is no error, using them is."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
from collections.abc import Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import Any, NoReturn

from nkilite.errors import VendorModule


class VendorName:
    """Something of the vendor's that a file imports. Whatever is done with it says what it is."""

    def __init__(self, name: str) -> None:
        self.__name__ = self.__qualname__ = name

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise VendorModule(module=self.__name__)

    __call__ = __getitem__ = __iter__ = __enter__ = __mro_entries__ = _refuse

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return VendorName(f"{self.__name__}.{name}")

    def __repr__(self) -> str:
        return f"<{self.__name__}, which nkilite does not have>"


class VendorModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module below some packages and loads an empty one, whose names are VendorNames.

    Args:
        packages: their names.
        known: by module, what there is in it.
    """

    def __init__(self, *packages: str, known: Mapping[str, Mapping[str, object]] = MappingProxyType({})) -> None:
        self._packages, self._known = packages, known

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not any(fullname == p or fullname.startswith(f"{p}.") for p in self._packages):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = _Vendor(spec.name)
        module.modules = frozenset(name for name in self._known if name.startswith(f"{spec.name}."))
        vars(module).update(self._known.get(spec.name, {}))
        return module

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""


class _Vendor(ModuleType):
    """A module of the vendor's.

    Attributes:
        modules: the modules below it that have something in them.
    """

    modules: frozenset[str]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"
        if any(module == full or module.startswith(f"{full}.") for module in self.modules):
            return importlib.import_module(full)
        return VendorName(full)
