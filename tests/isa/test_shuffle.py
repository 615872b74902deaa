"""nc_stream_shuffle: rows between the partitions of a quadrant."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import DtypeMismatch, InvalidOperand, ShapeMismatch
from nkilite.testing import make

MODES = [pytest.param(lambda k: k, id="compiled"), pytest.param(nki.simulate, id="simulate")]
REVERSED = list(range(31, -1, -1))
MASKS = {
    "identity": list(range(32)),
    "reversed": REVERSED,
    "broadcast": [0] * 32,
    "pairs": [i ^ 1 for i in range(32)],
    "keep": [255 if i % 3 else (5 * i) % 32 for i in range(32)],
}


def expected(dst: np.ndarray, src: np.ndarray, mask: list[int]) -> np.ndarray:
    result = dst.copy()
    for row in range(dst.shape[0]):
        if mask[row % 32] != 255:
            result[row] = src[row // 32 * 32 + mask[row % 32]].reshape(dst.shape[1:])
    return result


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize(("partitions", "dtype"), [(32, "float32"), (128, "bfloat16"), (64, "uint8"), (20, "int32")])
def test_rows_move_within_quadrants(mode, mask, partitions, dtype) -> None:
    @nki.jit
    def kernel(src, dst):
        s = nl.load(src)
        d = nl.load(dst)
        nisa.nc_stream_shuffle(dst=d[:, 2:35], src=s[:, 1:34], shuffle_mask=mask)
        nisa.dma_copy(dst=dst, src=d)

    src, dst = make((-(-partitions // 32) * 32, 40), dtype, 1), make((partitions, 40), dtype, 2)
    want = dst.copy()
    want[:, 2:35] = expected(dst[:, 2:35], src[:, 1:34], mask)
    mode(kernel)(src, dst)
    np.testing.assert_array_equal(dst, want)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_in_place(mode, mask) -> None:
    @nki.jit
    def kernel(x):
        tile = nl.load(x)
        nisa.nc_stream_shuffle(dst=tile, src=tile, shuffle_mask=mask)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=tile)
        return out

    x = make((96, 24), "float32", 3)
    np.testing.assert_array_equal(mode(kernel)(x), expected(x, x, mask))


@pytest.mark.parametrize("mode", MODES)
def test_one_partition_is_broadcast(mode) -> None:
    @nki.jit
    def kernel(x):
        tile = nl.ndarray((64, 16), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile[0:1], src=x[0:1])
        for quadrant in range(2):
            nisa.nc_stream_shuffle(dst=tile[32 * quadrant:32 * quadrant + 32], src=tile[0:1], shuffle_mask=[0] * 32)
        out = nl.ndarray((64, 16), dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=tile)
        return out

    x = make((1, 16), "float32", 3)
    np.testing.assert_array_equal(mode(kernel)(x), np.repeat(x, 64, axis=0))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("dst_shape", "dtype", "mask", "error", "match"),
    [
        ((32, 8), "float32", [0] * 31, InvalidOperand, "32 partition numbers"),
        ((32, 8), "float32", [40] + [0] * 31, InvalidOperand, r"shuffle_mask\[0\] is 40"),
        ((32, 8), "float32", [-1] + [0] * 31, InvalidOperand, r"shuffle_mask\[0\] is -1"),
        ((64, 8), "float32", [0] * 32, InvalidOperand, "which has 32"),
        ((32, 8), "bfloat16", [0] * 32, DtypeMismatch, "bfloat16"),
        ((32, 9), "float32", [0] * 32, ShapeMismatch, "9 elements"),
    ],
)
def test_mistakes(mode, dst_shape, dtype, mask, error, match) -> None:
    @nki.jit
    def kernel(x):
        tile = nl.load(x)
        d = nl.ndarray(dst_shape, dtype=dtype, buffer=nl.sbuf)
        nisa.nc_stream_shuffle(dst=d, src=tile, shuffle_mask=mask)  # here

    with pytest.raises(error, match=match) as caught:
        mode(kernel)(make((32, 8), "float32", 0))
    assert caught.value.location.source.endswith("# here")
