"""The algebra of memory against sets of bytes."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import dtypes
from nkilite.ir.accesses import accesses, conflicts
from nkilite.ir.regions import PARTITION, Pattern, Rows, footprint, in_step, pattern, shared
from nkilite.ir.types import Indirection, IndirectKind, MemoryRegion, ViewType

DIMS = st.lists(st.tuples(st.integers(1, 5), st.integers(-24, 24)), max_size=3)
WIDTHS = st.integers(1, 5)
SHIFTS = st.integers(-40, 40)


def bytes_of(width, dims, start=0):
    """All bytes, with that of the first element at `start`."""
    return {
        start + sum(i * s for i, (_, s) in zip(index, dims, strict=True)) + byte
        for index in product(*(range(n) for n, _ in dims)) for byte in range(width)
    }


def set_of(pattern):
    return bytes_of(pattern.width, pattern.dims)


@given(WIDTHS, DIMS)
def test_a_pattern_is_nested_and_has_the_bytes_of_its_dimensions(width, dims):
    found = pattern(width, dims)
    meant = bytes_of(width, dims)
    shifted = {byte - min(meant) for byte in meant}
    assert set_of(found) == shifted if found.exact else set_of(found) >= shifted
    assert found.span == max(set_of(found)) + 1
    assert found.size == len(set_of(found))
    span = found.width
    for count, stride in reversed(found.dims):
        assert stride >= span
        assert count > 1
        span += (count - 1) * stride


@given(WIDTHS, DIMS, WIDTHS, DIMS, SHIFTS)
@settings(max_examples=300)
def test_what_two_patterns_share(width, dims, other_width, other_dims, shift):
    one, other = pattern(width, dims), pattern(other_width, other_dims)
    common = set_of(one) & {byte + shift for byte in set_of(other)}
    found = shared(one, other, shift)
    assert (found is None) == (not common)
    if found is not None:
        assert found[0] == min(common)
        assert set(range(*found)) <= common


@given(st.integers(1, 5), WIDTHS, DIMS, WIDTHS, DIMS, st.integers(-24, 24), st.integers(-24, 24), SHIFTS)
@settings(max_examples=300)
def test_rows_in_step(count, width, dims, other_width, other_dims, step, other_step, shift):
    other_step = step if shift % 3 else other_step
    one, other = Rows(pattern(width, dims), step), Rows(pattern(other_width, other_dims), other_step)
    assume(one.row.exact and other.row.exact)
    rows = [{byte + i * step for byte in set_of(one.row)} for i in range(count)]
    others = [{byte + shift + i * other_step for byte in set_of(other.row)} for i in range(count)]
    apart = all(not rows[i] & others[j] for i in range(count) for j in range(count) if i != j)
    found = in_step(one, other, count, shift)
    assert apart or not found
    if step == other_step:
        assert found == apart


def test_a_long_search_ends_on_the_safe_side():
    one = pattern(1, [(1 << 20, 1 << 12), (512, 6)])
    other = pattern(1, [(1 << 20, 4098), (500, 10)])
    assert shared(one, other, 1) is not None


def test_footprints_on_chip_and_off():
    tile = ViewType.of(MemoryRegion.sbuf, dtypes.float32, (64, 8, 4), (256, -16, 1))
    assert footprint(tile, 256)[:2] == (Pattern(16, ((64, 4 * PARTITION), (8, 64))), -7 * 64)  # every fourth partition
    index = ViewType.dense(MemoryRegion.sbuf, dtypes.int32, (1, 1))
    moved = ViewType.of(
        MemoryRegion.shared_hbm, dtypes.float32, (128, 64), (1024, 1),
        Indirection.of(IndirectKind.scalar, index, 64, 16),
    )
    assert footprint(moved, 0)[:2] == (Pattern(128 * 4096, (), exact=False), 0)


def test_conflicts_of_two_programs():
    """Columns of one tensor side by side do not meet; a row that both write does."""

    def half(x, out, first):
        tile = nl.load(x[:, first:first + 64])
        nl.store(out[:, first:first + 64], tile)
        nisa.dma_copy(dst=x[first:first + 1], src=out[3:4])
        return out

    x, out = (np.zeros((128, 128), np.float32) for _ in range(2))
    one, other = (accesses(nki.jit(half).trace(x, out, first=first)) for first in (0, 64))
    hbm = [found.only(found.space < 2) for found in (one, other)]
    assert [tuple(found) for found in conflicts(*hbm)] == [
        (0, 2, 0, 64 * 512, 64 * 512 + 256),  # the load of one, the row that the other writes
        (1, 2, 1, 3 * 512, 3 * 512 + 256),
        (2, 0, 0, 256, 512),
        (2, 1, 1, 3 * 512 + 256, 4 * 512),
    ]
