"""cFP8: every value of its formats and biases, and how they go through engines, DMA and the Tensor Engine."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import dtypes, errors
from nkilite.dtypes import BIASABLE, as_dtype
from nkilite.host.cpu import available
from nkilite.ir import parse_program
from nkilite.testing import first_difference

# Exponent bits, mantissa bits and usual bias, as the formats are published, and whether the last exponent is special.
PUBLISHED = {
    "float8_e3m4": (3, 4, 3, True), "float8_e4m3": (4, 3, 7, True), "float8_e5m2": (5, 2, 15, True),
    "float8_e4m3fn": (4, 3, 7, False),
}
BIASES = (0, 1, 9, 20, 63)
KINDS = [*map(as_dtype, PUBLISHED), *(nl.cfp8(d, b) for d in BIASABLE for b in BIASES)]
BYTES = np.arange(256, dtype=np.uint8)


def decoded(byte: int, kind: dtypes.DType) -> float:
    """What a byte means, from the bits up."""
    exponent_bits, mantissa_bits, bias, special = PUBLISHED[str(kind.base)]
    bias = bias if kind.base is kind else int(str(kind).rsplit("bias", 1)[1])
    sign = -1.0 if byte >> 7 else 1.0
    exponent, mantissa = byte >> mantissa_bits & (1 << exponent_bits) - 1, byte & (1 << mantissa_bits) - 1
    if exponent == (1 << exponent_bits) - 1 and (special or mantissa == (1 << mantissa_bits) - 1):
        return sign * math.inf if special and not mantissa else math.nan
    if exponent == 0:
        return sign * math.ldexp(mantissa, 1 - bias - mantissa_bits)
    return sign * math.ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_all_values(kind):
    expected = np.array([decoded(b, kind) for b in BYTES.tolist()])
    found = kind.from_bits(BYTES)
    np.testing.assert_array_equal(found, expected)
    assert np.array_equal(np.signbit(found), BYTES >= 128)
    assert np.array_equal(kind.to_bits(found)[~np.isnan(expected)].view(np.uint8), BYTES[~np.isnan(expected)])
    assert np.isnan(kind.from_bits(kind.to_bits(np.float32("nan"))))
    if kind.is_biased:  # payloads of NaN stay what they are where elements are moved
        assert np.array_equal(dtypes.stored(dtypes.elements(BYTES, kind), kind), BYTES)


def nearest(value: float, kind: dtypes.DType) -> float:
    """Rounded to nearest even, by looking through all values."""
    table = sorted((abs(v), b) for b in range(128) if not math.isnan(v := decoded(b, kind)))
    finite = [(v, b) for v, b in table if math.isfinite(v)]
    beyond = finite[-1][0] + (finite[-1][0] - finite[-2][0]), finite[-1][1] + 1
    magnitude = abs(value)
    low = max((p for p in [*finite, beyond] if p[0] <= magnitude), default=finite[0])
    high = min((p for p in [*finite, beyond] if p[0] >= magnitude), default=beyond)
    chosen = min((magnitude - low[0], low[1] & 1, low), (high[0] - magnitude, high[1] & 1, high))[2]
    result = decoded(chosen[1], kind) if chosen != beyond else (math.inf if PUBLISHED[str(kind.base)][3] else math.nan)
    return math.copysign(result, value)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(KINDS), st.floats(width=32, allow_nan=False))
def test_rounding(kind, value):
    np.testing.assert_equal(float(kind.from_bits(kind.to_bits(np.float32(value)))), nearest(value, kind))


def through_engines(x, stored, dtype):
    """Numbers to a dtype by an engine and by DMA, bytes moved and read, in place and one at a time."""
    tile, moved = nl.load(x), nl.load(stored).view(dtype)
    cast = nl.ndarray(x.shape, dtype=dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(cast, tile, nl.multiply, 0.75)
    by_dma = nl.ndarray(x.shape, dtype=dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(by_dma, x)
    copied = nl.ndarray(x.shape, dtype=dtype, buffer=nl.sbuf)
    nisa.tensor_copy(copied[:, ::2], moved[:, ::2])
    nisa.memset(copied[:, 1::2], 0.3)
    wide = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(wide, moved, cast, nl.add)
    nisa.tensor_tensor(cast, cast, moved, nl.maximum)
    results = [by_dma]
    for source in (cast, copied, wide):
        out = nl.ndarray(x.shape, dtype=source.dtype, buffer=nl.shared_hbm)
        nl.store(out, source)
        results.append(out)
    return tuple(results)


@pytest.mark.parametrize("level", list(available()))
def test_engines_and_dma(monkeypatch, level):
    monkeypatch.setenv("NKILITE_CPU", level)
    monkeypatch.setenv("NKILITE_VERIFY", "1")
    rng = np.random.default_rng(0)
    for kind in (nl.float8_e3m4, nl.cfp8(nl.float8_e4m3, 11), nl.cfp8("float8_e5m2", 3), nl.cfp8("float8_e3m4", 40)):
        x = (rng.standard_normal((64, 64)) * middle(kind)).astype(np.float32)
        x[0, :6] = [0, -0.0, np.inf, -np.inf, np.nan, 1e-30]
        stored = np.tile(BYTES, 16).reshape(64, 64)
        simulated = nki.simulate(through_engines)(x, stored, kind)
        compiled = nki.jit(through_engines)(x, stored, kind)
        cast, values = (lambda v, kind=kind: kind.from_bits(kind.to_bits(v))), kind.from_bits(stored)
        with np.errstate(invalid="ignore"):
            scaled = cast(x * np.float32(0.75))
            expected = [cast(x), np.maximum(scaled, values), np.where(np.arange(64) % 2, cast(0.3), values),
                        values + scaled]
        for one, other, wanted in zip(simulated, compiled, expected, strict=True):
            left, right = (a if a.dtype == np.float32 else kind.from_bits(a) for a in (one, other))
            np.testing.assert_array_equal(left, right)
            known = ~np.isnan(wanted) & ~np.isnan(left)
            np.testing.assert_array_equal(left[known], wanted[known])
        moved = (slice(None), slice(None, None, 2))
        for found in (simulated[2], compiled[2]):
            assert np.array_equal(found.view(np.uint8)[moved], stored[moved])


def middle(kind):
    """A number in the middle of a dtype's range."""
    return 1.0 if kind.itemsize > 1 else kind.from_bits(np.array([0x30], np.uint8))[0]


def product(a, b, left, right):
    sums = nl.ndarray((128, 96), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(sums, nl.load(a).view(left), nl.load(b).view(right))
    result = nl.ndarray((128, 96), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(result, sums)
    out = nl.ndarray((128, 96), dtype=nl.float32, buffer=nl.shared_hbm)
    nl.store(out, result)
    return out


@pytest.mark.parametrize(
    ("left", "right"),
    [(nl.float8_e3m4, nl.float8_e5m2), (nl.cfp8("float8_e4m3", 10), nl.float8_e3m4),
     (nl.cfp8("float8_e3m4", 0), nl.cfp8("float8_e5m2", 30)), (nl.cfp8("float8_e4m3", 1), nl.bfloat16)],
    ids=str,
)
def test_products(left, right):
    """A bias is a power of two in front of the product."""
    rng = np.random.default_rng(0)
    a, b = (kind.to_bits(rng.standard_normal((128, n)) * middle(kind)) for kind, n in ((left, 128), (right, 96)))
    exact = left.from_bits(a).astype(np.float64).T @ right.from_bits(b).astype(np.float64)
    bound = np.abs(left.from_bits(a)).astype(np.float64).T @ np.abs(right.from_bits(b)).astype(np.float64) * 2.0**-18
    for run in (nki.simulate(product), nki.jit(product)):
        found = run(a.view(np.uint8) if left.itemsize == 1 else a, b.view(np.uint8) if right.itemsize == 1 else b,
                    left, right)
        assert (np.abs(found - exact) <= bound).all()


def test_names_and_text():
    kind = nl.cfp8(nl.float8_e4m3, 11)
    assert kind == "float8_e4m3_bias11" and kind is as_dtype("float8_e4m3_bias11") and kind != np.uint8
    assert kind != nl.uint8 and kind.base is nl.float8_e4m3 and nl.cfp8("float8_e4m3", 7) is nl.float8_e4m3
    assert nl.float8_e3m4 == ml_dtypes.float8_e3m4 and as_dtype(ml_dtypes.float8_e3m4) is nl.float8_e3m4
    program = nki.jit(through_engines).trace(np.ones((4, 8), np.float32), np.ones((4, 8), np.uint8), kind)
    assert "float8_e4m3_bias11" in str(program) and str(parse_program(str(program))) == str(program)
    for unknown in ("float8_e4m3_bias64", "float8_e4m3fn_bias9", "bfloat16_bias3"):
        with pytest.raises(KeyError):
            as_dtype(unknown)


def test_stochastic_rounding():
    """Each bias has neighbours of its own, and means are right."""
    kind = nl.cfp8(nl.float8_e3m4, 8)

    def kernel(x):
        tile = nl.ndarray(x.shape, dtype=kind, buffer=nl.sbuf)
        nisa.tensor_copy(tile, nl.load(x))
        out = nl.ndarray(x.shape, dtype=kind, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out

    x = np.tile(np.geomspace(1e-3, 0.4, 64, dtype=np.float32)[:, None], (1, 4096))
    options = {"stochastic_rounding": True, "rounding_seed": 1}
    found = nki.jit(kernel, **options)(x)
    assert np.array_equal(found, nki.simulate(kernel, **options)(x))
    values, table = kind.from_bits(found).astype(np.float64), np.unique(kind.from_bits(BYTES[:0x70]).astype(np.float64))
    high = np.searchsorted(table, x[:, 0])
    step, share = table[high] - table[high - 1], (x[:, 0] - table[high - 1]) / (table[high] - table[high - 1])
    assert (np.abs(values.mean(axis=1) - x[:, 0]) <= 5 * step * np.sqrt(share * (1 - share) / 4096)).all()


def test_first_difference_reads_the_elements():
    kind = nl.cfp8(nl.float8_e4m3, 11)
    x = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32) / 16
    assert first_difference(through_engines, x, np.zeros((32, 16), np.uint8), dtype=kind) is None


def test_device_print_shows_values(capfd):
    kind = nl.cfp8(nl.float8_e4m3, 9)

    def kernel(x):
        tile = nl.load(x)
        nl.device_print("tile", tile.view(kind))
        out = nl.ndarray(x.shape, dtype=nl.uint8, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out

    x = kind.to_bits(np.array([[0.5, 3.0]]))
    nki.jit(kernel)(x)
    compiled = capfd.readouterr().out
    nki.simulate(kernel)(x)
    assert compiled == capfd.readouterr().out == "tile [[0.5 3. ]]\n"


def test_errors(monkeypatch):
    for given_dtype, bias, match in (
        (nl.float8_e4m3fn, 9, "dtype is .*e4m3fn.*expected nl.float8_e5m2, nl.float8_e4m3, nl.float8_e3m4"),
        ("float9", 3, "dtype"), (nl.float8_e5m2, 64, "bias is int 64; expected an int from 0 to 63"),
        (nl.float8_e5m2, True, "bias"), (nl.float8_e5m2, 2.0, "bias"),
    ):
        with pytest.raises(errors.InvalidOperand, match=match) as caught:
            nl.cfp8(given_dtype, bias)
        assert caught.value.location.file == __file__
    kind = nl.cfp8(nl.float8_e4m3, 9)
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn1")
    with pytest.raises(errors.UnsupportedOnTarget, match="exponent bias of dst, float8_e4m3_bias9.*trn2"):
        nki.jit(through_engines)(np.ones((4, 8), np.float32), np.ones((4, 8), np.uint8), kind)
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn2")

    def sent(x):
        tile = nl.load(x).view(kind)
        nisa.sendrecv(tile, tile, 1 - nl.program_id(0), 1 - nl.program_id(0), 0)

    with pytest.raises(errors.UnsupportedError, match="sendrecv of float8_e4m3_bias9"):
        nki.jit(sent)[2](np.ones((4, 8), np.uint8))
