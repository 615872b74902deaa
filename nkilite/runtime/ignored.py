"""Environment variables that NKI documents and nkilite does not honour: named in a warning, once per process."""

from __future__ import annotations

import warnings

from nkilite import knobs
from nkilite.location import here

_named: set[str] = set()


def warn_of_ignored() -> None:
    """Warn of variables that are set and have no effect; of each once."""
    for name in knobs.ignored():
        if name not in _named:
            _named.add(name)
            where = here()
            text = f"{name} is set; nkilite does not honour it, see docs/compatibility.md."
            warnings.warn_explicit(text, UserWarning, where.file, max(where.line, 1))
