"""`python -m benchmarks` lists the benchmarks; `python -m benchmarks speed matmul --threads 1` runs one."""

from __future__ import annotations

import importlib
import runpy
import sys

from rich.console import Console
from rich.table import Table

BENCHMARKS = (
    "speed", "cores", "cold", "second", "tracing", "vector_math", "rounding", "autotune_cpu", "autotune_overhead",
    "autotune_quality", "calibration", "scaling",
)


def main() -> int:
    """Run the benchmark named first, with the remaining arguments, or list all."""
    if len(sys.argv) > 1 and sys.argv[1] in BENCHMARKS:
        name = sys.argv.pop(1)
        sys.argv[0] = f"python -m benchmarks {name}"
        runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=False)
        return 0
    table = Table("benchmark", "what it measures", box=None)
    for name in BENCHMARKS:
        summary = (importlib.import_module(f"benchmarks.{name}").__doc__ or "").splitlines()[0]
        table.add_row(name, summary)
    console = Console()
    console.print("python -m benchmarks NAME [--help]")
    console.print(table)
    return 0 if len(sys.argv) == 1 else 2


if __name__ == "__main__":
    sys.exit(main())
