"""Processes that fork while other threads compile: children launch kernels that are new to them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from nkilite import forking

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")

_KERNELS = """
import multiprocessing, os, signal, sys, threading, time, warnings
import numpy as np
import nkilite as nki, nkilite.isa as nisa, nkilite.language as nl

def scaled(number):
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray(x.shape, dtype=x.dtype)
        nisa.dma_copy(tile, x)
        nisa.tensor_scalar(tile, tile, op0=nl.multiply, operand0=2.0)
        nisa.activation(tile, nl.exp if number % 2 else nl.tanh, tile)
        nisa.dma_copy(out, tile)
        return out

    x = np.full((16, number), 0.5, np.float32)
    np.testing.assert_allclose(kernel(x), (np.exp if number % 2 else np.tanh)(2 * x), rtol=1e-5)
    return number

def busy():
    for number in range(3, 100_000):
        scaled(number % 800 + 3)

scaled(5)
for _ in range(2):
    threading.Thread(target=busy, daemon=True).start()
"""

_CHILDREN = """
for number in range(16):
    time.sleep(0.003 * (number % 7))
    child = os.fork()
    if not child:
        signal.alarm(60)  # ends it if it waits for what never comes
        scaled(1001 + number)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, number
os._exit(0)
"""

_POOL = """
signal.alarm(120)
for turn in range(2):
    with multiprocessing.get_context("fork").Pool(3, maxtasksperchild=2) as pool:
        assert pool.map(scaled, range(1001 + turn, 1007 + turn), 1)
os._exit(0)
"""


@pytest.mark.parametrize(("forks", "threads"), [(_CHILDREN, "1"), (_POOL, "3")], ids=["fork", "pool"])
def test_children_launch_while_their_parent_compiles(forks, threads, tmp_path):
    environment = os.environ | {
        "NKILITE_CACHE_DIR": str(tmp_path), "NKILITE_NUM_THREADS": threads,
        "PYTHONWARNINGS": "ignore",  # newer Pythons warn that threads and forks go ill together
    }
    file = tmp_path / "forks.py"
    file.write_text(textwrap.dedent(_KERNELS + forks))
    done = subprocess.run([sys.executable, str(file)], env=environment, capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stderr


def test_a_fork_waits_for_locks_in_any_order():
    """Threads that take two locks in either order, one within the other, do not stop a fork, nor it them."""
    one, other = forking.lock(), forking.lock()
    gate, ended, turns = threading.Lock(), threading.Event(), [0, 0]

    def takes(number, outer, inner):
        while not ended.is_set():
            with gate, outer, inner:  # two that could wait for each other take turns
                turns[number] += 1
                time.sleep(0.0005)

    pairs = ((0, one, other), (1, other, one))
    threads = [threading.Thread(target=takes, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            child = os.fork()
            if not child:
                signal.alarm(20)
                with one, other:
                    os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert all(turns)


def test_who_has_a_lock_may_fork():
    lock = forking.lock()
    with lock:
        child = multiprocessing.get_context("fork").Process(target=lock.acquire)
        child.start()
        child.join(20)
    assert child.exitcode == 0


def test_llvm_is_waited_for():
    """Its lock is none of ours: llvmlite keeps it where nobody promised."""
    from nkilite.host import llvm

    llvm.get_process_triple()
    assert list(llvm._of_llvm())
