"""How close the tuner's choice comes to an exhaustive sweep when both are measured on this CPU.

    python -m benchmarks.autotune_cpu [--only NAME ...] [--rounds N] [--seed N] [--quick]

For every kernel, first a sweep of its whole space, then a study of its own with half of the trials (besides those
it drops as hopeless during warm-up), which shares nothing with the sweep. Then the study's choice, the sweep's best and
the default are compiled again in this process and timed in rounds of random order, the fastest of a few launches each;
figures are medians of ratios within rounds with their 95 % confidence intervals, all cpu-measured. The load average
stands beside them: other work on the machine widens intervals. `NKILITE_NUM_THREADS` says how many threads a kernel
uses, as everywhere.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune import Result, Space, Workload, search
from autotune.measure.timing import paired_ratio, quantile
from benchmarks.machine import describe

SHARE = 2  # of the space a study tries
LAUNCHES = 5  # of a candidate in a round, of which the fastest counts: other work on the machine only adds


@dataclass(frozen=True)
class Subject:
    """A kernel of kernels/ on float32 inputs of a shape, and the space it is tuned on."""

    name: str
    sizes: Mapping[str, int]
    space: Mapping[str, Sequence[Any]]

    def workload(self) -> Workload:
        module = importlib.import_module(f"kernels.{self.name}")
        arrays = module.inputs("float32", **self.sizes)
        tolerance = module.tolerance(**self.sizes)
        return Workload.of(getattr(module, self.name), *arrays, reference=module.reference, tolerance=tolerance)


PIECES = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
TILES = (1, 2, 4, 8, 16)
SUBJECTS = (  # about a millisecond each, which often passes without the scheduler
    Subject(
        "mamba", {"batch": 1, "channels": 128, "T": 512, "S": 16},
        {"SEQ_TILE": (64, 128, 256, 512), "STATES_IN_BLOCK": TILES},
    ),
    Subject("transpose", {"M": 1024, "N": 1024}, {"TILES_IN_BLOCK_M": TILES, "TILES_IN_BLOCK_N": TILES}),
    Subject("swiglu", {"rows": 512, "D": 1024}, {"COLUMNS": (*PIECES, 4096)}),
    Subject(
        "matmul", {"M": 256, "N": 512, "K": 256},
        {"TILES_IN_BLOCK_M": (1, 2), "TILES_IN_BLOCK_N": (1, 2), "TILES_IN_BLOCK_K": (1, 2)},
    ),
    Subject(
        "mlp", {"tokens": 128, "H": 256, "F": 512},
        {"TOKENS_IN_BLOCK": (32, 64, 128), "F_TILES_IN_BLOCK": (1, 2, 4), "H_TILES_IN_BLOCK": (1, 2)},
    ),
    Subject("rope", {"batch": 1, "tokens": 512, "heads": 16, "D": 64}, {"HEADS_IN_BLOCK": TILES}),
    Subject("adam", {"rows": 256, "D": 1024}, {"COLUMNS": PIECES}),
)
QUICK = (Subject("swiglu", {"rows": 256, "D": 1024}, {"COLUMNS": (64, 256, 1024)}),)

COLUMNS = (
    "kernel", "shape", "space", "trials", "sweep's best", "tuner's choice", "choice", "choice / best",
    "default / choice", "load average",
)
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def retimed(
    workload: Workload, configurations: Iterable[Mapping[str, Any]], rounds: int, seed: int
) -> list[list[float]]:
    """Microseconds of each configuration per round, compiled afresh; rounds are in random order."""
    calls = [workload.call(dict(c)) for c in configurations]
    launchers = [workload.kernel.launcher(*call.args, **call.kwargs) for call in calls]
    samples: list[list[float]] = [[] for _ in launchers]
    order, rng = list(range(len(launchers))), random.Random(seed)
    for _ in range(rounds):
        rng.shuffle(order)
        for index in order:
            samples[index].append(min(launchers[index].time(LAUNCHES)))
    return samples


def row(subject: Subject, rounds: int, seed: int) -> str:
    """A line of the table."""
    workload, space = subject.workload(), Space(subject.space)

    def study(**options: Any) -> Result:
        return search(workload.kernel, workloads=[workload], objective="cpu", space=space, **options)

    load = os.getloadavg()[0]
    swept = study(sampler="grid", trials=space.size + 1)
    tuned = study(sampler="tpe", trials=max(2, space.size // SHARE), seed=seed)
    best, chosen = swept.best.configuration, tuned.best.configuration
    of_best, of_chosen, of_default = retimed(workload, (best, chosen, swept.default_configuration), rounds, seed)
    cells = (
        subject.name, " ".join(f"{k}={v}" for k, v in subject.sizes.items()), str(space.size),
        str(len(tuned.history)), _values(best), "the same" if chosen == best else _values(chosen),
        f"{quantile(of_chosen, 0.5) / 1e3:.3f} ms", _ratio(of_chosen, of_best), _ratio(of_default, of_chosen),
        f"{load:.1f} to {os.getloadavg()[0]:.1f}",
    )
    return "| " + " | ".join(cells) + " |"


def _values(configuration: Mapping[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in configuration.items())


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    ratio, low, high = paired_ratio(ours, theirs)
    return f"{ratio:.3f} [{low:.3f}, {high:.3f}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one small kernel, to see that everything works")
    given = parser.parse_args(arguments)
    machine = describe()
    threads = os.environ.get("NKILITE_NUM_THREADS", machine["cores"])
    print(f"{machine['processor']}, {machine['level']}, threads: {threads}; cpu-measured\n\n{HEAD}", flush=True)
    for subject in QUICK if given.quick else SUBJECTS:
        if not given.only or subject.name in given.only:
            print(row(subject, given.rounds, given.seed), flush=True)


if __name__ == "__main__":
    main()
