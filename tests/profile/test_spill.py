"""Programs that the vendor's compiler manages and that do not fit: what is spilled, and that nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import beta1
from nkilite.beta1 import language as beta_language
from nkilite.errors import MemoryOverflow
from nkilite.native.compile import compile_program
from nkilite.passes.follow_writes import FollowWrites
from nkilite.profiling import advise
from nkilite.profiling.record import record
from nkilite.profiling.spill import spilled

WIDE = 6144  # float32 columns: 24 KiB of the 208 that tiles have on trn2
ROWS = 8


def kernel(x, choices, nl=nl):
    """Twelve tiles, combined as chosen, all of them stored in the end."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tiles = [nl.load(x[i]) for i in range(x.shape[0])]
    for a, b, new in choices:
        if new:
            tiles[a] = nl.add(tiles[a], tiles[b])
        elif nl is beta_language:
            tiles[a][...] = tiles[b] * 0.5
        else:
            nisa.tensor_scalar(tiles[a], tiles[b], nl.multiply, 0.5)
    for i, tile in enumerate(tiles):
        nl.store(out[i], tile)
    return out


def inputs(seed: int, count: int = 12) -> tuple[np.ndarray, tuple[tuple[int, int, bool], ...]]:
    rng = np.random.default_rng(seed)
    choices = tuple((int(a), int(b), bool(c)) for a, b, c in zip(*rng.integers(0, (count, count, 2), (40, 3)).T))
    return rng.random((count, ROWS, WIDE), np.float32), choices


@pytest.mark.parametrize("seed", range(3))
def test_what_is_spilled_comes_back(seed: int) -> None:
    x, choices = inputs(seed)
    program = FollowWrites().run(nkilite.jit(kernel).trace(x, choices))
    expected, found = np.empty_like(x), np.empty_like(x)
    program.managed = program.placed = True
    relieved = spilled(program)
    assert relieved is not None
    other, spills = relieved
    assert spills.saved_bytes > 0
    assert spills.reloaded_bytes >= spills.saved_bytes > 0
    assert sum(size for _, size in spills.tiles) == spills.saved_bytes + spills.reloaded_bytes
    compile_program(program).executable.run([x, expected])
    compile_program(other).executable.run([x, found])
    assert (expected == found).all()


def beta1_kernel(x, choices):
    return kernel(x, choices, beta_language)


def managed(function, *args):
    return nkilite.profile(beta1.jit(function), *args, target="trn2")


def loads_and_sums(x, times):
    nl = beta_language
    out = nl.ndarray(x.shape[1:], dtype=x.dtype, buffer=nl.shared_hbm)
    tiles = [nl.load(x[i]) for i in range(x.shape[0])]
    for _ in range(times):
        total = nl.add(tiles[0], tiles[1])
        for tile in tiles[2:]:
            total = nl.add(total, tile)
        nl.store(out, total)
    return out


def test_what_was_loaded_is_loaded_again_and_not_saved() -> None:
    x, _ = inputs(0)
    found = managed(loads_and_sums, x, 2)
    assert found.overflow is None
    assert found.spills is not None
    assert found.spills.saved_bytes == 0
    assert found.spills.reloaded_bytes % x[0].nbytes == 0
    assert found.hbm_read_bytes == x.nbytes + found.spills.reloaded_bytes
    once = managed(loads_and_sums, x[:6], 2)
    assert once.spills is None
    assert once.hbm_read_bytes == x[:6].nbytes


def test_it_is_said_with_the_line_and_counted() -> None:
    x, choices = inputs(1)
    found = managed(beta1_kernel, x, choices)
    assert found.spills is not None
    finding = next(f for f in advise(found) if f.kind == "spills")
    assert finding.location is not None
    assert finding.location.file == __file__
    assert "MiB written to HBM" in finding.figure
    written = record(found)
    assert not written["fits"]
    assert written["spilled_bytes"] == found.spills.saved_bytes
    assert written["reloaded_bytes"] == found.spills.reloaded_bytes
    assert found.hbm_write_bytes == x.nbytes + found.spills.saved_bytes


def test_a_managed_kernel_runs_and_one_as_written_is_refused() -> None:
    x, choices = inputs(2)
    expected = list(x)
    for a, b, new in choices:
        expected[a] = expected[a] + expected[b] if new else expected[b] * np.float32(0.5)
    np.testing.assert_array_equal(beta1.jit(beta1_kernel)(x, choices), np.stack(expected))
    with pytest.raises(MemoryOverflow, match="SBUF overflow on trn2"):
        nkilite.jit(kernel)(x, choices)
    with pytest.raises(MemoryOverflow, match="SBUF overflow on trn2"):
        beta1.jit(beta1_kernel)(np.zeros((2, ROWS, 10 * WIDE), np.float32), ())
