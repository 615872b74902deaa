"""tensor_copy, tensor_copy_predicated and memset."""

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
STORED = [d for d in UNPACKED if d != "tfloat32"]  # dtypes arrays can have
SHAPES = [(1, 1), (3, 5), (128, 31), (7, 512), (128, 3, 43)]


@pytest.mark.parametrize("source", STORED)
@pytest.mark.parametrize("target", UNPACKED)
def test_tensor_copy_converts(source, target):
    def kernel(x):
        data = tile(x)
        dense, strided = new(x.shape, target), new((x.shape[0], 2 * x.shape[1]), target)
        nisa.tensor_copy(dense, data)
        nisa.memset(strided, 1)
        nisa.tensor_copy(strided[:, 1::2], data)
        return outputs(dense, strided)

    x = make((9, 77), source)
    if dtypes.as_dtype(source).is_float:
        x[0, :6] = np.array([0.5, 1.5, -2.5, 300.0, -0.0, np.nan]).astype(x.dtype)
    dense, strided = both(kernel, x)
    expected = dtypes.cast(x, dtypes.as_dtype(target))
    same(dense, expected)
    same(strided[:, 1::2], expected)
    same(strided[:, ::2], np.ones_like(expected))


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
def test_tensor_copy_layouts(cpu, shape, dtype, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)

    def kernel(x):
        data = tile(x)
        partitions, free = x.shape[0], data.reshape((x.shape[0], -1)).shape[1]
        flat, through_psum = new((partitions, free), dtype), new(x.shape, dtype, nl.psum)
        nisa.tensor_copy(flat, data)
        nisa.tensor_copy(through_psum, data)
        row = new((partitions, free, 3), dtype)
        nisa.tensor_copy(row, flat.reshape((partitions, free, 1)).broadcast(2, 3))
        transposed = new((partitions, 3, free), dtype)
        nisa.tensor_copy(transposed, row.permute((0, 2, 1)))
        backwards = new((partitions, free), dtype)
        nisa.tensor_copy(backwards, flat[:, ::-1])
        return outputs(flat, through_psum, transposed, backwards)

    x = make(shape, dtype)
    flat, through_psum, transposed, backwards = both(kernel, x)
    rows = x.reshape(shape[0], -1)
    same(flat, rows)
    same(through_psum, x)
    same(transposed, np.repeat(rows[:, None], 3, axis=1))
    same(backwards, rows[:, ::-1])


def test_tensor_copy_is_bit_exact():
    """No detour through float32 for equal dtypes: large integers and NaN payloads survive."""

    def kernel(x):
        data = tile(x)
        integers, floats = new(x.shape, "int32"), new(x.shape, "float32")
        nisa.tensor_copy(integers, data)
        nisa.tensor_copy(floats, data.view(nl.float32), engine=nisa.engine.gpsimd)
        return outputs(integers, floats.view(nl.int32))

    x = np.array([[0x7FFFFFFF, 0x7FC12345, -1, 1 << 24 | 1]], np.int32)
    for result in both(kernel, x):
        np.testing.assert_array_equal(result, x)


def test_shapes_whose_boundaries_do_not_nest():
    def kernel(x):
        data = tile(x)
        wide = new((5, 4, 9), "float32")
        nisa.memset(wide, 0)
        nisa.tensor_copy(wide[:, :, 1:7], data[:, :, :4])
        return outputs(wide)

    x = make((5, 6, 7), "float32")
    (wide,) = both(kernel, x)
    same(wide[:, :, 1:7], x[:, :, :4].reshape(5, 4, 6))
    assert not wide[:, :, 0].any()
    assert not wide[:, :, 7:].any()


@pytest.mark.parametrize("index", [0, 5, 7])
def test_runtime_index_on_chip(index):
    """Any instruction takes operands whose address comes from a tile."""

    def kernel(x, where):
        data, at = tile(x), tile(where)
        picked = new((x.shape[0], x.shape[2]))
        nisa.tensor_copy(picked, data.select(1, at))
        nisa.memset(data.select(1, at), 3.0)
        return outputs(picked, data)

    x = make((4, 8, 6), "float32")
    picked, data = both(kernel, x, np.array([[index]], np.int32))
    same(picked, x[:, index])
    expected = x.copy()
    expected[:, index] = 3
    same(data, expected)


@pytest.mark.parametrize("run", [nki.jit, nki.simulate])
@pytest.mark.parametrize("index", [-1, 8, 1 << 30])
def test_runtime_index_out_of_bounds(run, index):
    def kernel(x, where):
        data, at = tile(x), tile(where)
        picked = new((x.shape[0], x.shape[2]))
        nisa.tensor_copy(picked, data.select(1, at))  # line of the error
        return outputs(picked)

    with pytest.raises(errors.IndirectOutOfBounds, match=rf"{index} is not in \[0, 8\)") as caught:
        run(kernel)(make((4, 8, 6), "float32"), np.array([[index]], np.int32))
    assert caught.value.location.source.endswith("# line of the error")


@pytest.mark.parametrize("predicate_dtype", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("shape", [(3, 5), (128, 100)])
def test_tensor_copy_predicated(dtype, predicate_dtype, shape):
    def kernel(x, y, condition):
        source, mask = tile(x), tile(condition)
        chosen, reverse, constant = tile(y), tile(y), tile(y)
        nisa.tensor_copy_predicated(chosen, source, mask)
        nisa.tensor_copy_predicated(reverse, source, mask, reverse_pred=True)
        nisa.tensor_copy_predicated(constant[:, ::2], 1.0, mask[:, ::2])
        return outputs(chosen, reverse, constant)

    x, y, condition = make(shape, dtype), make(shape, dtype, 1), make(shape, "uint8", 2) % 3
    chosen, reverse, constant = both(kernel, x, y, condition.astype(predicate_dtype))
    holds = condition != 0
    same(chosen, np.where(holds, x, y))
    same(reverse, np.where(holds, y, x))
    expected = y.copy()
    expected[:, ::2] = np.where(holds[:, ::2], np.ones_like(y[:, ::2]), y[:, ::2])
    same(constant, expected)


@pytest.mark.parametrize("cpu", CPU_LEVELS)
@pytest.mark.parametrize("dtype", UNPACKED)
def test_memset(cpu, dtype, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", cpu)
    whole = dtypes.as_dtype(dtype).is_integer  # which take no float
    values = [0, 1, -7, 10**9] if whole else [0, 1, -7, 2.5, 3.5, 1e30, float("-inf"), float("nan")]

    def kernel(x):
        results = []
        for value in values:
            filled, part = new((5, 67), dtype), new((5, 67), dtype)
            nisa.memset(filled, value)
            nisa.memset(part, 1)
            nisa.memset(part[:, 3::4], value, engine=nisa.engine.gpsimd)
            results += [filled, part]
        return outputs(*results)

    kind = dtypes.as_dtype(dtype)
    results = both(kernel, np.zeros(1, np.float32))
    for value, filled, part in zip(values, results[::2], results[1::2], strict=True):
        expected = dtypes.cast(np.full((5, 67), value, np.float32), kind)
        same(filled, expected)
        one = dtypes.cast(np.ones((5, 67), np.float32), kind)
        one[:, 3::4] = expected[:, 3::4]
        same(part, one)


def test_memset_integers_are_exact():
    def kernel(x):
        signed, unsigned, low = new((1, 3), "int32"), new((1, 3), "uint32"), new((1, 3), "int32")
        nisa.memset(signed, 2**31 - 1)
        nisa.memset(unsigned, 2**32 - 1)
        nisa.memset(low, -(2**31))
        return outputs(signed, unsigned, low)

    results = both(kernel, np.zeros(1, np.float32))
    assert [int(r[0, 0]) for r in results] == [2**31 - 1, 2**32 - 1, -(2**31)]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn_x4", "float8_e5m2_x4", "float4_e2m1fn_x4"])
def test_packed_dtypes(dtype):
    """Packed elements are zeroed and copied, never converted or filled."""

    def kernel(x):
        packed, copied = new((3, 5), dtype), new((3, 5), dtype)
        nisa.memset(packed, 0)
        nisa.tensor_copy(copied, packed)
        return outputs(copied.view(nl.uint8))

    (bytes,) = both(kernel, np.zeros(1, np.float32))
    assert not bytes.any()

    def filled(x):
        nisa.memset(new((3, 5), dtype), 1)

    with pytest.raises(errors.InvalidOperand, match="value is 1; expected 0"):
        nki.jit(filled)(np.zeros(1, np.float32))

    def converted(x):
        packed = new((3, 5), dtype)
        nisa.memset(packed, 0)
        nisa.tensor_copy(new((3, 5)), packed)

    with pytest.raises(errors.DtypeMismatch, match=dtype):
        nki.jit(converted)(np.zeros(1, np.float32))


def _raises(error, match, body, target=None, monkeypatch=None):
    """The body must fail, traced and simulated alike, at its own line."""
    if target is not None:
        monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)

    def kernel(x):
        body()
        return x

    for run in (nki.jit, nki.simulate):
        with pytest.raises(error, match=match) as caught:
            run(kernel)(np.zeros(1, np.float32))
        assert caught.value.location.line == body.__code__.co_firstlineno


def test_errors(monkeypatch):
    def sbuf(shape=(4, 8), dtype="float32"):
        return new(shape, dtype)

    def psum():
        return new((4, 8), "float32", nl.psum)

    def hbm():
        return nl.ndarray((4, 8), dtype="float32", buffer=nl.shared_hbm)

    _raises(errors.WrongMemory, "src is in SHARED_HBM", lambda: nisa.tensor_copy(sbuf(), hbm()))
    _raises(errors.ShapeMismatch, r"\(4, 9\)", lambda: nisa.tensor_copy(sbuf(), sbuf((4, 9))))
    _raises(errors.ShapeMismatch, r"\(8, 4\)", lambda: nisa.tensor_copy(sbuf(), sbuf((8, 4))))
    _raises(
        errors.WrongMemory, "PSUM", lambda: nisa.tensor_copy(psum(), sbuf(), engine=nisa.engine.gpsimd)
    )
    _raises(
        errors.UnsupportedEngine, "tensor",
        lambda: nisa.tensor_copy(sbuf(), sbuf(), engine=nisa.engine.tensor),
    )
    _raises(errors.UnsupportedEngine, "scalar", lambda: nisa.memset(sbuf(), 0, nisa.engine.scalar))
    _raises(errors.WrongMemory, "PSUM", lambda: nisa.memset(psum(), 0, nisa.engine.gpsimd))
    _raises(errors.WrongMemory, "dst is in", lambda: nisa.memset(hbm(), 0))
    _raises(
        errors.UnsupportedDtype, "predicate has dtype float32",
        lambda: nisa.tensor_copy_predicated(sbuf(), sbuf(), sbuf()),
    )
    _raises(
        errors.DtypeMismatch, "bfloat16",
        lambda: nisa.tensor_copy_predicated(sbuf(), sbuf(dtype="bfloat16"), sbuf(dtype="uint8")),
    )
    deep = (4, 1, 2, 2, 2)
    _raises(
        errors.ShapeMismatch, "predicate.* 5 dimensions",
        lambda: nisa.tensor_copy_predicated(sbuf(), sbuf(), new(deep, "uint8")),
    )
    _raises(
        errors.WrongMemory, "predicate is in PSUM",
        lambda: nisa.tensor_copy_predicated(sbuf(), psum(), new((4, 8), "uint8", nl.psum)),
    )
    _raises(
        errors.UnsupportedOnTarget, "trn2",
        lambda: nisa.tensor_copy(sbuf(), sbuf(), engine=nisa.engine.scalar), "trn1", monkeypatch,
    )
