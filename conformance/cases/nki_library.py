"""nki-library: its kernels on small shapes against NumPy, and which of its modules import."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..case import TARGET_MODES, Case, Mode
from ..sources import PackageSource
from . import nki_library_attention, nki_library_layers, nki_library_mx, nki_library_routing
from .files import Variant

SUITE = "nki-library"
_IMPORTS_NKI = re.compile(r"^\s*(?:from|import)\s+nki\b", re.MULTILINE)
_LAUNCHES = {
    **nki_library_layers.VARIANTS, **nki_library_attention.VARIANTS, **nki_library_routing.VARIANTS,
    **nki_library_mx.VARIANTS,
}


def find(folder: Path) -> Path | None:
    """The folder that holds the package ``nkilib``."""
    root = folder / "src" / "nkilib_src"
    return root if (root / "nkilib").is_dir() else None


def cases(root: Path) -> list[Case]:
    """One import per module that uses ``nki``, and the launches of the kernels known here."""
    return [*_imports(root), *_launches(root)]


def _imports(root: Path) -> Iterator[Case]:
    for path in sorted((root / "nkilib").rglob("*.py")):
        if _IMPORTS_NKI.search(path.read_text(encoding="utf-8")):
            yield Case(SUITE, "import", PackageSource(path, root), modes=(Mode.FILE,), isolation=str(root))


def _launches(root: Path) -> Iterator[Case]:
    for module, variants in _LAUNCHES.items():
        path = root / "nkilib" / module
        for variant in variants if path.is_file() else ():
            yield _launch(PackageSource(path, root), variant)


def _launch(source: PackageSource, variant: Variant) -> Case:
    group = f"{source.path} launch"
    return Case(SUITE, variant.label, source, variant.launch, TARGET_MODES, variant.refused_on, isolation=group)
