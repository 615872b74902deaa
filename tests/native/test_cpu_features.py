"""No code has instructions that the machine lacks, whatever processor LLVM tunes it for."""

from __future__ import annotations

import llvmlite.binding as llvm
import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.host import cpu as host
from nkilite.host import llvm as ours
from nkilite.host.cpu import Host
from nkilite.native.library import module_text
from nkilite.native.lower import lower
from nkilite.schedule.pipeline import scheduled
from nkilite.schedule.place import place


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
    schedule = scheduled(widen.trace(np.zeros((128, 512), np.float16)))
    module = llvm.parse_assembly(module_text(lower(schedule, place(schedule, False), level).sources))
    target = llvm.Target.from_triple("x86_64-unknown-linux-gnu")
    module.triple = "x86_64-unknown-linux-gnu"
    return target.create_target_machine(cpu=level.cpu, features=level.features, opt=2).emit_assembly(module)


def of_a_part_without(
    feature: str, monkeypatch: pytest.MonkeyPatch, name: str = "sapphirerapids"
) -> dict[str, Host]:
    everything = {f.strip("+-"): True for level in host.levels().values() for f in level.features.split(",")}
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(ours, "get_host_cpu_features", lambda: everything | {feature: False}, raising=False)
    monkeypatch.setattr(ours, "get_host_cpu_name", lambda: name, raising=False)
    monkeypatch.setattr(host, "_tile_registers_permitted", lambda: True)
    found: dict[str, Host] = host.available.__wrapped__()
    return found


@pytest.mark.parametrize("lacking", ["avx512fp16", "avx512bf16", "avx512vnni", "amx-tile", "avx512vl", "f16c"])
def test_a_part_is_asked_for_nothing_that_it_lacks(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = of_a_part_without(lacking, monkeypatch)
    assert all(f"+{lacking}" not in level.features.split(",") for level in found.values())
    assert all(level.cpu.startswith("x86-64-v") for level in found.values())
    assert ("amx" in found) == (lacking not in ("amx-tile", "avx512vl", "f16c"))
    assert ("avx2" in found) == (lacking != "f16c")


@pytest.mark.parametrize(("name", "best"), [("znver4", "avx512_bf16"), ("sapphirerapids", "avx512")])
def test_dot_products_are_used_where_they_are_quick(name: str, best: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = of_a_part_without("amx-tile", monkeypatch, name)
    assert {first, second} == {"avx512_bf16", "avx512"}
    assert first == best


def test_bfloat16_instructions_without_those_of_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zen 4 has the ones and not the others, Sapphire Rapids both."""
    assert "vcvtph2psx" in assembly(host.levels()["avx512"])
    assert "vcvtph2psx" not in assembly(of_a_part_without("avx512fp16", monkeypatch)["avx512"])
