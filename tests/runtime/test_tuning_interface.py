"""What a tuner uses of a kernel: checks without compiling, launches and times, a fingerprint, configurations."""

from __future__ import annotations

import importlib.util
import textwrap

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import MemoryOverflow
from nkilite.runtime import configurations


@nki.jit
def doubled(x, CHUNK=64, COPIES=1):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    held = []
    for start in range(0, x.shape[1], CHUNK):
        here = slice(start, min(start + CHUNK, x.shape[1]))
        for _ in range(COPIES):
            tile = nl.ndarray((x.shape[0], here.stop - here.start), dtype=x.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=tile, src=x[:, here])
            held.append(tile)
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
        nisa.dma_copy(dst=out[:, here], src=tile)
    for tile in held:
        nisa.tensor_copy(dst=tile, src=tile)
    return out


@pytest.fixture
def x() -> np.ndarray:
    return np.arange(128 * 256, dtype=np.float32).reshape(128, 256)


def test_check_compiles_nothing_and_finds_overflow(x: np.ndarray) -> None:
    doubled.forget()
    assert doubled.check(x).count == doubled.trace(x).count
    with pytest.raises(MemoryOverflow):
        doubled.check(x, CHUNK=256, COPIES=300)
    assert not doubled._specializations


def test_launcher_runs_and_times(x: np.ndarray) -> None:
    launcher = doubled.launcher(x, CHUNK=128)
    np.testing.assert_array_equal(launcher.run(), 2 * x)
    times = launcher.time(5)
    assert len(times) == 5
    assert all(0 < t < 1e6 for t in times)
    x[:] = 3
    launcher.time()
    np.testing.assert_array_equal(launcher.run(), np.full_like(x, 6))


def test_configurations_fill_what_the_caller_leaves_out(x: np.ndarray) -> None:
    asked = []

    def lookup(kernel, explicit):
        asked.append((kernel, set(explicit)))
        return {"CHUNK": 32, "COPIES": 2}

    plain = doubled.trace(x).count
    before = configurations.register(lookup)
    try:
        tuned = doubled.trace(x).count
        explicit = doubled.trace(x, CHUNK=64, COPIES=1).count
        np.testing.assert_array_equal(doubled(x), 2 * x)
    finally:
        assert configurations.register(before) is lookup
    assert (doubled.trace(x).count, explicit) == (plain, plain)
    assert tuned == doubled.trace(x, CHUNK=32, COPIES=2).count != plain
    assert asked[0] == (doubled, {"x"})
    assert asked[1] == (doubled, {"x", "CHUNK", "COPIES"})


SOURCE = '''
    import nkilite as nki

    SIZE = 128
    SPACE = {"A": (1, 2)}

    def helper(n):
        return n + SIZE

    @nki.jit
    def kernel(x, A=1):
        """What it does."""
        return helper(A)
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("", "", True),
        ("return helper", "return  helper", True),
        ("What it does.", "What else it does.", True),
        ("@nki.jit", "@nki.jit()", True),
        ('"A": (1, 2)', '"A": (1, 2, 4)', True),
        ("SIZE = 128", "SIZE = 64", False),
        ("n + SIZE", "n - SIZE", False),
        ("A=1", "A=2", False),
    ],
)
def test_fingerprint(tmp_path, old: str, new: str, same: bool) -> None:
    def load(name: str, text: str):
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.kernel.fingerprint

    changed = SOURCE.replace(old, new) if old else SOURCE
    assert (load("first", SOURCE) == load("second", changed)) is same
