"""Groups: consecutive instructions that are compiled to one micro-kernel and run as one entry of the native table.

A pass decides which instructions belong together and how; the *plan* holds what it decided. Instructions in no group
run on their own.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple


class Group(NamedTuple):
    """Instructions `first` to `first + size - 1` of a program.

    Attributes:
        plan: how their code is written. Its type chooses the writer (nkilite/runtime/lower.py); two groups of the
            same signatures on the same row pitches share a micro-kernel if their plans are equal, so a plan says
            everything else the code depends on, such as which operands are the same memory.
    """

    first: int
    size: int
    plan: Hashable
