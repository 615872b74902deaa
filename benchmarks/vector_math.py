"""Accuracy and cost of the vector mathematics: every activation function against float64, in ulp and ns per element.

    python -m benchmarks vector_math

Writes docs/vector-math.md and prints it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from benchmarks.machine import describe
from nkilite.isa import activation_functions
from nkilite.isa.activation_functions import ActivationFunction

DOCUMENT = Path(__file__).parents[1] / "docs" / "vector-math.md"
STEP = 509  # every so manieth of the 2**32 float32 patterns
ROWS, COLUMNS = 128, 512  # two tiles stay in the L2 cache
LAUNCHES = 60
CHANGES_SIGN = ("gelu_dx", "gelu_apprx_sigmoid_dx", "silu_dx")
_TINY = 2.0**-120  # below, intermediate results are subnormal and lose digits

TEXT = """# Vector mathematics

Activation functions are compiled to multiplies and adds on vectors; there is no run-time library. Errors are the
largest over every {step}th of all float32 inputs and a grid from -20 to 20, against the exact function in float64, in
units of the last place (ulp) of results above 2^-120 in magnitude; the next column has the largest absolute error of
results up to 1. `sin` counts within [-π, π]. Derivatives that change sign have no relative accuracy near their zeros:
for them the absolute error tells. The tails of `gelu` are products of four rounded factors.

Measured on {processor}, level {level}; times are cpu-measured, for [{rows}, {columns}] tiles in SBUF, one thread, and
include one load and one store per element. Made by `python -m benchmarks vector_math`.

| function | largest error, ulp | at | mean error, ulp | absolute error | ns per element (cpu-measured) |
|---|---|---|---|---|---|
"""


@nki.jit
def apply(x, op, times):
    """The same activation many times over, on one tile."""
    tile = nl.load(x)
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    for _ in range(times):
        nisa.activation(dst=result, op=op, data=tile)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, result)
    return out


def main() -> None:
    """Measure, print and write the page."""
    os.environ["NKILITE_FUSE"] = "0"  # or equal instructions that follow each other become one
    machine = describe()
    text = TEXT.format(
        step=STEP, processor=machine["processor"], level=machine["level"], rows=ROWS, columns=COLUMNS
    )
    for function in activation_functions.ALL:
        if not function.takes_slope:
            text += _row(function) + "\n"
    DOCUMENT.write_text(text)
    print(text)


def _row(function: ActivationFunction) -> str:
    x = np.arange(0, 1 << 32, STEP, dtype=np.uint32).view(np.float32)
    x = np.concatenate([x, np.linspace(-20, 20, 1_000_001, dtype=np.float32)])
    if function.name == "sin":
        x = x[np.abs(x) <= math.pi]
    found = _evaluate(function)(x)
    with np.errstate(all="ignore"):
        exact = function.exact(x.astype(np.float64))
        rounded = exact.astype(np.float32)
        error = np.abs(found.astype(np.float64) - exact)
        ulp = error / np.spacing(np.abs(rounded)).astype(np.float64)
    usual = np.isfinite(rounded) & (np.abs(exact) >= _TINY) & np.isfinite(x)
    ulp, error = np.where(usual, ulp, 0), np.where(usual & (np.abs(exact) <= 1), error, 0)
    worst = int(np.argmax(ulp))
    mean = ulp.sum() / max(1, usual.sum())
    relative = f"{ulp[worst]:.2f} | {x[worst]:.6g}"
    if function.name in CHANGES_SIGN:
        relative = "– | –"
    return f"| {function.name} | {relative} | {mean:.2f} | {error.max():.1e} | {_nanoseconds(function):.2f} |"


def _evaluate(function: ActivationFunction) -> Callable[[np.ndarray], np.ndarray]:
    """The compiled function on an array of any length."""

    def run(x: np.ndarray) -> np.ndarray:
        block = ROWS * COLUMNS
        padded = np.zeros(-(-x.size // block) * block, np.float32)
        padded[: x.size] = x
        tiles = [apply(t, function.name, 1) for t in padded.reshape(-1, ROWS, COLUMNS)]
        return np.concatenate(tiles).reshape(-1)[: x.size]

    return run


def _nanoseconds(function: ActivationFunction) -> float:
    x = np.linspace(0.1, 3, ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)
    few, many = (apply.launcher(x, function.name, times) for times in (2, 10))
    best = [min(launcher.time(LAUNCHES)) for launcher in (few, many)]
    return (best[1] - best[0]) / 8 * 1e3 / x.size


if __name__ == "__main__":
    main()
