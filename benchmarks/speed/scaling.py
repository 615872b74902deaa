"""Kernels on all cores against the same kernels on one thread."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

from benchmarks import peers
from benchmarks.speed.match import Match

SIZES = {
    "matmul": {"M": 2048, "N": 2048, "K": 2048},
    "softmax": {"rows": 4096, "D": 4096},
    "rmsnorm": {"rows": 4096, "D": 4096},
    "flash_attention": {"heads": 4, "kv_heads": 4, "S_q": 2048, "S_k": 2048, "D": 128},
}
_SHARE = 0.9  # of perfect scaling: 1.8 on two cores


def matches(threads: int) -> Iterator[Match]:
    if threads == 1:
        return
    for name, sizes in SIZES.items():
        module = importlib.import_module(f"kernels.{name}")
        arrays = module.inputs(**sizes)
        kernel = getattr(module, name)

        def run(kernel: Callable[..., object] = kernel, arrays: tuple = arrays) -> object:
            return kernel(*arrays)

        def alone(run: Callable[[], object] = run) -> object:
            with peers.our_threads(1):
                return run()

        size = " ".join(f"{k}={v}" for k, v in sizes.items())
        yield Match(f"{name}, {threads} threads", size, run, {"one thread": alone}, {"one thread": _SHARE * threads})
