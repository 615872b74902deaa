"""The library at a fixed commit, and what its tests need that it has not."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sysconfig
from pathlib import Path

import numpy as np

URL = "https://github.com/aws-neuron/nki-library"
COMMIT = "ddbca35eaa3a3b5201b530c2015fdb24f7aba2c7"  # of 2.29_release
TESTS = Path("test/integration/nkilib")

STAND_INS = Path(__file__).with_name("stand_ins")
TARGETS = Path(__file__).with_name("targets")  # that differ from nkilite's in what the library's goldens say

# Of the harness, by the name that is imported.
_PACKAGES = {
    "torch": "torch", "pandas": "pandas", "pytest": "pytest", "xdist": "pytest-xdist", "pytest_metadata":
    "pytest-metadata", "pytest_html": "pytest-html", "allpairspy": "allpairspy", "aws_embedded_metrics":
    "aws-embedded-metrics", "boto3": "boto3", "fabric": "fabric2", "filelock": "filelock", "plotext": "plotext",
    "pydantic": "pydantic", "scipy": "scipy", "numba": "numba",
}


class Unprepared(Exception):
    """The suite cannot run here; the message says what to do."""


def require_packages() -> None:
    """Raise Unprepared with the command that installs what is missing."""
    missing = [
        package for name, package in _PACKAGES.items()
        if importlib.util.find_spec(name) is None and importlib.util.find_spec(package) is None
    ]
    if missing:
        raise Unprepared(f"the tests need packages that are not installed: pip install {' '.join(missing)}")


def fetch(folder: Path, url: str = URL, commit: str = COMMIT) -> Path:
    """A checkout at a commit in a folder; one that is there is used as it is.

    Raises:
        Unprepared: git failed, or the folder holds something else.
    """
    if not (folder / ".git").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _git(folder, "init", "--quiet")
        _git(folder, "fetch", "--quiet", "--depth=1", url, commit)
        _git(folder, "checkout", "--quiet", "FETCH_HEAD")
    if not (folder / TESTS).is_dir():
        raise Unprepared(f"{folder} is no checkout of nki-library: it has no {TESTS}")
    return folder.resolve()


def _git(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise Unprepared(f"git {' '.join(arguments)} in {folder}: {done.stderr.strip()}")


def build_dtypes(folder: Path) -> None:
    """Compile the NumPy dtypes of four packed elements into a folder.

    Raises:
        Unprepared: the C compiler failed.
    """
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    includes = [f"-I{sysconfig.get_path('include')}", f"-I{np.get_include()}"]
    command = [*compiler.split(), "-shared", "-fPIC", "-O1", *includes, str(STAND_INS / "four_packed.c"), "-o",
               str(folder / f"four_packed{suffix}")]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise Unprepared(f"a C compiler is needed: {error}") from None
    if done.returncode:
        raise Unprepared(f"{' '.join(command)}: {done.stderr.strip()}")


def files(checkout: Path, folders: list[str]) -> list[str]:
    """The test files below some folders (all of them for none), by their path below TESTS.

    Raises:
        Unprepared: a folder is not there.
    """
    root = checkout / TESTS
    found: dict[str, None] = {}
    for folder in folders or [""]:
        place = root / folder
        if not place.exists():
            raise Unprepared(f"{place} does not exist")
        paths = [place] if place.is_file() else sorted(place.rglob("test_*.py"))
        found.update((str(path.relative_to(root)), None) for path in paths if _has_tests(path))
    return list(found)


def _has_tests(path: Path) -> bool:
    return re.search(r"^\s*def test_", path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def environment(checkout: Path, built: Path, target: str, races: str) -> dict[str, str]:
    """Of the processes that run tests."""
    root = Path(__file__).parents[2]
    own = TARGETS / f"nki_library_{target}.toml"
    path = [root, STAND_INS, built, checkout / "src", checkout]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")]),
        "PYTHONHASHSEED": "0", "NEURON_PYTHONHASHSEED": "0",
        "NEURON_PLATFORM_TARGET_OVERRIDE": str(own) if own.exists() else target,
        "NKILITE_RACES": races,
        "NKILITE_CACHE_DIR": str(built / "cache"),
        "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    }


