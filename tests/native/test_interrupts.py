"""Signals while native code runs: handlers run soon, what they raise ends the launch, and the next one works."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.native.threads import team

X = np.ones((128, 512), np.float32)
SOON = 1.0  # seconds


class Rang(Exception):
    """What the handler of an alarm raises."""


def _rings(*_):
    raise Rang


@contextlib.contextmanager
def handler(number, function):
    before = signal.signal(number, function)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(number, before)


def endless(x):
    tile = nl.load(x)

    def body(c):
        nisa.activation(tile, nl.tanh, tile)
        return c

    nl.while_loop(nisa.register_alloc(1), body)
    return x


def endless_and_empty(x):
    nl.while_loop(nisa.register_alloc(1), lambda c: c)
    return x


def nested(x):
    tile = nl.load(x)

    def inner(j):
        nisa.activation(tile, nl.tanh, tile)

    nl.fori_loop(0, 1 << 20, lambda i: nl.fori_loop(0, 1 << 20, inner))
    return x


def group(x):
    """Thousands of instructions on whole partitions, by row."""
    for _ in range(3):
        tile = nl.load(x)
        for _ in range(2000):
            nisa.activation(tile, nl.tanh, tile)
        nl.store(x, tile)
    return x


LONG = {
    "a loop": (endless, X), "an empty loop": (endless_and_empty, X[:4, :4]), "loops in loops": (nested, X),
    "a row group": (group, np.ones((128, 16 << 10), np.float32)),
}


@pytest.mark.parametrize("threads", ["1", "2", "5"])
@pytest.mark.parametrize(("function", "x"), LONG.values(), ids=list(LONG))
def test_what_a_handler_raises_ends_the_launch(function, x, threads, monkeypatch) -> None:
    monkeypatch.setenv("NKILITE_NUM_THREADS", threads)
    kernel = nki.jit(function)
    kernel.compile(x)
    team().grow(int(threads))  # the first one that needs it would make its code
    with handler(signal.SIGALRM, _rings):
        for _ in range(2):
            signal.setitimer(signal.ITIMER_REAL, 0.15)
            started = time.monotonic()
            with pytest.raises(Rang):
                kernel(x.copy())
            assert time.monotonic() - started < SOON
    assert nki.jit(_doubled)(X)[0, 0] == 2.0


def _doubled(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)
    nisa.tensor_scalar(tile, tile, nl.multiply, 2.0)
    nl.store(out, tile)
    return out


def counted(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)

    def body(i):
        nisa.tensor_scalar(tile, tile, nl.add, 1.0)

    nl.fori_loop(0, 60_000, body)
    nl.store(out, tile)
    return out


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_handler_that_returns_changes_nothing(threads, monkeypatch) -> None:
    monkeypatch.setenv("NKILITE_NUM_THREADS", threads)
    monkeypatch.setenv("NKILITE_OPTIMIZE", "always")  # or it may be compiled again while the next alarm rings
    kernel, inner, seen = nki.jit(counted), nki.jit(_doubled), []

    def look(*_):
        seen.append((time.monotonic(), inner(X)[0, 0]))  # a launch while another one of this thread runs

    kernel.compile(X)
    inner(X)  # a first launch may take longer than the timer
    with handler(signal.SIGALRM, look):
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        result = kernel(X)
        ended = time.monotonic()
    assert np.array_equal(result, np.full_like(X, 60_001))
    assert [value for at, value in seen if at < ended][:2] == [2.0, 2.0]


def test_the_interrupt_reaches_the_main_thread_while_others_launch() -> None:
    kernel, results = nki.jit(counted), []
    kernel.compile(X)
    thread = threading.Thread(target=lambda: results.append(kernel(X)))
    with handler(signal.SIGALRM, _rings):
        thread.start()
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Rang):
            nki.jit(endless)(X)
    thread.join()
    assert np.array_equal(results[0], np.full_like(X, 60_001))


@pytest.mark.parametrize("mode", ["jit", "simulate"])
def test_control_c_ends_a_program(tmp_path, mode) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, numpy as np, nkilite as nki, nkilite.isa as nisa, nkilite.language as nl\n"
        f"@nki.{mode}\n"
        "def kernel(x):\n"
        "    tile = nl.load(x)\n"
        "    print('ready', flush=True)\n"
        "    def body(c):\n"
        "        nisa.activation(tile, nl.tanh, tile)\n"
        "        return c\n"
        "    nl.while_loop(nisa.register_alloc(1), body)\n"
        "    return x\n"
        "kernel(np.ones((4, 4), np.float32))\n"
    )
    process = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(1.0)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=5)
    finally:
        process.kill()
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
