"""Tests compile what they run: what another run left in the disk cache must not hide a mistake.

Where programs are what is tested, they are verified after every pass.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType

import pytest
from combinations import left_out
from hypothesis import settings

os.environ.setdefault("NKILITE_CACHE", "0")
os.environ.setdefault("NKILITE_OPTIMIZE", "always")  # what users run in the end

# What is started in the background has it ignored, and hands that on to programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Or each process that a test starts would parse all of nkilite again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What takes long takes longer while other programs run.
settings.register_profile("any machine", settings.default, deadline=None)
settings.load_profile("any machine")

_VERIFIED = {"codegen", "native", "passes", "schedule"}


# What `-m quick` runs, in less than a minute: a little of every layer.
_QUICK = {"trace", "cli", "test_layering.py", "test_vector.py"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-combinations", action="store_true", help="run all of them at lower levels of the CPU, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("all_combinations"):
        without = left_out(items)
        config.hook.pytest_deselected(items=list(without))
        items[:] = [item for item in items if item not in without]
    for item in items:
        if {item.path.parent.name, item.path.name} & _QUICK:
            item.add_marker(pytest.mark.quick)


def pytest_collection_finish() -> None:
    """The tests themselves are never garbage, and the collector need not look at all of them again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Commands that are tested in this process set variables for the rest of theirs."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True)
def verified_passes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if Path(request.path).parent.name in _VERIFIED:
        monkeypatch.setenv("NKILITE_VERIFY", "1")


@pytest.fixture
def calls_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, tuple[str, ...], Callable[[], object]], int]:
    """How often functions of a module are called while something runs, in which nothing runs as machine code."""
    for worth in ("WORTH_LOADING", "COMPILING_A_BYTE"):
        monkeypatch.setattr(f"nkilite.compiled.function.{worth}", 1 << 60)

    def count(module: ModuleType, names: tuple[str, ...], work: Callable[[], object]) -> int:
        calls = 0

        def look(frame: FrameType, event: str, _: object) -> None:
            nonlocal calls
            calls += event == "call" and frame.f_code.co_name in names and frame.f_code.co_filename == module.__file__

        before = sys.getprofile()
        sys.setprofile(look)
        try:
            work()
        finally:
            sys.setprofile(before)
        return calls

    return count
