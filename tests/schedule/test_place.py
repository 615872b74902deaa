"""Where tiles lie in the CPU's memory."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.schedule.pipeline import scheduled
from nkilite.schedule.place import CpuPlacement, place


def placed(widths, monkeypatch) -> tuple[CpuPlacement, list[tuple[int, int, int]]]:
    """Tiles of some columns of which each dies in making the next: their placement, and offset, end and pitch of
    each."""
    monkeypatch.setenv("NKILITE_FUSE", "0")

    def chain(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        total = nl.load(x)
        for width in widths:
            tile = nl.ndarray((128, width), dtype=nl.float32, buffer=nl.sbuf)
            nisa.tensor_scalar(dst=tile, data=total.broadcast(1, width), op0=nl.add, operand0=1.0)
            total = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
            nisa.tensor_reduce(dst=total, op=nl.maximum, data=tile, axis=1)
        nl.store(out, total)
        return out

    schedule = scheduled(nki.jit(chain).trace(np.ones((128, 1), np.float32)))
    placement = place(schedule)
    tiles = [placement.of(b.id) for b in schedule.program.buffers if b.region.on_chip]
    return placement, [(t.offset, t.offset + 128 * t.pitch, t.pitch) for t in tiles]


def test_dead_tiles_leave_their_memory_to_tiles_of_equal_rows_alone(monkeypatch):
    _, tiles = placed([512, 256, 512, 256], monkeypatch)
    assert len(tiles) == 9
    for (first, end, pitch), (other, other_end, another) in combinations(tiles, 2):
        assert pitch == another or end <= other or other_end <= first
    assert len({first for first, _, pitch in tiles if pitch > 4}) == 2


@pytest.mark.parametrize("kinds", [2, 40])
def test_tiles_of_many_kinds_share_memory(kinds, monkeypatch):
    placement, tiles = placed(range(16, 16 * kinds + 1, 16), monkeypatch)
    largest = max(end - first for first, end, _ in tiles)
    assert placement.arena_bytes < 3 * largest
