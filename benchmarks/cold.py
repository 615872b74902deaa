"""How long kernels take before they first run: cold, and in a fresh process that finds them in the disk cache.

    python -m benchmarks cold [--side 4096] [--images 32]

A blocked matmul, and a convolution of 3,000 instructions an image. Times are processor time on one thread; imports are
excluded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile

_CALL = """
import json, sys, time
import numpy as np
from benchmarks.convolution import conv2d, operands
from kernels.matmul import matmul
name, size = sys.argv[1], int(sys.argv[2])
kernel = {"matmul": matmul, "conv2d": conv2d}[name]
arguments = operands(size) if kernel is conv2d else (np.ones((size, size), np.float32),) * 2
started = time.process_time()
kernel.trace(*arguments)
traced = time.process_time()
kernel.launcher(*arguments)
print(json.dumps([traced - started, time.process_time() - traced]))
"""


def seconds(name: str, size: int, cache: str) -> tuple[float, float]:
    """To trace a kernel, and to get it ready, which traces, too, in a process of its own."""
    environment = {**os.environ, "NKILITE_CACHE_DIR": cache, "NKILITE_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _CALL, name, str(size)], env=environment, capture_output=True, text=True, check=True
    )
    traced, ready = json.loads(done.stdout)
    return traced, ready


def main() -> None:
    """Print a line for each kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096, help="of the matmul, float32")
    parser.add_argument("--images", type=int, default=32, help="of the convolution; 316 are 953,000 instructions")
    chosen = parser.parse_args()
    print("seconds (cpu-measured)      to trace     ready, cold     ready, warm")
    for name, size in (("matmul", chosen.side), ("conv2d", chosen.images)):
        with tempfile.TemporaryDirectory() as cache:
            (traced, cold), (_, warm) = (seconds(name, size, cache) for _ in range(2))
        print(f"{name:8} {size:6} {traced:20.2f} {cold:15.2f} {warm:15.2f}", flush=True)


if __name__ == "__main__":
    main()
