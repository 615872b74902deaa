"""No code has instructions that the machine lacks, whatever processor LLVM tunes it for."""

from __future__ import annotations

import llvmlite.binding as llvm
import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.codegen import host
from nkilite.codegen import llvm as ours
from nkilite.codegen.host import Host
from nkilite.native.library import module_text
from nkilite.native.lower import lower
from nkilite.passes.pipeline import run_pipeline
from nkilite.passes.place import place

ZEN4 = dict.fromkeys(
    ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "avx512bf16"), True
)


@nki.jit
def widen(x):
    tile = nl.load(x)
    wide = nl.ndarray(tile.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(wide, tile)
    out = nl.ndarray(wide.shape, dtype=nl.float32, buffer=nl.shared_hbm)
    nl.store(out, wide)
    return out


def assembly(level: Host) -> str:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    program = run_pipeline(widen.trace(np.zeros((128, 512), np.float16)))
    module = llvm.parse_assembly(module_text(lower(program, place(program, False), level).sources))
    target = llvm.Target.from_triple("x86_64-unknown-linux-gnu")
    module.triple = "x86_64-unknown-linux-gnu"
    return target.create_target_machine(cpu=level.cpu, features=level.features, opt=2).emit_assembly(module)


def test_a_machine_with_bfloat16_instructions_need_not_have_those_of_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(ours, "get_host_cpu_features", lambda: {**ZEN4, "avx512fp16": False, "amx-tile": False})
    found = host.available.__wrapped__()["avx512"]
    assert found.cpu == "sapphirerapids"
    assert "vcvtph2psx" in assembly(host.levels()["avx512"])
    assert "vcvtph2psx" not in assembly(found)
