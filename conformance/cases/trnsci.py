"""The trnsci packages: the tests they mark for a simulator, which upstream expects to pass or to fail."""

from __future__ import annotations

from pathlib import Path

from ..case import Case, Mode
from .programs import pytest_cases

SUITE = "trnsci"
_PACKAGES = ("trnblas", "trnfft", "trnrand", "trnsolver", "trnsparse", "trntensor")
_MARKER = "nki_simulator"


def find(folder: Path) -> Path | None:
    """The root of a package's source."""
    return folder if any((folder / name / "nki").is_dir() for name in _PACKAGES) else None


def cases(root: Path) -> list[Case]:
    """All marked tests of the package, with the simulator it asks for."""
    package = next(name for name in _PACKAGES if (root / name / "nki").is_dir())
    files = [path for path in sorted((root / "tests").glob("test_*.py")) if _MARKER in path.read_text(encoding="utf-8")]
    environment = ((f"{package.upper()}_USE_SIMULATOR", "1"),)
    options = ("-m", _MARKER)
    modes = (Mode.SIMULATED_FILE,)
    return list(pytest_cases(SUITE, root, files, (root,), modes=modes, environment=environment, options=options))
