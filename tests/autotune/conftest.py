"""Small kernels with something to tune, one with every way to be rejected."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from autotune import Workload

COLUMNS = 192


@nki.jit
def scaled(x, factor=2.0, CHUNK=64, COPIES=1, REFUSE=0):
    """x * factor in chunks of columns; COPIES fills SBUF, REFUSE breaks rules."""
    assert x.shape[1] % CHUNK == 0, f"{x.shape[1]} columns are not a multiple of CHUNK={CHUNK}"
    assert REFUSE != 1, "REFUSE must not be one"
    if REFUSE == 2:
        nl.ndarray((256, 1), dtype=nl.float32, buffer=nl.sbuf)
    if REFUSE == 3:
        raise RuntimeError("a mistake of the kernel")
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    held = []
    for start in range(0, x.shape[1], CHUNK):
        here = slice(start, start + CHUNK)
        for _ in range(COPIES):
            tile = nl.ndarray((x.shape[0], CHUNK), dtype=x.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=tile, src=x[:, here])
            held.append(tile)
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=factor)
        nisa.dma_copy(dst=out[:, here], src=tile)
    for tile in held:
        nisa.tensor_copy(dst=tile, src=tile)
    return out


@pytest.fixture
def kernel():
    return scaled


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((128, COLUMNS), np.float32)


@pytest.fixture
def workload(x: np.ndarray) -> Workload:
    return Workload.of(scaled, x)
