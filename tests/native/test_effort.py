"""What does little work is compiled hastily or quickly, computes the same bits, and is compiled again if it is launched
often."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import GALLERY
from nkilite.errors import InvalidSetting
from nkilite.host.cpu import host
from nkilite.native import effort
from nkilite.native.cores import Cores
from nkilite.native.library import Library, library
from nkilite.native.tiers import Hasty
from nkilite.runtime import specialization

MODULES = {name: importlib.import_module(f"kernels.{name}") for name in GALLERY}
SMALL = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)


def scaled(x):
    tile = nl.load(x)
    for _ in range(4):
        nisa.tensor_scalar(tile, tile, nl.multiply, 1.5)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


@pytest.fixture
def fresh(new_process, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """A library of its own for the test; the functions that are compiled, and whether quickly."""
    monkeypatch.setenv("NKILITE_OPTIMIZE", "work")
    new_process()
    found: list[tuple[str, bool]] = []
    original = Library._compile

    def compile(self, units):
        units = list(units)
        found.extend((s.name, s.quick) for unit in units for s in unit if "nkilite_" not in s.name)
        return original(self, units)

    monkeypatch.setattr(Library, "_compile", compile)
    return found


@pytest.fixture
def thorough(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program is compiled hastily, as if all did much work."""
    monkeypatch.setattr(effort, "little", lambda *_: False)


@pytest.mark.parametrize("name", GALLERY)
def test_the_gallery_computes_the_same_bits(name, monkeypatch) -> None:
    case = MODULES[name].CASES[0]
    arrays = MODULES[name].inputs(dtype=case.dtype, seed=1, **case.shape)
    kernel = getattr(MODULES[name], name)
    results = []
    for setting in ("always", "never"):
        monkeypatch.setenv("NKILITE_OPTIMIZE", setting)
        kernel.forget()
        found = kernel(*arrays, **case.options)
        found = found if isinstance(found, (tuple, list)) else [found]
        results.append([np.ascontiguousarray(r).reshape(-1).view(np.uint8).copy() for r in found])
    kernel.forget()
    for good, quick in zip(*results, strict=True):
        np.testing.assert_array_equal(good, quick)


def test_little_work_is_compiled_hastily_and_well_after_some_launches(fresh) -> None:
    kernel = nki.jit(scaled)
    results = [kernel(SMALL)]
    (hasty,) = executables(kernel)
    assert isinstance(hasty, Hasty)
    assert hasty.image.hasty
    assert all(quickly for _, quickly in fresh)
    for _ in range(effort._LAUNCHES_AT_MOST + 2):
        results.append(kernel(SMALL))
    (good,) = executables(kernel)
    assert not isinstance(good, Hasty)
    assert not good.image.hasty
    names = {s.name for s in good.image.lowered.sources}
    assert names == {name for name, quickly in fresh if not quickly}
    for result in results:
        np.testing.assert_array_equal(result, SMALL * np.float32(1.5) ** 4)


def test_a_signal_handler_may_launch_a_kernel_that_is_compiled_well(fresh, monkeypatch) -> None:
    kernel = nki.jit(scaled)
    kernel(SMALL)
    (hasty,) = executables(kernel)
    original, found = hasty._better, []

    def interrupted():
        if not found:
            found.append(None)
            found[0] = kernel(SMALL)
        return original()

    monkeypatch.setattr(hasty, "_better", interrupted)
    monkeypatch.setattr(hasty, "_left", 0)
    hasty.optimize()
    for result in (found[0], kernel(SMALL)):
        np.testing.assert_array_equal(result, SMALL * np.float32(1.5) ** 4)


def test_the_cores_of_a_launch_are_compiled_hastily_and_well_together(fresh) -> None:
    @nki.jit
    def halves(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        rows = x.shape[0] // 2
        half = nl.ds(nl.program_id(0) * rows, rows)
        tile = nl.load(x[half])
        nisa.tensor_scalar(tile, tile, nl.multiply, 1.5)
        nisa.dma_copy(dst=out[half], src=tile)
        return out

    kernel = halves[2]
    results = [kernel(SMALL) for _ in range(2)]
    assert all(quickly for _, quickly in fresh)
    for _ in range(effort._LAUNCHES_AT_MOST + 2):
        results.append(kernel(SMALL))
    (good,) = executables(kernel)
    assert isinstance(good, Cores)
    assert not any(e.image.hasty for e in good.executables)
    for result in results:
        np.testing.assert_array_equal(result, SMALL * np.float32(1.5))


def test_little_code_is_compiled_quickly_and_again_after_some_launches(fresh, thorough) -> None:
    kernel = nki.jit(scaled)
    results = [kernel(SMALL)]
    quick = {name for name, quickly in fresh if quickly}
    assert quick
    assert all(quickly for _, quickly in fresh)
    for _ in range(effort._LAUNCHES_AT_MOST + 1):
        results.append(kernel(SMALL))
    assert {f"{name}.quick" for name, quickly in fresh if not quickly} == quick
    for result in results:
        np.testing.assert_array_equal(result, SMALL * np.float32(1.5) ** 4)


def test_quick_code_has_room_for_its_values_on_the_stack(fresh, thorough) -> None:
    launcher = nki.jit(scaled).launcher(SMALL)
    executable = launcher._executable
    names = {s.name for s in executable.image.lowered.sources}
    longest = int(executable.image.lowered.sizes.max())
    assert effort.stack(executable.image.lowered, names) == executable.image.lowered.stack + longest // 2
    executable.scratch = 1 << 20
    executable.optimize()
    assert executable.scratch == 0


def test_much_work_is_not(fresh) -> None:
    nki.jit(scaled)(np.ones((128, 45_000), np.float32))
    assert fresh
    assert not any(quickly for _, quickly in fresh)


def test_loops_of_the_device_are_not(fresh) -> None:
    """How often their bodies run is not known."""

    @nki.jit
    def kernel(x):
        tile = nl.load(x)

        def body(_):
            nisa.tensor_scalar(tile, tile, nl.add, 1.0)

        nl.fori_loop(0, 10, body)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=tile)
        return out

    np.testing.assert_array_equal(kernel(SMALL), SMALL + 10)
    assert not any(quickly for _, quickly in fresh)


def test_who_measures_measures_good_code(fresh) -> None:
    launcher = nki.jit(scaled).launcher(SMALL)
    assert all(quickly for _, quickly in fresh)
    launcher.time()
    assert not all(quickly for _, quickly in fresh)


def test_another_process_takes_the_best_there_is(fresh, thorough, disk, new_process, monkeypatch) -> None:
    kernel = nki.jit(scaled)
    kernel(SMALL)
    fresh.clear()

    def restart() -> None:
        kernel.forget()
        new_process()
        monkeypatch.setattr(specialization, "compile_program", None)

    restart()
    kernel(SMALL)  # quick code, from disk
    assert not fresh
    names = {s.name for e in executables(kernel) for s in e.image.lowered.sources}
    assert not any(library(host()).optimized(name) for name in names)
    for _ in range(effort._LAUNCHES_AT_MOST + 1):
        np.testing.assert_array_equal(kernel(SMALL), SMALL * np.float32(1.5) ** 4)
    assert {name for name, _ in fresh} == names
    fresh.clear()
    restart()
    kernel(SMALL)
    assert not fresh
    assert all(library(host()).optimized(name) for name in names)


def executables(kernel) -> list:
    return [s.executable for s in kernel._specializations.values()]


def test_a_setting_that_is_none(monkeypatch) -> None:
    monkeypatch.setenv("NKILITE_OPTIMIZE", "sometimes")
    with pytest.raises(InvalidSetting, match=r"NKILITE_OPTIMIZE='sometimes' is not one of work, always, never"):
        nki.jit(scaled)(SMALL)
