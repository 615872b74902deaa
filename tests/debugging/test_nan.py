"""The first NaN of a kernel is named: instruction, line, operand and element, simulated and compiled alike."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.host.cpu import available
from nkilite.ir.numbers import NotANumberWarning


def found(kernel, *arrays, cores=1, **options):
    """What is reported of the first NaN: the same in both ways of running, or None."""
    reports = []
    for run in (nki.simulate, nki.jit):
        try:
            run(kernel, **{"check_nan": "error", **options})[cores](*[a.copy() for a in arrays])
            reports.append(None)
        except errors.NotANumber as error:
            fields = error.fields
            reports.append(
                (fields["instruction"], fields["operand"], fields["index"], fields["value"], error.location.source)
            )
            assert error.location.file == __file__
    assert reports[0] == reports[1]
    return reports[0]


def stored(tile):
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nl.store(out, tile)
    return out


def roots(x, dtype=None):
    tile = nl.load(x)
    result = nl.ndarray(x.shape, dtype=dtype or x.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(tile, tile, nl.multiply, 1.0)
    nisa.activation(result, nl.sqrt, tile)
    nisa.tensor_scalar(result, result, nl.add, 1.0)
    return stored(result)


ONES = np.ones((128, 96), np.float32)


def with_negative(*places):
    x = ONES.copy()
    for place in places:
        x[place] = -1
    return x


@pytest.mark.parametrize("level", list(available()))
@pytest.mark.parametrize("fuse", ["0", "1"])
def test_first_element(monkeypatch, level, fuse):
    monkeypatch.setenv("NKILITE_CPU", level)
    monkeypatch.setenv("NKILITE_FUSE", fuse)
    monkeypatch.setenv("NKILITE_VERIFY", "1")
    line = "nisa.activation(result, nl.sqrt, tile)"
    assert found(roots, ONES) is None
    assert found(roots, with_negative((77, 3), (5, 90), (5, 91))) == ("activation", "dst", [5, 90], "NaN", line)
    assert found(roots, with_negative((127, 95)).astype(np.float16))[2] == [127, 95]


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3", "float8_e5m2", "float8_e4m3_bias9", "tfloat32"])
def test_dtypes(dtype):
    def kernel(x):
        result = nl.ndarray((128, 2, 48), dtype=dtype, buffer=nl.sbuf)
        nisa.activation(result, nl.sqrt, nl.load(x))
        return stored(result.reshape((128, 96)))

    assert found(kernel, with_negative((9, 50)))[2] == [9, 1, 2]


def test_strided_results_and_what_is_loaded():
    def kernel(x):
        tile = nl.load(x)
        nisa.tensor_scalar(tile[32:64, 1:96:2], tile[32:64, 1:96:2], nl.rsqrt, None)
        return stored(tile)

    assert found(kernel, with_negative((40, 33), (40, 34)))[:3] == ("tensor_scalar", "dst", [8, 16])
    x = ONES.copy()
    x[3, 4] = np.nan
    assert found(kernel, x)[:3] == ("dma_copy", "dst", [3, 4])


BODY = (
    "nisa.activation(nl.ndarray((128, 96), dtype=nl.float32, buffer=nl.sbuf), nl.sqrt, a)",
    "nisa.activation(nl.ndarray((128, 96), dtype=nl.float32, buffer=nl.sbuf), nl.sqrt, b)",
)


def test_first_in_time():
    """Of a loop's iterations the first counts, and in it the first instruction."""

    def kernel(x, y):
        a, b = nl.load(x), nl.load(y)

        def body(i):
            nisa.activation(nl.ndarray((128, 96), dtype=nl.float32, buffer=nl.sbuf), nl.sqrt, a)
            nisa.activation(nl.ndarray((128, 96), dtype=nl.float32, buffer=nl.sbuf), nl.sqrt, b)
            nisa.tensor_scalar(a, a, nl.subtract, 1.0)
            nisa.tensor_scalar(b, b, nl.subtract, 1.0)

        nl.fori_loop(0, 3, body)
        return stored(a), stored(b)

    x, y = np.full((128, 96), 5.0, np.float32), np.full((128, 96), 5.0, np.float32)
    assert found(kernel, x, y) is None
    x[3, 9], y[50, 2] = 1.5, 0.5  # negative in the third iteration, and in the second
    assert found(kernel, x, y)[2:] == ([50, 2], "NaN", BODY[1])
    x[3, 9], x[100, 1] = 0.5, -1
    assert found(kernel, x, y)[2] == [100, 1]


def test_products_and_cores():
    def kernel(a, b):
        left, right = nl.load(a), nl.load(b)
        sums = nl.ndarray((96, 96), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(sums, left, right)
        result = nl.ndarray((96, 96), dtype=nl.bfloat16, buffer=nl.sbuf)
        nisa.activation(result, nl.relu, sums)
        return stored(result)

    a = ONES.copy()
    a[0, 7], a[1, 7] = np.inf, -np.inf
    assert found(kernel, a, ONES)[:3] == ("nc_matmul", "dst", [7, 0])

    def on_cores(x):
        out = nl.ndarray((2, 128, 96), dtype=nl.float32, buffer=nl.shared_hbm)
        tile = nl.load(x[nl.program_id(0)])
        nisa.activation(tile, nl.sqrt, tile)
        nl.store(out[nl.program_id(0)], tile)
        return out

    assert found(on_cores, np.stack([ONES, with_negative((6, 5))]), cores=2)[2] == [6, 5]


def test_infinities_only_where_they_are_computed():
    def kernel(x):
        tile, mask = nl.load(x), nl.ndarray((128, 96), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(mask, float("-inf"))
        nisa.affine_select(mask, [[1, 96]], -1, tile, float("-inf"), nl.greater)
        half = nl.ndarray((128, 96), dtype=nl.float16, buffer=nl.sbuf)
        nisa.tensor_scalar(half, tile, nl.multiply, 40000.0)
        return stored(mask), stored(half)

    x = ONES.copy()
    assert found(kernel, x, check_nan="error+inf") is None
    x[2, 3] = -2
    assert found(kernel, x, check_nan="error+inf")[:4] == ("tensor_scalar", "dst", [2, 3], "-inf")
    assert found(kernel, x) is None
    rounded = found(kernel, x, check_nan="error+inf", stochastic_rounding=True)
    assert rounded[:3] == ("tensor_scalar", "dst", [2, 3])


def test_warnings_keep_results():
    x = with_negative((5, 6))
    for run in (nki.simulate, nki.jit):
        with pytest.warns(NotANumberWarning, match=r"activation writes NaN to dst .*first at \[5, 6\]") as caught:
            result = run(roots, check_nan="warn")(x)
        assert np.isnan(result[5, 6]) and np.isnan(result).sum() == 1
        assert len(caught) == 1 and caught[0].filename == __file__


def test_environment_and_every_launch(monkeypatch):
    kernel, bad = nki.jit(roots), with_negative((5, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel(bad)
        monkeypatch.setenv("NKILITE_NAN", "error")
        for _ in range(3):
            kernel(ONES)
            with pytest.raises(errors.NotANumber):
                kernel(bad)
        monkeypatch.setenv("NKILITE_NAN", "off")
        kernel(bad)
    monkeypatch.setenv("NKILITE_NAN", "loud")
    with pytest.raises(errors.InvalidSetting, match="NKILITE_NAN='loud' is not one of warn, error"):
        kernel(ONES)
    with pytest.raises(errors.InvalidOperand, match="check_nan is .*expected one of warn, error"):
        nki.jit(roots, check_nan="loud")


def test_from_the_disk_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("NKILITE_CACHE", "1")
    monkeypatch.setenv("NKILITE_CACHE_DIR", str(tmp_path))
    for _ in range(2):
        with pytest.raises(errors.NotANumber, match=r"\[5, 6\]") as caught:
            nki.jit(roots, check_nan="error")(with_negative((5, 6)))
        assert caught.value.location.file == __file__
    assert any(tmp_path.rglob("*"))


def test_kernels_of_integers_have_none():
    def kernel(x):
        return stored(nl.load(x))

    x = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert found(kernel, x, check_nan="error+inf") is None


def test_what_is_noted_outlives_tiles():
    """Tiles take each other's memory; none takes that of the notes, before the first and after the last of them."""

    def kernel(x, count):
        size = nisa.scalar_load(count)
        tile = nl.load(x)
        result = stored(nl.add(tile, 1.0))
        for _ in range(3):
            nisa.scalar_store(count, size + 1)
            integers = nl.ndarray((128, 64), dtype=nl.int32)
            nisa.memset(integers, 7)
            stored(integers)
        return result

    x = np.ones((2, 3), np.float32)
    assert found(kernel, x, np.ones((1, 1), np.int32), check_nan="error+inf") is None
    x[1, 2] = np.nan
    assert found(kernel, x, np.ones((1, 1), np.int32), check_nan="error")[2] == [1, 2]
