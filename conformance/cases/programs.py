"""Programs of a checkout, which bring their own inputs and references: scripts, and tests for pytest."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ..case import FILE_MODES, Case, Command, Mode
from ..sources import FileSource

_BETA_1 = re.compile(r"^\s*(?:from|import)\s+neuronxcc\.nki\b|^\s*from\s+neuronxcc\s+import\s+nki\b", re.MULTILINE)
_RELATIVE = re.compile(r"^\s*from\s+\.", re.MULTILINE)
Environment = tuple[tuple[str, str], ...]


def beta_1_cases(suite: str, root: Path, files: Iterable[Path], roots: tuple[Path, ...] = ()) -> Iterator[Case]:
    """One case per file that imports ``neuronxcc.nki``: the file has to run to its end."""
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        if not _BETA_1.search(text):
            continue
        case = script_case(suite, path, roots=roots, label="Beta 1", modes=(Mode.FILE,), isolation=f"{root} Beta 1")
        package = next((parent for parent in roots if path.is_relative_to(parent)), None)
        if package is not None and _RELATIVE.search(text):  # part of a package, which no file is that runs by its path
            name = ".".join(path.relative_to(package).with_suffix("").parts)
            words = ("nkilite", "run", "--torch-xla-stub", "-m", name)
            case = replace(case, command=Command(words, package, roots))
        yield case


def script_case(
    suite: str,
    path: Path,
    *arguments: str,
    roots: tuple[Path, ...] = (),
    label: str = "",
    modes: tuple[Mode, ...] = FILE_MODES,
    failure: str = "",
    isolation: str = "",
) -> Case:
    """A script, run with a stub of torch_xla; ``failure`` is what it says when its results are wrong."""
    words = ("nkilite", "run", "--torch-xla-stub", str(path), *arguments)
    command = Command(words, path.parent, roots, failure=failure)
    label = label or " ".join(("script", *arguments))
    return Case(suite, label, FileSource(path, roots), modes=modes, command=command, isolation=isolation)


def pytest_cases(
    suite: str,
    root: Path,
    files: Iterable[Path],
    roots: tuple[Path, ...] = (),
    *,
    modes: tuple[Mode, ...] = FILE_MODES,
    environment: Environment = (),
    options: tuple[str, ...] = (),
    leave: str = "",
) -> Iterator[Case]:
    """One case per test function, but for those whose name contains ``leave``; pytest runs in ``root``."""
    flags = ("--nki", "--torch-xla-stub", "-q", "-rs", "--tb=short", "-W", "ignore", "-p", "no:cacheprovider")
    for path in files:
        for node in _tests(path):
            if leave and leave in node:
                continue
            words = ("pytest", *flags, *options, f"{path}::{node}")
            command = Command(words, root, roots, environment)
            yield Case(suite, node, FileSource(path, roots), modes=modes, command=command)


def _tests(path: Path) -> Iterator[str]:
    """The test functions of a file, as pytest names them."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    except SyntaxError:
        return
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            unit = any("TestCase" in ast.unparse(base) for base in node.bases)
            if unit or node.name.startswith("Test"):
                yield from (f"{node.name}::{n.name}" for n in node.body if _is_test(n))
        elif _is_test(node):
            assert isinstance(node, ast.FunctionDef)
            yield node.name


def _is_test(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test")
