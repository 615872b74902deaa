"""Files written for ``neuronxcc.nki``, the dialect before NKI 0.3: scripts that have to run to their end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..case import Case, Mode
from ..sources import FileSource

_IMPORT = re.compile(r"^\s*(?:from|import)\s+neuronxcc\.nki\b|^\s*from\s+neuronxcc\s+import\s+nki\b", re.MULTILINE)


def old_dialect_cases(suite: str, root: Path, files: Iterable[Path], roots: tuple[Path, ...] = ()) -> Iterator[Case]:
    """One case per file that imports ``neuronxcc.nki``, run as a script with a stub of torch_xla.

    ``roots`` are folders of the checkout that have to be on the module search path.
    """
    for path in files:
        if _IMPORT.search(path.read_text(encoding="utf-8", errors="replace")):
            yield Case(
                suite,
                "Beta 1",
                FileSource(path, roots),
                modes=(Mode.FILE,),
                script=True,
                isolation=f"{root} Beta 1",
            )
