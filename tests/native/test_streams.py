"""Independent parts of a program are walked side by side, dependent ones in their order, with the same results."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nkilite import beta1 as nki
from nkilite.beta1 import language as nl
from nkilite.errors import IndirectOutOfBounds
from nkilite.native import streams
from nkilite.native.compile import compile_program
from nkilite.native.executable import Executable

_SIZE = 64
HERE, ROOT = str(Path(__file__).parent), str(Path(__file__).parents[2])


def _owners(executable: Executable) -> list[int]:
    lowered = executable.image.lowered
    found: np.ndarray = lowered.table[lowered.entries + 1] >> 48
    return found.tolist()


@pytest.fixture
def always(monkeypatch):
    """Streams wherever there is more than one, however little they do."""
    monkeypatch.setattr(streams.meetings, "WAKE_NS", 0)
    monkeypatch.setattr(streams.meetings, "MEETING_NS", 1e9)
    monkeypatch.setenv("NKILITE_CACHE", "0")


def _chain(reads: tuple[int, ...], writes: tuple[int, ...], steps: int = 3):
    """A kernel each instance of which reads a block of an argument, multiplies it and writes another block."""

    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        i = nl.program_id(0)
        tile = nl.load(x[reads[i]])
        for _ in range(steps):
            tile = nl.tanh(nl.matmul(tile, nl.transpose(tile)))
        nl.store(x[writes[i]], tile)
        nl.store(out[i], tile)
        return out

    return kernel[len(reads)]


def _run(executable: Executable, x: np.ndarray, threads: int, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    monkeypatch.setenv("NKILITE_NUM_THREADS", str(threads))
    given, out = x.copy(), np.full_like(x, np.nan)
    executable.run([given, out])
    return given, out


def _blocks(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, _SIZE, _SIZE)).astype(np.float32)


def test_instances_that_share_nothing_have_owners(always) -> None:
    x = _blocks(4)
    compiled = compile_program(_chain((0, 1, 2, 3), (0, 1, 2, 3)).trace(x))
    assert compiled.lowered.arenas
    assert set(_owners(compiled.executable)) == {1, 2, 3, 4}
    assert compiled.lowered.threads == 4


@pytest.mark.parametrize(("reads", "writes"), [((0, 0), (0, 1)), ((0, 1), (1, 0)), ((0, 1), (2, 2))])
def test_instances_that_conflict_keep_their_order(always, reads, writes) -> None:
    """One reads what the other writes, or both write the same."""
    compiled = compile_program(_chain(reads, writes).trace(_blocks(3)))
    assert not compiled.lowered.arenas
    assert set(_owners(compiled.executable)) == {0}


def test_instances_that_write_columns_of_the_same_rows_have_owners(always, monkeypatch) -> None:
    """And those whose columns overlap are one stream."""

    def kernel_of(step: int):
        @nki.jit
        def kernel(x):
            out = nl.ndarray((_SIZE, 4 * _SIZE), dtype=x.dtype, buffer=nl.shared_hbm)
            i = nl.program_id(0)
            i_p, i_f = nl.arange(_SIZE)[:, None], nl.arange(_SIZE)[None, :]
            tile = nl.load(x[i_p, i * step + i_f])
            for _ in range(3):
                tile = nl.tanh(nl.matmul(tile, nl.transpose(tile)))
            nl.store(x[i_p, i * step + i_f], tile)
            nl.store(out[i_p, i * step + i_f], nl.exp(tile))
            return out

        return kernel[4]

    x = np.random.default_rng(0).standard_normal((_SIZE, 4 * _SIZE)).astype(np.float32)
    compiled = compile_program(kernel_of(_SIZE).trace(x))
    assert set(_owners(compiled.executable)) == {1, 2, 3, 4}
    one, two = (_run(compiled.executable, x, threads, monkeypatch) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(one[1], nki.simulate_kernel(kernel_of(_SIZE), x.copy()), rtol=1e-4)
    assert set(_owners(compile_program(kernel_of(_SIZE - 1).trace(x)).executable)) == {0}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=5))
def test_the_number_of_threads_does_not_show(always, monkeypatch, places) -> None:
    reads, writes = zip(*places, strict=True)
    x = _blocks(5)
    kernel = _chain(reads, writes)
    expected_x = x.copy()
    expected = nki.simulate_kernel(kernel, expected_x)
    executable = compile_program(kernel.trace(x)).executable
    one = _run(executable, x, 1, monkeypatch)
    for threads in (2, 3, 2):
        again = _run(executable, x, threads, monkeypatch)
        np.testing.assert_array_equal(again[0], one[0])
        np.testing.assert_array_equal(again[1][: len(places)], one[1][: len(places)])
    np.testing.assert_allclose(one[0], expected_x, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(one[1][: len(places)], expected[: len(places)], rtol=1e-3, atol=1e-4)


def test_many_launches_from_several_python_threads(always, monkeypatch) -> None:
    x = _blocks(4)
    executable = compile_program(_chain((0, 1, 2, 3), (0, 1, 2, 3)).trace(x)).executable
    expected = _run(executable, x, 1, monkeypatch)[1]
    monkeypatch.setenv("NKILITE_NUM_THREADS", "2")

    def launch(_: int) -> bool:
        given, out = x.copy(), np.empty_like(x)
        executable.run([given, out])
        return np.array_equal(out, expected)

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(launch, range(60)))


class Rang(Exception):
    """What the handler of an alarm raises."""


def test_what_a_handler_raises_ends_the_launch(always, monkeypatch) -> None:
    """Wherever threads are in their streams; and the next launch works."""

    def ring(*_: object) -> None:
        raise Rang

    def launch(threads: int) -> None:
        for _ in range(1000):  # one may be over before Python is asked
            _run(executable, x, threads, monkeypatch)

    x = _blocks(4)
    executable = compile_program(_chain((0, 1, 2, 3), (0, 1, 2, 3), steps=400).trace(x)).executable
    assert executable.image.lowered.arenas
    expected = _run(executable, x, 1, monkeypatch)[1]
    before = signal.signal(signal.SIGALRM, ring)
    try:
        for threads in (1, 2, 3):
            started = time.monotonic()
            _run(executable, x, threads, monkeypatch)
            signal.setitimer(signal.ITIMER_REAL, 0.1 * (time.monotonic() - started))
            with pytest.raises(Rang):
                launch(threads)
            np.testing.assert_array_equal(_run(executable, x, threads, monkeypatch)[1], expected)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_forked_children(always) -> None:
    """Also when another thread was in a launch at the moment of the fork."""
    script = """
        import os, threading
        import numpy as np
        from nkilite.native import streams
        from nkilite.native.compile import compile_program
        from test_streams import _blocks, _chain

        streams.meetings.WAKE_NS, streams.meetings.MEETING_NS = 0, 1e9
        x = _blocks(4)
        executable = compile_program(_chain((0, 1, 2, 3), (0, 1, 2, 3)).trace(x)).executable
        assert executable.image.lowered.arenas

        def run():
            out = np.empty_like(x)
            executable.run([x.copy(), out])
            return out.tobytes()

        def busy():
            while not stop.is_set():
                assert run() == expected

        expected, stop = run(), threading.Event()
        other = threading.Thread(target=busy)
        other.start()
        children = []
        for _ in range(4):
            child = os.fork()
            if not child:
                os._exit(0 if all(run() == expected for _ in range(20)) else 1)
            children.append(child)
        print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
        stop.set()
        other.join()
        print(run() == expected)
    """
    environment = {**os.environ, "NKILITE_NUM_THREADS": "3", "PYTHONPATH": os.pathsep.join([ROOT, HERE])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=environment, capture_output=True, text=True, timeout=120,
    )
    assert done.stdout == "[0, 0, 0, 0]\nTrue\n", done.stderr


def test_the_error_of_one_instance_names_its_line(always, monkeypatch) -> None:
    """The first in the order of the program, whichever thread meets one first; and the next launch works."""

    @nki.jit
    def kernel(x, rows):
        out = nl.ndarray(rows.shape[:2] + x.shape[1:], dtype=x.dtype, buffer=nl.shared_hbm)
        i = nl.program_id(0)
        i_p, i_f = nl.arange(8)[:, None], nl.arange(64)[None, :]
        where = nl.load(rows[i])
        tile = nl.load(x[where[i_p, 0], i_f])  # the line
        nl.store(out[i], nl.exp(tile))
        return out

    x = np.zeros((8, 64), np.float32)
    rows = np.tile(np.arange(8, dtype=np.int32)[:, None], (4, 1, 1))
    executable = compile_program(kernel[4].trace(x, rows)).executable
    assert executable.image.lowered.arenas
    wrong = rows.copy()
    wrong[1, 3], wrong[2, 0] = 70, 80
    out = np.empty((4, 8, 64), np.float32)
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("NKILITE_NUM_THREADS", threads)
        with pytest.raises(IndirectOutOfBounds, match="70") as caught:
            executable.run([x, wrong, out])
        assert caught.value.location.line == kernel.function.__code__.co_firstlineno + 6
        executable.run([x, rows, out])
        np.testing.assert_array_equal(out, 1)
