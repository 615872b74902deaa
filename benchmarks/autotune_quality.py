"""How close the tuner comes to the exhaustive optimum of modelled latency with a tenth of the trials.

    python -m benchmarks.autotune_quality [--only NAME ...] [--samples PATH] [--database PATH]

For every kernel the whole space is evaluated once; then the default sampler and random search get a tenth of the legal
configurations, for five seeds each. Gaps are relative to the exhaustive optimum, all modelled. The database remembers
what was evaluated, so an interrupted run continues.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import ml_dtypes
import numpy as np

from autotune import Database, Space, Study, Workload
from autotune.objective import Modelled
from nkilite.cli.specs import load_kernel

SEEDS = range(5)
SHARE = 10
TARGET = "trn2"
SAMPLES_PATH = "src/nki_samples/tutorials/matrix_multiplication/matrix_multiplication_nki_kernels.py"


@dataclass(frozen=True)
class Subject:
    """A kernel with the shape and the space it is tuned on."""

    name: str
    shape: str
    space: dict[str, Any]
    workload: Callable[[], Workload]


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def gallery(name: str, space: dict[str, Any], **sizes: int) -> Subject:
    """A kernel of kernels/ on bfloat16 inputs."""

    def workload() -> Workload:
        module = importlib.import_module(f"kernels.{name}")
        return Workload.of(getattr(module, name), *module.inputs("bfloat16", **sizes))

    return Subject(name, " ".join(f"{k}={v}" for k, v in sizes.items()), space, workload)


def published_matmul(samples: Path) -> Subject:
    """nki-samples' last matmul, unmodified; only divisors are legal."""
    M, N, K = 24, 12, 36  # tiles

    def workload() -> Workload:
        kernel = load_kernel(f"{samples / SAMPLES_PATH}:nki_matmul_fully_optimized_")
        lhsT = np.zeros((128 * K, 128 * M), ml_dtypes.bfloat16)
        return Workload.of(kernel, lhsT, np.zeros((128 * K, 512 * N), ml_dtypes.bfloat16))

    space = {
        "TILES_IN_BLOCK_M": divisors(M), "TILES_IN_BLOCK_N": divisors(N), "TILES_IN_BLOCK_K": divisors(K),
    }
    return Subject("nki_matmul_fully_optimized_", f"M={128 * M} N={512 * N} K={128 * K}", space, workload)


def subjects(samples: Path | None) -> Iterator[Subject]:
    yield gallery(
        "matmul",
        {"TILES_IN_BLOCK_M": range(1, 9), "TILES_IN_BLOCK_N": range(1, 7), "TILES_IN_BLOCK_K": range(1, 9)},
        M=1024, N=3072, K=1024,
    )
    yield gallery(
        "softmax",
        {
            "ROWS_PER_PARTITION": range(1, 9), "COLUMNS_IN_TILE": range(256, 2049, 128),
            "SCALE_ENGINE": ("gpsimd", "scalar", "vector"),
        },
        rows=4096, D=2048,
    )
    yield gallery(
        "rmsnorm",
        {
            "ROWS_PER_PARTITION": range(1, 13), "COLUMNS_IN_TILE": range(256, 2049, 128),
            "GAIN_ENGINE": ("gpsimd", "vector"),
        },
        rows=4096, D=2048,
    )
    yield gallery(
        "flash_attention",
        {
            "KEY_TILES_IN_BLOCK": range(1, 9), "QUERY_TILES_IN_BLOCK": (1, 2, 4, 8), "TRANSPOSES_PER_COPY": range(1, 9),
            "COPY_ENGINE": ("scalar", "vector"),
        },
        heads=1, kv_heads=1, S_q=1024, S_k=4096, D=128,
    )
    yield gallery(
        "mamba",
        {
            "SEQ_TILE": (128, 192, 256, 384, 512, 768, 1024, 2048), "CHANNEL_TILES_IN_BLOCK": range(1, 5),
            "STATES_IN_BLOCK": (1, 2, 4, 8, 16), "INPUT_ENGINE": ("gpsimd", "vector"),
            "OUTPUT_ENGINE": ("gpsimd", "vector"),
        },
        batch=1, channels=512, T=2048, S=16,
    )
    if samples is not None:
        yield published_matmul(samples)


def row(subject: Subject, database: Database) -> str:
    """A line of the table."""
    workload, space = subject.workload(), Space(subject.space)
    objective = Modelled(TARGET)

    def run(**options: Any) -> Any:
        return Study([workload], objective, space, database=database, **options).run()

    everything = run(sampler="grid", trials=space.size + 1)
    legal, best = len(everything.ranking), everything.best.value
    budget = legal // SHARE
    gaps = {
        sampler: [run(sampler=sampler, seed=seed, trials=budget).best.value / best - 1 for seed in SEEDS]
        for sampler in ("tpe", "random")
    }
    default = "rejected" if everything.default is None else f"{everything.default.value / best - 1:.1%}"
    cells = (
        subject.name, subject.shape, str(space.size), str(legal), str(budget), f"{best:.1f} µs", default,
        f"{mean(gaps['tpe']):.2%}", f"{max(gaps['tpe']):.2%}", f"{mean(gaps['random']):.2%}",
    )
    return "| " + " | ".join(cells) + " |"


COLUMNS = (
    "kernel", "shape", "space", "legal", "trials", "optimum", "default's gap", "tpe, mean gap", "tpe, worst",
    "random, mean gap",
)
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--samples", type=Path, help="a checkout of nki-samples")
    parser.add_argument("--database", type=Path, help="where evaluations are kept")
    arguments = parser.parse_args()
    print(HEAD)
    with Database(arguments.database) as database:
        for subject in subjects(arguments.samples):
            if not arguments.only or subject.name in arguments.only:
                print(row(subject, database), flush=True)


if __name__ == "__main__":
    main()
