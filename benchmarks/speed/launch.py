"""What a call costs when the kernel does next to nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from benchmarks.speed.match import Match


@nki.jit
def add(a, b):
    """The sum of two tiles."""
    out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    total = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=total, data1=nl.load(a), data2=nl.load(b), op=nl.add)
    nl.store(out, total)
    return out


def matches(threads: int) -> Iterator[Match]:
    a, b = (np.full((128, 512), i, np.float32) for i in (1, 2))
    out = np.empty_like(a)
    others = {"NumPy, fresh output": lambda: np.add(a, b), "NumPy, given output": lambda: np.add(a, b, out=out)}
    yield Match("launch: add", "128×512", lambda: add(a, b), others)
