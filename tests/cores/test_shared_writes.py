"""What cores read of shared HBM before one of them has written it: said, and the same bytes simulated and compiled."""

from __future__ import annotations

import linecache
import warnings
from pathlib import Path

import numpy as np
import pytest
from cores_testing import launches

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import UninitializedRead
from nkilite.ir.coverage import PartlyUninitialized
from nkilite.ir.parser import parse_program
from nkilite.ir.unwritten import PartlyUnwritten

X = np.arange(128 * 8, dtype=np.float32).reshape(128, 8)
pytestmark = pytest.mark.filterwarnings("default::nkilite.ir.coverage.PartlyUninitialized")


def through(x, before, after):
    """Copy x to shared scratch memory, rows `before` ahead of a barrier and `after` behind it; both cores return it."""
    core = nl.program_id(0)
    scratch = nl.ndarray((128, 8), dtype=x.dtype, buffer=nl.shared_hbm, name="scratch")
    out = nl.ndarray((2, 128, 8), dtype=x.dtype, buffer=nl.shared_hbm, name="out")
    tile = nl.ndarray((128, 8), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    if core == 0 and before:
        nisa.dma_copy(dst=scratch[0:before], src=tile[0:before])
    nisa.core_barrier(scratch, (0, 1))
    nisa.dma_copy(dst=tile, src=scratch)  # read
    nisa.dma_copy(dst=out[core], src=tile)
    nisa.core_barrier(scratch, (0, 1))
    if core == 1 and after:
        nisa.dma_copy(dst=scratch[128 - after : 128], src=tile[0:after])
    return out


def used_before(x) -> None:
    """Memory that a launch will get again has something else in it than bytes of 255."""
    for _ in range(3):
        nki.jit(through)[2](x + 1, 128, 0)


@pytest.mark.parametrize("mode", ["simulate", "compiled"])
@pytest.mark.parametrize("before", [64, 100])
def test_a_part_is_read_that_nobody_wrote(mode: str, before: int) -> None:
    used_before(X)
    with pytest.warns(PartlyUninitialized, match="scratch float32") as said:
        found = launches(through)[mode](X, before, 128 - before)  # the rest is written, but later
    assert [linecache.getline(w.filename, w.lineno).split("  ")[-1] for w in said] == ["# read\n"]
    for core in range(2):
        np.testing.assert_array_equal(found[core, :before], X[:before])
        assert (found[core, before:].view(np.uint8) == 0xFF).all()


@pytest.mark.parametrize("mode", ["simulate", "compiled"])
def test_all_is_read_that_nobody_wrote_yet(mode: str) -> None:
    with pytest.raises(UninitializedRead, match="scratch float32") as caught:
        launches(through)[mode](X, 0, 128)
    assert caught.value.location.source.endswith("# read")


@pytest.mark.parametrize("mode", ["simulate", "compiled"])
def test_nothing_is_said_of_what_the_other_core_wrote(mode: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = launches(through)[mode](X, 128, 0)
    np.testing.assert_array_equal(found, np.stack([X, X]))


@pytest.mark.parametrize("mode", ["simulate", "compiled"])
def test_nothing_is_said_of_rows_chosen_among_all_that_was_written_in_parts(mode: str) -> None:
    def kernel(x):
        core = nl.program_id(0)
        mine = slice(64 * core, 64 * core + 64)
        scratch, out = (nl.ndarray((128, 8), dtype=x.dtype, buffer=nl.shared_hbm, name=n) for n in ("scratch", "out"))
        tile, index = nl.load(x[mine]), nl.ndarray((64, 1), dtype=nl.int32, buffer=nl.sbuf)
        nisa.iota(index, [[1, 1]], 64 * core, 1)
        nisa.dma_copy(dst=scratch[mine], src=tile)
        nisa.dma_copy(dst=tile, src=scratch.ap([[8, 64], [1, 8]], vector_offset=index, indirect_dim=0))
        nisa.dma_copy(dst=out[mine], src=tile)
        return out

    with warnings.catch_warnings():
        warnings.simplefilter("error", PartlyUninitialized)
        np.testing.assert_array_equal(launches(kernel)[mode](X), X)


@pytest.mark.parametrize("byte", [255, 0])
@pytest.mark.parametrize("mode", ["simulate", "compiled"])
def test_results_that_are_partly_written(
    mode: str, byte: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if byte != 255:
        (tmp_path / "mine.toml").write_text(f'inherits = "trn2"\nunwritten_byte = {byte}\n')
        monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", str(tmp_path / "mine.toml"))

    def kernel(x):
        out = nl.ndarray((128, 8), dtype=x.dtype, buffer=nl.shared_hbm, name="out")
        tile = nl.ndarray((128, 8), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        rows = nl.ds(nl.program_id(0) * 64, 32)
        nisa.dma_copy(dst=out[rows], src=tile[rows])
        return out

    used_before(X)
    with pytest.warns(PartlyUnwritten, match=r"512 of 1024 elements .* the first is \[32, 0\]"):
        found = launches(kernel)[mode](X)
    for begin in (0, 64):
        np.testing.assert_array_equal(found[begin : begin + 32], X[begin : begin + 32])
        assert (found[begin + 32 : begin + 64].view(np.uint8) == byte).all()


def test_what_a_launch_fills_stands_in_the_text() -> None:
    with pytest.warns(PartlyUninitialized):
        partly = nki.jit(through)[2].programs(X, 64, 0)[0]
    wholly = nki.jit(through)[2].programs(X, 128, 0)[0]
    assert "output %scratch fresh" in str(partly)
    assert " fresh" not in str(wholly)
    assert str(parse_program(str(partly))) == str(partly)
