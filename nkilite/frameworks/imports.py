"""Waiting for a module that is imported later, if at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # base classes that would only cost time
    from importlib.abc import Loader, MetaPathFinder
else:
    Loader = MetaPathFinder = object


def once_imported(name: str, then: Callable[[], None]) -> None:
    """Call `then` when a module has been imported: now, or right after that happens."""
    if name in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _Finder(name, then))


class _Finder(MetaPathFinder):
    """Finds one module as others do, and adds to its loader, until it has been loaded.

    Programs look for modules without importing them, too (`importlib.util.find_spec`), so finding it is not enough.
    """

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name, self._then = name, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        finders = list(sys.meta_path)
        after = finders[finders.index(self) + 1:] if self in finders else []
        found = (finder.find_spec(fullname, path, target) for finder in after)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._loaded)
        return spec

    def _loaded(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._then()


class _Loader(Loader):
    """Loads as another loader does, then calls a function."""

    def __init__(self, loader: Loader, then: Callable[[], None]) -> None:
        self._loader, self._then = loader, then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._then()

    def __getattr__(self, name: str) -> object:
        """What else is asked of it without loading: `is_package`, `get_data`."""
        if name == "_loader":  # of a copy without attributes
            raise AttributeError(name)
        return getattr(self._loader, name)
