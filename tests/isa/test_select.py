"""select_reduce and range_select."""

from __future__ import annotations

import numpy as np
import pytest
from isa_testing import CPU_LEVELS, both, new, outputs, same, tile

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.testing import make

COMPARISONS = {
    "equal": np.equal, "less": np.less, "less_equal": np.less_equal, "greater": np.greater,
    "greater_equal": np.greater_equal,
}
FP32_MIN = np.finfo(np.float32).min
SHAPES = [(1, 1), (3, 5), (128, 31), (7, 512), (128, 100)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int16"])
@pytest.mark.parametrize("predicate_dtype", ["uint8", "int16", "bool"])
def test_select_reduce(shape, dtype, predicate_dtype):
    def kernel(x, predicate, other):
        data, mask, fill = tile(x), tile(predicate), tile(other)
        chosen, reverse, column = new(x.shape, x.dtype), new(x.shape, "bfloat16"), new((x.shape[0], 1))
        nisa.select_reduce(
            chosen, mask, data, fill, reduce_res=column, reduce_cmd=nisa.reduce_cmd.reset_reduce,
            reduce_op="maximum",
        )
        nisa.select_reduce(reverse, mask, data, 2.5, reverse_pred=True)
        return outputs(chosen, reverse, column)

    x, predicate, other = make(shape, dtype), make(shape, predicate_dtype, 1), make((shape[0], 1), dtype, 2)
    chosen, reverse, column = both(kernel, x, predicate, other)
    expected = np.where(predicate != 0, x, other)
    same(chosen, expected)
    same(column, expected.astype(np.float32).max(axis=1, keepdims=True))
    same(reverse, np.where(predicate == 0, x.astype(np.float32), 2.5).astype(reverse.dtype))


def test_select_reduce_continues_the_maximum():
    """The registers live from call to call; idle calls in between leave them alone."""

    def kernel(x, predicate):
        data, mask = tile(x), tile(predicate)
        scratch = new((16, 20))
        first, last = new((16, 1)), new((16, 1), "bfloat16")
        for i, command in enumerate((nisa.reduce_cmd.reset_reduce, nisa.reduce_cmd.reduce)):
            part = slice(20 * i, 20 * i + 20)
            nisa.select_reduce(
                scratch, mask[:, part], data[:, part], -9.0, first if i == 0 else None, command
            )
        nisa.select_reduce(scratch, mask[:, :20], data[:, :20], 100.0)
        nisa.select_reduce(scratch, mask[:, 40:], data[:, 40:], -9.0, last, nisa.reduce_cmd.reduce)
        return outputs(first, last)

    x, predicate = make((16, 60), "float32"), make((16, 60), "uint8", 1) % 2
    first, last = both(kernel, x, predicate)
    chosen = np.where(predicate, x, -9.0)
    same(first, chosen[:, :20].max(axis=1, keepdims=True))
    same(last, chosen.max(axis=1, keepdims=True).astype(last.dtype))


@pytest.mark.parametrize("first", COMPARISONS)
@pytest.mark.parametrize("second", ["less", "greater_equal", "equal"])
def test_range_select_comparisons(first, second):
    def kernel(x, low, high):
        result, column = new(x.shape), new((x.shape[0], 1))
        nisa.range_select(
            result,
            on_true_tile=tile(x),
            comp_op0=first,
            comp_op1=second,
            bound0=tile(low),
            bound1=tile(high),
            reduce_res=column,
            range_start=10,
        )
        return outputs(result, column)

    shape = (64, 77)
    x = make(shape, "float32")
    low = np.linspace(5, 90, 64, dtype=np.float32)[:, None].round()
    high = low + np.arange(-3, 61, dtype=np.float32)[:, None]
    result, column = both(kernel, x, low, high)
    position = 10 + np.arange(77, dtype=np.float32)
    inside = COMPARISONS[first](position, low) & COMPARISONS[second](position, high)
    expected = np.where(inside, x, FP32_MIN)
    same(result, expected)
    same(column, expected.max(axis=1, keepdims=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fully_masked_rows_are_safe(shape, dtype):
    """A bfloat16 fill is -inf, its maximum still the smallest float32: their difference is not NaN."""

    def kernel(x, low, high):
        result, column = new(x.shape, dtype), new((x.shape[0], 1))
        bounds = tile(low), tile(high)
        nisa.range_select(result, tile(x), "greater_equal", "less", *bounds, reduce_res=column)
        return outputs(result, column)

    x = make(shape, dtype)
    low = np.full((shape[0], 1), 4, np.float32)
    result, column = both(kernel, x, low, low)
    same(column, np.full((shape[0], 1), FP32_MIN))
    same(result, np.full(shape, -np.inf if dtype == "bfloat16" else FP32_MIN))


@pytest.mark.parametrize("level", CPU_LEVELS)
def test_views_on_every_cpu(monkeypatch, level):
    """PSUM input, 3-D permuted free dimensions, in-place result, bounds from a strided column."""
    monkeypatch.setenv("NKILITE_CPU", level)

    def kernel(x, bounds, predicate):
        whole, limits, mask = tile(x, nl.psum), tile(bounds), tile(predicate)
        view = whole[64:112, :, 1:7].permute((0, 2, 1))
        column, second = new((48, 3)), new((48, 1))
        nisa.range_select(
            view, view, "greater_equal", "less", limits[64:112, 1], limits[64:112, 3:4], reduce_res=column[:, 1],
            range_start=-3,
        )
        selected = new((48, 6, 5), "float16")
        nisa.select_reduce(
            selected.permute((0, 2, 1)), mask[64:112, :, ::2], whole[64:112, :, 1:7], limits[64:112, 2],
            second, nisa.reduce_cmd.reset_reduce,
        )
        return outputs(whole, column[:, 1:2], selected, second)

    x = make((128, 5, 8), "float32")
    bounds = make((128, 5), "float32", 1) * 8
    predicate = make((128, 5, 12), "uint8", 2) % 2
    whole, column, selected, second = both(kernel, x, bounds, predicate)
    rows = x[64:112, :, 1:7].transpose(0, 2, 1).reshape(48, 30)
    position = np.arange(30) - 3
    inside = (position >= bounds[64:112, 1:2]) & (position < bounds[64:112, 3:4])
    rows = np.where(inside, rows, FP32_MIN)
    x[64:112, :, 1:7] = rows.reshape(48, 6, 5).transpose(0, 2, 1)
    same(whole, x)
    same(column, rows.max(axis=1, keepdims=True))
    expected = np.where(predicate[64:112, :, ::2], x[64:112, :, 1:7], bounds[64:112, 2, None, None])
    same(second, expected.max(axis=(1, 2))[:, None])
    with np.errstate(over="ignore"):
        same(selected, expected.transpose(0, 2, 1).astype(np.float16))


def test_register_commands():
    """reset leaves -inf behind, reduce continues from it, reset_reduce starts afresh."""

    def kernel(x, low, high):
        data, bounds = tile(x), (tile(low), tile(high))
        scratch, results = new(x.shape), new((8, 3))
        commands = (nisa.reduce_cmd.reset, nisa.reduce_cmd.reduce, nisa.reduce_cmd.reset_reduce)
        for i, command in enumerate(commands):
            nisa.range_select(
                scratch[:, : 30 - 10 * i], data[:, : 30 - 10 * i], "greater_equal", "less", *bounds, command,
                results[:, i],
            )
        return outputs(results)

    x = np.abs(make((8, 30), "float32"))
    x[:, 15] = 50
    (results,) = both(kernel, x, np.zeros((8, 1), np.float32), np.full((8, 1), 99, np.float32))
    same(results, np.stack([np.full(8, -np.inf), x[:, :20].max(axis=1), x[:, :10].max(axis=1)], axis=1))


# --- errors -------------------------------------------------------------------------------------------------


def _error(kind, **changes):
    """The error of a range_select with some arguments changed."""

    def kernel(x, low, high):
        arguments = {
            "dst": new((4, 16)), "on_true_tile": tile(x), "comp_op0": "greater_equal", "comp_op1": "less",
            "bound0": tile(low), "bound1": tile(high), **changes,
        }
        nisa.range_select(**arguments)

    column = np.zeros((4, 1), np.float32)
    with pytest.raises(kind) as caught:
        nki.jit(kernel)(np.zeros((4, 16), np.float32), column, column)
    assert caught.value.location.line == kernel.__code__.co_firstlineno + 5
    return str(caught.value)


def test_other_fill_values_are_refused():
    message = _error(errors.InvalidOperand, on_false_value=0.0)
    assert "0.0" in message
    assert "-3.4028235e+38" in message


def test_other_comparisons_are_refused():
    assert "not_equal" in _error(errors.UnknownOperator, comp_op1="not_equal")


def test_other_reductions_are_refused():
    assert "maximum" in _error(errors.UnknownOperator, reduce_op="add")


def test_load_reduce_is_refused():
    assert "reset_reduce" in _error(errors.InvalidOperand, reduce_cmd=nisa.reduce_cmd.load_reduce)


def test_range_select_needs_trn2(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn1")
    assert "trn2" in _error(errors.UnsupportedOnTarget)


def test_bounds_are_one_float32_per_partition():
    def kernel(x):
        data = tile(x)
        nisa.range_select(new((4, 16)), data, "less", "less", data[:, :1], data[:, :2])

    with pytest.raises(errors.ShapeMismatch, match=r"bound1 has shape \(4, 2\)") as caught:
        nki.jit(kernel)(np.zeros((4, 16), np.float32))
    assert caught.value.location.line == kernel.__code__.co_firstlineno + 2
    with pytest.raises(errors.UnsupportedDtype, match="bfloat16"):
        nki.jit(kernel)(make((4, 16), "bfloat16"))


def test_select_reduce_predicate_dtype_and_memory():
    def kernel(x, predicate, memory):
        mask = tile(predicate, memory)
        nisa.select_reduce(new(x.shape), mask, tile(x, memory), 0.0)

    x, mask = make((4, 16), "float32"), make((4, 16), "uint8")
    with pytest.raises(errors.UnsupportedDtype, match="float32"):
        nki.jit(kernel)(x, x, nl.sbuf)
    with pytest.raises(errors.WrongMemory, match="PSUM") as caught:
        nki.jit(kernel)(x, mask, nl.psum)
    assert caught.value.location.line == kernel.__code__.co_firstlineno + 2


def test_idle_result_is_undefined():
    def kernel(x, predicate):
        nisa.select_reduce(new(x.shape), tile(predicate), tile(x), 0.0, new((4, 1)))

    with pytest.raises(errors.InvalidOperand, match="reset_reduce"):
        nki.jit(kernel)(make((4, 16), "float32"), make((4, 16), "uint8"))
