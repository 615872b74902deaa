"""Finds the known kernels in checkouts of public repositories."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .case import Case
from .cases import (
    autocomp,
    checks,
    course,
    neuron_sdk,
    nki_autotune,
    nki_library,
    nki_samples,
    nkibench,
    projects,
    trnsci,
)

_SUITES = (neuron_sdk, nki_samples, nki_autotune, nki_library, course, nkibench, autocomp, trnsci, checks, projects)


def discover(folders: Iterable[Path]) -> list[Case]:
    """The cases of every checkout that is one of ``folders`` or lies directly in one."""
    found: dict[str, Case] = {}
    for folder in folders:
        folder = folder.resolve()
        nested = sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
        for candidate in [folder, *nested]:
            for suite in _SUITES:
                if (root := suite.find(candidate)) is not None:
                    found.update((case.id, case) for case in suite.cases(root))
    return list(found.values())
