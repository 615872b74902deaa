"""What of a buffer has been written, against a map of its bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nkilite.dtypes import bfloat16, float32, uint8
from nkilite.ir.coverage import Coverage, Covered
from nkilite.ir.types import Buffer, MemoryRegion, ViewType

ROWS, COLUMNS = 4, 24


@st.composite
def views(draw):
    """A view of a float32 tensor of 4 x 24, and its byte offset."""
    dtype = draw(st.sampled_from((float32, float32, bfloat16, uint8)))
    columns = COLUMNS * 4 // dtype.itemsize
    shape, strides, offset = [], [], 0
    for size, stride in ((ROWS, columns), (columns, 1)):
        step = draw(st.sampled_from((1, 1, 1, 2, 3, -1)))
        first = draw(st.integers(0, size - 1))
        most = (size - first + step - 1) // step if step > 0 else first + 1
        count = draw(st.sampled_from([n for n in (1, 2, 4, 8, most) if n <= most]))
        shape.append(count)
        strides.append(step * stride if count > 1 else 1)
        offset += first * stride
    return ViewType.of(MemoryRegion.shared_hbm, dtype, tuple(shape), tuple(strides)), offset * dtype.itemsize


def _bytes(written: np.ndarray, kind: ViewType, offset: int) -> np.ndarray:
    width = kind.dtype.itemsize
    return np.ndarray((*kind.shape, width), bool, written, offset, (*(s * width for s in kind.strides), 1))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), views()), min_size=1, max_size=12))
def test_coverage_is_that_of_a_map_of_bytes(steps):
    cover = Coverage(Buffer.of(0, MemoryRegion.shared_hbm, (ROWS, COLUMNS), float32))
    written = np.zeros(ROWS * COLUMNS * 4, bool)
    for writes, (kind, offset) in steps:
        if writes:
            cover.mark(kind, offset)
            _bytes(written, kind, offset)[...] = True
            continue
        part = _bytes(written, kind, offset)
        wanted = Covered.all if part.all() else Covered.some if part.any() else Covered.none
        assert cover.covered(kind, offset) is wanted
        np.testing.assert_array_equal(cover.unwritten(kind, offset), ~part.all(axis=-1))


def test_the_map_of_a_tensor_written_by_tiles_is_small():
    cover = Coverage(Buffer.of(0, MemoryRegion.shared_hbm, (4096, 4096), float32))
    tile = ViewType.of(MemoryRegion.shared_hbm, float32, (128, 512), (4096, 1))
    whole = ViewType.dense(MemoryRegion.shared_hbm, float32, (4096, 4096))
    for row in range(0, 4096, 128):
        for column in range(0, 4096, 512):
            assert cover.covered(whole, 0) is not Covered.all
            cover.mark(tile, 4 * (4096 * row + column))
    assert cover.covered(whole, 0) is Covered.all
    assert cover._map.size == 4096 * 8
