"""Mistakes on the command line end in a message, not in a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nkilite import __main__ as command


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch.py:f"], "UnknownKernel: cannot load kernel 'nosuch.py:f': nosuch.py does not exist."),
        (["kernels.matmul:nosuch"], "matmul_tiled, matmul"),
        (["kernels.matmul:matmul", "128x128"], "missing a required argument: 'rhs'"),
    ],
)
def test_one_message(arguments, says, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["nkilite", "compile", *arguments])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert says in str(stopped.value)
    assert "fix:" in str(stopped.value)


def test_no_line_is_blamed_for_an_unknown_kernel(monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["nkilite", "compile", "nosuch.py:f"])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert "  at " not in str(stopped.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["nosuch.py"], "there is no file 'nosuch.py'"), (["-m", "nosuch"], "there is no module 'nosuch'")],
)
def test_a_program_that_does_not_exist(arguments, says, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nkilite", "run", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"UnknownProgram: {says}")
