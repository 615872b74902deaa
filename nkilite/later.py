"""Imports that wait until they are used: what most launches do without, and libraries that may be missing.

    if TYPE_CHECKING:
        from rich import console
    else:
        console = later("rich.console")

This is the one way to import something late, so that what is imported late can be found.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class _Later(ModuleType):
    """Stands for a module, and imports it when it is asked for something.

    Raises:
        ImportError: then, if it is missing.
    """

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name != "__version__":  # asked by who inspects any module
            raise AttributeError(name)
        found = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, found)
        return found


def later(name: str) -> ModuleType:
    """The module of that name, imported when something of it is used."""
    return _Later(name)
