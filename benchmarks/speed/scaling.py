"""Kernels on all cores against the same kernels on one thread; what only copies shows what the memory allows."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from benchmarks import peers
from benchmarks.speed.match import Match

SIZES = {
    "matmul": {"M": 2048, "N": 2048, "K": 2048},
    "softmax": {"rows": 4096, "D": 4096},
    "rmsnorm": {"rows": 4096, "D": 4096},
    "flash_attention": {"heads": 4, "kv_heads": 4, "S_q": 2048, "S_k": 2048, "D": 128},
}
_SHARE = 0.9  # of perfect scaling: 1.8 on two cores


@nki.jit
def copy(x):
    """HBM to HBM."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    return out


def matches(threads: int) -> Iterator[Match]:
    if threads == 1:
        return
    yield _match(copy, (np.ones((4096, 4096), np.float32),), "4096×4096", threads, {})
    for name, sizes in SIZES.items():
        module = importlib.import_module(f"kernels.{name}")
        size = " ".join(f"{k}={v}" for k, v in sizes.items())
        goals = {"one thread": _SHARE * threads}
        yield _match(getattr(module, name), module.inputs(**sizes), size, threads, goals)


def _match(
    kernel: Callable[..., object], arrays: tuple, size: str, threads: int, goals: Mapping[str, float]
) -> Match:
    def run() -> object:
        return kernel(*arrays)

    def alone() -> object:
        with peers.our_threads(1):
            return run()

    return Match(f"{kernel.__name__}, {threads} threads", size, run, {"one thread": alone}, goals)
