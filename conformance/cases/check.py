"""What a check of a public file is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """The body of one check of a file of a repository."""

    suite: str
    path: str
    label: str
    body: str
