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
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from .case import SIMULATOR_VARIABLE, TARGET_VARIABLE, Case, Command, Launch, Mode, Result, Source, Status, Tolerance
from .frameworks import from_framework, missing, to_framework
from .limits import OUT_OF_TIME, OutOfTime, allow, on_the_clock
from .sources import GeneratedSource

_OURS = frozenset({"neuronxcc", "nki", "nkilite"})  # a file that lacks another module is skipped
# The last line of a traceback, as Python or as pytest prints it.
_RAISED = re.compile(r"^(?:E +)?(?P<line>(?:\w+\.)*(?P<name>\w+): .*)$", re.MULTILINE)
_SKIPPED = re.compile(r"^SKIPPED \[\d+\] \S+ (.*)$", re.MULTILINE)
_NOTHING_COLLECTED = 5
_MISSING_NAME = re.compile(r"ImportError: cannot import name '\w+' from '([\w.]+)'")
_MISSING_MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")


class Mismatch(Exception):
    """Results that differ from what the case expects."""


class ScriptRefused(Exception):
    """A script that ended with a typed nkilite error."""


class Skipped(Exception):
    """A program that ran nothing, with its reason."""


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
            if mode.of_file:
                result.status = self._file(case, mode)
            else:
                self._launch(case, mode, result)
            self._expect_refusal(case, mode)
        except Exception as error:
            _record(error, case, mode, result)
        result.seconds = time.perf_counter() - started
        return result

    def _file(self, case: Case, mode: Mode) -> Status:
        if case.command is not None:
            _run_command(case.command, mode, self._timeout)
            return Status.PASS
        with _target(None):
            case.source.load()
        return Status.RUNS

    def _launch(self, case: Case, mode: Mode, result: Result) -> None:
        launch = case.launch
        assert launch is not None
        module, own_target = self._load(case.source)
        kernel = getattr(module, launch.kernel)
        if launch.host:
            kernel = _on_host(kernel, mode.simulated)
        else:
            kernel = _decorated(kernel, module)
            kernel = importlib.import_module("nki").simulate(kernel) if mode.simulated else kernel
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
    elif isinstance(error, OutOfTime):
        result.status, result.error = Status.TIMEOUT, "TimeoutError"
    elif case.refused_in(mode) and _is_refusal(error):
        result.status = Status.REFUSED
    elif isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in _OURS:
        result.status, result.message = Status.SKIP, f"needs {error.name}"
    elif isinstance(error, Skipped) or result.error == "VendorModule":
        result.status = Status.SKIP
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


def _decorated(kernel: Any, module: ModuleType) -> Any:
    """A kernel; some files leave the decoration to callers, and some model a latency at each call."""
    if isinstance(kernel, FunctionType):
        beta_1 = any(getattr(value, "__name__", "").startswith("nkilite.beta1") for value in vars(module).values())
        return importlib.import_module("neuronxcc.nki" if beta_1 else "nki").jit(kernel)
    return getattr(kernel, "kernel", kernel)


def _on_host(function: Callable[..., Any], simulated: bool) -> Callable[..., Any]:
    """A function whose launches are simulated, if asked for."""

    def call(*arguments: Any, **options: Any) -> Any:
        with _variable(SIMULATOR_VARIABLE, "1" if simulated else None):
            return function(*arguments, **options)

    return call


def _run_command(command: Command, mode: Mode, timeout: float) -> None:
    """Runs a program of a checkout; raises what it reports of itself.

    Raises:
        ScriptRefused: it ended with a typed nkilite error.
        OutOfTime: it did not come to its end.
        Mismatch: it failed otherwise.
        Skipped: it did not run at all.
    """
    search = [*map(str, command.roots), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        TARGET_VARIABLE: "trn2",
        SIMULATOR_VARIABLE: "1" if mode.simulated else "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(search),
        **dict(command.environment),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command.words],
            cwd=command.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=on_the_clock(timeout),
            check=False,
            preexec_fn=lambda: allow(timeout),
        )
    except subprocess.TimeoutExpired as expired:
        raise OutOfTime(f"no end after {expired.timeout:g} s on the clock") from None
    if done.returncode == OUT_OF_TIME:
        raise OutOfTime(f"no end after {timeout:g} s of processor time")
    report = f"{done.stdout}\n{done.stderr}".strip()
    if done.returncode == 0:
        _check_report(command, report)
        return
    if command.words[0] == "pytest" and done.returncode == _NOTHING_COLLECTED:
        raise Skipped("nothing collected")
    raised = [found for found in _RAISED.finditer(report) if found["name"] != "ERROR"]  # what pytest says of itself
    message = raised[-1]["line"] if raised else _why(report) or f"exit code {done.returncode}"
    if found := _MISSING_MODULE.search(message):
        raise ModuleNotFoundError(message, name=found[1])
    if raised and raised[-1]["name"] == "VendorModule":
        raise Skipped(message)
    if (found := _MISSING_NAME.search(message)) and found[1].split(".")[0] not in _OURS:
        raise Skipped(f"needs another version of {found[1]}")
    errors = importlib.import_module("nkilite.errors")
    kind = getattr(errors, raised[-1]["name"], None) if raised else None
    if isinstance(kind, type) and _is_refusal_type(kind):
        raise ScriptRefused(message)
    raise Mismatch(message)


def _why(report: str) -> str:
    """The first line pytest marks as the error, of an assertion without a message."""
    found = re.search(r"^E +(.*)$", report, re.MULTILINE)
    return found[1] if found else ""


def _check_report(command: Command, report: str) -> None:
    if command.failure and (found := re.search(command.failure, report)):
        raise Mismatch(f"says {found[0]!r}")
    if command.words[0] == "pytest" and not re.search(r"\d+ (?:passed|xpassed)", report):
        reason = _SKIPPED.search(report)
        raise Skipped(reason[1] if reason else "the source expects it to fail")


def _target(name: str | None) -> contextlib.AbstractContextManager[None]:
    """Sets the target variable of the environment (None: removes it) and restores it afterwards."""
    return _variable(TARGET_VARIABLE, name)


@contextlib.contextmanager
def _variable(variable: str, value: str | None) -> Iterator[None]:
    before = os.environ.pop(variable, None)
    if value is not None:
        os.environ[variable] = value
    try:
        yield
    finally:
        os.environ.pop(variable, None)
        if before is not None:
            os.environ[variable] = before
