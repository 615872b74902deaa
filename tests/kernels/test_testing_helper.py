"""The helper users import: it must accept what is right, reject what is wrong, and say where."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.testing import MODES, MismatchError, check, compare, make, run, tolerance, ulps

FLOATS = [
    "float32",
    "tfloat32",
    "float16",
    "bfloat16",
    "float8_e4m3",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e8m0fnu",
]
DTYPES = [*FLOATS, "int8", "int16", "int32", "uint8", "uint16", "uint32", "bool"]


@nki.jit
def _scaled(x, factor=1.0, COLUMNS=64):
    """x * factor, and a copy of x, COLUMNS columns at a time."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    same = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for first in range(0, x.shape[1], COLUMNS):
        here = slice(first, first + COLUMNS)
        tile = nl.ndarray((x.shape[0], COLUMNS), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[:, here])
        nisa.dma_copy(dst=same[:, here], src=tile)
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=factor)
        nisa.dma_copy(dst=out[:, here], src=tile)
    return out, same


def _reference(x, factor=1.0):
    return x.astype(np.float64) * factor, x


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_check_passes_options_and_tile_sizes_where_they_belong(dtype):
    check(_scaled, _reference, make((128, 256), dtype, seed=3), factor=1.7, COLUMNS=128)


@pytest.mark.parametrize("mode", MODES)
def test_check_names_kernel_mode_and_output(mode):
    def wrong(x):
        x = x.astype(np.float64)
        return x, np.where(np.arange(x.size).reshape(x.shape) == 256 + 7, x + 1, x)

    with pytest.raises(MismatchError, match=rf"_scaled \({mode}\) output 1: 1 of 32768") as caught:
        check(_scaled, wrong, make((128, 256), "float32"), modes=[mode])
    assert "worst at    (1, 7)" in str(caught.value)
    assert "[1:2, 7:8]" in str(caught.value)


def test_check_counts_outputs():
    with pytest.raises(MismatchError, match="returns 2 outputs, the reference 1"):
        check(_scaled, lambda x: x, make((128, 64), "float32"), modes=["simulate"])


def test_the_kernel_cannot_change_the_reference_inputs():
    @nki.jit
    def overwrite(x):
        zeros = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
        nisa.memset(dst=zeros, value=0.0)
        nisa.dma_copy(dst=x, src=zeros)
        return x

    x = make((128, 8), "float32")
    with pytest.raises(MismatchError):
        check(overwrite, lambda x: x, x)
    assert np.any(x)


def test_run_rejects_an_unknown_mode():
    with pytest.raises(ValueError, match="'silicon'"):
        run(_scaled, "silicon", make((128, 64), "float32"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_make_is_reproducible_and_varied(dtype):
    first, again, other = make((64, 32), dtype, 5), make((64, 32), dtype, 5), make((64, 32), dtype, 6)
    assert first.shape == (64, 32)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    values = first.astype(np.float64)
    assert np.isfinite(values).all()
    assert len(np.unique(values)) >= (2 if dtype == "bool" else 6)


def test_make_takes_language_and_numpy_dtypes():
    assert make(4, nl.bfloat16).dtype == make(4, ml_dtypes.bfloat16).dtype == make(4, "bfloat16").dtype
    assert make(4, np.float32).shape == (4,)


def test_make_refuses_packed_words():
    with pytest.raises(TypeError):
        make((4, 4), "float8_e4m3fn_x4")


def test_tolerance_follows_output_inputs_and_reduction():
    narrow, wide = tolerance("bfloat16"), tolerance("float32")
    assert narrow[0] > 1000 * wide[0]
    assert tolerance("float32", reduction=4096)[1] > 10 * wide[1]
    rtol, atol = tolerance("float32", inputs=["bfloat16", "int32"])
    assert (rtol, atol) == (wide[0], pytest.approx(narrow[1], rel=1e-6))
    assert tolerance("int32", inputs=["float32"], reduction=99) == (0.0, 0.0)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e4m3", "float8_e5m2"])
def test_ulps_counts_representable_values(dtype):
    one = np.ones(3, getattr(ml_dtypes, dtype, dtype))
    bits = f"u{one.itemsize}"
    moved = (one.view(bits) + np.array([0, 1, 3], bits)).view(one.dtype)
    assert ulps(moved, one).tolist() == [0, 1, 3]
    assert ulps(-moved, -one).tolist() == [0, 1, 3]
    tiny = np.array([1], bits).view(one.dtype)
    assert ulps(tiny, -tiny).tolist() == [2]


def test_ulps_of_integers_is_their_distance():
    assert ulps(np.array([-3, 250], np.int32), np.array([4.0, 250.0])).tolist() == [7, 0]


def _compare(got, expected):
    compare(np.asarray(got, np.float32), np.asarray(expected, np.float64), rtol=1e-3, atol=1e-6)


def test_compare_accepts_equal_nan_and_infinity():
    _compare([np.nan, np.inf, -np.inf, 1.0], [np.nan, np.inf, -np.inf, 1.0005])


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        ([1.0, 1.01], [1.0, 1.0]),
        ([np.nan], [1.0]),
        ([1.0], [np.nan]),
        ([np.inf], [-np.inf]),
        ([np.inf], [3e38]),
        ([3e38], [np.inf]),
        ([1e-5], [0.0]),
    ],
)
def test_compare_rejects(got, expected):
    with pytest.raises(MismatchError):
        _compare(got, expected)


def test_compare_rejects_shape_and_dtype():
    with pytest.raises(MismatchError, match=r"shape \(2,\), the reference \(1, 2\)"):
        _compare([1.0, 2.0], [[1.0, 2.0]])
    with pytest.raises(MismatchError, match="is float32, the reference int32"):
        compare(np.ones(2, np.float32), np.ones(2, np.int32), rtol=0, atol=0)


def test_the_report_puts_an_unexpected_nan_first():
    got = np.ones((4, 6), np.float32)
    got[1, 2:4], got[2, 3] = 9.0, np.nan
    with pytest.raises(MismatchError) as caught:
        _compare(got, np.ones((4, 6)))
    report = str(caught.value)
    assert "3 of 24 elements" in report
    assert "worst at    (2, 3)" in report
    assert "all within  [1:3, 2:4]" in report


def test_the_report_gives_the_error_in_ulp():
    with pytest.raises(MismatchError, match="8388608 ulp"):
        _compare([2.0], [1.0])
