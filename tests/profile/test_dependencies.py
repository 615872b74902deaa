"""Hazards between accesses: on hand-written regions, and against brute force on bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nkilite.machine import hazard_walk
from nkilite.machine.dependencies import ACCUMULATE, DATA, ORDER, READ, WRITE, Accesses, Region, hazards


def edges(regions: list[Region], accesses: list[tuple[int, int, int]], queues: list[int]) -> set[tuple[int, int, int]]:
    """(producer, consumer, kind) for accesses (instruction, region, flags)."""
    columns = np.array(accesses, np.int64).T
    found = []
    for worth_compiling in (0, 1 << 60):  # as machine code, and in Python
        with pytest.MonkeyPatch.context() as patch:
            for worth in ("WORTH_LOADING", "COMPILING_A_BYTE"):
                patch.setattr(f"nkilite.compiled.function.{worth}", worth_compiling)
            edges = hazards(np.array(regions, np.int64).reshape(-1, 7), Accesses(*columns), queues)
        found.append(list(zip(edges.producer.tolist(), edges.consumer.tolist(), edges.kind.tolist(), strict=True)))
    assert found[0] == found[1]
    assert len({(producer, consumer) for producer, consumer, _ in found[0]}) == len(found[0])
    return set(found[0])


TILE = Region(0, 0, 128, 0, 512)
LEFT, RIGHT = Region(0, 0, 128, 0, 256), Region(0, 0, 128, 256, 512)


def test_read_after_write_waits_for_the_result() -> None:
    assert edges([TILE], [(0, 0, WRITE), (1, 0, READ)], [0, 1]) == {(0, 1, DATA)}


def test_write_after_read_waits_until_the_reader_is_done() -> None:
    assert edges([TILE], [(0, 0, READ), (1, 0, WRITE)], [0, 1]) == {(0, 1, ORDER)}


def test_write_after_write_is_ordered_by_its_queue_or_waits() -> None:
    assert edges([TILE], [(0, 0, WRITE), (1, 0, WRITE)], [0, 0]) == {(0, 1, ORDER)}
    assert edges([TILE], [(0, 0, WRITE), (1, 0, WRITE)], [0, 1]) == {(0, 1, DATA)}


def test_readers_do_not_wait_for_each_other() -> None:
    assert edges([TILE], [(0, 0, READ), (1, 0, READ)], [0, 1]) == set()


def test_halves_of_a_tile_are_independent_and_the_whole_meets_both() -> None:
    accesses = [(0, 1, WRITE), (1, 2, WRITE), (2, 0, READ), (3, 2, WRITE)]
    assert edges([TILE, LEFT, RIGHT], accesses, [0, 1, 2, 3]) == {
        (0, 2, DATA), (1, 2, DATA), (1, 3, DATA), (2, 3, ORDER)
    }


def test_a_write_hides_what_was_before_it() -> None:
    assert edges([TILE], [(0, 0, WRITE), (1, 0, WRITE), (2, 0, READ)], [0, 1, 2]) == {(0, 1, DATA), (1, 2, DATA)}


def test_accumulation_runs_at_full_rate_and_its_reader_waits_for_the_last() -> None:
    update = READ | WRITE | ACCUMULATE
    assert edges([TILE], [(0, 0, WRITE), (1, 0, update), (2, 0, READ)], [1, 1, 5]) == {(0, 1, ORDER), (1, 2, DATA)}
    assert edges([TILE], [(0, 0, WRITE), (1, 0, READ | WRITE)], [1, 1]) == {(0, 1, DATA)}


def test_partitions_and_memories_apart_do_not_meet() -> None:
    low, high, psum = Region(0, 0, 64, 0, 8), Region(0, 64, 128, 0, 8), Region(1, 0, 64, 0, 8)
    assert edges([low, high, psum], [(0, 0, WRITE), (1, 1, WRITE), (2, 2, WRITE)], [0, 1, 2]) == set()


def test_interleaved_columns_do_not_meet() -> None:
    even, odd = Region(0, 0, 128, 0, 60, 8, 4), Region(0, 0, 128, 4, 64, 8, 4)
    accesses = [(0, 0, WRITE), (1, 1, WRITE), (2, 0, READ), (3, 1, READ)]
    assert edges([even, odd], accesses, [0, 1, 2, 3]) == {(0, 2, DATA), (1, 3, DATA)}


@pytest.mark.parametrize("columns", [4, 400])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_hazard_is_missed_and_none_is_made_up(columns: int, data: st.DataObject) -> None:
    """Every instruction reaches, over edges, all earlier ones it shares a byte with (unless both only read)."""
    n = data.draw(st.integers(2, 14))
    regions, accesses = [], []
    for i in range(n):
        top, left = data.draw(st.integers(0, 3)), data.draw(st.integers(0, columns - 1))
        bottom, right = data.draw(st.integers(top + 1, 4)), data.draw(st.integers(left + 1, columns))
        step = data.draw(st.sampled_from([0, 2, 3]))
        regions.append(Region(0, top, bottom, left, right, step, 1 if step else 0))
        accesses.append((i, i, data.draw(st.sampled_from([READ, WRITE, READ | WRITE]))))
    found = edges(regions, accesses, list(range(n)))
    reach = np.eye(n, dtype=bool)
    for producer, consumer, _ in sorted(found, key=lambda e: e[1]):
        reach[consumer] |= reach[producer]
    masks = [_bytes(r, columns) for r in regions]
    for later in range(n):
        for earlier in range(later):
            if (accesses[later][2] | accesses[earlier][2]) & WRITE and (masks[later] & masks[earlier]).any():
                assert reach[later, earlier], (regions[earlier], regions[later])
    for producer, consumer, _ in found:
        if regions[producer].step == regions[consumer].step == 0:  # where nothing is on the safe side
            assert (masks[producer] & masks[consumer]).any(), (regions[producer], regions[consumer])


def _bytes(region: Region, columns: int) -> np.ndarray:
    mask = np.zeros((4, columns), bool)
    mask[region.top:region.bottom, region.left:region.right:region.step or 1] = True
    return mask


def test_the_cost_of_a_tile_read_in_pieces_is_linear(calls_of) -> None:
    """A convolution's shape: every few bytes of a tile are read, then small tiles take its memory one by one."""
    looks = ("_wait", "_entry", "_overlap")  # all that is done for the entries of lists

    def per_access(count: int) -> float:
        tile = [Region(0, 0, 128, 0, 4 * count + 8)]
        pieces = [Region(0, 0, 128, 4 * i, 4 * i + 12) for i in range(count)]
        small = [Region(0, 0, 128, 4 * i, 4 * i + 4) for i in range(count)]
        found = [(0, 0, WRITE), *((1 + i, 1 + i, READ) for i in range(2 * count))]
        found[1 + count:] = [(n, r, WRITE) for n, r, _ in found[1 + count:]]
        regions, accesses = np.array(tile + pieces + small, np.int64), np.array(found, np.int64).T
        queues = [0] * (2 * count + 1)
        return calls_of(hazard_walk, looks, lambda: hazards(regions, Accesses(*accesses), queues)) / count

    assert 0 < per_access(2000) < 1.3 * per_access(500)
