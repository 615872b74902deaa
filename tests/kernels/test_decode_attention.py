"""decode_attention is traced once and serves every length of its cache."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nkilite as nki
from kernels import decode_attention as module
from nkilite import errors

PAGE = Path(__file__).parents[2] / "docs" / "dynamic-shapes.md"
SIZES = {"heads": 4, "kv_heads": 2, "room": 768, "D": 32}
Q, K, V, _ = module.inputs(**SIZES, length=1)
KERNEL = nki.jit(module.decode_attention.function)


def at(length, kernel=KERNEL, k=K, v=V):
    return kernel(Q, k, v, np.array([[length]], np.int32))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, SIZES["room"]))
def test_every_length(length):
    """Rows behind the length do not matter, whatever finite numbers they hold."""
    expected = module.reference(Q, K, V, np.array([[length]]))
    np.testing.assert_allclose(at(length), expected, rtol=2e-5, atol=2e-6)
    k, v = K.copy(), V.copy()
    k[:, length:], v[:, length:] = 1e6, -1e6
    np.testing.assert_array_equal(at(length, k=k, v=v), at(length))


@pytest.mark.parametrize("length", [1, 255, 256, 257, 511, 768])
def test_simulated_as_compiled(length):
    np.testing.assert_allclose(at(length, nki.simulate(KERNEL)), at(length), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S), ids=["size", "shape"])
def test_a_cache_grows_without_a_new_trace(block):
    """The examples of the page, with new traces as errors, in a process of its own: pytest rewrites assertions."""
    command = [sys.executable, "-W", "error::UserWarning", "-c", block]
    done = subprocess.run(command, cwd=PAGE.parents[1], text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_length_beyond_the_room():
    for kernel in (KERNEL, nki.simulate(KERNEL)):
        with pytest.raises(errors.IndirectOutOfBounds):
            at(SIZES["room"] + 1, kernel)
