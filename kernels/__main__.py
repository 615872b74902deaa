"""`python -m kernels`: run the gallery end to end and show answers, speed and what each kernel asks of the chip.

Every kernel is traced, checked, compiled for this CPU, run, and compared with its float64 reference; then it and the
idiomatic float32 NumPy formula beside it are timed in turns, as they are when launched often.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.table import Table

from kernels import GALLERY
from nkilite.cli.terminal import terminal
from nkilite.isa import engine
from nkilite.profiling import summarize
from nkilite.testing import check

TURNS, CALLS = 2, 4
PAUSE = 0.15  # seconds after which threads of BLAS and OpenMP no longer look for work on the cores of others
WIDTH = 140  # columns the tables need; logs have no width of their own


def main() -> int:
    """Show the table; the exit status is 1 if a result is wrong."""
    console = terminal(WIDTH)
    answers = Table(title="Answers and speed on this CPU (float32, cpu-measured)")
    for heading in ("kernel", "sizes", "result", "first call", "compiled", "NumPy", "NumPy / compiled"):
        answers.add_column(heading, justify="left" if heading in ("kernel", "sizes", "result") else "right")
    chip = Table(title="What the kernels ask of a trn2 NeuronCore (counts exact, times modelled)")
    for heading in ("kernel", "Tensor", "Vector", "Scalar", "GpSimd", "DMA", "HBM read", "written", "SBUF peak", "PSUM",
                    "busiest engine"):
        chip.add_column(heading, justify="left" if heading in ("kernel", "busiest engine") else "right")
    wrong = 0
    for name in GALLERY:
        module = importlib.import_module(f"kernels.{name}")
        sizes = module.SHOWN
        arrays = module.inputs(dtype="float32", **sizes)
        kernel = getattr(module, name)
        started = time.perf_counter()
        kernel(*arrays)
        first = time.perf_counter() - started
        verdict = "correct"
        try:
            check(kernel, module.reference, *arrays, modes=("compiled",), **module.tolerance(**sizes))
        except AssertionError as mismatch:
            wrong += 1
            verdict = "WRONG"
            console.print(f"{name}: {mismatch}")
        kernel.launcher(*arrays).time(1)  # from here on it has the code that is made for many launches
        ours, numpy = _in_turns(lambda k=kernel, a=arrays: k(*a), lambda p=module.in_numpy, a=arrays: p(*a))
        answers.add_row(name, " ".join(f"{k}={v}" for k, v in sizes.items()), verdict, f"{first * 1e3:.0f} ms",
                        f"{ours * 1e3:.2f} ms", f"{numpy * 1e3:.2f} ms", f"{numpy / ours:.1f}")
        _add_chip_row(chip, name, summarize(kernel.compile(*arrays).program))
    console.print(answers)
    console.print(chip)
    return 1 if wrong else 0


def _in_turns(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float]:
    """Median seconds of two functions that take turns of some calls each."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for function, found in zip((ours, theirs), seconds, strict=True):
            time.sleep(PAUSE)
            for _ in range(CALLS):
                started = time.perf_counter()
                function()
                found.append(time.perf_counter() - started)
    return float(np.median(seconds[0])), float(np.median(seconds[1]))


def _add_chip_row(table: Table, name: str, summary: Any) -> None:
    shown = (engine.tensor, engine.vector, engine.scalar, engine.gpsimd, engine.dma)
    counts = [summary.instructions.get(e, 0) for e in shown]
    busiest, time_us = max(summary.busy_us.items(), key=lambda item: item[1])
    table.add_row(
        name, *map(str, counts), _bytes(summary.hbm_read_bytes), _bytes(summary.hbm_write_bytes),
        _bytes(summary.sbuf_peak_bytes) + "/partition", f"{summary.psum_peak_banks} banks",
        f"{busiest.name} {time_us:.0f} µs",
    )


def _bytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


if __name__ == "__main__":
    sys.exit(main())
