"""iota and affine_select."""

from __future__ import annotations

import numpy as np
import pytest
from isa_testing import CPU_LEVELS, both, new, outputs, same, tile

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import dtypes, errors
from nkilite.testing import make

UNPACKED = [str(d) for d in dtypes.ALL.values() if d.kind != "x" and not d.is_wide]
COMPARISONS = {
    "equal": np.equal, "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal,
    "greater": np.greater, "greater_equal": np.greater_equal,
}


def affine(partitions, pattern, offset=0, channel_multiplier=0):
    """The documented loops, one element at a time."""
    values = []
    for channel in range(partitions):
        for coordinates in np.ndindex(*(num for _, num in pattern)):
            value = offset + channel * channel_multiplier
            value += sum(step * i for (step, _), i in zip(pattern, coordinates, strict=True))
            values.append((value + 2**31) % 2**32 - 2**31)
    return np.array(values, np.int32).reshape(partitions, -1)


PATTERNS = [
    [[1, 1]],
    [[1, 37]],
    [[-3, 5], [7, 8]],
    [[0, 2], [100, 3], [-1, 4], [5, 6]],
    [[1 << 20, 4096]],
]


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("offset", "multiplier"), [(0, 0), (-17, 3), (2**31 - 5, -1000)])
def test_iota(cpu, pattern, offset, multiplier, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)
    count = int(np.prod([num for _, num in pattern]))

    def kernel(x):
        dense, padded = new((19, count), "int32"), new((19, count, 2), "int32")
        nisa.iota(dense, pattern, offset, multiplier)
        nisa.memset(padded, -1)
        nisa.iota(padded[..., 1], pattern=pattern, offset=offset, channel_multiplier=multiplier)
        return outputs(dense, padded)

    dense, padded = both(kernel, np.zeros(1, np.float32))
    expected = affine(19, pattern, offset, multiplier)
    np.testing.assert_array_equal(dense, expected)
    np.testing.assert_array_equal(padded[..., 1], expected)
    assert (padded[..., 0] == -1).all()


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("dtype", UNPACKED)
def test_iota_dtypes(cpu, dtype, monkeypatch):
    """Integers saturate without a detour through float32; floats round."""
    monkeypatch.setenv("NKILITE_CPU", cpu)
    pattern = [[16777217, 12], [1, 5]]

    def kernel(x):
        small, large = new((3, 60), dtype), new((3, 60), dtype)
        nisa.iota(small, pattern, -20)
        nisa.iota(large, [[1, 60]], -30, 100)
        return outputs(small, large)

    kind = dtypes.as_dtype(dtype)
    wanted = affine(3, pattern, -20), affine(3, [[1, 60]], -30, 100)
    for result, values in zip(both(kernel, np.zeros(1, np.float32)), wanted, strict=True):
        if kind.kind in "iu":
            limits = np.iinfo(kind.numpy)
            expected = np.clip(values.astype(np.int64), limits.min, limits.max).astype(kind.numpy)
        else:
            expected = dtypes.cast(values, kind)
        same(result, expected)


def test_pattern_and_tile_may_be_shaped_differently():
    """Also where their boundaries do not nest."""

    def kernel(x):
        nested, crossed = new((4, 3, 8), "int32"), new((4, 6, 5), "int32")
        nisa.memset(nested, 0)
        nisa.memset(crossed, 0)
        nisa.iota(nested[:, :, :4], [[10, 2], [1, 6]], 5, 1000)
        nisa.iota(crossed[:, :, :4], [[10, 3], [1, 8]], 5, 1000)
        return outputs(nested, crossed)

    nested, crossed = both(kernel, np.zeros(1, np.float32))
    np.testing.assert_array_equal(nested[:, :, :4].reshape(4, 12), affine(4, [[10, 2], [1, 6]], 5, 1000))
    np.testing.assert_array_equal(crossed[:, :, :4].reshape(4, 24), affine(4, [[10, 3], [1, 8]], 5, 1000))


def test_offsets_share_code():
    """The offset is part of the instruction word: tiles at different positions run the same micro-kernel."""

    @nki.jit
    def kernel(x):
        data = tile(x)
        for start in range(5):
            nisa.affine_select(data, [[-1, 8]], 1, data, 0.0, nl.greater_equal, offset=start)
        return outputs(data)

    program = kernel.trace(np.zeros((4, 8), np.float32))
    assert sum(s.name == "affine_select" for s in program.signatures) == 1


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "float8_e4m3"])
def test_affine_select(cpu, comparison, dtype, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)
    pattern = [[-1, 3], [2, 13]]

    def kernel(x):
        data = tile(x)
        same_dtype, converted, strided = new(x.shape, dtype), new(x.shape, "float16"), new((33, 3, 26), dtype)
        nisa.affine_select(same_dtype, pattern, 1, data, -2.25, comparison, -9)
        nisa.affine_select(converted, pattern, 1, data, -2.25, cmp_op=comparison, offset=-9)
        nisa.memset(strided, 1)
        nisa.affine_select(
            dst=strided[:, :, ::2], pattern=pattern, offset=-9, channel_multiplier=1,
            on_true_tile=data.reshape((33, 3, 13)), on_false_value=-2.25, cmp_op=comparison,
        )
        nisa.affine_select(data, pattern, 1, data, -2.25, comparison, -9)
        return outputs(same_dtype, converted, strided, data)

    x = make((33, 39), dtype)
    results = both(kernel, x)
    holds = COMPARISONS[comparison](affine(33, pattern, -9, 1), 0)
    kind = dtypes.as_dtype(dtype)
    expected = np.where(holds, x, dtypes.cast(np.full(x.shape, -2.25, np.float32), kind))
    same(results[0], expected)
    same(results[1], np.where(holds, x.astype(np.float32), np.float32(-2.25)).astype(np.float16))
    same(results[2][:, :, ::2].reshape(33, 39), expected)
    same(results[3], expected)


def test_causal_mask():
    def kernel(x):
        scores = tile(x)
        nisa.affine_select(scores, [[-1, 20]], 1, scores, float(np.finfo(np.float32).min), nl.greater_equal)
        return outputs(scores)

    x = make((20, 20), "float32")
    (masked,) = both(kernel, x)
    same(masked, np.where(np.tri(20, dtype=bool), x, np.finfo(np.float32).min))


def test_affine_select_is_equal_by_default():
    def kernel(x):
        diagonal = new((8, 8))
        ones = new((8, 8))
        nisa.memset(ones, 1)
        nisa.affine_select(diagonal, [[-1, 8]], 1, ones, 0.0)
        return outputs(diagonal)

    same(both(kernel, np.zeros(1, np.float32))[0], np.eye(8, dtype=np.float32))


def test_rules():
    def raises(error, match, body):
        def kernel(x):
            body()
            return x

        for run in (nki.jit, nki.simulate):
            with pytest.raises(error, match=match) as caught:
                run(kernel)(np.zeros(1, np.float32))
            assert caught.value.location.line == body.__code__.co_firstlineno

    def sbuf(dtype="int32"):
        return new((4, 8), dtype)

    def psum():
        return new((4, 8), "int32", nl.psum)

    select = nisa.affine_select
    raises(errors.WrongMemory, "dst is in PSUM", lambda: nisa.iota(psum(), [[1, 8]]))
    raises(errors.ShapeMismatch, "has 9 elements, .* has 8", lambda: nisa.iota(sbuf(), [[1, 3], [1, 3]]))
    raises(errors.InvalidOperand, "1 to 4", lambda: nisa.iota(sbuf(), [[1, 1]] * 4 + [[1, 8]]))
    raises(errors.InvalidOperand, "1 to 4", lambda: nisa.iota(sbuf(), [1, 8]))
    raises(errors.InvalidOperand, "1 to 4", lambda: nisa.iota(sbuf(), [[1.5, 8]]))
    raises(
        errors.InvalidOperand, "offset is 2147483648; expected an int32",
        lambda: nisa.iota(sbuf(), [[1, 8]], 2**31),
    )
    raises(errors.InvalidOperand, "offset is 0.5", lambda: nisa.iota(sbuf(), [[1, 8]], 0.5))
    raises(errors.InvalidOperand, "channel_multiplier is '1'", lambda: nisa.iota(sbuf(), [[1, 8]], 0, "1"))
    raises(errors.UnsupportedDtype, "float8_e5m2_x4", lambda: nisa.iota(sbuf("float8_e5m2_x4"), [[1, 8]]))
    raises(errors.WrongMemory, "on_true_tile is in PSUM", lambda: select(sbuf(), [[1, 8]], 0, psum(), 0.0))
    raises(errors.ShapeMismatch, r"\(4, 9\)", lambda: select(sbuf(), [[1, 8]], 0, new((4, 9)), 0.0))
    raises(errors.UnknownOperator, "add", lambda: select(sbuf(), [[1, 8]], 0, sbuf(), 0.0, "add"))
    raises(errors.InvalidOperand, "on_false_value", lambda: select(sbuf(), [[1, 8]], 0, sbuf(), "0"))
