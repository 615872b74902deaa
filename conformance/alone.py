"""``python -m conformance.alone ROOT SCRIPT``: runs a script whose packages import what is not installed.

Model ports import serving frameworks in the ``__init__`` of their packages; their kernels, and the tests of these, need
none. A package of ROOT whose ``__init__`` fails to import something is left with what it has until then.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from nkilite import compat


class _Lenient(importlib.machinery.SourceFileLoader):
    """Loads the ``__init__`` of a package."""

    def exec_module(self, module: ModuleType) -> None:
        with contextlib.suppress(ImportError):
            super().exec_module(module)


class _Packages:
    """Finds the packages of a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        file = self._root.joinpath(*name.split(".")) / "__init__.py"
        if not file.is_file():
            return None
        spec = importlib.machinery.ModuleSpec(name, _Lenient(name, str(file)), origin=str(file), is_package=True)
        spec.submodule_search_locations = [str(file.parent)]
        return spec


def main() -> None:
    root, script = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    compat.install(torch_xla=True)
    sys.meta_path.insert(0, _Packages(root))
    sys.path.insert(0, str(root))
    sys.argv[:] = [str(script)]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
