"""`nkilite opt`: passes that run on the text of a program decide as they do in the compiler."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.__main__ import app
from nkilite.cli.opt import PassTooLate
from nkilite.ir import print_program
from nkilite.passes import pipeline as passes
from nkilite.schedule.pipeline import PIPELINE, UNGROUPED, scheduled
from nkilite.schedule.printer import print_schedule

A, B = (np.zeros((64, 32), np.float32) for _ in range(2))


@nki.jit
def add(a, b):
    out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm, name="out")
    one, other = nl.ndarray((64, 32), dtype=a.dtype), nl.ndarray((64, 32), dtype=a.dtype, name="other")
    sums = nl.ndarray((32, 32), dtype=nl.float32, buffer=nl.psum, address=(0, 0))
    nisa.dma_copy(dst=one, src=a)
    nisa.dma_copy(dst=other, src=b)
    nisa.nc_matmul(sums, one, other)
    nisa.nc_matmul(sums, other, one)
    nisa.tensor_copy(dst=one[0:32, :], src=sums)
    nisa.tensor_copy(dst=one[:, 0:16], src=one[:, 8:24])
    nisa.dma_copy(dst=out, src=one)
    return out


@nki.jit
def multiply(a, b):
    out = nl.ndarray((32, 32), dtype=nl.float32, buffer=nl.shared_hbm)
    left, right = (nl.ndarray((128, 32), dtype=nl.float32) for _ in range(2))
    sums, copy = nl.ndarray((32, 32), nl.float32, nl.psum), nl.ndarray((32, 32), nl.float32)
    for row in (0, 64):
        nisa.dma_copy(left[row : row + 64], a)
        nisa.dma_copy(right[row : row + 64], b)
    for row in (0, 64):
        nisa.nc_matmul(sums, left[row : row + 64], right[row : row + 64])
    nisa.tensor_copy(copy, sums)
    nisa.dma_copy(out, copy)
    return out


def opt(*arguments: str, text: str | None = None):
    return CliRunner().invoke(app, ["opt", *arguments], input=text)


def test_passes_run_on_text(tmp_path) -> None:
    """All of them decide what they decide of the program itself, and one by one they do what they do together."""
    program = add.trace(A, B)
    file = tmp_path / "add.txt"
    file.write_text(print_program(program))
    together = opt(str(file))
    assert together.stdout == print_schedule(scheduled(add.trace(A, B))), together.output
    text = file.read_text()
    for kind in (*passes.PIPELINE, *PIPELINE):
        text = opt("-", "--pass", kind.__name__, text=text).stdout
    assert text == together.stdout
    line = 1 + next(i for i, line in enumerate(text.splitlines()) if line.strip().startswith(("layout", "group")))
    for name in ("Allocate", "EliminateDeadCode"):
        _is_refused(["-", "--pass", name], text, f"pass {name} comes before what line {line} of the program says")
    text = print_program(multiply.trace(A, B))
    grouped = opt("-", text=text).stdout
    for kind in UNGROUPED:
        _is_refused(["-", "--pass", kind.__name__], grouped, f"pass {kind.__name__} comes before what line ")
    twice = ["-", *("--pass", "InferPanels") * 2, *("--pass", "GroupMatmuls") * 2]
    _is_refused(twice, text, "of the program after GroupMatmuls says: 'group of ")


def _is_refused(arguments: list[str], text: str, said: str) -> None:
    result = opt(*arguments, text=text)
    assert isinstance(result.exception, PassTooLate)
    assert said in str(result.exception)
    assert "on a text without such lines" in str(result.exception)


def test_one_pass_on_text() -> None:
    text = print_program(add.trace(A, B))
    assert "planned" not in text
    planned = opt("-", "--pass", "Allocate", text=text).stdout
    assert "internal sbuf float32[64, 32] planned (0, 0)" in planned
    assert "accumulate" not in planned
    assert "accumulate=True" in opt("-", "--pass", "FollowWrites", text=text).stdout


def test_programs_for_a_target_of_a_file(tmp_path) -> None:
    file = tmp_path / "text_chip.toml"
    file.write_text('inherits = "trn2"\n')
    text = print_program(add.trace(A, B)).replace(" on trn2\n", " on text_chip\n")
    assert opt("-", text=text).exit_code
    assert opt("-", "--target", str(file), text=text).stdout.startswith("program add on text_chip\n")


@pytest.mark.parametrize(
    ("arguments", "text", "said"),
    [
        (("-", "--pass", "Alocate"), "program add on trn2\n", "no pass 'Alocate'; passes: CheckDestinations,"),
        (("nowhere.txt",), None, "cannot read nowhere.txt"),
        (("-",), "program add on trn2\nbuffer %a\n", "line 2 of the program text, column 1: malformed buffer"),
        (("-",), "", "the text has no 'program' line"),
        (("-",), "program add on trn7\n", "trn7"),
        (("/",), None, "cannot read /"),
    ],
)
def test_what_opt_refuses(arguments, text, said) -> None:
    result = opt(*arguments, text=text)
    assert result.exit_code
    assert said in " ".join(f"{result.output} {result.exception}".replace("│", " ").split())
