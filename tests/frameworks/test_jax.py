"""Kernels in jax: jitted, mapped, with gradients of their own, for shapes alone, on sharded arrays."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.frameworks.jax import MissingJaxGradient, WrittenJaxArray

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


def test_sharded_arrays_are_not_gathered_without_a_word() -> None:
    script = """
import jax, numpy as np
from tests.frameworks.test_jax import scaled
mesh = jax.make_mesh((2,), ("i",))
x = jax.device_put(np.ones((8, 4), np.float32), jax.NamedSharding(mesh, jax.P("i")))
try:
    scaled(x)
except Exception as error:
    print(type(error).__name__, error)
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert "ShardedArgument: argument 'x'".replace(":", "") in done.stdout, done.stdout + done.stderr
