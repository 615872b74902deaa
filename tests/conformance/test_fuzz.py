"""`python -m conformance fuzz`: what it draws, what it calls wrong, and how short it makes that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nkilite as nki
from conformance.fuzz import differ
from conformance.fuzz.differ import Refused, Way, differences
from conformance.fuzz.draw import draw
from conformance.fuzz.program import Program, Step, Tile, Trust
from conformance.fuzz.shrink import shrunk

_KINDS = (
    "dma_copy", "dma_compute", "tensor_tensor", "nc_transpose", "nc_matmul(", "topk", "nonzero", "nc_matmul_mx",
    "scalar_load", "fori_loop", ".indirect(",
)


def test_programs_have_all_kinds_of_steps_alike() -> None:
    programs = [draw(seed) for seed in range(300)]
    for kind in _KINDS:
        having = sum(any(kind in step.text for step in program.steps) for program in programs)
        assert having >= 60, (kind, having)
    assert sum(len(set(program.same)) < 3 for program in programs) > 100
    assert sum(program.rounding is not None for program in programs) > 50
    assert sum("int64" in program.text for program in programs) > 100
    assert all(draw(seed).text == program.text for seed, program in enumerate(programs[:5]))


def _program(*steps: Step) -> Program:
    return Program("trn2", (0, 0, 2), (Tile("sbuf", 512, "float32"), Tile("sbuf", 512, "float32")), steps, (0, 1))


_LOAD = Step("nisa.dma_copy(dst=t0, src=a[0:128, 0:512])", (0,), ("a",), whole=True)
_EXP = Step("nisa.activation(dst=t1, op=nl.exp, data=t0, scale=0.5)", (1,), (0,), exact=False)
_STORE = Step("nisa.dma_copy(dst=b[0:128, 0:512], src=t1)", ("b",), (1,))


def test_what_can_be_trusted() -> None:
    found = _program(_LOAD, _EXP, _STORE)
    assert [found.result(i) for i in range(6)] == ["t0", "t1", "d", "a", "b", "c"]
    bits, magnitude = Trust.bits, Trust.magnitude
    assert found.trust() == [bits, magnitude, bits, magnitude, magnitude, bits]  # a and b are one array
    jumping = _STORE._replace(jumps=True)
    assert _program(_LOAD, _EXP, jumping).trust()[3] is Trust.nothing


def test_a_wrong_bit_is_found_and_its_program_shortened(monkeypatch) -> None:
    simulate = nki.simulate

    def spoilt(function, **options):
        kernel = simulate(function, **options)

        def run(*arrays):
            results = kernel(*arrays)
            if "nl.relu" in text[0] and "o0" in text[0]:
                results[0][5, 7] += 1
            return results

        return run

    text = [""]
    monkeypatch.setattr(differ.nki, "simulate", spoilt)
    relu = Step("nisa.activation(dst=t0, op=nl.relu, data=t0, scale=0.5)", (0,), (0,))
    fill = Step("nisa.memset(dst=t1, value=0.0)", (1,), (), whole=True)
    program = _program(fill, _LOAD, relu, _STORE)
    way = Way(next(iter(differ.available())), True)

    def wrong(program: Program) -> list[str]:
        text[0] = program.text
        try:
            return [str(found) for found in differences(program, [way])]
        except Refused:  # it reads what nothing has written
            return []

    (first, *_) = wrong(program)
    assert first == f"{way}, 1 thread: t0 is not what a simulation makes (1 of 65536 elements, first [5, 7]: " + (
        first.rpartition(": ")[2]
    )
    short = shrunk(program, lambda fewer: bool(wrong(fewer)))
    assert short.steps == (_LOAD, relu)
    assert short.stored == (0,)
    assert short.same == (0, 1, 2)


def test_the_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "conformance", "fuzz", "--programs", "2", "--seed", "155", "--jobs", "1"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.startswith("2 programs from seed 155 in ")
    assert "2 alike in every way, 0 refused in every way, 0 wrong" in ran.stdout
