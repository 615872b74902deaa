"""Cost of stochastic rounding: kernels that round to nearest and stochastically, launched in turns.

    python -m benchmarks rounding [NAME ...]

Prints a table for docs/rounding.md, with the shortest of all times: of the kernels whose name begins like one of those
given. `python -m benchmarks speed rounding` races the same kernels, but for the matmul, for docs/speed.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from benchmarks.contest import race
from benchmarks.machine import describe
from kernels.layernorm import layernorm
from kernels.matmul import matmul
from kernels.softmax import softmax

ROUNDS = 60
SIZE = 2048


def to_dtype(x, dtype):
    """x, rounded by the Scalar Engine."""
    out = nl.ndarray(x.shape, dtype=dtype, buffer=nl.shared_hbm)
    for row in range(0, x.shape[0], nl.tile_size.pmax):
        rows = slice(row, row + nl.tile_size.pmax)
        narrow = nl.ndarray((nl.tile_size.pmax, x.shape[1]), dtype=dtype, buffer=nl.sbuf)
        nisa.activation(dst=narrow, op=nl.copy, data=nl.load(x[rows]))
        nl.store(out[rows], narrow)
    return out


def cases() -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """Name, kernel and arguments of what memory limits, mostly."""
    x = np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32)
    half = x.astype(ml_dtypes.bfloat16)
    for dtype in ("bfloat16", "float16", "float8_e4m3"):
        yield f"float32 to {dtype}", to_dtype, (x, dtype)
    yield "softmax bfloat16", softmax, (half,)
    yield "layernorm bfloat16", layernorm, (half, half[0], half[1])


def _chosen(names: Sequence[str]) -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    half = np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(ml_dtypes.bfloat16)
    for case in (*cases(), ("matmul bfloat16", matmul, (half, half))):
        if not names or case[0].startswith(tuple(names)):
            yield case


def main(names: Sequence[str] = ()) -> None:
    """Measure and print."""
    where = describe()
    print(f"{where['processor']}, level {where['level']}, {where['cores']} cores; cpu-measured, {SIZE} x {SIZE}\n")
    print("| kernel | to nearest | stochastically | ratio |\n| --- | --- | --- | --- |")
    for name, kernel, arguments in _chosen(names):
        launchers = {kind: nki.jit(kernel, stochastic_rounding=kind).launcher(*arguments) for kind in (False, True)}
        found = race({str(kind): partial(launcher.time, 1) for kind, launcher in launchers.items()}, ROUNDS)
        nearest, stochastic = (min(found.seconds[str(kind)]) * 1e3 for kind in (False, True))
        print(f"| {name} | {nearest:.2f} ms | {stochastic:.2f} ms | {stochastic / nearest:.2f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
