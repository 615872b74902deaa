"""autocomp: its harnesses, each with the starting solution that is kept beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..case import TRN2_MODES, Case, Launch
from ..sources import GeneratedSource

SUITE = "autocomp"
_MARK = "# SUBSTITUTE HERE"
_FOLDERS = ("trn-tutorial-nki1", "trn-advanced-nki1", "trn-tutorial-nki2", "trn-advanced-nki2", "trn-internal")
_CHECK = """

def check_solution():
    given = globals().get("{name}")
    if given is None:
        given = ref
    assert test_nki(globals().get("ref", given), given), "the solution differs from the reference"
"""


def find(folder: Path) -> Path | None:
    """The checkout's root."""
    return folder if (folder / "harnesses" / _FOLDERS[0]).is_dir() else None


def cases(root: Path) -> list[Case]:
    """All cases of the checkout."""
    return [case for folder in _FOLDERS for case in _cases(root, folder)]


def _cases(root: Path, folder: str) -> Iterator[Case]:
    for path in sorted((root / "harnesses" / folder).glob("*.py")):
        text = path.read_text(encoding="utf-8")
        stem = path.stem.removesuffix("_test")
        solution = root / "sols" / folder / f"{stem}_ref.py"
        if _MARK not in text or not solution.is_file():
            continue
        whole = text.replace(_MARK, solution.read_text(encoding="utf-8"))
        name = "solution" if "def solution(" in whole else "test"
        source = GeneratedSource(path, f"{folder}_{stem}", whole + _CHECK.format(name=name))
        launch = Launch("check_solution", host=True, checks_itself=True)
        yield Case(SUITE, f"{folder} {stem}", source, launch, TRN2_MODES)
