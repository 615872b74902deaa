"""Loops in the table: their text, their structure, and what the verifier says of broken ones."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import IrError
from nkilite.ir import parse_program, print_program, verify
from nkilite.ir.loops import Loop, enclosing, loops, repeats
from nkilite.native.compile import compile_program
from nkilite.passes.pipeline import run_pipeline


@nki.jit
def rows(x, n):
    out = nl.zeros((6, 8), dtype=x.dtype, buffer=nl.shared_hbm, name="out")

    def outer(i):
        tile = nl.ndarray((1, 8), dtype=x.dtype)
        nisa.dma_copy(tile, x[i])

        def inner(j):
            nisa.tensor_scalar(tile[:, nl.ds(j, 1)], tile[:, nl.ds(j, 1)], op0=nl.add, operand0=1.0)

        nl.fori_loop(0, 8, inner, step=3)
        nisa.dma_copy(out[i], tile)

    nl.fori_loop(0, nisa.register_alloc(n), outer)

    def again(r):
        nisa.register_move(r, 0)
        return r

    nl.while_loop(nisa.register_alloc(1), again)
    return out


X, N = np.arange(48, dtype=np.float32).reshape(6, 8), np.array([[4]], np.int32)

GOLDEN = """\
sync    register_load(dst=%reg4, src=%n)
sync    for_begin(index=%reg5, counter=%reg6, lower=0.0, upper=%reg4, step=1.0)
  dma     dma_copy(dst=%sb7, src=%x [[1, 8]] scalar(%reg5) * 8 < 6)
  sync    for_begin(index=%reg8, counter=%reg9, lower=0.0, upper=8.0, step=3.0)
    vector  tensor_scalar(dst=%sb7 [[8, 1], [1, 1]] scalar(%reg8) * 1 < 8, data=%sb7 [[8, 1], [1, 1]] \
scalar(%reg8) * 1 < 8, op0=alu.add, operand0=1.0, engine=Engine.vector)
  sync    for_end(index=%reg8, counter=%reg9, step=3.0)
  dma     dma_copy(dst=%out [[1, 8]] scalar(%reg5) * 8 < 6, src=%sb7)
sync    for_end(index=%reg5, counter=%reg6, step=1.0)
sync    register_move(dst=%reg10, src=1.0)
sync    while_begin(value=%reg11, condition=%reg10)
  sync    register_move(dst=%reg11, src=0.0)
sync    while_end(value=%reg11, condition=%reg11)
"""


def test_text() -> None:
    text = print_program(rows.trace(X, N))
    lines = [line.partition("  ; ")[0] for line in text.splitlines()]
    assert "\n".join(lines[lines.index(GOLDEN.splitlines()[0]):]) + "\n" == GOLDEN
    made = [line.split()[1] for line in lines if line.startswith("buffer") and line.endswith("in loop 0")]
    assert made == ["%sb7", "%reg8", "%reg9"]


def test_round_trip_before_and_after_passes() -> None:
    program = rows.trace(X, N)
    for _ in range(2):
        text = "".join(line for line in print_program(program).splitlines(True) if "//" not in line)
        again = parse_program(text)
        verify(again)
        assert print_program(again) == text
        program = run_pipeline(program)


def test_parsed_program_runs() -> None:
    program = parse_program(print_program(rows.trace(X, N)))
    out = np.empty_like(X)
    compile_program(program).executable.run([X, N, out])
    expected = X + np.isin(np.arange(8), [0, 3, 6])
    expected[4:] = 0
    np.testing.assert_array_equal(out, expected)


def test_structure() -> None:
    program = rows.trace(X, N)
    first = next(i.index for i in program if i.signature.name == "for_begin")
    found = loops(program)
    assert found == [
        Loop(0, first, first + 6, None, None),
        Loop(1, first + 2, first + 4, 0, 3),
        Loop(2, first + 8, first + 10, None, None),
    ]
    assert enclosing(found, 1) == [1, 0]
    assert repeats(program)[first:] == [1, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1]


BEGIN = "for_begin(index=%reg5, counter=%reg6, lower=0.0, upper=%reg4, step=1.0)"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sync    while_end(value=%reg11, condition=%reg11)", "", "has no end"),
        ("sync    while_begin(value=%reg11, condition=%reg10)", "", "ends no loop"),
        ("while_end(value=%reg11, condition=%reg11)", "for_end(index=%reg5, counter=%reg6, step=1.0)", "ends no loop"),
        ("float32[1, 8] in loop 0", "float32[1, 8] in loop 7", "made in loop 7 of 3"),
        ("float32[1, 8] in loop 0", "float32[1, 8] in loop 1", "outside of it"),
        ("float32[1, 8] in loop 0", "float32[1, 8] in loop x", "malformed buffer"),
        (BEGIN, BEGIN.replace("%reg5", "%sb7"), "a register"),
    ],
)
def test_broken_loops(old, new, message) -> None:
    text = print_program(rows.trace(X, N))
    assert old in text
    lines = [line for line in text.replace(old, new).splitlines() if not line.strip().startswith(";")]
    with pytest.raises((IrError, nki.errors.WrongMemory), match=message):
        verify(parse_program("\n".join(lines)))


def test_dependency_on_a_loop_that_has_ended() -> None:
    text = print_program(rows.trace(X, N))
    program = parse_program(text)
    first = loops(program)[0]
    program.dependencies.append((first.begin + 1, first.begin - 1))
    verify(program)
    program.dependencies.append((first.end + 1, first.begin + 1))
    with pytest.raises(IrError, match="in a loop that has ended"):
        verify(program)
