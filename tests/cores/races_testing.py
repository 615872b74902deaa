"""Kernel bodies for tests of races, and the lists of those with a race and without."""

from __future__ import annotations

import numpy as np
import pytest
from cores_testing import loaded, output

import nkilite.isa as nisa
import nkilite.language as nl

BOTH = (0, 1)
X = np.ones((8, 16), np.float32)
RACES = []
CLEAN = []


def race(*says, modes=("simulate", "compiled")):
    """A kernel body `(core, x, out, tile)` with a race between its lines that end in `# one` and `# other`."""

    def add(body):
        RACES.extend(pytest.param(body, says, mode, id=f"{body.__name__}-{mode}") for mode in modes)
        return body

    return add


def rows(first, count=4):
    """In a kernel: a tile with the numbers of some rows."""
    tile = nl.ndarray((count, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.iota(tile, [[1, 1]], first, 1)
    return tile


def clean(body):
    CLEAN.append(pytest.param(body, id=body.__name__))
    return body


def around(body):
    """The kernel of a body."""

    def kernel(x):
        out = output(x)
        body(nl.program_id(0), x, out, loaded(x))
        return out

    return kernel
