"""How long a kernel takes before it first runs: cold, and in a fresh process that finds it in the disk cache.

    python -m benchmarks cold [--side 4096] [--repeats 5]

Times are processor time, tracing included and imports excluded; the medians of several processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

_CALL = """
import json, sys, time
import numpy as np
from kernels.matmul import matmul
side = int(sys.argv[1])
a, b = np.ones((side, side), np.float32), np.ones((side, side), np.float32)
started = time.process_time()
launcher = matmul.launcher(a, b)
print(json.dumps(time.process_time() - started))
"""


def seconds(side: int, cache: str) -> float:
    """From the call to the native run, in a process of its own; imports excluded."""
    environment = {**os.environ, "NKILITE_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-c", _CALL, str(side)], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def main() -> None:
    """Print both times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    pairs = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as cache:
            pairs.append((seconds(options.side, cache), seconds(options.side, cache)))
    for name, times in zip(("nothing on disk", "the program on disk"), zip(*pairs, strict=True), strict=True):
        print(f"matmul {options.side}³ float32, {name}: {statistics.median(times) * 1e3:.0f} ms (cpu-measured)")


if __name__ == "__main__":
    main()
