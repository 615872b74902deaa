"""Whatever is changed in a schedule, the verifier refuses it, or it makes the same bits."""

from __future__ import annotations

import importlib
from contextlib import suppress
from itertools import count, islice

import numpy as np
import pytest
from mutations import mutants, results

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from conformance.fuzz.draw import draw
from nkilite.dtypes import as_dtype
from nkilite.errors import IrError, NkiError
from nkilite.ir.program import Program
from nkilite.native import meetings
from nkilite.passes.pipeline import run_pipeline
from nkilite.schedule.pipeline import PIPELINE, scheduled
from nkilite.schedule.printer import print_schedule
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.stage_overlaps import StageOverlaps
from nkilite.schedule.verifier import verify_schedule

_EACH = 30  # mutants of a program
KERNELS = ("matmul", "softmax", "flash_attention", "mlp", "transpose", "rope", "mamba")
SEEDS = (0, 10, 20, 30, 40, 50, 60)  # of random programs, or of the next ones without loops of the device


def _kernel(name: str) -> Program:
    module = importlib.import_module(f"kernels.{name}")
    case = module.CASES[0]
    return getattr(module, name).trace(*module.inputs(dtype=case.dtype, **case.shape), **case.options)


def _arguments(program: Program) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [(random.integers(-64, 64, b.shape) / 64).astype(as_dtype(b.dtype).numpy) for b in program.inputs]


def _drawn(seed: int, monkeypatch: pytest.MonkeyPatch) -> Program:
    for number in count(seed):
        drawn = draw(number)
        monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", drawn.target)
        with suppress(NkiError):
            program = nki.jit(drawn.function()).trace(*drawn.arguments())
            if not any(s.definition.control for s in program.signatures):
                return program
    raise AssertionError


@pytest.mark.parametrize("name", [*KERNELS, *SEEDS])
def test_what_makes_other_bits_is_refused(name, monkeypatch) -> None:
    for cost in ("WAKE_NS", "MEETING_NS"):
        monkeypatch.setattr(meetings, cost, 0)  # threads share all that can be shared
    schedule = scheduled(_drawn(name, monkeypatch) if isinstance(name, int) else _kernel(name))
    arguments = _arguments(schedule.program)
    expected = results(Schedule(schedule.program), arguments)
    assert results(schedule, arguments) == expected
    refused = 0
    for what, mutant in islice(mutants(schedule, 0), _EACH):
        try:
            verify_schedule(mutant)
        except IrError:
            refused += 1
        else:
            assert results(mutant, arguments) == expected, f"{what}:\n{print_schedule(mutant)}"
    assert refused > _EACH // 2


@pytest.mark.parametrize("left_out", PIPELINE)
def test_without_a_pass(left_out) -> None:
    """Groups need copies of what their members would overwrite; everything else is right without any of the passes."""

    def kernel(x):
        tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        nisa.tensor_scalar(dst=tile[:, 0:448], data=tile[:, 64:512], op0=nl.multiply, operand0=0.5)
        nisa.activation(dst=tile, op=nl.square, data=tile)
        nisa.dma_copy(dst=x, src=tile)
        return x

    schedule = Schedule(run_pipeline(nki.jit(kernel).trace(np.ones((128, 512), np.float32))))
    for kind in PIPELINE:
        if kind is not left_out:
            schedule = kind().run(schedule)
    if left_out is StageOverlaps:
        with pytest.raises(IrError, match="overwrites what it still reads"):
            verify_schedule(schedule)
    else:
        verify_schedule(schedule)
