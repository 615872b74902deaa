"""What an import of nkilite brings with it: nothing that a launch does not need."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {
    "IPython", "autotune", "grpc", "jax", "matplotlib", "optuna", "pandas", "plotly", "psycopg", "rich", "scipy",
    "sqlalchemy", "torch", "typer",
}


# What compiling, modelling or a search on several cores or machines needs.
LATER = {
    "concurrent.futures", "importlib.metadata", "llvmlite", "nkilite.ir.parser", "nkilite.profiling", "statistics",
}
SEARCHING = {"autotune.explore.samplers", "autotune.plots", "autotune.shared", "nkilite.beta1"}


def test_import_of_nkilite() -> None:
    assert brought_by("nkilite", HEAVY | LATER) == []


def test_import_of_autotune() -> None:
    assert brought_by("autotune", HEAVY - {"autotune"} | SEARCHING) == []


def test_names_come_when_they_are_asked_for() -> None:
    program = "import nkilite, autotune; print(*(len(dir(nkilite.profile) and dir(autotune.plots)) > 0,))"
    assert run(program) == ["True"]
    names = run("from nkilite import *; from autotune import *; print(profile.__name__, distribute.__name__)")
    assert names == ["profile", "distribute"]


def test_subjects_of_the_speed_benchmark() -> None:
    program = (
        "import importlib; from benchmarks.speed import SUBJECTS; "
        "print(*(callable(importlib.import_module('benchmarks.speed.' + s).matches) for s in SUBJECTS))"
    )
    assert set(run(program)) == {"True"}


def brought_by(package: str, modules: set[str]) -> list[str]:
    return run(f"import sys, {package}; print(*sorted(sys.modules.keys() & {modules!r}))")


def run(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=True, timeout=180)
    return done.stdout.split()
