"""Two cores of a launch on two CPU threads against one after the other: nki-library's attention_cte.

    python -m benchmarks cores CHECKOUT [--heads 4] [--sequence 2048]

CHECKOUT is of aws-neuron/nki-library; `python -m conformance nki-library` fetches one. Times are of native runs alone,
taken in turns.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from autotune.measure.timing import Spread
from benchmarks.contest import race
from benchmarks.machine import describe
from nkilite import compat
from nkilite.runtime.kernel import Kernel

_HEAD = 128


def kernel(checkout: Path) -> Kernel:
    """attention_cte of a checkout.

    Raises:
        SystemExit: there is none.
    """
    source = checkout / "src"
    if not (source / "nkilib_src").is_dir():
        sys.exit(f"{checkout} is no checkout of nki-library: it has no src/nkilib_src")
    compat.install()
    sys.path.insert(0, str(source))
    from nkilib_src.nkilib.core.attention.attention_cte import attention_cte  # type: ignore[import-not-found]  # noqa: PLC0415

    return attention_cte


def launch(attention: Kernel, heads: int, sequence: int, threads: int) -> Callable[[], object]:
    """A causal launch on two cores of the chip, which may use so many threads of the CPU."""
    generator = np.random.default_rng(0)
    q, k, v = (
        generator.standard_normal(shape, np.float32).astype(ml_dtypes.bfloat16)
        for shape in ((heads, sequence, _HEAD), (heads, _HEAD, sequence), (heads, sequence, _HEAD))
    )
    launcher = attention[2].launcher(q, k, v, scale=_HEAD**-0.5)

    def run() -> object:
        os.environ["NKILITE_NUM_THREADS"] = str(threads)
        return launcher.time()

    return run


def _said(spread: Spread, unit: float = 1) -> str:
    return f"{spread.median * unit:.2f} ({spread.low * unit:.2f} to {spread.high * unit:.2f})"


def main() -> None:
    """Print the ratio and what it was measured on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=2048)
    options = parser.parse_args()
    attention = kernel(options.checkout.resolve())
    runs = {n: launch(attention, options.heads, options.sequence, n) for n in (1, 2)}
    contest = race({"one after the other": runs[1], "two threads": runs[2]})
    shown = f"attention_cte[2], {options.heads} heads of {options.sequence} x {_HEAD}, causal, bfloat16"
    for name, seconds in contest.seconds.items():
        print(f"{shown}, {name}: {_said(Spread.of(seconds), 1e3)} ms (cpu-measured)")
    ratio = contest.ratio("one after the other", "two threads")
    print(f"one after the other takes {_said(ratio)} times as long; goal 1.6")
    print(describe())


if __name__ == "__main__":
    main()
