"""pytest plugin: the harness of nki-library runs kernels on nkilite, and the outcome of every test is kept.

Kernels run by nki.cpu_simulate, as the harness has it, or as native code; those of tests on several ranks run under
nkilite.ranks. Tests that have an outcome are not run again. The time that kernels take is kept apart from that of
everything else, most of which goes into the library's goldens.
"""

from __future__ import annotations

import enum
import functools
import importlib
import json
import resource
import signal
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import neuron_dtypes
import nki_cpu_simulator  # noqa: F401  makes `import nki` mean nkilite
import numpy as np
import pytest

import nkilite
from nkilite.errors import RaceWarning
from nkilite.native.cores import Cores
from nkilite.native.executable import Executable
from nkilite.runtime import specialization

_SHOWN = 1000  # characters of a message that are kept
_DONE = ("passed", "failed", "skipped")
sys.setrecursionlimit(20000)  # kernels of the library recurse through their tiles


class TimeLimit(BaseException):
    """A test takes longer than it may; the harness catches every Exception."""


class LockStatus(enum.Enum):
    """Of a lock on a chip, which simulation never takes."""

    ALLOCATED, DRAINED, FLOCK_TIMEOUT = range(3)


def _supply() -> None:
    """The modules that are not in the public repository."""
    nothing = lambda *_, **__: None  # noqa: E731
    _module("test.utils.perf_analysis_private", analyze_trace=nothing, run_separated_perf_analysis=nothing)
    _module("test.utils.scripts", __path__=[])
    _module("test.utils.scripts.remote_lock_scripts", LockStatus=LockStatus, LockResult=type("LockResult", (), {}))
    importlib.import_module("neuronxcc.starfish.support.dtype").static_cast = neuron_dtypes.static_cast


def _module(name: str, **contents: Any) -> None:
    try:
        importlib.import_module(name)
    except ImportError:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(contents)


def pytest_addoption(parser: Any) -> None:
    group = parser.getgroup("nkilite")
    group.addoption("--outcomes", required=True, help="a file of JSON lines")
    group.addoption("--seconds", type=float, required=True, help="of processor time for the kernel of one test")
    group.addoption("--waits", type=float, required=True, help="times as long a test may take on the clock")
    group.addoption("--only", default="", help="run only tests whose name contains this")
    group.addoption("--sample", type=int, default=0, help="run at most so many tests of a function")
    group.addoption("--compiled", action="store_true", help="run native code")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: Any) -> None:
    from test.utils import simulation_setup
    from test.utils.test_orchestrator import Orchestrator

    run = _native if config.getoption("compiled") else simulation_setup.simulate_kernel
    clock = _Clock(config.getoption("seconds"))
    simulation_setup.simulate_kernel = clock.timed(run)
    specialization.executable_of = clock.counted("compiling", specialization.executable_of)
    for runs in (Executable, Cores):
        runs.run = clock.counted("running", runs.run)
    Orchestrator._compiled_kernel = None  # the harness reads it where only tracing sets it
    alone = Orchestrator._run_simulator_inference
    Orchestrator._run_simulator_inference = lambda self, kernel: (
        alone(self, kernel) if kernel.inference_args.collective_ranks == 1
        else _on_ranks(self, kernel, clock.timed(nkilite.ranks), run)
    )
    config.pluginmanager.register(_Keeper(config, clock), "nkilite outcomes")


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: Any) -> None:
    """Before the harness draws thousands of parameters: it need not for tests that do not run."""
    definition = metafunc.definition
    if definition.get_closest_marker("fast") is None:
        definition.own_markers[:] = [m for m in definition.own_markers if m.name != "coverage_parametrize"]


# --- running a kernel -----------------------------------------------------------------------------------------------


class _Clock:
    """The processor time of kernels.

    Attributes:
        spent: seconds of the test that runs.
        parts: those of it that native code took, to make and to run.
    """

    def __init__(self, limit: float) -> None:
        """`limit` is how long a call may take, after which it ends with TimeLimit."""
        self._limit = limit
        self.restart()

    def restart(self) -> None:
        """The next test begins."""
        self.spent, self.parts = 0.0, dict.fromkeys(("compiling", "running"), 0.0)

    def counted(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, with its time added to a part."""

        @functools.wraps(function)
        def counted(*given: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return function(*given, **named)
            finally:
                self.parts[part] += time.process_time() - began

        return counted

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, with its time taken."""

        def timed(*given: Any) -> Any:
            began = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, self._limit, 5)  # again, should it be caught
            try:
                return function(*given)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                self.spent += time.process_time() - began

        return timed


def _native(kernel: Any, inputs: dict[str, Any], cores: int) -> list[Any]:
    """The harness's simulate_kernel, with native code."""
    found = kernel if isinstance(kernel, nkilite.Kernel) else nkilite.jit(kernel)
    result = found[cores](**{name.removesuffix(".must_alias_input"): value for name, value in inputs.items()})
    if result is None:
        return []
    return list(result) if isinstance(result, (list, tuple)) else [result]


def _on_ranks(harness: Any, kernel: Any, ranks: Callable[..., Any], run: Callable[..., Any]) -> str:
    """Runs a kernel on every rank and leaves its results where the harness looks for those of ranks."""
    from test.utils.common_dataclasses import INF_ARTIFACT_DIR_NAME, PerRankLazyInputGenerator, normalize_golden_output
    from test.utils.exceptions import InferenceException

    settings, given = kernel.compiler_input, kernel.kernel_input or {}
    lazy = isinstance(given, PerRankLazyInputGenerator)
    count = kernel.inference_args.collective_ranks
    inputs = [dict(given.for_rank(rank) if lazy else given) for rank in range(count)]
    folder = Path(harness.fs_config.artifacts_output_directory_path) / INF_ARTIFACT_DIR_NAME
    try:
        results = ranks(count, lambda rank: run(kernel.kernel_func, inputs[rank], settings.logical_nc_config))
        for rank, outputs in enumerate(results):
            golden = normalize_golden_output(kernel.validation_args.golden_output, rank)
            if len(outputs) != len(golden):
                raise RuntimeError(f"the kernel returns {len(outputs)} outputs; expected are {', '.join(golden)}")
            place = folder / f"output_worker_{rank}"
            place.mkdir(parents=True, exist_ok=True)
            for (name, expected), output in zip(golden.items(), outputs, strict=True):
                (place / name).write_bytes(np.asarray(output, dtype=expected.dtype).tobytes())
    except Exception as error:
        raise InferenceException(str(error)) from error
    return str(folder)


# --- outcomes -------------------------------------------------------------------------------------------------------


class _Keeper:
    """Writes a line when tests are collected, when one begins and when it ends."""

    def __init__(self, config: Any, clock: _Clock) -> None:
        self._path, self._clock = Path(config.getoption("outcomes")), clock
        self._patience = config.getoption("waits") * config.getoption("seconds")
        self._file = self._path.open("a", encoding="utf-8")
        signal.signal(signal.SIGALRM, _expire)
        signal.signal(signal.SIGPROF, _expire)

    def _write(self, **record: Any) -> None:
        print(json.dumps(record), file=self._file, flush=True)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        self._write(collected=[item.nodeid for item in items])
        records = [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]
        done = {r["test"]: r["outcome"] for r in records if "test" in r}
        for item in items:
            skipped = item.get_closest_marker("skip")
            if skipped is not None and item.nodeid not in done:
                done[item.nodeid] = "skipped"
                self._write(test=item.nodeid, outcome="skipped", why=skipped.kwargs.get("reason", ""))
        chosen = _sample([i for i in items if config.getoption("only") in i.nodeid], config.getoption("sample"))
        left = [item for item in chosen if done.get(item.nodeid) not in _DONE]
        config.hook.pytest_deselected(items=[item for item in items if item not in left])
        items[:] = left

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._clock.restart()
        self._began = time.process_time()
        self._write(test=nodeid, outcome="started")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self) -> Any:
        signal.setitimer(signal.ITIMER_REAL, self._patience, 5)  # again, should it be caught
        yield
        self._stop()

    @staticmethod
    def _stop() -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def pytest_warning_recorded(self, warning_message: Any, nodeid: str) -> None:
        if issubclass(warning_message.category, RaceWarning):
            self._write(raced=nodeid, race=str(warning_message.message)[:_SHOWN])

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Any:
        self._stop()
        report = (yield).get_result()
        if report.when != "call" and report.outcome == "passed":
            return
        took = time.process_time() - self._began
        record = {"test": item.nodeid, "outcome": report.outcome, "seconds": round(took, 2)}
        record["kernel"] = round(self._clock.spent, 2)
        record |= {part: round(seconds, 4) for part, seconds in self._clock.parts.items() if seconds}
        record["mebibytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        if report.outcome != "passed" and call.excinfo is not None:
            kind, text = call.excinfo.typename, str(call.excinfo.value)
            record["why"] = (text if report.skipped else f"{kind}: {text}")[:_SHOWN]
        self._write(**record)


def _sample(items: list[Any], most: int) -> list[Any]:
    """At most so many tests of each function that the harness does not skip, from all of its parameters."""
    functions: dict[str, list[Any]] = {}
    for item in items:
        if item.get_closest_marker("skip") is None:
            functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
    if not most:
        return items
    return [tests[len(tests) * i // most] for tests in functions.values() for i in range(most) if len(tests) > most] + [
        item for tests in functions.values() if len(tests) <= most for item in tests
    ]


def _expire(*_: Any) -> None:
    raise TimeLimit("took longer than it may")


_supply()
