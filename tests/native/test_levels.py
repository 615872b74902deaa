"""Code for every CPU level is assembled on any machine, also for those that this one cannot run."""

from __future__ import annotations

import functools
import importlib
from contextlib import suppress

import llvmlite.binding as llvm
import pytest

import nkilite as nki
from conformance.fuzz.draw import draw
from kernels import GALLERY
from nkilite.errors import NkiError
from nkilite.host.cpu import Host, available, levels
from nkilite.ir.program import Program
from nkilite.native.library import module_text
from nkilite.native.lower import lower
from nkilite.schedule.pipeline import scheduled
from nkilite.schedule.place import place

ELSEWHERE = sorted(levels().keys() - available().keys())
TRIPLES = {"neon": "aarch64-unknown-linux-gnu"}


@functools.cache
def machine(level: str) -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    host = levels()[level]
    target = llvm.Target.from_triple(TRIPLES.get(level, "x86_64-unknown-linux-gnu"))
    return target.create_target_machine(cpu=host.cpu, features=host.features, opt=1)


def assemble(program: Program, host: Host) -> None:
    """Write every micro-kernel of a program for a level, and have LLVM verify and assemble it."""
    schedule = scheduled(program)
    for source in lower(schedule, place(schedule, host.products), host).sources:
        module = llvm.parse_assembly(module_text([source]))
        module.verify()
        module.triple = machine(host.level).triple
        assert machine(host.level).emit_object(module)


@pytest.mark.parametrize("level", ELSEWHERE)
@pytest.mark.parametrize("name", GALLERY)
def test_gallery(name: str, level: str) -> None:
    module = importlib.import_module(f"kernels.{name}")
    case = module.CASES[-1]
    arrays = module.inputs(dtype="bfloat16", seed=1, **case.shape)
    assemble(getattr(module, name).trace(*arrays, **case.options), levels()[level])


@pytest.mark.parametrize("level", ELSEWHERE)
def test_random_programs(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = 0
    for seed in range(6):
        program = draw(seed)
        monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", program.target)
        with suppress(NkiError):  # some programs are there to be refused
            assemble(nki.jit(program.function()).trace(*program.arguments()), levels()[level])
            traced += 1
    assert traced > 2
