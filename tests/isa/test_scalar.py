"""activation, activation_reduce, activate2 and exponential."""

from __future__ import annotations

import numpy as np
import pytest
from isa_testing import CPU_LEVELS, both, new, outputs, same, tile

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.isa import activation_functions
from nkilite.testing import make

SHAPES = [(1, 1), (3, 5), (128, 31), (7, 512), (128, 100)]
# Transcendental functions are within 4 ulp of their correctly rounded reference in float32, 1 in bfloat16.
CLOSE = {"float32": {"rtol": 5e-7, "atol": 1e-37}, "bfloat16": {"rtol": 2.0**-7, "atol": 1e-37}}
# Sums of n float32 differ by the order of additions.
SUM = {"rtol": 1e-5, "atol": 1e-5}

reset_reduce, reduce, reset = nisa.reduce_cmd.reset_reduce, nisa.reduce_cmd.reduce, nisa.reduce_cmd.reset


@pytest.fixture
def trn3(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")


def exp64(x):
    return np.exp(np.asarray(x, np.float64))


# --- activation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in activation_functions.ALL if not row.takes_slope], ids=repr)
def test_every_function(row):
    def kernel(x):
        result = new(x.shape)
        nisa.activation(result, row.name, tile(x))
        return outputs(result)

    x = make((16, 40), "float32")
    if row.valid_range[0] > 0:
        x = np.abs(x) + np.float32(0.01)
    (result,) = both(kernel, x, rtol=4e-6, atol=1e-7)
    same(result, row.exact(x.astype(np.float64)), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32", "uint8"])
def test_scale_and_bias_are_rounded_one_after_the_other(shape, dtype):
    def kernel(x, scale, bias):
        data, vector, offset = tile(x), tile(scale), tile(bias)
        results = [new(x.shape, "bfloat16"), new(x.shape), new(x.shape), new(x.shape)]
        nisa.activation(dst=results[0], op="copy", data=data, scale=vector, bias=offset)
        nisa.activation(results[1], "relu", data, 0.3, -1.7)
        nisa.activation(results[2], "square", data, bias=offset, scale=0.1)
        nisa.activation(results[3], "abs", data, bias=None)
        return outputs(*results)

    x, scale, bias = make(shape, dtype), make((shape[0], 1), "float32", 1), make((shape[0], 1), "float16", 2)
    results = both(kernel, x, scale, bias)
    wide = x.astype(np.float32)
    same(results[0], (wide * scale + bias.astype(np.float32)).astype(results[0].dtype))
    same(results[1], np.maximum(wide * np.float32(-1.7) + np.float32(0.3), 0))
    same(results[2], np.square(wide * np.float32(0.1) + bias.astype(np.float32)))
    same(results[3], np.abs(wide))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reductions(shape, dtype):
    """activation_reduce, activation with reset_reduce, and the sum of what has not been rounded yet."""

    def kernel(x, bias):
        data, offset = tile(x), tile(bias)
        first, second = new(x.shape, dtype), new(x.shape, dtype)
        sums = [new((x.shape[0], 1)), new((x.shape[0], 1), "bfloat16"), new((x.shape[0], 1))]
        nisa.activation_reduce(first, "exp", data, "add", sums[0], offset)
        nisa.activation(
            second, "exp", data, offset, reduce_op="add", reduce_res=sums[1], reduce_cmd=reset_reduce
        )
        nisa.activation(second, "exp", data, offset, reduce_res=sums[2])
        return outputs(first, second, *sums)

    x, bias = make(shape, dtype), make((shape[0], 1), "float32", 1)
    first, second, total, rounded, read = both(kernel, x, bias, rtol=2.0**-7)
    expected = exp64(x.astype(np.float32) + bias)
    for result in (first, second):
        same(result, expected, **CLOSE[dtype])
    same(total, expected.sum(axis=1, keepdims=True), **SUM)
    same(read, total)
    same(rounded, total.astype(rounded.dtype))


def test_the_sum_precedes_rounding():
    """300 times 1 + 2**-9, which bfloat16 rounds to 1."""

    def kernel(x):
        result, total = new(x.shape, "bfloat16"), new((4, 1))
        nisa.activation_reduce(result, "copy", tile(x), "add", total)
        return outputs(result, total)

    result, total = both(kernel, np.full((4, 300), 1 + 2.0**-9, np.float32))
    same(result, np.ones((4, 300)))
    same(total, np.full((4, 1), 300 * (1 + 2.0**-9)))


def test_an_unwanted_result_may_fall_into_one_element():
    def kernel(x):
        unwanted, total = new((16, 1)), new((16, 1))
        nisa.activation_reduce(unwanted.ap([[1, 16], [0, 40]]), "square", tile(x), "add", total)
        return outputs(total)

    x = make((16, 40), "float32", 1)
    (total,) = both(kernel, x, **SUM)
    same(total, np.square(x).sum(axis=1, keepdims=True), **SUM)


def test_registers_persist():
    """Partial sums continue over calls, idle calls leave them, reset clears, and each engine has its own."""

    def kernel(x):
        data, scratch, sums = tile(x), new(x.shape), new((32, 4))
        nisa.activation(scratch, "copy", data, reduce_cmd=reset_reduce)
        nisa.activation(scratch, "exp", data)
        nisa.select_reduce(scratch, tile_of_ones(x.shape), data, 0.0, reduce_cmd=reset_reduce)
        nisa.activation(scratch[:, :10], "square", data[:, :10], reduce_res=sums[:, 0], reduce_cmd=reduce)
        nisa.activation(scratch, "copy", data, reduce_res=sums[:, 1])
        nisa.activation(scratch, "copy", data, reduce_res=sums[:, 2], reduce_cmd=reset)
        nisa.activation(scratch, "copy", data, scale=2.0, reduce_res=sums[:, 3], reduce_cmd=reduce)
        return outputs(sums)

    def tile_of_ones(shape):
        ones = new(shape, "uint8")
        nisa.memset(ones, 1)
        return ones

    x = make((32, 50), "float32")
    (sums,) = both(kernel, x, **SUM)
    wide = x.astype(np.float64)
    first = wide.sum(axis=1) + np.square(wide[:, :10]).sum(axis=1)
    same(sums, np.stack([first, first, 0 * first, 2 * wide.sum(axis=1)], axis=1), **SUM)


def test_registers_of_few_partitions():
    """A call uses the first registers, as many as it has partitions; the others stay."""

    def kernel(x):
        data, scratch, sums = tile(x), new(x.shape), new((128, 1))
        nisa.activation(scratch, "copy", data, reduce_cmd=reset_reduce)
        nisa.activation(scratch[64:96], "copy", data[64:96], reduce_cmd=reset_reduce)
        nisa.activation(scratch, "copy", data, scale=0.0, reduce_cmd=reduce, reduce_res=sums)
        return outputs(sums)

    x = np.repeat(np.arange(128, dtype=np.float32)[:, None], 4, axis=1)
    (sums,) = both(kernel, x)
    expected = 4 * np.arange(128, dtype=np.float32)
    expected[:32] = expected[64:96]
    same(sums[:, 0], expected)


@pytest.mark.parametrize("level", CPU_LEVELS)
def test_views_on_every_cpu(monkeypatch, level):
    """PSUM input, 3-D permuted and strided free dimensions, shapes that differ, strided vectors, in place."""
    monkeypatch.setenv("NKILITE_CPU", level)

    def kernel(x, vectors):
        whole, columns = tile(x, nl.psum), tile(vectors)
        view = whole[64:101, 1:7, ::2]
        flat, sums = new((37, 24), "float16"), new((37, 5), "bfloat16")
        nisa.activation(flat, "sigmoid", view.permute((0, 2, 1)), columns[64:101, 0], columns[64:101, 2:3])
        nisa.activation(
            view, "relu", view, columns[64:101, 1], columns[64:101, 2], "add", sums[:, 3], reset_reduce
        )
        nisa.activation_reduce(flat.reshape((37, 6, 4)), "copy", view, "add", sums[:, 0:1])
        return outputs(flat, whole, sums[:, 3:4], sums[:, 0:1])

    x, vectors = make((128, 8, 8), "float32"), make((128, 3), "float32", 1)
    flat, whole, total, second = both(kernel, x, vectors, rtol=2.0**-8, atol=1e-6)
    scale, bias = vectors[64:101, 2, None, None], vectors[64:101, 1, None, None]
    activated = np.maximum(x[64:101, 1:7, ::2] * scale + bias, 0)
    x[64:101, 1:7, ::2] = activated
    same(whole, x)
    same(flat, activated.reshape(37, 24).astype(np.float16))
    for result in (total, second):
        same(result, activated.sum(axis=(1, 2), dtype=np.float64)[:, None], rtol=2.0**-8, atol=1e-6)


@pytest.mark.parametrize("level", CPU_LEVELS)
@pytest.mark.parametrize("dtype", ["float16", "float8_e4m3", "int16"])
def test_dtypes_on_every_cpu(monkeypatch, level, dtype):
    monkeypatch.setenv("NKILITE_CPU", level)

    def kernel(x):
        result, total = new(x.shape, dtype), new((x.shape[0], 1))
        nisa.activation_reduce(result, "square", tile(x), "add", total, scale=0.75)
        return outputs(result, total)

    x = make((20, 45), dtype)
    result, total = both(kernel, x, **SUM)
    expected = np.square(x.astype(np.float32) * np.float32(0.75))
    same(total, expected.sum(axis=1, keepdims=True), **SUM)
    if dtype != "int16":
        same(result, expected.astype(result.dtype))


def test_shapes_that_do_not_nest():
    """Free shapes whose boundaries cut each other, strided so that they cannot be merged."""

    def kernel(x):
        result, total = new((8, 4, 6)), new((8, 1))
        nisa.activation_reduce(result[:, :, :3], "copy", tile(x)[:, :, :4], "add", total)
        return outputs(result[:, :, :3], total)

    x = make((8, 3, 7), "float32")
    result, total = both(kernel, x, **SUM)
    same(result, x[:, :, :4].reshape(8, 4, 3))
    same(total, x[:, :, :4].sum(axis=(1, 2), dtype=np.float64)[:, None], **SUM)


# --- activate2 ----------------------------------------------------------------------------------------------

STAGES = {
    ("multiply", "add"): lambda x, a, b: x * a + b,
    ("multiply", "subtract"): lambda x, a, b: x * a - b,
    ("multiply", "bypass"): lambda x, a, b: x * a,
    ("add", "bypass"): lambda x, a, b: x + a,
    ("subtract", "bypass"): lambda x, a, b: x - a,
    (None, None): lambda x, a, b: x,
}


@pytest.mark.parametrize("pair", STAGES)
def test_activate2_operators(trn3, pair):
    def kernel(x, a, b):
        data, first, second = tile(x), tile(a), tile(b)
        results = [new(x.shape), new(x.shape)]
        nisa.activate2(results[0], "copy", data, first, second, *pair)
        nisa.activate2(results[1], "relu", data, 1.5, 0.25, *pair)
        return outputs(*results)

    x, a, b = make((33, 41), "float32"), make((33, 1), "bfloat16", 1), make((33, 1), "bfloat16", 2)
    results = both(kernel, x, a, b)
    function = STAGES[pair]
    same(results[0], function(x, a.astype(np.float32), b.astype(np.float32)))
    same(results[1], np.maximum(function(x, np.float32(1.5), np.float32(0.25)), 0))


def test_activate2_reversed_and_prelu(trn3):
    def kernel(x, slopes):
        data, slope = tile(x), tile(slopes)
        results = [new(x.shape) for _ in range(3)]
        nisa.activate2(results[0], "copy", data, 3.0, 0.5, "subtract", "bypass", reverse0=True)
        nisa.activate2(results[1], "copy", data, 3.0, 0.5, "multiply", "subtract", reverse1=True)
        nisa.activate2(results[2], "prelu", data, 2.0, 0.0, "multiply", "bypass", relu_param=slope)
        return outputs(*results)

    x, slopes = make((16, 20), "float32"), make((16, 1), "float32", 1)
    results = both(kernel, x, slopes)
    same(results[0], 3 - x)
    same(results[1], np.float32(0.5) - x * 3)
    same(results[2], np.where(x < 0, 2 * x * slopes, 2 * x))


@pytest.mark.parametrize("op", ["add", "maximum", "minimum", "abs_max", "abs_min"])
@pytest.mark.parametrize("shape", SHAPES)
def test_activate2_reductions(trn3, op, shape):
    def kernel(x):
        data, scratch, results = tile(x), new(x.shape, "bfloat16"), new((x.shape[0], 4))
        none = ("bypass", "bypass")
        nisa.activate2(scratch, "copy", data, 0.0, 0.0, *none, reduce_op=op, reduce_res=results[:, 0],
                       reduce_cmd=reset)
        nisa.activate2(scratch, "copy", data, 0.0, 0.0, *none, reduce_op=op, reduce_res=results[:, 1],
                       reduce_cmd=reduce)
        nisa.activate2(scratch, "copy", data, 0.5, 0.0, "multiply", "bypass", reduce_op=op,
                       reduce_res=results[:, 2], reduce_cmd=reset_reduce)
        nisa.activate2(scratch, "copy", data, 3.0, 0.0, "multiply", "bypass", reduce_op=op,
                       reduce_res=results[:, 3], reduce_cmd=reduce)
        return outputs(results)

    x = make(shape, "float32")
    (results,) = both(kernel, x, **SUM)
    reductions = {
        "add": lambda v: v.sum(axis=1),
        "maximum": lambda v: v.max(axis=1),
        "minimum": lambda v: v.min(axis=1),
        "abs_max": lambda v: np.abs(v).max(axis=1),
        "abs_min": lambda v: np.abs(v).min(axis=1),
    }
    identity = {"add": 0, "maximum": -np.inf, "minimum": np.inf, "abs_max": 0, "abs_min": np.inf}[op]
    wide = x.astype(np.float64)
    expected = [np.full(shape[0], identity), *(
        reductions[op](v) for v in (wide, wide * 0.5, np.concatenate([wide * 0.5, wide * 3], axis=1))
    )]
    same(results, np.stack(expected, axis=1), **SUM)


# --- exponential --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_exponential(trn3, shape, dtype):
    def kernel(x, largest, start):
        data, subtracted, initial = tile(x), tile(largest), tile(start)
        results = [new(x.shape, dtype) for _ in range(3)]
        sums = [new((x.shape[0], 1)) for _ in range(3)]
        nisa.exponential(results[0], data, subtracted, sums[0], reset_reduce)
        nisa.exponential(results[1], data, 0.5, sums[1], reduce)
        nisa.exponential(results[2], data, reduce_res=sums[2], reduce_cmd=nisa.reduce_cmd.load_reduce,
                         reduce_init=initial)
        nisa.exponential(results[2], data)
        return outputs(*results, *sums)

    x, largest = make(shape, dtype), make((shape[0], 1), "float32", 1)
    start = make((shape[0], 1), "float32", 2)
    *results, first, second, third = both(kernel, x, largest, start, rtol=2.0**-7)
    expected = [exp64(x.astype(np.float32) - shift) for shift in (largest, np.float32(0.5), np.float32(0))]
    for result, right in zip(results, expected, strict=True):
        same(result, right, **CLOSE[dtype])
    sums = [right.sum(axis=1, keepdims=True) for right in expected]
    same(first, sums[0], **SUM)
    same(second, sums[0] + sums[1], **SUM)
    same(third, sums[2] + start, **SUM)


def test_exponential_from_a_number(trn3):
    def kernel(x):
        total = new((4, 1))
        nisa.exponential(new(x.shape), tile(x), 0.0, total, nisa.reduce_cmd.load_reduce, 10.0)
        return outputs(total)

    (total,) = both(kernel, np.zeros((4, 6), np.float32))
    same(total, np.full((4, 1), 16.0))


# --- errors -------------------------------------------------------------------------------------------------


def _error(kind, function, shape=(4, 16), dtype="float32", **changes):
    """The message of the error that one instruction raises, its line checked."""

    def kernel(x):
        data = tile(x)
        vector, wide = data[:, :1], data[:, :2]
        tiles = {"vector": vector, "wide": wide, "hbm": x}
        given = {k: tiles.get(v, v) if isinstance(v, str) else v for k, v in changes.items()}
        arguments = {"dst": new(shape), "data": data, **given}
        function(**arguments)

    with pytest.raises(kind) as caught:
        nki.jit(kernel)(make(shape, dtype))
    assert caught.value.location.line == kernel.__code__.co_firstlineno + 6
    return str(caught.value)


def test_data_in_hbm():
    assert "HBM" in _error(errors.WrongMemory, nisa.activation, op="exp", data="hbm")


def test_unknown_function():
    message = _error(errors.UnknownOperator, nisa.activation, op="cosine")
    assert "cosine" in message
    assert "gelu" in message


def test_prelu_needs_a_slope():
    assert "activate2" in _error(errors.InvalidOperand, nisa.activation, op="prelu")


def test_only_sums():
    message = _error(
        errors.UnknownOperator, nisa.activation_reduce, op="exp", reduce_op="maximum", reduce_res="vector"
    )
    assert "maximum" in message
    assert "add" in message


def test_vectors_have_one_element_per_partition():
    message = _error(errors.ShapeMismatch, nisa.activation, op="exp", bias="wide")
    assert "bias has shape (4, 2)" in message
    assert "(4, 1)" in message
    assert "reduce_res" in _error(errors.ShapeMismatch, nisa.activation, op="exp", reduce_res="wide")


def test_scale_is_float32():
    message = _error(errors.UnsupportedDtype, nisa.activation, dtype="bfloat16", op="exp", scale="vector")
    assert "bfloat16" in message
    assert "float32" in message


def test_elements_agree():
    message = _error(errors.ShapeMismatch, nisa.activation, op="exp", data="wide")
    assert "(4, 16)" in message
    assert "(4, 2)" in message


def test_commands():
    message = _error(errors.InvalidOperand, nisa.activation, op="exp", reduce_cmd=nisa.reduce_cmd.load_reduce)
    assert "load_reduce" in message
    assert "reset_reduce" in message


def test_trn1_takes_no_number_as_bias(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn1")
    assert "trn2" in _error(errors.UnsupportedOnTarget, nisa.activation, op="exp", bias=1.0)
    assert "reciprocal" in _error(errors.UnsupportedOnTarget, nisa.activation, op="reciprocal", bias="vector")


def test_activations_on_gpsimd(trn3):
    """The same values as on the Scalar Engine, and time on GpSimd."""
    gpsimd, none = nisa.engine.gpsimd, ("multiply", "bypass")

    def kernel(x, on):
        data, results = tile(x), [new(x.shape) for _ in range(2)]
        nisa.activation(results[0], nl.tanh, data, bias=data[:, :1], scale=0.5, engine=on)
        nisa.activate2(results[1], nl.exp, data, 0.25, 0.0, *none, engine=on)
        return outputs(*results)

    x = make((100, 33), "float32")
    got, right = ([np.asarray(r) for r in nki.jit(kernel)(x, on)] for on in (gpsimd, nisa.engine.scalar))
    for one, other, simulated in zip(got, right, nki.simulate(kernel)(x, gpsimd), strict=True):
        same(one, other)
        same(one, simulated, rtol=1e-5, atol=1e-6)
    engines = nki.profile(kernel, x, gpsimd).engines
    assert (engines["GpSimd"].instructions, engines["Scalar"].instructions) == (2, 0)


def test_activations_that_gpsimd_does_not_run(trn3, monkeypatch):
    on = {"op": "exp", "engine": nisa.engine.gpsimd}
    reset = nisa.reduce_cmd.reset_reduce
    assert "reset_reduce" in _error(errors.InvalidOperand, nisa.activation, reduce_cmd=reset, **on)
    assert "reduce_res" in _error(errors.InvalidOperand, nisa.activation, reduce_res="vector", **on)
    message = _error(errors.UnsupportedEngine, nisa.activation, op="exp", engine=nisa.engine.vector)
    assert "scalar, gpsimd" in message
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn2")
    assert "trn3" in _error(errors.UnsupportedOnTarget, nisa.activation, **on)


def test_trn3_instructions_need_trn3():
    message = _error(
        errors.UnsupportedOnTarget, nisa.activate2, op="exp", imm0=0.0, imm1=0.0, op0=None, op1=None
    )
    assert "trn3" in message

    def kernel(x):
        nisa.exponential(new((4, 16)), tile(x))

    with pytest.raises(errors.UnsupportedOnTarget, match="trn3"):
        nki.jit(kernel)(make((4, 16), "float32"))


def test_activate2_stages(trn3):
    stages = {"op": "exp", "imm0": 0.0, "imm1": 0.0}
    message = _error(errors.InvalidOperand, nisa.activate2, op0="add", op1="multiply", **stages)
    assert "(add, multiply)" in message
    assert "(multiply, add)" in message
    message = _error(errors.InvalidOperand, nisa.activate2, op0="add", op1="bypass", reverse1=True, **stages)
    assert "reverse1" in message


def test_exponential_refuses_what_is_undefined(trn3):
    def kernel(x, **options):
        data = tile(x)
        nisa.exponential(new(x.shape), data, reduce_init=data[:, :1], **options)

    x = make((4, 16), "float32")
    with pytest.raises(errors.InvalidOperand, match="load_reduce"):
        nki.jit(kernel)(x)
    with pytest.raises(errors.UnsupportedDtype, match="float8_e4m3fn"):
        nki.jit(kernel)(make((4, 16), "float8_e4m3fn"))


def test_an_index_per_partition_is_not_supported_yet():
    def kernel(x, rows):
        data, index = tile(x), tile(rows)
        view = data.ap([[16, 4], [1, 16]], vector_offset=index)
        nisa.activation(new((4, 16)), "exp", view)

    with pytest.raises(errors.UnsupportedError, match="nisa.activation .*in data") as caught:
        nki.jit(kernel)(make((4, 16), "float32"), np.zeros((4, 1), np.int32))
    assert caught.value.location.line == kernel.__code__.co_firstlineno + 3


def test_more_than_128_partitions_cannot_be_allocated():
    def kernel(x):
        data = tile(x)
        nisa.activation(new((128, 4)), "exp", data)

    with pytest.raises(errors.PartitionLimitExceeded, match="128"):
        nki.jit(kernel)(make((129, 4), "float32"))


@pytest.mark.parametrize("row", [row for row in activation_functions.ALL if not row.takes_slope], ids=repr)
def test_functions_are_the_same_on_large_tiles_and_in_float64(row):
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 149.9, -149.9, 151, -151, 1e-40], np.float32)
    x = np.concatenate([special, make((40_000,), "float32"), make((1_000,), "float32") * np.float32(100)])
    with np.errstate(all="ignore"):
        expected = np.asarray((np.exp if row.name == "exp" else row.exact)(x.astype(np.float64))).astype(np.float32)
    found = row.numpy(x)
    assert np.array_equal(found.view(np.uint32)[~np.isnan(x)], expected.view(np.uint32)[~np.isnan(x)])
    assert np.array_equal(found, row.numpy(x.reshape(4, -1)).reshape(-1), equal_nan=True)
    assert np.isnan(found[np.isnan(x)]).all() == np.isnan(expected[np.isnan(x)]).all()
