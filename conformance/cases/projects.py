"""Larger projects, by the programs and tests they bring: model ports, serving libraries, workshops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..case import FILE_MODES, Case, Command
from ..sources import FileSource
from .programs import pytest_cases, script_case


@dataclass(frozen=True)
class Project:
    """Where a repository keeps what can be run without a chip.

    Attributes:
        suite: its name.
        mark: a path by which its checkouts are recognized.
        scripts: patterns of programs that check their own results.
        tests: patterns of files for pytest.
        roots: folders on the module search path.
        failure: what a script prints when its results are wrong.
        alone: scripts run although an `__init__` of their packages imports what is missing.
        beside: patterns of folders in other checkouts that have to be on the module search path.
    """

    suite: str
    mark: str
    scripts: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    roots: tuple[str, ...] = (".",)
    failure: str = ""
    alone: bool = False
    beside: tuple[str, ...] = ()


_PROJECTS = (
    Project(
        "trainium-model-translation", "models/qwen3_6_moe/tests", ("models/qwen3_6_moe/tests/test_*_kernel.py",),
        failure=r"\bFAILED\b", alone=True, beside=("*nki-library/src/nkilib_src",),
    ),
    Project("NKI-MoE", "nki_tensor_add_example.py", ("nki_tensor_add_example.py", "nki_custom_rmsnorm.py")),
    Project(
        "neuronx-distributed-inference", "src/neuronx_distributed_inference", tests=(
            "test/unit/modules/sliding_window/test_attention.py", "contrib/models/*/src/test_*nki*.py",
        ), roots=("src", "."),
    ),
    Project(
        "neuronx-distributed", "src/neuronx_distributed/kernels", tests=("test/integration/kernels/test_*.py",),
        roots=("src", "."),
    ),
)
_LATENCY = "perf"  # tests of the latency on a chip


def find(folder: Path) -> Path | None:
    """The root of a checkout of one of the projects."""
    return folder if any((folder / project.mark).exists() for project in _PROJECTS) else None


def cases(root: Path) -> list[Case]:
    """All cases of the checkout."""
    return [case for project in _PROJECTS if (root / project.mark).exists() for case in _cases(project, root)]


def _cases(project: Project, root: Path) -> Iterator[Case]:
    roots = tuple(root / name for name in project.roots)
    roots += tuple(folder for pattern in project.beside for folder in sorted(root.parent.glob(pattern)))
    for path in _files(root, project.scripts):
        if project.alone:
            command = Command(("conformance.alone", str(root), str(path)), root, roots, failure=project.failure)
            yield Case(project.suite, "script", FileSource(path, roots), modes=FILE_MODES, command=command)
        else:
            yield script_case(project.suite, path, roots=roots, failure=project.failure)
    yield from pytest_cases(project.suite, root, _files(root, project.tests), roots, leave=_LATENCY)


def _files(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in root.glob(pattern)})
