"""nc_matmul and nc_transpose: compiled and simulated results against independent NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.host.cpu import available

LEVELS = list(available())
BF16, E4M3, E5M2 = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3, ml_dtypes.float8_e5m2


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    """Every CPU level in turn."""
    monkeypatch.setenv("NKILITE_CPU", request.param)
    return request.param


def integers(shape, dtype, seed=0, low=-4, high=5) -> np.ndarray:
    """Small integers, of which sums of products are exact in float32."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def both(kernel: Callable, *arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Results of the compiled and of the simulated kernel."""
    return nki.jit(kernel)(*arrays), nki.simulate(kernel)(*arrays)


def load(array):
    """An SBUF tile with the content of an HBM tensor."""
    tile = nl.ndarray(array.shape, array.dtype, buffer=nl.sbuf)
    nisa.dma_copy(tile, array)
    return tile


def store(tile):
    """An HBM tensor with the content of an on-chip tile."""
    staged = nl.ndarray(tile.shape, tile.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(staged, tile)
    result = nl.ndarray(tile.shape, tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(result, staged)
    return result


def product(**options) -> Callable:
    """A kernel that multiplies two arrays once."""

    def kernel(a, b):
        out = nl.ndarray((a.shape[-1], b.shape[-1]), nl.float32, buffer=nl.psum)
        nisa.nc_matmul(out, load(a), load(b), **options)
        return store(out)

    return kernel


def transposed(**options) -> Callable:
    """A kernel that transposes one array of two dimensions through PSUM."""

    def kernel(a):
        out = nl.ndarray((a.shape[1], a.shape[0]), a.dtype, buffer=nl.psum)
        nisa.nc_transpose(out, load(a), **options)
        return store(out)

    return kernel


def matmul_int64(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.int64).T @ b.astype(np.int64)


# --- nc_matmul ----------------------------------------------------------------------------------------------

SHAPES = [
    (128, 128, 512),
    (128, 128, 128),
    (1, 1, 1),
    (7, 5, 3),
    (33, 100, 77),
    (128, 1, 512),
    (128, 128, 1),
    (64, 6, 64),
    (17, 13, 65),
    (128, 9, 8),
    (5, 128, 15),
    (2, 31, 130),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_product_of_integers_is_exact(level, shape):
    k, m, n = shape
    a, b = integers((k, m), np.float32), integers((k, n), np.float32, 1)
    for result in both(product(), a, b):
        np.testing.assert_array_equal(result, matmul_int64(a, b))


@pytest.mark.parametrize("left", [np.float16, BF16, E4M3, E5M2], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("right", [np.float16, BF16, E5M2], ids=lambda d: np.dtype(d).name)
def test_narrow_operands_mix(level, left, right):
    for shape in [(128, 128, 200), (9, 3, 50), (40, 70, 5)]:
        a, b = integers(shape[:2], left), integers((shape[0], shape[2]), right, 1)
        for result in both(product(), a, b):
            np.testing.assert_array_equal(result, matmul_int64(a, b))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16], ids=lambda d: np.dtype(d).name)
def test_sums_are_float32(level, dtype):
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal(s).astype(dtype) for s in ((128, 128), (128, 512)))
    exact = a.astype(np.float64).T @ b.astype(np.float64)
    scale = np.abs(a.astype(np.float64)).T @ np.abs(b.astype(np.float64))
    for result in both(product(), a, b):
        assert np.max(np.abs(result - exact) / scale) < 128 * 2.0**-24


def test_tfloat32_operands():
    a, b = integers((32, 16), np.float32), integers((32, 24), np.float32, 1)

    def kernel(a, b):
        tiles = []
        for array in (a, b):
            tile = nl.ndarray(array.shape, "tfloat32", buffer=nl.sbuf)
            nisa.tensor_copy(tile, load(array))
            tiles.append(tile)
        out = nl.ndarray((16, 24), nl.float32, buffer=nl.psum)
        nisa.nc_matmul(out, *tiles)
        return store(out)

    for result in both(kernel, a, b):
        np.testing.assert_array_equal(result, matmul_int64(a, b))


@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=lambda d: np.dtype(d).name)
def test_nan_and_infinity_reach_their_rows_only(level, dtype):
    a, b = np.ones((8, 20), dtype), np.ones((8, 40), dtype)
    a[3, 2], a[4, 11] = np.nan, np.inf
    expected = np.full((20, 40), 8, np.float32)
    expected[2], expected[11] = np.nan, np.inf
    for result in both(product(), a, b):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("shape", [(40, 128, 96), (128, 20, 4), (16, 3, 70)], ids=str)
def test_accumulate(level, shape):
    k, m, n = shape
    a, b = integers((k, m), BF16), integers((k, n), BF16, 1)

    def kernel(a, b, flags):
        left, right = load(a), load(b)
        out = nl.ndarray((m, n), nl.float32, buffer=nl.psum)
        for flag in flags:
            nisa.nc_matmul(out, left, right, accumulate=flag)
        return store(out)

    for flags, times in (
        ((None, None, None), 3),
        ((False, True), 2),
        ((None, False, None), 2),
        ((0, 1, 1), 3),
    ):
        for result in both(lambda a, b, flags=flags: kernel(a, b, flags), a, b):
            np.testing.assert_array_equal(result, times * matmul_int64(a, b))


def test_accumulate_none_follows_regions(level):
    """Halves of a tile are first written at different times; the whole is then added to."""
    a, b = integers((16, 32), np.float32), integers((16, 64), np.float32, 1)

    def kernel(a, b):
        left, right = load(a), load(b)
        out = nl.ndarray((32, 64), nl.float32, buffer=nl.psum)
        nisa.nc_matmul(out[:, :24], left, right[:, :24])
        nisa.nc_matmul(out, left, right)
        return store(out)

    expected = matmul_int64(a, b)
    expected[:, :24] *= 2
    for result in both(kernel, a, b):
        np.testing.assert_array_equal(result, expected)


def test_accumulate_onto_memset(level, monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")  # before, the result is undefined
    a, b = integers((16, 32), np.float32), integers((16, 64), np.float32, 1)

    def kernel(a, b):
        out = nl.ndarray((32, 64), nl.float32, buffer=nl.psum)
        nisa.memset(out, 5.0)
        nisa.nc_matmul(out, load(a), load(b), accumulate=True)
        return store(out)

    for result in both(kernel, a, b):
        np.testing.assert_array_equal(result, matmul_int64(a, b) + 5)


def permuted(x, dims):
    return x.transpose(dims) if isinstance(x, np.ndarray) else x.permute(dims)


def repeated(x, dim, times):
    return np.repeat(x, times, dim) if isinstance(x, np.ndarray) else x.broadcast(dim, times)


# Views of a stationary [64, 64] and a moving [64, 120] operand, written once for tiles and NumPy arrays.
ACCESS = {
    "sliced": (lambda a: a[:, 3:35], lambda b: b[:, 8:72]),
    "strided": (lambda a: a[:, 1:64:2], lambda b: b[:, ::3]),
    "partitions": (lambda a: a[32:64, :40], lambda b: b[32:64, :]),
    "permuted": (
        lambda a: permuted(a.reshape((64, 4, 16)), (0, 2, 1)),
        lambda b: permuted(b.reshape((64, 10, 12)), (0, 2, 1)),
    ),
    "windows": (
        lambda a: a.reshape((64, 8, 8))[:, 2:6, 1:4],
        lambda b: b.reshape((64, 10, 12))[:, 1:9, 2:9],
    ),
    "broadcast": (lambda a: repeated(a[:, 5:6], 1, 7), lambda b: repeated(b[:, 9:10], 1, 33)),
}


@pytest.mark.parametrize("dtype", [np.float32, BF16, E5M2], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("access", list(ACCESS))
def test_operand_access_patterns(level, access, dtype):
    view_a, view_b = ACCESS[access]
    a, b = integers((64, 64), dtype), integers((64, 120), dtype, 1)

    def kernel(a, b):
        left, right = view_a(load(a)), view_b(load(b))
        shape = (math.prod(left.shape[1:]), math.prod(right.shape[1:]))
        out = nl.ndarray(shape, nl.float32, buffer=nl.psum)
        nisa.nc_matmul(out, left, right)
        return store(out)

    left, right = (x.reshape(x.shape[0], -1) for x in (view_a(a), view_b(b)))
    for result in both(kernel, a, b):
        np.testing.assert_array_equal(result, matmul_int64(left, right))


@pytest.mark.parametrize("times", [1, 2])
def test_result_access_patterns(level, times):
    """A transposed and a strided PSUM view as dst leave the rest of the tile alone."""
    a, b = integers((24, 30), np.float32), integers((24, 48), np.float32, 1)

    def kernel(a, b):
        left, right = load(a), load(b)
        out = nl.ndarray((30, 2, 48), nl.float32, buffer=nl.psum)
        swapped = nl.ndarray((30, 6, 8), nl.float32, buffer=nl.psum)
        nisa.memset(out, 7.0)
        for i in range(times):
            nisa.nc_matmul(out[:, 1, :], left, right, accumulate=i > 0)
            nisa.nc_matmul(swapped.permute((0, 2, 1)), left, right)
        return store(out), store(swapped)

    expected = times * matmul_int64(a, b)
    for out, swapped in both(kernel, a, b):
        np.testing.assert_array_equal(out[:, 1], expected)
        np.testing.assert_array_equal(out[:, 0], np.full((30, 48), 7))
        np.testing.assert_array_equal(swapped.transpose(0, 2, 1).reshape(30, 48), expected)


@pytest.mark.parametrize("left", [E4M3, E5M2], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("shape", [(128, 128, 512), (5, 1, 20), (64, 30, 3)], ids=str)
def test_double_row_sums_over_pairs(level, monkeypatch, shape, left):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn2")
    k, m, n = shape
    a, b = integers((k, 2, m), left), integers((k, 2, n), E5M2, 1)
    expected = np.einsum("ksm,ksn->mn", a.astype(np.int64), b.astype(np.int64))
    for mode in ("double_row", nisa.matmul_perf_mode.double_row):
        for result in both(product(perf_mode=mode), a, b):
            np.testing.assert_array_equal(result, expected)


def test_bfloat16_result_rounds_once_on_trn3(level, monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")
    a, b = integers((100, 20), BF16, low=-9, high=9), integers((100, 80), BF16, 1, low=-9, high=9)

    def kernel(a, b):
        out = nl.ndarray((20, 80), nl.bfloat16, buffer=nl.psum)
        nisa.nc_matmul(out, load(a), load(b))
        return store(out)

    for result in both(kernel, a, b):
        assert result.dtype == BF16
        np.testing.assert_array_equal(result, matmul_int64(a, b).astype(np.float32).astype(BF16))


def test_long_moving_operand_on_trn3(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")
    a, b = integers((16, 8), np.float32), integers((16, 4096), np.float32, 1)
    for result in both(product(), a, b):
        np.testing.assert_array_equal(result, matmul_int64(a, b))


def test_array_tiles_and_hints_do_not_change_results():
    a, b = integers((32, 30), np.float32), integers((32, 64), np.float32, 1)
    options = {"tile_position": (32, 64), "tile_size": (32, 32), "is_moving_onezero": True}
    for result in both(product(**options), a, b):
        np.testing.assert_array_equal(result, matmul_int64(a, b))


# --- transpose mode -----------------------------------------------------------------------------------------


def special(shape, dtype, seed=0) -> np.ndarray:
    """Random bits of a dtype: NaN with payloads, infinities, subnormals and all."""
    width = np.dtype(dtype).itemsize
    return (
        np.random.default_rng(seed).integers(0, 256, (*shape[:-1], shape[-1] * width), np.uint8).view(dtype)
    )


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    width = f"u{found.dtype.itemsize}"
    np.testing.assert_array_equal(found.view(width), np.ascontiguousarray(expected).view(width))


def transpose_mode(dst_dtype=None, columns=slice(None)) -> Callable:
    def kernel(a, selector):
        dtype = dst_dtype or a.dtype
        chosen = load(selector)[:, columns]
        out = nl.ndarray((a.shape[1], chosen.shape[1]), dtype, buffer=nl.psum)
        for _ in range(2):  # the second must not add to the first
            nisa.nc_matmul(out, load(a), chosen, is_transpose=True)
        return store(out)

    return kernel


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16, E5M2], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("shape", [(128, 128), (17, 90), (1, 3), (100, 1)], ids=str)
def test_transpose_mode_moves_bits(level, monkeypatch, shape, dtype):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn2")
    a = special(shape, dtype)
    for result in both(transpose_mode(), a, np.eye(shape[0]).astype(dtype)):
        assert_same_bits(result, a.T)


def test_transpose_mode_selects_rows(level, monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn2")
    a, order = special((40, 50), BF16), np.random.default_rng(1).permutation(40)
    selector = np.eye(40)[:, order].astype(BF16)
    for result in both(transpose_mode(columns=slice(4, 33)), a, selector):
        assert_same_bits(result, a[order[4:33]].T)


def test_transpose_mode_into_float32(level, monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn2")
    a = integers((40, 50), BF16, low=-100, high=100)
    for result in both(transpose_mode(nl.float32), a, np.eye(40).astype(BF16)):
        np.testing.assert_array_equal(result, a.T.astype(np.float32))


def test_transpose_flag_is_a_label_on_trn1(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn1")
    a, b = integers((8, 8), np.float32), integers((8, 12), np.float32, 1)
    for result in both(product(is_transpose=True), a, b):
        np.testing.assert_array_equal(result, matmul_int64(a, b))


# --- nc_transpose -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [np.float32, np.int32, BF16, np.uint8, E5M2], ids=lambda d: np.dtype(d).name
)
@pytest.mark.parametrize("shape", [(128, 128), (33, 127), (1, 100), (100, 1), (30, 2), (1, 1)], ids=str)
def test_transpose_moves_bits(level, shape, dtype):
    a = special(shape, dtype)
    for result in both(transposed(), a):
        assert_same_bits(result, a.T)


def test_transpose_on_the_vector_engine(level):
    a = special((32, 20), np.float32)

    def kernel(a):
        out = nl.ndarray((20, 32), nl.float32, buffer=nl.sbuf)
        nisa.nc_transpose(out, load(a), engine=nisa.engine.vector)
        return store(out)

    for result in both(kernel, a):
        assert_same_bits(result, a.T)


@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=lambda d: np.dtype(d).name)
def test_transpose_access_patterns(level, dtype):
    a = special((64, 120), dtype)

    def kernel(a):
        tile = load(a)
        results = []
        for view in (
            tile[:, 3:67],
            tile[:48, ::5],
            tile.reshape((64, 10, 12))[:, 1:7, 2:9],
            tile.reshape((64, 10, 12)).permute((0, 2, 1)),
            tile[:, 5:6].broadcast(1, 30),
        ):
            out = nl.ndarray((math.prod(view.shape[1:]), view.shape[0]), a.dtype, buffer=nl.psum)
            nisa.nc_transpose(out, view)
            results.append(store(out))
        strided = nl.ndarray((40, 4, 16, 3), a.dtype, buffer=nl.psum)
        nisa.memset(strided, 0)
        nisa.nc_transpose(strided[:, :, :, 1], tile[:, :40])
        return (*results, store(strided))

    images = a.reshape(64, 10, 12)
    expected = [
        a[:, 3:67].T,
        a[:48, ::5].T,
        images[:, 1:7, 2:9].reshape(64, -1).T,
        images.transpose(0, 2, 1).reshape(64, -1).T,
        np.repeat(a[:, 5:6], 30, 1).T,
    ]
    for *results, strided in both(kernel, a):
        for result, right in zip(results, expected, strict=True):
            assert_same_bits(result, right)
        assert_same_bits(np.ascontiguousarray(strided[..., 1]).reshape(40, 64), a[:, :40].T)
        assert not strided[..., [0, 2]].any()


def test_transpose_into_float32_on_trn1(level, monkeypatch):
    """Without a transpose mode the Tensor Engine multiplies, and its sums are float32."""
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn1")
    a = integers((64, 100), BF16, low=-100, high=100)

    def kernel(a):
        out = nl.ndarray((100, 64), nl.float32, buffer=nl.psum)
        nisa.nc_transpose(out, load(a))
        return store(out)

    for result in both(kernel, a):
        np.testing.assert_array_equal(result, a.T.astype(np.float32))


def test_transpose_overwrites_psum():
    a = special((64, 64), np.float32)

    def kernel(a):
        tile = load(a)
        out = nl.ndarray((64, 64), nl.float32, buffer=nl.psum)
        nisa.nc_matmul(out, tile, tile)
        nisa.nc_transpose(out, tile)
        return store(out)

    for result in both(kernel, a):
        assert_same_bits(result, a.T)
