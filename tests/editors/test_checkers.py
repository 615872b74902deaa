"""mypy and pyright find the mistakes in a user's file, and nothing else: names, keywords, operands, arguments."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("planted.py")
PLANTED = [n for n, line in enumerate(FILE.read_text().splitlines(), 1) if line.endswith("# planted")]


def run(*command: str) -> str:
    whole = [sys.executable, "-m", *command]
    return subprocess.run(whole, cwd=ROOT, text=True, capture_output=True, timeout=300).stdout


# As users do; what nkilite alone imports of large libraries takes 20 s to read and shows nowhere.
CONFIGURATION = """\
[mypy]
follow_imports = silent
ignore_missing_imports = True
[mypy-torch.*,jax.*]
follow_imports = skip
"""


def test_mypy(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    (tmp_path / "mypy.ini").write_text(CONFIGURATION)
    found = [
        line.split(":")
        for line in run("mypy", f"--config-file={tmp_path / 'mypy.ini'}", str(FILE)).splitlines() if ": error: " in line
    ]
    assert [int(number) for path, number, *_ in found] == PLANTED, found


def test_pyright() -> None:
    pytest.importorskip("pyright", reason="pyright is not installed")
    if shutil.which("node") is None:
        pytest.skip("pyright needs node, which it would download")
    shown = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable, str(FILE)))
    lines = {found["range"]["start"]["line"] + 1 for found in shown["generalDiagnostics"]}
    assert sorted(lines) == PLANTED, shown["generalDiagnostics"]
