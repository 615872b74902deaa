"""Runs one case in one mode, inside a worker process, and judges what comes out."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from .case import TARGET_VARIABLE, Case, Launch, Mode, Result, Source, Status, Tolerance
from .frameworks import from_framework, missing, to_framework
from .sources import GeneratedSource

# Packages a public file may need that nkilite does not replace; nki_samples lacks modules in some checkouts.
OPTIONAL = frozenset(
    {
        "jax",
        "jaxlib",
        "neuron_dtypes",
        "neuronpy",
        "nki_samples",
        "pytest",
        "torch",
        "torch_neuronx",
        "torch_xla",
        "torchvision",
    }
)
_RAISED = re.compile(r"^(?:\w+\.)*(?P<name>\w+): .*$", re.MULTILINE)  # the last line of a traceback
_MISSING_MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")


class Mismatch(Exception):
    """Results that differ from what the case expects."""


class ScriptRefused(Exception):
    """A script that ended with a typed nkilite error."""


class Executor:
    """Runs cases; a source is loaded once and then launched in every mode, as a user's session would."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._modules: dict[Source, tuple[ModuleType, str | None]] = {}

    def run(self, case: Case, mode: Mode) -> Result:
        """Runs ``case`` in ``mode``; every exception becomes a result."""
        started = time.perf_counter()
        result = Result(case.id, mode, Status.PASS)
        reason = case.skip or (f"needs {case.framework}" if missing(case.framework) else "")
        if reason:
            return Result(case.id, mode, Status.SKIP, message=reason)
        try:
            if mode is Mode.FILE:
                result.status = self._file(case)
            else:
                self._launch(case, mode, result)
            self._expect_refusal(case, mode)
        except Exception as error:
            _record(error, case, mode, result)
        result.seconds = time.perf_counter() - started
        return result

    def _file(self, case: Case) -> Status:
        if case.script:
            _run_script(case, self._timeout)
            return Status.PASS
        with _target(None):
            case.source.load()
        return Status.RUNS

    def _launch(self, case: Case, mode: Mode, result: Result) -> None:
        launch = case.launch
        assert launch is not None
        module, own_target = self._load(case.source)
        kernel = getattr(module, launch.kernel)
        if mode.simulated:
            kernel = importlib.import_module("nki").simulate(kernel)
        elif isinstance(kernel, FunctionType):  # the library leaves the decoration of some to its callers
            kernel = importlib.import_module("nki").jit(kernel)
        given = launch.arguments()
        passed = [to_framework(value, case.framework) for value in given]
        options = {} if launch.options is None else launch.options(module)
        with _target(mode.target or own_target):
            returned = kernel(*passed, **options)
        values = [*_flat(returned), *(passed[position] for position in launch.mutates)]
        outputs = [from_framework(value, case.framework) for value in values]
        if launch.read is not None:
            outputs = list(launch.read(outputs))
        compared = _judge(launch, given, outputs, result)
        result.status = Status.PASS if compared or launch.checks_itself else Status.RUNS

    def _load(self, source: Source) -> tuple[ModuleType, str | None]:
        """The module of a source, and the target its import set through the environment."""
        if source not in self._modules:
            with _target(None):
                module = source.load()
                self._modules[source] = module, os.environ.get(TARGET_VARIABLE)
        return self._modules[source]

    @staticmethod
    def _expect_refusal(case: Case, mode: Mode) -> None:
        if case.refused_in(mode):
            raise Mismatch("expected a typed nkilite error, but it ran")


def _judge(launch: Launch, given: Sequence[Any], outputs: list[np.ndarray], result: Result) -> bool:
    """Compares outputs with the reference and pairwise; returns whether anything was compared."""
    expected = [] if launch.reference is None else list(_flat(launch.reference(*given)))
    surplus_allowed = launch.pairs or launch.reference is None
    if len(outputs) < len(expected) or (len(outputs) > len(expected) and not surplus_allowed):
        raise Mismatch(f"{len(outputs)} results, expected {len(expected)}")
    rest = outputs[len(expected) :] if launch.pairs else []
    comparisons = [*zip(outputs, expected, strict=False), *zip(rest[::2], rest[1::2], strict=True)]
    for index, (value, wanted) in enumerate(comparisons):
        _compare(index, value, np.asarray(wanted), launch.tolerance, result)
    return bool(comparisons)


def _compare(index: int, value: np.ndarray, wanted: np.ndarray, tolerance: Tolerance, result: Result) -> None:
    if value.shape != wanted.shape:
        raise Mismatch(f"result {index} has shape {value.shape}, expected {wanted.shape}")
    got, want = value.astype(np.float64), wanted.astype(np.float64)
    exact = (got == want) | (np.isnan(got) & np.isnan(want))
    with np.errstate(invalid="ignore"):
        error = np.where(exact, 0.0, np.abs(got - want))
    error = np.where(np.isnan(error), np.inf, error)
    worst = float(error.max(initial=0.0))
    finite = np.abs(want[np.isfinite(want)])
    scale = float(finite.max(initial=0.0))
    relative = worst / scale if scale else worst
    result.max_abs_error = max(worst, result.max_abs_error or 0.0)
    result.max_rel_error = max(relative, result.max_rel_error or 0.0)
    with np.errstate(invalid="ignore"):
        wrong = ~(exact | (error <= tolerance.atol + tolerance.rtol * np.abs(want)))
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise Mismatch(
            f"result {index}: {int(wrong.sum())} of {wrong.size} elements differ, first at {first}: "
            f"{got[first]:.6g} instead of {want[first]:.6g}"
        )


def _flat(value: Any) -> Iterator[Any]:
    """The tensors of a kernel's return value, in order."""
    if value is None:
        return
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _record(error: Exception, case: Case, mode: Mode, result: Result) -> None:
    """Turns an exception into the status of a result."""
    result.error = type(error).__name__
    result.message = str(error).strip()
    result.detail = traceback.format_exc()
    if isinstance(error, Mismatch):
        result.status, result.error = Status.FAIL, ""
    elif case.refused_in(mode) and _is_refusal(error):
        result.status = Status.REFUSED
    elif isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in OPTIONAL:
        result.status, result.message = Status.SKIP, f"needs {error.name}"
    elif isinstance(error, SyntaxError) and not isinstance(case.source, GeneratedSource):
        result.status = Status.SKIP
        result.message = f"not valid Python: {error.msg} ({error.filename}, line {error.lineno})"
    else:
        result.status = Status.ERROR


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, ScriptRefused) or _is_refusal_type(type(error))


def _is_refusal_type(kind: type) -> bool:
    """Whether an error says that the program is wrong, rather than that nkilite lacks something."""
    errors = importlib.import_module("nkilite.errors")
    return issubclass(kind, errors.NkiError) and not issubclass(kind, errors.UnsupportedError)


def _run_script(case: Case, timeout: float) -> None:
    """Runs a file as ``python -m nkilite run``; raises what the child reports on its standard error."""
    command = [sys.executable, "-m", "nkilite", "run", "--torch-xla-stub", str(case.source.path)]
    search = [*map(str, getattr(case.source, "roots", ())), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        TARGET_VARIABLE: "trn2",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(search),
    }
    done = subprocess.run(
        command,
        cwd=case.source.path.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode == 0:
        return
    report = done.stderr.strip() or done.stdout.strip()
    raised = list(_RAISED.finditer(report))
    message = raised[-1][0] if raised else f"exit code {done.returncode}"
    if (found := _MISSING_MODULE.search(message)) and found[1].split(".")[0] in OPTIONAL:
        raise ModuleNotFoundError(f"needs {found[1]}", name=found[1])
    errors = importlib.import_module("nkilite.errors")
    kind = getattr(errors, raised[-1]["name"], None) if raised else None
    if isinstance(kind, type) and _is_refusal_type(kind):
        raise ScriptRefused(message)
    raise Mismatch(message)


@contextlib.contextmanager
def _target(name: str | None) -> Iterator[None]:
    """Sets the target variable of the environment (None: removes it) and restores it afterwards."""
    before = os.environ.pop(TARGET_VARIABLE, None)
    if name is not None:
        os.environ[TARGET_VARIABLE] = name
    try:
        yield
    finally:
        os.environ.pop(TARGET_VARIABLE, None)
        if before is not None:
            os.environ[TARGET_VARIABLE] = before
