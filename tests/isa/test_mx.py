"""quantize_mx and nc_matmul_mx: compiled and simulated results against independent NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from isa_testing import CPU_LEVELS, both, new, outputs, tile

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import (
    FreeSizeExceeded,
    InvalidOperand,
    PartitionLimitExceeded,
    ShapeMismatch,
    UninitializedRead,
    UnsupportedDtype,
    UnsupportedOnTarget,
    WrongMemory,
)

BF16 = ml_dtypes.bfloat16
ELEMENTS = {
    "float8_e4m3fn_x4": (ml_dtypes.float8_e4m3fn, 8, 448.0),
    "float8_e5m2_x4": (ml_dtypes.float8_e5m2, 15, 57344.0),
    "float4_e2m1fn_x4": (ml_dtypes.float4_e2m1fn, 2, 6.0),
}
FP8 = ("float8_e4m3fn_x4", "float8_e5m2_x4")


@pytest.fixture(autouse=True)
def trn3(monkeypatch):
    """Both instructions need it."""
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")


@pytest.fixture(params=CPU_LEVELS)
def level(request, monkeypatch):
    """Every CPU level in turn."""
    monkeypatch.setenv("NKILITE_CPU", request.param)
    return request.param


# --- independent arithmetic ---------------------------------------------------------------------------------


def floor_log2(value: float) -> int:
    return int(np.frexp(np.float64(value))[1]) - 1


def quantized(values: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Elements (float64) and biased exponents of finite values, group by group."""
    element, top, _ = ELEMENTS[dtype]
    result, scales = np.zeros(values.shape), np.zeros((values.shape[0] // 8, values.shape[1] // 4), np.uint8)
    for p in range(0, values.shape[0], 8):
        for f in range(0, values.shape[1], 4):
            group = values[p : p + 8, f : f + 4].astype(np.float64)
            largest = np.abs(group).max()
            power = max(floor_log2(largest) - (top - 1), -127) if largest else -127
            scales[p // 8, f // 4] = power + 127
            result[p : p + 8, f : f + 4] = (group / 2.0**power).astype(np.float32).astype(element).astype(np.float64)
    return result, scales


def packed(elements: np.ndarray, dtype: str) -> np.ndarray:
    """Words of four neighbouring elements."""
    codes = elements.astype(np.float32).astype(ELEMENTS[dtype][0]).view(np.uint8).astype(np.uint32)
    bits = 4 if dtype.startswith("float4") else 8
    words = sum(codes[:, i::4] << (bits * i) for i in range(4))
    return words.astype(np.uint16 if bits == 4 else np.uint32)


def scattered(scales: np.ndarray, partitions: int, fill: int = 255, dtype=np.uint8) -> np.ndarray:
    """Rows of scales where a tile has them: the first four of every 32 partitions."""
    rows = np.full((partitions, scales.shape[1]), fill, np.uint8)
    for group, row in enumerate(scales):
        rows[group // 4 * 32 + group % 4] = row
    return rows.view(dtype)


def gathered(tile: np.ndarray, partitions: int) -> np.ndarray:
    return np.concatenate([tile[q : q + 4] for q in range(0, partitions, 32)])


def dequantized(elements: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Values as (partition, word, element)."""
    powers = np.repeat(2.0 ** (scales.astype(np.float64) - 127), 8, axis=0)
    return elements.reshape(elements.shape[0], -1, 4) * powers[:, :, None]


def contracted(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("kmi,kni->mn", left, right)


def spread(shape: tuple[int, ...], dtype=BF16, seed: int = 0) -> np.ndarray:
    """Values whose magnitudes differ by many powers of two, with some zeros."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) * 2.0 ** rng.integers(-12, 12, shape)
    return np.where(rng.random(shape) < 0.05, 0, values).astype(np.float32).astype(dtype)


# --- quantize_mx --------------------------------------------------------------------------------------------


def quantize(dtype: str, scale_dtype: str = "uint8", rows: int | None = None):
    """A kernel that quantizes; words come back as integers, scales in a tile of `rows` partitions."""

    def kernel(x):
        p, f = x.shape
        words = new((p, f // 4), dtype)
        scales = new((rows or (4 if p == 32 else p), f // 4), scale_dtype)
        nisa.memset(scales, 0)
        nisa.quantize_mx(words, tile(x), scales)
        return outputs(words.view(nl.uint32), scales.view(nl.uint8))

    return kernel


@pytest.mark.parametrize("shape", [(128, 512), (32, 4), (64, 36), (96, 100), (128, 148), (32, 256)], ids=str)
@pytest.mark.parametrize("source", [BF16, np.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("dtype", FP8)
def test_quantize(level, dtype, source, shape):
    x = spread(shape, source)
    elements, scales = quantized(x, dtype)
    words, found = both(quantize(dtype), x)
    np.testing.assert_array_equal(words, packed(elements, dtype))
    np.testing.assert_array_equal(gathered(found, shape[0]) if shape[0] > 32 else found, scales)


@pytest.mark.parametrize("dtype", FP8)
def test_quantize_of_extremes(level, dtype):
    """Groups of zeros and of subnormals, of the largest values, of values that round up to a power of two."""
    x = np.zeros((32, 24), BF16)
    x[:, 4:8] = np.float32(2.0**-133)
    x[3, 8:12], x[4, 9] = ml_dtypes.finfo(BF16).max, ml_dtypes.finfo(BF16).min
    x[:, 12:16] = 0.998046875
    x[0, 16:20], x[1, 16] = np.float32(2.0**-126), -0.0
    x[:, 20:] = np.float32(2.0**127)
    elements, scales = quantized(x, dtype)
    words, found = both(quantize(dtype), x)
    np.testing.assert_array_equal(words, packed(elements, dtype))
    np.testing.assert_array_equal(found, scales)
    assert scales[0].tolist()[:2] == [0, 0]


@pytest.mark.parametrize("source", [BF16, np.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("dtype", FP8)
def test_infinity_saturates_and_nan_stays(level, dtype, source):
    element, top, largest = ELEMENTS[dtype]
    x = np.ones((32, 12), source)
    x[2, 1], x[5, 3], x[7, 6] = np.inf, -np.inf, np.nan
    words, scales = both(quantize(dtype), x)
    values = words.view(element).astype(np.float32)
    assert values[2, 1] == largest
    assert values[5, 3] == -largest
    assert np.argwhere(np.isnan(values)).tolist() == [[7, 6]]
    assert scales[0].tolist() == [255 - (top - 1)] * 2 + [127 - (top - 1)]
    assert not values[:2, :4].any()


def test_quantize_writes_scale_rows_only(level):
    """Two sets of scales share a tile, the second four rows later; all other rows stay."""
    a, b = spread((128, 64), seed=1), spread((128, 128), seed=2)

    def kernel(a, b):
        scales = new((128, 32), "float8_e8m0fnu")
        nisa.memset(scales.view(nl.uint8), 77)
        for x, rows in ((a, scales[0:, :16]), (b, scales[4:, :])):
            words = new((128, x.shape[1] // 4), "float8_e5m2_x4")
            nisa.quantize_mx(words, tile(x), rows)
        return outputs(scales.view(nl.uint8))

    (found,) = both(kernel, a, b)
    first, second = (quantized(x, "float8_e5m2_x4")[1] for x in (a, b))
    expected = np.full((128, 32), 77, np.uint8)
    for group in range(16):
        row = group // 4 * 32 + group % 4
        expected[row, :16], expected[row + 4] = first[group], second[group]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scale_dtype", ["uint8", "float8_e8m0fnu"])
@pytest.mark.parametrize("order", [(0, 4), (4, 0), (8, 12, 0, 4)], ids=str)
def test_quantize_zeroes_scale_rows_that_nothing_wrote(scale_dtype, order):
    """Scales of several tiles share one in any order; rows of none of them are 0."""
    given = [spread((64, 64), seed=row) for row in order]

    def kernel(*given):
        scales = new((max(order) + 36, 16), scale_dtype)
        for row, x in zip(order, given, strict=True):
            words = new((64, 16), "float8_e4m3fn_x4")
            nisa.quantize_mx(words, tile(x), scales[row:row + 36])
        return outputs(scales.view(nl.uint8))

    (found,) = both(kernel, *given)
    expected = np.zeros((max(order) + 36, 16), np.uint8)
    for row, x in zip(order, given, strict=True):
        scales = quantized(x, "float8_e4m3fn_x4")[1]
        expected[row:row + 4], expected[row + 32:row + 36] = scales[:4], scales[4:]
    np.testing.assert_array_equal(found, expected)


def test_quantize_in_a_loop_of_the_device_zeroes_before_it():
    """A scale tile made before the loop keeps the rows that an earlier iteration wrote."""
    x = spread((64, 64), seed=3)

    def kernel(x):
        scales, source, nines = new((64, 16), "uint8"), tile(x), new((4, 16), "uint8")
        nisa.memset(nines, 9)
        for _ in nl.dynamic_range(3):
            words = new((64, 16), "float8_e4m3fn_x4")
            nisa.quantize_mx(words, source, scales)
            nisa.dma_copy(scales[4:8], nines)
        return outputs(scales)

    (found,) = both(kernel, x)
    scales = quantized(x, "float8_e4m3fn_x4")[1]
    np.testing.assert_array_equal(found[:4], scales[:4])
    np.testing.assert_array_equal(found[32:36], scales[4:])
    assert (found[4:8] == 9).all()
    assert not found[8:32].any() and not found[36:].any()


def test_quantize_keeps_rows_of_a_tile_with_an_address():
    """Another tile at the same place may have written them."""
    x = spread((64, 64), seed=3)

    def kernel(x):
        whole = nl.ndarray((64, 16), dtype=nl.uint8, buffer=nl.sbuf, address=(0, 1024))
        nisa.memset(whole, 7)
        scales = nl.ndarray((64, 16), dtype=nl.float8_e8m0fnu, buffer=nl.sbuf, address=(0, 1024))
        nisa.quantize_mx(new((64, 16), "float8_e4m3fn_x4"), tile(x), scales)
        return outputs(whole)

    (found,) = both(kernel, x)
    assert (found[4:32] == 7).all() and (found[36:] == 7).all()


def test_quantize_access_patterns(level):
    """Strided sources, and destinations that are windows of larger tiles."""
    x = spread((64, 12 * 40))

    def kernel(x):
        source = tile(x).reshape((64, 12, 40)).permute((0, 2, 1))[:, 3:35, 4:]  # 32 rows of 2 words, neighbours apart
        words, scales = new((64, 40, 5), "float8_e4m3fn_x4"), new((64, 40, 5), "uint8")
        nisa.memset(words, 0)
        nisa.memset(scales, 0)
        nisa.quantize_mx(words[:, 8:40, 1:3], source, scales[:, 8:40, 1:3])
        return outputs(words.view(nl.uint32), scales)

    words, scales = both(kernel, x)
    values = x.reshape(64, 12, 40).transpose(0, 2, 1)[:, 3:35, 4:].reshape(64, -1)
    elements, expected = quantized(values, "float8_e4m3fn_x4")
    np.testing.assert_array_equal(words[:, 8:40, 1:3].reshape(64, -1), packed(elements, "float8_e4m3fn_x4"))
    np.testing.assert_array_equal(gathered(scales[:, 8:40, 1:3].reshape(64, -1), 64), expected)
    assert not words[:, :8].any()
    assert not words[:, :, [0, 3, 4]].any()
    assert not scales[[4, 31, 36, 63]].any()


def test_large_windows():
    """Megabytes whose rows are not dense pass through scratch a few rows at a time."""
    x = spread((128, 16 * 1024))

    def kernel(x):
        words, scales = new((128, 16, 256), "float8_e5m2_x4"), new((128, 16, 256), "uint8")
        nisa.memset(words, 0)
        nisa.memset(scales, 0)
        source = tile(x).reshape((128, 16, 1024))[:, :, :1000]
        nisa.quantize_mx(words[:, :, :250], source, scales[:, :, :250])
        return outputs(words.view(nl.uint32), scales)

    words, scales = both(kernel, x)
    values = x.reshape(128, 16, 1024)[:8, 3, 8:12].astype(np.float32)
    power = floor_log2(np.abs(values).max()) - 14
    assert scales[0, 3, 2] == power + 127
    expected = (values / 2.0**power).astype(ml_dtypes.float8_e5m2)
    np.testing.assert_array_equal(words[:8, 3, 2], expected.view(np.uint32)[:, 0])


# --- nc_matmul_mx -------------------------------------------------------------------------------------------


def product(left: str, right: str, dst: str = "float32", scale_dtype: str = "uint8", times: int = 1, **options):
    """A kernel that multiplies packed words with their scales `times` times."""

    def kernel(a, a_scale, b, b_scale):
        out = new((a.shape[1], b.shape[1]), dst, nl.psum)
        given = [tile(a).view(left), tile(b).view(right)]
        scales = [tile(x).view(scale_dtype) for x in (a_scale, b_scale)]
        for _ in range(times):
            nisa.nc_matmul_mx(out, *given, *scales, **options)
        return outputs(out)

    return kernel


def operand(dtype: str, k: int, n: int, seed: int, small: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words, scattered scales and values of random elements; `small` integers make exact sums."""
    rng = np.random.default_rng(seed)
    if small:
        elements = rng.integers(-2, 3, (k, 4 * n)).astype(np.float64)
        scales = rng.integers(126, 129, (k // 8, n)).astype(np.uint8)
    else:
        element, _, top = ELEMENTS[dtype]
        drawn = np.clip(rng.standard_normal((k, 4 * n)) * top / 4, -top, top)
        elements = drawn.astype(np.float32).astype(element).astype(np.float64)
        scales = rng.integers(110, 130, (k // 8, n)).astype(np.uint8)
    return packed(elements, dtype), scales if k == 32 else scattered(scales, k), dequantized(elements, scales)


SHAPES = [(128, 128, 512), (32, 2, 1), (64, 6, 17), (96, 100, 130), (128, 128, 3), (32, 128, 40), (128, 30, 300)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", list(ELEMENTS))
def test_product_of_integers_is_exact(level, dtype, shape):
    k, m, n = shape
    a, a_scale, left = operand(dtype, k, m, 0, small=True)
    b, b_scale, right = operand(dtype, k, n, 1, small=True)
    (found,) = both(product(dtype, dtype), a, a_scale, b, b_scale)
    np.testing.assert_array_equal(found, contracted(left, right))


@pytest.mark.parametrize("right", list(ELEMENTS))
@pytest.mark.parametrize("left", list(ELEMENTS))
def test_formats_mix(level, left, right):
    a, a_scale, x = operand(left, 128, 64, 2)
    b, b_scale, y = operand(right, 128, 96, 3)
    kernel = product(left, right, scale_dtype="float8_e8m0fnu")
    sizes = contracted(np.abs(x), np.abs(y))
    for found in (nki.jit(kernel)(a, a_scale, b, b_scale)[0], nki.simulate(kernel)(a, a_scale, b, b_scale)[0]):
        assert np.max(np.abs(found - contracted(x, y)) / sizes) < 512 * 2.0**-24


def test_every_element_value(level):
    """All codes of every format but NaN and infinities, times one."""
    for dtype, (element, _, _) in ELEMENTS.items():
        bits = 4 if dtype.startswith("float4") else 8
        codes = np.arange(1 << bits).astype(np.uint8)
        codes = codes[np.isfinite(codes.view(element).astype(np.float32))]
        values = codes.view(element).astype(np.float64)
        elements = np.zeros((32, 4 * len(values)))
        elements[5, 1::4] = values
        ones = np.zeros((32, 8))
        ones[5, 1::4] = 1
        scales = np.full((4, len(values)), 127, np.uint8)
        (found,) = both(product(dtype, dtype), packed(ones, dtype), scales[:, :2], packed(elements, dtype), scales)
        np.testing.assert_array_equal(found, np.stack([values, values]))


def test_special_scales_and_elements(level):
    """A scale of 255 and NaN elements spoil their columns; 0 stands for 2 ** -127; large products overflow."""
    dtype = "float8_e5m2_x4"
    a = packed(np.eye(32, 8) + np.roll(np.eye(32, 8), 9, axis=0), dtype)
    b = packed(np.ones((32, 24)), dtype)
    b[9, 4] |= 0x7F  # NaN
    b[9, 5] ^= 0x3C ^ 0x7C  # infinity in the place of one
    a_scale, b_scale = np.full((4, 2), 127, np.uint8), np.full((4, 6), 127, np.uint8)
    lowest = 1 if level in ("amx", "avx512_bf16") else 0  # these take subnormal values as zero
    b_scale[1, 1], b_scale[:, 2], b_scale[:, 3] = 255, lowest, 254
    (found,) = both(product(dtype, dtype), a, a_scale, b, b_scale)
    np.testing.assert_array_equal(found[:, 0], [8, 8])
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_array_equal(found[:, 2], [8 * 2.0 ** (lowest - 127)] * 2)
    assert np.isposinf(found[:, 3]).all()
    assert np.isnan(found[:, 4]).all()
    assert np.isnan(found[:, 5]).tolist() == [False, True]  # zero times infinity
    assert found[0, 5] == np.inf


@pytest.mark.parametrize("dst", ["float32", "bfloat16"])
def test_accumulate(level, dst):
    a, a_scale, x = operand("float4_e2m1fn_x4", 64, 40, 5, small=True)
    b, b_scale, y = operand("float8_e4m3fn_x4", 64, 200, 6, small=True)
    once = contracted(x, y)
    for options, times in (({}, 3), ({"accumulate": False}, 1), ({"accumulate": None}, 3)):
        kernel = product("float4_e2m1fn_x4", "float8_e4m3fn_x4", dst, times=3, **options)
        (found,) = both(kernel, a, a_scale, b, b_scale)
        expected = np.zeros_like(once, np.float32)
        for _ in range(times):
            expected = (expected + once).astype(np.float32)
            expected = expected.astype(BF16).astype(np.float32) if dst == "bfloat16" else expected
        np.testing.assert_array_equal(found.astype(np.float32), expected)


def test_rows_of_other_scales_do_not_matter(level):
    """Scales of both operands in one tile, the moving ones four rows later and over more columns."""
    a, a_scale, x = operand("float8_e5m2_x4", 128, 16, 7, small=True)
    b, b_scale, y = operand("float8_e5m2_x4", 128, 48, 8, small=True)
    shared = np.full((128, 48), 255, np.uint8)
    for q in range(0, 128, 32):
        shared[q : q + 4, :16], shared[q + 4 : q + 8] = a_scale[q : q + 4], b_scale[q : q + 4]

    def kernel(a, b, scales):
        out, scales = new((16, 48), buffer=nl.psum), tile(scales)
        left, right = tile(a).view("float8_e5m2_x4"), tile(b).view("float8_e5m2_x4")
        nisa.nc_matmul_mx(out, left, right, scales[0:, :16], scales[4:, :])
        return outputs(out)

    (found,) = both(kernel, a, b, shared)
    np.testing.assert_array_equal(found, contracted(x, y))


@pytest.mark.filterwarnings("error")
def test_rows_without_scales_need_no_values():
    """Scales loaded quadrant by quadrant leave the rest of their tile as it was."""
    a, a_scale, x = operand("float8_e5m2_x4", 64, 16, 7, small=True)
    b, b_scale, y = operand("float8_e5m2_x4", 64, 48, 8, small=True)

    def kernel(a, a_scale, b, b_scale, loads):
        out = new((16, 48), buffer=nl.psum)
        scales = [new(s.shape, "uint8") for s in (a_scale, b_scale)]
        for to, source in zip(scales, (a_scale, b_scale), strict=True):
            for q in range(0, 64, 32)[:loads]:
                nisa.dma_copy(to[q : q + 4], source[q : q + 4])
        nisa.nc_matmul_mx(out, tile(a).view("float8_e5m2_x4"), tile(b).view("float8_e5m2_x4"), *scales)
        return outputs(out)

    (found,) = both(lambda *arrays: kernel(*arrays, 2), a, a_scale, b, b_scale)
    np.testing.assert_array_equal(found, contracted(x, y))
    for run in (nki.jit, nki.simulate):
        with pytest.raises(UninitializedRead, match="stationary_scale"):
            run(lambda *arrays: kernel(*arrays, 0))(a, a_scale, b, b_scale)


@pytest.mark.parametrize("dtype", list(ELEMENTS))
def test_access_patterns(level, dtype):
    """Windows and strides of operands and scales; a result whose free dimensions have no common stride."""
    a, a_scale, x = operand(dtype, 64, 48, 9, small=True)
    b, b_scale, y = operand(dtype, 64, 120, 10, small=True)

    def views(words, scales):
        return [t.reshape((64, 4, -1))[:, 1:3, 2:10] for t in (words, scales)]

    def kernel(a, a_scale, b, b_scale):
        left, left_scale = views(tile(a).view(dtype), tile(a_scale))
        right, right_scale = (t[:, 3::2] for t in (tile(b).view(dtype), tile(b_scale)))
        out = new((16, 2, 59), buffer=nl.psum)
        swapped = new((16, 10, 12), buffer=nl.psum)
        nisa.memset(out, 7.0)
        nisa.nc_matmul_mx(out[:, 1, :], left, right, left_scale, right_scale, accumulate=False)
        whole, whole_scale = tile(b).view(dtype), tile(b_scale)
        for _ in range(2):
            nisa.nc_matmul_mx(swapped.permute((0, 2, 1)), left, whole, left_scale, whole_scale)
        return outputs(out, swapped)

    out, swapped = both(kernel, a, a_scale, b, b_scale)
    left = x.reshape(64, 4, -1, 4)[:, 1:3, 2:10].reshape(64, 16, 4)
    np.testing.assert_array_equal(out[:, 1], contracted(left, y[:, 3::2]))
    np.testing.assert_array_equal(out[:, 0], np.full((16, 59), 7))
    np.testing.assert_array_equal(swapped.transpose(0, 2, 1).reshape(16, 120), 2 * contracted(left, y))


def test_long_moving_operand(monkeypatch):
    a, a_scale, x = operand("float8_e4m3fn_x4", 32, 8, 11, small=True)
    b, b_scale, y = operand("float8_e4m3fn_x4", 32, 8192, 12, small=True)
    (found,) = both(product("float8_e4m3fn_x4", "float8_e4m3fn_x4", "bfloat16"), a, a_scale, b, b_scale)
    np.testing.assert_array_equal(found, contracted(x, y).astype(np.float32).astype(BF16))


def test_array_tiles_do_not_change_results():
    a, a_scale, x = operand("float8_e4m3fn_x4", 32, 8, 13, small=True)
    b, b_scale, y = operand("float8_e4m3fn_x4", 32, 24, 14, small=True)
    options = {"tile_position": (96, 0), "tile_size": (32, 128)}
    (found,) = both(product("float8_e4m3fn_x4", "float8_e4m3fn_x4", **options), a, a_scale, b, b_scale)
    np.testing.assert_array_equal(found, contracted(x, y))


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    a, a_scale, _ = operand("float8_e4m3fn_x4", 128, 128, 15)
    b, b_scale, _ = operand("float8_e5m2_x4", 128, 400, 16)
    source = spread((128, 1600))

    def kernel(a, a_scale, b, b_scale, source):
        (out,) = product("float8_e4m3fn_x4", "float8_e5m2_x4")(a, a_scale, b, b_scale)
        return (out, *quantize("float8_e4m3fn_x4")(source))

    results = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("NKILITE_NUM_THREADS", threads)
        results.append(nki.jit(kernel)(a, a_scale, b, b_scale, source))
    for other in results[1:]:
        for left, right in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(left, right)


def test_quantize_then_multiply_comes_near_the_product(level):
    """What the formats are for: K of 512 in one instruction, at the precision of an element."""
    x, y = (np.random.default_rng(s).standard_normal((128, 4 * n)).astype(BF16) for s, n in ((17, 64), (18, 256)))

    def kernel(x, y):
        parts = []
        for data in (x, y):
            words, scales = new((128, data.shape[1] // 4), "float8_e4m3fn_x4"), new((128, data.shape[1] // 4), "uint8")
            nisa.quantize_mx(words, tile(data), scales)
            parts.append((words, scales))
        out = new((64, 256), buffer=nl.psum)
        (left, left_scale), (right, right_scale) = parts
        nisa.nc_matmul_mx(out, left, right, left_scale, right_scale)
        return outputs(out)

    (found,) = both(kernel, x, y, rtol=1e-4, atol=1e-3)
    exact = contracted(*(v.astype(np.float64).reshape(128, -1, 4) for v in (x, y)))
    assert np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)) < 2.0**-4


# --- what is refused ----------------------------------------------------------------------------------------


def refuses(error: type[Exception], match: str, body) -> None:
    """Require that a body, given tiles that fit, fails traced and simulated alike."""

    def kernel(x):
        words, scales = new((64, 8), "float8_e4m3fn_x4"), new((64, 8), "uint8")
        body(src=tile(x), words=words, scales=scales, out=new((8, 8), buffer=nl.psum))
        return x

    for run in (nki.jit, nki.simulate):
        with pytest.raises(error, match=match):
            run(kernel)(np.zeros((64, 32), BF16))


QUANTIZE = {
    "a destination in PSUM": (
        WrongMemory, "dst is in PSUM", lambda s, w, c: (new((64, 8), "float8_e4m3fn_x4", nl.psum), s, c)),
    "a source in PSUM": (WrongMemory, "src is in PSUM", lambda s, w, c: (w, new((64, 32), "bfloat16", nl.psum), c)),
    "float32": (UnsupportedDtype, "src", lambda s, w, c: (w, new((64, 32)), c)),
    "float4": (UnsupportedDtype, "dst", lambda s, w, c: (new((64, 8), "float4_e2m1fn_x4"), s, c)),
    "scales of int8": (UnsupportedDtype, "dst_scale", lambda s, w, c: (w, s, new((64, 8), "int8"))),
    "half a quadrant": (ShapeMismatch, "multiple of 32", lambda s, w, c: (w[:48], s[:48], c)),
    "parts of words": (ShapeMismatch, r"64 partitions of 7.5", lambda s, w, c: (w, s[:, :30], c)),
    "other partitions": (ShapeMismatch, "64 partitions of 8", lambda s, w, c: (w[:32], s, c)),
    "few scale rows": (ShapeMismatch, "at least 36 partitions", lambda s, w, c: (w, s, c[:35])),
    "few scales": (ShapeMismatch, "of 8 elements", lambda s, w, c: (w, s, c[:, :7])),
}


@pytest.mark.parametrize("case", list(QUANTIZE))
def test_quantize_refuses(case):
    error, match, choose = QUANTIZE[case]
    refuses(error, match, lambda src, words, scales, out: nisa.quantize_mx(*choose(src, words, scales)))


MULTIPLY = {
    "a result in SBUF": (WrongMemory, "dst is in SBUF", lambda o, w, c: (new((8, 8)), w, w, c, c)),
    "operands in PSUM": (
        WrongMemory, "moving is in PSUM",
        lambda o, w, c: (o, w, new((64, 8), "float8_e4m3fn_x4", nl.psum), c, c)),
    "operands without scales": (UnsupportedDtype, "stationary", lambda o, w, c: (o, new((64, 8), "bfloat16"), w, c, c)),
    "a float16 result": (UnsupportedDtype, "dst", lambda o, w, c: (new((8, 8), "float16", nl.psum), w, w, c, c)),
    "scales of int8": (UnsupportedDtype, "moving_scale", lambda o, w, c: (o, w, w, c, new((64, 8), "int8"))),
    "half a quadrant": (ShapeMismatch, "multiple of 32", lambda o, w, c: (o, w[:16], w[:16], c, c)),
    "an odd width": (ShapeMismatch, "even", lambda o, w, c: (o[:7], w[:, :7], w, c[:, :7], c)),
    "other partitions": (ShapeMismatch, "64 partitions and moving", lambda o, w, c: (o, w, w[:32], c, c)),
    "another result": (ShapeMismatch, "make 8 partitions of 8", lambda o, w, c: (o[:, :4], w, w, c, c)),
    "few scale rows": (ShapeMismatch, "stationary_scale.*at least 36", lambda o, w, c: (o, w, w, c[:4], c)),
    "few scales": (ShapeMismatch, "moving_scale.*of 8 elements", lambda o, w, c: (o, w, w, c, c[:, :4])),
    "a wide operand": (
        FreeSizeExceeded, "stationary has 130",
        lambda o, w, c: (o, new((64, 130), "float8_e4m3fn_x4"), w, new((64, 130), "uint8"), c)),
    "a long operand": (
        FreeSizeExceeded, "moving has 4097",
        lambda o, w, c: (o, w, new((64, 4097), "float8_e4m3fn_x4"), c, new((64, 4097), "uint8"))),
}


@pytest.mark.parametrize("case", list(MULTIPLY))
def test_multiplication_refuses(case):
    error, match, choose = MULTIPLY[case]
    refuses(error, match, lambda src, words, scales, out: nisa.nc_matmul_mx(*choose(out, words, scales)))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"tile_position": (0, 0), "tile_size": (64, 64)}, InvalidOperand, "128 columns for MX operands"),
        ({"tile_position": (32, 0), "tile_size": (64, 128)}, InvalidOperand, "multiples of tile_size"),
        ({"tile_position": (32, 0), "tile_size": (32, 128)}, PartitionLimitExceeded, "limit is 32"),
    ],
    ids=["columns", "position", "rows"],
)
def test_array_tiles_are_checked(options, error, match):
    refuses(error, match, lambda src, words, scales, out: nisa.nc_matmul_mx(
        out, words, words, scales, scales, **options))


@pytest.mark.parametrize("target", ["trn1", "trn2"])
def test_older_chips_have_neither(monkeypatch, target):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)
    refuses(UnsupportedOnTarget, "trn3", lambda src, words, scales, out: nisa.quantize_mx(words, src, scales))
    refuses(UnsupportedOnTarget, "trn3", lambda src, words, scales, out: nisa.nc_matmul_mx(
        out, words, words, scales, scales))


def test_the_scale_of_older_releases(monkeypatch, tmp_path):
    """One field of a target decides how much room a scale leaves for rounding up."""
    older = tmp_path / "older.toml"
    older.write_text('inherits = "trn3"\nquantize_mx_spare_exponent = 0\n')

    def kernel(x):
        data, scale = nl.ndarray((32, 2), nl.float8_e4m3fn_x4), nl.ndarray((4, 2), nl.uint8)
        nisa.quantize_mx(data, nl.load(x), scale)
        out = nl.ndarray(scale.shape, scale.dtype, nl.shared_hbm)
        nl.store(out, scale)
        return out

    x = np.full((32, 8), 3.0, np.float16)  # of exponent 1, where the largest element has 8
    for target, exponent in (("trn3", 1 - 8 + 1), (str(older), 1 - 8)):
        monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)
        for run in (nki.jit, nki.simulate):
            assert (run(kernel)(x) == 127 + exponent).all()
