"""Calling kernels: what they take, what they return, in-place inputs, and when a cached specialization is reused."""

from __future__ import annotations

import enum
import inspect
from dataclasses import dataclass
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import (
    InvalidReturn,
    NonContiguousArgument,
    NotInKernel,
    TensorAsNumber,
    TensorOperator,
    UnknownTarget,
    UnsupportedArgument,
    UnsupportedArrayDtype,
)

MODES = [pytest.param(lambda k: k, id="compiled"), pytest.param(nki.simulate, id="simulate")]
X = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)


def copied(x):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


class Mode(enum.Enum):
    first = 0
    last = 1


@dataclass
class Config:
    x: object
    columns: int
    mode: Mode = Mode.first


class Pair(NamedTuple):
    a: object
    b: object


@pytest.mark.parametrize("mode", MODES)
def test_containers_of_arrays_and_values(mode) -> None:
    @nki.jit
    def kernel(config, pair, items, table, function, text="no", nothing=None):
        assert nothing is None
        assert text == "yes"
        assert config.mode is Mode.last
        tensors = [config.x[:, 0:config.columns], pair.a, pair.b, items[0], *items[1], table["t"]]
        return [function(t) for t in tensors]

    arrays = [X + i for i in range(6)]
    results = mode(kernel)(
        Config(arrays[0], 16, Mode.last), Pair(arrays[1], arrays[2]), [arrays[3], (arrays[4],)], {"t": arrays[5]},
        copied, text="yes",
    )
    expected = [arrays[0][:, :16], *arrays[1:]]
    for result, array in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("mode", MODES)
def test_arrays_deep_in_records(mode) -> None:
    @nki.jit
    def kernel(config):
        first, (second, inner) = config.x
        return [copied(first), copied(second["s"]), copied(inner.x[0])]

    results = mode(kernel)(Config([X, ({"s": X + 1}, Config((X + 2,), 0))], 0))
    for i, result in enumerate(results):
        np.testing.assert_array_equal(result, X + i)


@pytest.mark.parametrize("mode", MODES)
def test_nested_returns(mode) -> None:
    @nki.jit
    def kernel(x):
        out = copied(x)
        return {"pair": Pair(out, (out[0:8], x)), "list": [out, None, 3]}

    result = mode(kernel)(X)
    np.testing.assert_array_equal(result["pair"].a, X)
    np.testing.assert_array_equal(result["pair"].b[0], X[:8])
    assert result["pair"].b[1] is X
    assert result["list"][1:] == [None, 3]


@pytest.mark.parametrize("mode", MODES)
def test_inputs_written_in_place(mode) -> None:
    @nki.jit
    def kernel(x, y):
        tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        nisa.dma_copy(dst=y[0:32], src=tile[0:32])
        return y

    y = np.zeros_like(X)
    assert mode(kernel)(X, y) is y
    np.testing.assert_array_equal(y[:32], X[:32])
    assert not y[32:].any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: np.zeros((32, 64), np.float32).T, "not contiguous"),
        (lambda: np.broadcast_to(np.float32(0), (64, 32)), "not"),
    ],
)
def test_unwritable_inputs_are_refused_with_the_line(mode, make, problem) -> None:
    @nki.jit
    def kernel(x, y):
        nisa.dma_copy(dst=y, src=x)  # writes y

    with pytest.raises(NonContiguousArgument, match=problem) as error:
        mode(kernel)(X, make())
    assert error.value.location.source.endswith("# writes y")


@pytest.mark.parametrize("mode", MODES)
def test_read_only_and_strided_inputs_may_be_read(mode) -> None:
    frozen = X.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(mode(nki.jit(copied))(frozen), X)
    wide = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    np.testing.assert_array_equal(mode(nki.jit(copied))(wide[:, ::2]), wide[:, ::2])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, np.int8, np.uint32, ml_dtypes.float8_e4m3fn, np.bool_]
)
def test_array_dtypes(mode, dtype) -> None:
    x = (X % 2).astype(dtype)
    result = mode(nki.jit(copied))(x)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, x)


def test_results_never_alias() -> None:
    kernel = nki.jit(copied)
    first = kernel(X)
    second = kernel(X + 1)
    np.testing.assert_array_equal(first, X)
    np.testing.assert_array_equal(second, X + 1)


FACTOR = 3
SIZES = [16]


def helper(x):
    return x[:, 0:FACTOR]


def test_specializations_follow_globals_and_helpers(monkeypatch) -> None:
    @nki.jit
    def kernel(x):
        return copied(helper(x)), copied(x[:, 0:SIZES[0]])

    assert [r.shape[1] for r in kernel(X)] == [3, 16]
    monkeypatch.setattr(inspect.getmodule(helper), "FACTOR", 5)
    SIZES[0] = 8
    try:
        assert [r.shape[1] for r in kernel(X)] == [5, 8]
    finally:
        SIZES[0] = 16


def test_specializations_follow_compile_time_values_and_closures() -> None:
    width = 4

    @nki.jit
    def kernel(x, columns):
        return copied(x[:, 0:columns + width])

    assert kernel(X, 1).shape == (64, 5)
    assert kernel(X, 2).shape == (64, 6)
    width = 8
    assert kernel(X, 1).shape == (64, 9)


def test_one_specialization_per_shape(capsys) -> None:
    @nki.jit
    def kernel(x):
        print("traced")
        return copied(x)

    for _ in range(3):
        kernel(X)
    kernel(X[:8])
    assert capsys.readouterr().out.count("traced") == 2


def test_target_is_read_at_every_launch(monkeypatch) -> None:
    @nki.jit
    def kernel(x):
        seen.append(nisa.get_nc_version())
        return copied(x)

    seen: list = []
    for name in ("trn1", "gen3", "trn3"):
        monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", name)
        kernel(X)
    assert seen == [nisa.nc_version.gen2, nisa.nc_version.gen3, nisa.nc_version.gen4]
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn0")
    with pytest.raises(UnknownTarget, match="trn0"):
        kernel(X)


def test_decoration_keeps_signature_and_name() -> None:
    @nki.jit(mode="torchxla", debug=True)
    def kernel(x, scale: float = 2.0):
        """Doc."""
        return copied(x)

    assert kernel.__name__ == "kernel"
    assert kernel.__doc__ == "Doc."
    assert list(inspect.signature(kernel).parameters) == ["x", "scale"]
    with pytest.raises(TypeError):
        kernel()


def test_kernels_inline_in_kernels() -> None:
    inner = nki.jit(copied)

    @nki.jit
    def outer(x):
        return inner(inner(x))

    np.testing.assert_array_equal(outer(X), X)
    np.testing.assert_array_equal(outer[1](X), X)


@pytest.mark.parametrize("mode", MODES)
def test_what_a_kernel_cannot_take(mode) -> None:
    @nki.jit
    def kernel(x, other):
        return copied(x)

    with pytest.raises(UnsupportedArrayDtype, match="float64"):
        mode(kernel)(X.astype(np.float64), None)
    with pytest.raises(UnsupportedArgument, match=r"shape \(0, 4\)"):
        mode(kernel)(np.zeros((0, 4), np.float32), None)


def test_iterators_have_no_identity_to_specialize_on() -> None:
    @nki.jit
    def kernel(x, other):
        return copied(x)

    with pytest.raises(UnsupportedArgument, match="generator"):
        kernel(X, (i for i in range(3)))


@pytest.mark.parametrize("mode", MODES)
def test_what_a_kernel_cannot_return(mode) -> None:
    @nki.jit
    def tile(x):
        t = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=t, src=x)
        return t

    @nki.jit
    def thing(x):
        return object()

    with pytest.raises(InvalidReturn, match="SBUF"):
        mode(tile)(X)
    with pytest.raises(InvalidReturn, match="object"):
        mode(thing)(X)


@pytest.mark.parametrize("mode", MODES)
def test_tensors_are_not_numbers(mode) -> None:
    @nki.jit
    def kernel(x, use):
        assert bool(x)
        return use(x)

    for use in (int, float, range, lambda t: [1, 2][t]):
        with pytest.raises(TensorAsNumber):
            mode(kernel)(X, use)
    for use in (lambda t: t + t, lambda t: 2 * t, lambda t: t < 1, lambda t: -t):
        with pytest.raises(TensorOperator, match=r"nl\."):
            mode(kernel)(X, use)


def test_language_outside_a_kernel() -> None:
    with pytest.raises(NotInKernel, match="nki.jit"):
        nl.ndarray((128, 4), dtype=nl.float32)


def test_simulated_tensors_show_their_values(capsys) -> None:
    @nki.jit
    def kernel(x):
        tile = nl.ndarray((4, 2), dtype=nl.float32)
        nisa.dma_copy(dst=tile, src=x[0:4, 0:2])
        print(tile)
        np.testing.assert_array_equal(tile.numpy(), X[:4, :2])
        return copied(x)

    nki.simulate(kernel)(X)
    assert "32." in capsys.readouterr().out


def test_the_environment_can_simulate_every_kernel(monkeypatch) -> None:
    @nki.jit
    def kernel(x):
        tile = nl.load(x)
        seen.append(tile.numpy())
        return copied(x)

    seen: list[np.ndarray] = []
    monkeypatch.setenv("NKI_SIMULATOR", "1")
    np.testing.assert_array_equal(kernel(X), X)
    np.testing.assert_array_equal(seen[0], X)


def test_threads_may_share_a_kernel() -> None:
    from concurrent.futures import ThreadPoolExecutor

    kernel = nki.jit(copied)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: kernel(X + i), range(32)))
    for i, result in enumerate(results):
        np.testing.assert_array_equal(result, X + i)


def test_torch_arrays() -> None:
    torch = pytest.importorskip("torch", reason="torch is an optional extra")
    kernel = nki.jit(copied)
    for dtype in (torch.float32, torch.bfloat16, torch.int32, torch.float8_e4m3fn):
        x = torch.arange(64 * 32).reshape(64, 32).remainder(7).to(dtype)
        result = kernel(x)
        assert result.dtype == dtype
        assert torch.equal(result.to(torch.float32), x.to(torch.float32))
        assert torch.equal(nki.simulate(kernel)(x).to(torch.float32), x.to(torch.float32))


def test_jax_arrays() -> None:
    jnp = pytest.importorskip("jax.numpy", reason="jax is an optional extra")
    x = jnp.arange(64 * 32, dtype=jnp.bfloat16).reshape(64, 32)
    result = nki.jit(copied)(x)
    assert isinstance(result, type(x))
    assert (result == x).all()


@pytest.mark.parametrize("mode", MODES)
def test_accumulation_registers_begin_at_zero_in_every_launch(mode) -> None:
    @nki.jit
    def kernel(x):
        tile, total = nl.load(x), nl.zeros((64, 1), nl.float32)
        nisa.activation(
            tile, nl.copy, tile, reduce_op=nl.add, reduce_res=total, reduce_cmd=nisa.reduce_cmd.reduce
        )
        out = nl.ndarray((64, 1), nl.float32, nl.shared_hbm)
        nisa.dma_copy(out, total)
        return out

    launch = mode(kernel)
    for _ in range(2):
        np.testing.assert_allclose(launch(X), X.sum(axis=1, keepdims=True))


def test_the_function_of_a_kernel_is_part_of_another_one():
    inner = nki.jit(copied)

    @nki.jit
    def outer(x):
        return inner.func(x)

    assert inner.func is inner.function is copied
    np.testing.assert_array_equal(outer(X), X)
