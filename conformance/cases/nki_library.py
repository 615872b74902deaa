"""nki-library: which of its kernel modules import. Running them takes the library's own tests."""

from __future__ import annotations

import re
from pathlib import Path

from ..case import Case, Mode
from ..sources import PackageSource

SUITE = "nki-library"
_IMPORTS_NKI = re.compile(r"^\s*(?:from|import)\s+nki\b", re.MULTILINE)


def find(folder: Path) -> Path | None:
    """The folder that holds the package ``nkilib``."""
    root = folder / "src" / "nkilib_src"
    return root if (root / "nkilib").is_dir() else None


def cases(root: Path) -> list[Case]:
    """One import per module that uses ``nki``."""
    return [
        Case(SUITE, "import", PackageSource(path, root), modes=(Mode.FILE,), isolation=str(root))
        for path in sorted((root / "nkilib").rglob("*.py"))
        if _IMPORTS_NKI.search(path.read_text(encoding="utf-8"))
    ]
