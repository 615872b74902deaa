"""A kernel for workers in other processes: takes its time to trace, and hangs where a test says, once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl

HANGS = "AUTOTUNE_TEST_HANGS"  # a file to be made by who hangs, with its process id
SLOW = "AUTOTUNE_TEST_SLOW"  # seconds to trace for, instead of a few hundredths, after a line that says so
SPACE = {"PASSES": range(1, 13), "SHIFT": [0.0, 1.0]}


def hang_once() -> None:
    marker = os.environ.get(HANGS)
    if marker is None:
        return
    try:
        with Path(marker).open("x") as file:
            file.write(f"{os.getpid()}\n")
    except FileExistsError:
        return
    time.sleep(120)


@nki.jit
def slow(x, PASSES=1, SHIFT=0.0):
    if SLOW in os.environ:
        print("slow", flush=True)
    time.sleep(float(os.environ.get(SLOW, "0.02")))
    if PASSES == 7 and SHIFT == 1.0:
        hang_once()
    assert PASSES != 11, "PASSES must not be eleven"
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    for _ in range(PASSES):
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=SHIFT)
    nisa.dma_copy(dst=out, src=tile)
    return out
