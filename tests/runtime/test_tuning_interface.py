"""What a tuner uses of a kernel: checks without compiling, launches and times, programs, configurations."""

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
    import numpy as np
    import nkilite as nki
    import nkilite.isa as nisa
    import nkilite.language as nl

    SIZE = 128.0
    SPACE = {"A": (1, 2)}

    def helper(n):
        return n + SIZE

    @nki.jit
    def kernel(x, A=1, B=0):
        """What it does."""
        tile = nl.load(x)
        nisa.tensor_scalar(tile, tile, nl.multiply, helper(A))
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("", "", True),
        ("return helper", "return  helper", True),
        ("    SIZE = 128.0", "    # moved\n\n    SIZE = 128.0", True),
        ("return n + SIZE", "return SIZE + n", True),
        ("B=0", "B=1", True),
        ("tile = nl.load(x)", "tile = nl.load(x)  # by one line", True),
        ("SIZE = 128.0", "SIZE = 64.0", False),
        ("n + SIZE", "n - SIZE", False),
        ("A=1", "A=2", False),
        ("nl.multiply", "nl.add", False),
    ],
)
def test_a_program_is_known_by_what_it_computes(tmp_path, old: str, new: str, same: bool) -> None:
    def load(name: str, text: str) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return nki.program_digest(module.kernel, np.zeros((4, 8), np.float32))

    changed = SOURCE.replace(old, new) if old else SOURCE
    assert (load("first", SOURCE) == load("second", changed)) is same


def test_the_digest_is_of_one_target_and_shape(x: np.ndarray) -> None:
    found = {
        nki.program_digest(doubled, x), nki.program_digest(doubled, x, target="trn1"),
        nki.program_digest(doubled, x[:64]), nki.program_digest(doubled, x.astype(np.float16)),
    }
    assert len(found) == 4
    assert nki.program_digest(doubled, x, CHUNK=64) in found
