"""Compiled kernels against the same kernels simulated instruction by instruction in NumPy."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import nkilite as nki
from benchmarks.speed.match import Match
from kernels import GALLERY


def matches(threads: int) -> Iterator[Match]:
    for name in GALLERY:
        module = importlib.import_module(f"kernels.{name}")
        sizes = module.SHOWN
        arrays = module.inputs(**sizes)
        kernel = getattr(module, name)
        simulated = nki.simulate(kernel)
        yield Match(
            f"compiled {name}", " ".join(f"{k}={v}" for k, v in sizes.items()), lambda k=kernel, a=arrays: k(*a),
            {"simulated": lambda s=simulated, a=arrays: s(*a)},
        )
