"""Judging results and surviving kernels that crash or hang, on kernels of our own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from conformance import limits
from conformance.case import Case, Launch, Mode, Result, Status
from conformance.discover import discover
from conformance.execute import Executor
from conformance.runner import run

ONES = np.ones((2, 3), dtype=np.float32)


@dataclass(frozen=True)
class FunctionSource:
    """A module that holds one function, ``kernel``."""

    kernel: Any
    path: Path = Path("own.py")
    sets_target = False

    def load(self) -> ModuleType:
        if isinstance(self.kernel, Exception):
            raise self.kernel
        return cast(ModuleType, SimpleNamespace(kernel=partial(self.kernel)))  # like a kernel, no plain function


def outcome(kernel: Any, **launch: Any) -> Result:
    arguments = launch.pop("arguments", lambda: (ONES.copy(),))
    case = Case("own", "kernel", FunctionSource(kernel), Launch("kernel", arguments, **launch))
    return Executor(timeout=1.0).run(case, Mode.COMPILED_TRN2)


def test_agreement_passes_and_records_the_error() -> None:
    result = outcome(lambda x: x + np.float32(1e-6), reference=lambda x: x)
    assert result.status is Status.PASS
    assert result.max_abs_error == pytest.approx(1e-6, rel=0.1)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (lambda x: 2 * x, "6 of 6 elements differ, first at (0, 0): 2 instead of 1"),
        (lambda x: x[:1], "has shape (1, 3), expected (2, 3)"),
        (lambda x: np.full_like(x, np.nan), "nan instead of 1"),
        (lambda x: (x, x), "2 results, expected 1"),
        (lambda x: None, "0 results, expected 1"),
    ],
)
def test_disagreement_fails(kernel: Any, message: str) -> None:
    result = outcome(kernel, reference=lambda x: np.ones((2, 3)))
    assert result.status is Status.FAIL
    assert message in result.message


def test_pairs_are_compared_after_the_results() -> None:
    assert outcome(lambda x: (x, x, x), reference=lambda x: x, pairs=True).status is Status.PASS
    assert outcome(lambda x: (x, 2 * x), pairs=True).status is Status.FAIL


def test_argument_written_by_the_kernel_is_a_result() -> None:
    def kernel(x: np.ndarray) -> None:
        x *= 3

    assert outcome(kernel, reference=lambda x: np.full((2, 3), 3.0), mutates=(0,)).status is Status.PASS


def test_nothing_to_compare_is_no_pass() -> None:
    assert outcome(lambda x: None).status is Status.RUNS
    assert outcome(lambda x: None, checks_itself=True).status is Status.PASS


def test_exception_becomes_an_error_and_a_missing_package_a_skip() -> None:
    result = outcome(ValueError("broken"))
    assert (result.status, result.error, result.message) == (Status.ERROR, "ValueError", "broken")
    result = outcome(ModuleNotFoundError("no torch_xla", name="torch_xla.core"))
    assert (result.status, result.message) == (Status.SKIP, "needs torch_xla.core")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("os._exit(3)", Status.CRASH),
        ("while True: pass", Status.TIMEOUT),
        ("time.sleep(60)", Status.TIMEOUT),
        ("1 / 0", Status.ERROR),
    ],
)
def test_run_survives_a_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, status: Status
) -> None:
    if "sleep" in body:
        monkeypatch.setattr(limits, "WAITS", 1)
        monkeypatch.setattr(limits, "GRACE", 0.0)
    (tmp_path / "nkigym").mkdir()
    file = tmp_path / "kernel_library" / "matmul" / "lhsT_rhs" / "kernel.py"
    file.parent.mkdir(parents=True)
    file.write_text(f"import os, time\n\ndef matmul_lhsT_rhs_nkigym(lhs_t, rhs):\n    {body}\n")
    cases = discover([tmp_path])
    assert [case.label for case in cases] == ["matmul_lhsT_rhs_nkigym"]
    modes = frozenset({Mode.COMPILED_TRN2, Mode.COMPILED_TRN3})
    seconds = 1.0 if "while" in body else 3.0
    results = run(cases, [tmp_path], timeout=seconds, only=modes)
    assert [(result.mode, result.status) for result in results] == [
        (Mode.COMPILED_TRN2, status),
        (Mode.COMPILED_TRN3, status),
    ]
