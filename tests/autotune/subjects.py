"""Kernels for the measuring process, which loads them from this file."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

import autotune
import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl

LOG = "AUTOTUNE_TEST_LOG"  # a file to be written to
HOWS = ("well", "wrong", "crash", "hang", "print")
PARENT = "AUTOTUNE_TEST_PARENT"  # process id of the test, where kernels only get traced


def isolated() -> bool:
    return os.environ.get(PARENT) not in (None, str(os.getpid()))


@nki.jit
def doubled(x, PASSES=1, HOW="well"):
    """2 * x, by PASSES passes over the data; HOW things go wrong in the measuring process."""
    if HOW == "crash" and isolated():
        os.kill(os.getpid(), signal.SIGSEGV)
    if HOW == "hang" and isolated():
        time.sleep(60)
    if HOW == "print":
        print("kernels may print")
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    for _ in range(PASSES):
        nisa.dma_copy(dst=tile, src=x)
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=3.0 if HOW == "wrong" else 2.0)
    for _ in range(HOWS.index(HOW)):  # no two are one program
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=1.0)
    nisa.dma_copy(dst=out, src=tile)
    return out


@nki.jit
def scaled(x, FACTOR=1):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=float(FACTOR))
    nisa.dma_copy(dst=out, src=tile)
    return out


@nki.jit
def logged(x, N=1):
    """Writes when it was traced, and by which process."""
    began = time.monotonic()
    time.sleep(0.3)
    with open(os.environ[LOG], "a") as log:
        log.write(f"{os.getpid()} {began} {time.monotonic()}\n")
    return doubled(x, PASSES=N)


@autotune.tune(space={"PASSES": [1, 2]}, reference=lambda x: x + 1)
@nki.jit
def incremented_in_place(x, PASSES=1):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    for _ in range(PASSES):
        nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
    nisa.dma_copy(dst=x, src=tile)
    return x


X = np.arange(128 * 512, dtype=np.float32).reshape(128, 512)
