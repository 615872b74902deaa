"""Kernels on two cores: how tests launch them, and what their kernels share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl

X = np.arange(128 * 32, dtype=np.float32).reshape(128, 32) / 512


def launches(kernel: Callable) -> dict[str, Any]:
    """A kernel on two cores, simulated and compiled."""
    return {"simulate": nki.simulate(kernel)[2], "compiled": nki.jit(kernel)[2]}


def half(core: int, rows: int) -> slice:
    """The rows of a core."""
    return slice(core * rows // 2, (core + 1) * rows // 2)


def loaded(x: Any) -> Any:
    """In a kernel: a tensor in HBM as a tile."""
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(tile, x)
    return tile


def output(x: Any, name: str = "") -> Any:
    """In a kernel: a shared tensor like another one."""
    return nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name=name)
