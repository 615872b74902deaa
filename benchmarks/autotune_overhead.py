"""What the tuner itself costs per modelled trial: processor milliseconds that are neither tracing nor the database.

    python -m benchmarks.autotune_overhead [--trials N ...]

A search over 16,384 configurations of matmul whose figures come from a formula, a fifth of them rejected. The samplers'
packages are loaded before, by a search of another seed. Set OPENBLAS_NUM_THREADS=1 on a busy machine: threads that wait
for each other count as work.
"""

from __future__ import annotations

import argparse

from autotune import Space, Specification, Study, Workload
from autotune.errors import MissingExtra
from autotune.explore.samplers import SAMPLERS
from autotune.objective import Modelled
from autotune.outcome import Outcome, Reason
from autotune.space import Configuration
from benchmarks.machine import describe

SPACE = Space({"TILES_IN_BLOCK_M": range(1, 33), "TILES_IN_BLOCK_N": range(1, 17), "TILES_IN_BLOCK_K": range(1, 33)})
BEST = (7, 11, 19)


class Formula(Modelled):
    """A bowl with holes, in no time."""

    def evaluate(self, workload: Workload, configuration: Configuration, incumbent: float | None = None) -> Outcome:
        values = tuple(configuration.values())
        if sum(values) % 5 == 0:
            return Outcome(reason=Reason.capacity, detail="a hole")
        return Outcome(value=100.0 + sum((a - b) ** 2 for a, b in zip(values, BEST, strict=True)))


def overhead(sampler: str, trials: int, seed: int = 0) -> float:
    """Milliseconds per configuration tried."""
    workloads, _ = Specification("kernels.matmul:matmul", ("M=128,N=512,K=128",)).load()
    return 1e3 * Study(workloads, Formula("trn2"), SPACE, sampler, seed, trials).run().overhead


def main() -> None:
    """Print one line per sampler, in the notation of docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 300])
    options = parser.parse_args()
    print(describe())
    print("| sampler | " + " | ".join(f"{n} trials" for n in options.trials) + " |")
    print("|---|" + "---|" * len(options.trials))
    for sampler in SAMPLERS:
        try:
            overhead(sampler, 20, seed=1)
        except MissingExtra as missing:
            print(missing)
            continue
        figures = [f"{overhead(sampler, n):.1f} ms" for n in options.trials]
        print(f"| {sampler} | " + " | ".join(figures) + " |", flush=True)


if __name__ == "__main__":
    main()
