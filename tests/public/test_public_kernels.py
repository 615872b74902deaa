"""The conformance suite inside pytest, on the checkouts that NKILITE_PUBLIC_KERNELS names, like PATH."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conformance.case import Case, Result
from conformance.discover import discover
from conformance.runner import run

FOLDERS = [Path(name) for name in os.environ.get("NKILITE_PUBLIC_KERNELS", "").split(os.pathsep) if name]
if not FOLDERS:
    pytest.skip("NKILITE_PUBLIC_KERNELS names no checkout of public kernels", allow_module_level=True)
CASES = discover(FOLDERS)


@pytest.fixture(scope="session")
def results() -> dict[str, list[Result]]:
    """The results of all cases, by case."""
    found: dict[str, list[Result]] = {case.id: [] for case in CASES}
    for result in run(CASES, FOLDERS, jobs=os.cpu_count() or 1):
        found[result.case].append(result)
    return found


def test_checkouts_hold_known_kernels() -> None:
    assert CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.source.path.name}-{case.label}")
def test_public_kernel(case: Case, results: dict[str, list[Result]]) -> None:
    if case.skip:
        pytest.skip(case.skip)
    wrong = [result for result in results[case.id] if not result.status.good]
    assert not wrong, "\n".join(f"{r.mode.value}: {r.status.value} {r.error} {r.message}" for r in wrong)
