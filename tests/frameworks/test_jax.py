"""Kernels in jax: jitted, mapped, with gradients of their own, for shapes alone, on sharded arrays."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.frameworks import jax_calls
from nkilite.frameworks.jax import MissingJaxGradient, WrittenJaxArray
from nkilite.native import xla

jax = pytest.importorskip("jax", reason="jax is not installed")


@nki.jit
def scaled(x, factor=2.0):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)
    nisa.tensor_scalar(tile, tile, nl.multiply, factor)
    nl.store(out, tile)
    return out


@nki.jit
def parts(inputs):
    x = inputs["x"]
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.load(x))
    return {"tail": out[4:8, 1:3], "same": x}


@nki.jit
def increment(x):
    tile = nl.load(x)
    nisa.tensor_scalar(tile, tile, nl.add, 1.0)
    nl.store(x, tile)


@pytest.fixture
def x() -> Any:
    return jax.numpy.arange(32, dtype="float32").reshape(8, 4)


def test_jit(x: Any) -> None:
    function = jax.jit(lambda x: scaled(x + 1, factor=3.0) * 2)
    for values in (x, x * 2):
        np.testing.assert_array_equal(function(values), (values + 1) * 6)


def test_results_of_64_bits_keep_them(x: Any) -> None:
    @nki.jit
    def kernel(x):
        tile = nl.ndarray((2, 3), dtype=nl.int64)
        nisa.memset(tile, 1 << 40)
        out = nl.ndarray((2, 3), dtype=nl.int64, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out

    for function in (kernel, jax.jit(kernel)):
        assert (np.asarray(function(x)) == 1 << 40).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "int32", "float8_e5m2"])
def test_element_types(dtype: str, x: Any) -> None:
    found = jax.jit(scaled)(x[:2].astype(dtype))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype("float32"), x[:2].astype(dtype).astype("float32") * 2)


def test_results_that_are_views_and_inputs(x: Any) -> None:
    found = jax.jit(lambda x: parts({"x": x}))(x)
    np.testing.assert_array_equal(found["tail"], x[4:8, 1:3])
    np.testing.assert_array_equal(found["same"], x)


def test_shapes_and_maps(x: Any) -> None:
    assert jax.eval_shape(scaled, x).shape == x.shape
    np.testing.assert_array_equal(jax.vmap(scaled)(jax.numpy.stack([x, x + 1])), np.stack([x, x + 1]) * 2)


def test_gradients(x: Any) -> None:
    @jax.custom_vjp
    def doubled(x):
        return scaled(x)

    doubled.defvjp(lambda x: (scaled(x), None), lambda _, g: (scaled(g),))
    np.testing.assert_array_equal(jax.grad(lambda x: doubled(x).sum())(x), np.full(x.shape, 2.0))
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda x: doubled(x).sum()))(x), np.full(x.shape, 2.0))

    with pytest.raises(MissingJaxGradient) as caught:
        jax.grad(lambda x: scaled(x).sum())(x)
    assert "scaled(x).sum()" in str(caught.value)


def test_arrays_are_not_written(x: Any) -> None:
    with pytest.raises(WrittenJaxArray, match="'x'") as caught:
        jax.jit(lambda x: increment(x))(x)
    assert "increment(x)" in str(caught.value)


def run_on_two_devices(script: str) -> str:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sharded_arrays_are_not_gathered_without_a_word() -> None:
    found = run_on_two_devices("""
import jax, numpy as np
from tests.frameworks.test_jax import scaled
mesh = jax.make_mesh((2,), ("i",))
x = jax.device_put(np.ones((8, 4), np.float32), jax.NamedSharding(mesh, jax.P("i")))
automatic = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
y = jax.device_put(np.arange(32, dtype=np.float32).reshape(8, 4), jax.NamedSharding(automatic, jax.P("i")))
for function, argument in ((scaled, x), (jax.jit(scaled), x), (jax.jit(scaled), y)):
    try:
        function(argument)
    except Exception as error:
        print(type(error).__name__, error)
mapped = jax.jit(jax.shard_map(scaled, mesh=automatic, in_specs=jax.P("i"), out_specs=jax.P("i")))
for _ in range(3):
    print((np.asarray(mapped(y)) == 2 * np.arange(32).reshape(8, 4)).all())
""")
    assert "ShardedArgument argument 'x'" in found
    assert "ShardedInJit" in found
    assert "SeveralDevices kernel 'scaled' is called in jax.jit over 2 devices" in found
    assert found.splitlines()[-3:] == ["True"] * 3


@pytest.fixture
def in_python(monkeypatch) -> list[Any]:
    """The runs of programs that took Python."""
    found: list[Any] = []
    original = xla.Program.run

    def run(self, *buffers):
        found.append(self)
        return original(self, *buffers)

    monkeypatch.setattr(xla.Program, "run", run)
    return found


def test_warm_calls_take_no_python(x: Any, in_python: list) -> None:
    same = jax.jit(lambda x: parts({"x": x})["same"])  # which is x, so that XLA drops the call
    function = jax.jit(lambda x: scaled(x + 1, 3.0) + same(x))
    for i in range(4):
        np.testing.assert_array_equal(function(x + i), (x + i + 1) * 3 + x + i)
    repeated = jax.jit(lambda x: jax.lax.fori_loop(0, 5, lambda _, y: scaled(y), x))
    np.testing.assert_array_equal(repeated(x), x * 32)
    assert [in_python.count(p) for p in set(in_python)] == [1] * 2


def test_calls_at_the_same_time(in_python: list) -> None:
    function = jax.jit(lambda x: scaled(x, 3.0))
    with ThreadPoolExecutor(4) as pool:
        arrays = [jax.numpy.full((128, 64), float(i)) for i in range(64)]
        for array, found in zip(arrays, pool.map(function, arrays), strict=True):
            np.testing.assert_array_equal(found, array * 3)
    assert len(in_python) < 32


def test_threads_and_cores(in_python: list) -> None:
    x = jax.numpy.ones((1024, 2048), dtype="bfloat16")
    function = jax.jit(large)
    for _ in range(3):
        np.testing.assert_array_equal(function(x).astype("float32"), 3)
    halves = jax.jit(lambda x: by_core[2](x))
    for _ in range(2):
        np.testing.assert_array_equal(halves(x[:8, :16]).astype("float32"), np.repeat([[1], [2]], 4, 0) * np.ones(16))


@nki.jit
def large(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for row in range(0, x.shape[0], 128):
        tile = nl.load(x[row:row + 128])
        nisa.tensor_scalar(tile, tile, nl.add, 2.0)
        nl.store(out[row:row + 128], tile)
    return out


@nki.jit
def by_core(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    core = nl.program_id(0)
    tile = nl.load(x[core * 4:core * 4 + 4])
    nisa.tensor_scalar(tile, tile, nl.multiply, 1.0 + core)
    nl.store(out[core * 4:core * 4 + 4], tile)
    return out


@nki.jit
def gathered(x, index):
    out = nl.ndarray((4, x.shape[1]), dtype=x.dtype, buffer=nl.shared_hbm)
    rows = nl.load(index)
    nisa.dma_copy(dst=out, src=x.ap([[x.shape[1], 4], [1, x.shape[1]]], vector_offset=rows, indirect_dim=0))
    return out


def test_faults_name_the_line(x: Any) -> None:
    function = jax.jit(lambda x, index: gathered(x, index))
    good, bad = (jax.numpy.array([[i], [1], [2], [3]], dtype="int32") for i in (0, 99))
    for _ in range(2):
        np.testing.assert_array_equal(function(x, good), x[:4])
        with pytest.raises(Exception, match="IndirectOutOfBounds.*99") as caught:
            jax.block_until_ready(function(x, bad))
        assert "vector_offset=rows" in str(caught.value)


def test_what_a_kernel_prints(x: Any, capsys) -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        nl.device_print("seen", tile[0:1, 0:2])
        nl.store(out, tile)
        return out

    function = jax.jit(kernel)
    for _ in range(2):
        np.testing.assert_array_equal(function(x), x)
    assert capsys.readouterr().out.count("seen") == 2


def test_small_numbers_are_kept(x: Any) -> None:
    tiny = jax.numpy.full((8, 4), 1e-40)
    np.testing.assert_array_equal(np.asarray(jax.jit(scaled)(tiny)), scaled(np.asarray(tiny)))


def test_without_the_interface_calls_go_back_into_python(x: Any, monkeypatch, in_python: list) -> None:
    monkeypatch.setattr(jax_calls, "_native", lambda jax: False)
    function = jax.jit(lambda x: scaled(x + 1, factor=3.0) * 2)
    np.testing.assert_array_equal(function(x), (x + 1) * 6)
    np.testing.assert_array_equal(jax.vmap(scaled)(jax.numpy.stack([x, x + 1])), np.stack([x, x + 1]) * 2)
    assert in_python == []


def test_calls_of_another_process_are_refused(x: Any) -> None:
    wrong = jax.ffi.ffi_call("nkilite", jax.ShapeDtypeStruct(x.shape, x.dtype))
    jax.jit(scaled)(x)
    with pytest.raises(jax.errors.JaxRuntimeError, match="compiled by another process"):
        jax.block_until_ready(wrong(x, number=np.int64(0), process=np.int64(1)))


def test_ctrl_c_ends_what_compiled_code_runs() -> None:
    script = """
import jax, os, signal, threading, time
from tests.frameworks.test_jax import endless
function = jax.jit(lambda x: endless(x))
x = jax.numpy.ones((4, 4))
for _ in range(2):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        jax.block_until_ready(function(x))
    except BaseException as error:
        print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180)
    assert len(done.stdout.split()) == 2, done.stderr


@nki.jit
def endless(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)
    one = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.memset(one, 1)
    flag = nisa.register_alloc(1)

    def body(register):
        nisa.tensor_scalar(tile, tile, nl.multiply, 1.0)
        nisa.register_load(register, one)
        return register

    nl.while_loop(flag, body)
    nl.store(out, tile)
    return out
