"""Loads kernels from files of a checkout and from code blocks, leaving their text as it is."""

from __future__ import annotations

import atexit
import importlib.util
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from .case import TARGET_VARIABLE

_SETS_TARGET = re.compile(rf"environ\s*\[\s*['\"]{TARGET_VARIABLE}['\"]\s*\]\s*=")


@dataclass(frozen=True)
class FileSource:
    """A Python file, imported with its own folder (and ``roots``) first on ``sys.path``."""

    path: Path
    roots: tuple[Path, ...] = ()

    @property
    def sets_target(self) -> bool:
        return _SETS_TARGET.search(self.path.read_text(encoding="utf-8")) is not None

    def load(self) -> ModuleType:
        for folder in (*self.roots, self.path.parent):
            if str(folder) not in sys.path:
                sys.path.insert(0, str(folder))
        return load_path(self.path, re.sub(r"\W", "_", self.path.stem))


@dataclass(frozen=True)
class PackageSource:
    """A module of a package, imported by its dotted name with the package's parent folder on ``sys.path``."""

    path: Path
    root: Path

    sets_target = False

    def load(self) -> ModuleType:
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))
        relative = self.path.relative_to(self.root).with_suffix("")
        parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
        return importlib.import_module(".".join(parts))


@dataclass(frozen=True)
class GeneratedSource:
    """A module made around a code block; written to a temporary file so that tracebacks show its lines."""

    path: Path
    name: str
    text: str

    @property
    def sets_target(self) -> bool:
        return _SETS_TARGET.search(self.text) is not None

    def load(self) -> ModuleType:
        name = re.sub(r"\W+", "_", self.name).strip("_")
        file = _generated_folder() / f"{name}.py"
        file.write_text(self.text, encoding="utf-8")
        return load_path(file, name)


@cache
def _generated_folder() -> Path:
    """A folder for generated modules, removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="conformance-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def load_path(path: Path, name: str) -> ModuleType:
    """Imports a file as module ``name``, which is registered while and after it runs."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module
