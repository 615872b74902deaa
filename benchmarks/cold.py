"""How long a kernel takes before it first runs: cold, and in a fresh process that finds it in the disk cache.

    python -m benchmarks cold [--side 4096]
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
from kernels.matmul import matmul
side = int(sys.argv[1])
a, b = np.ones((side, side), np.float32), np.ones((side, side), np.float32)
started = time.perf_counter()
launcher = matmul.launcher(a, b)
print(json.dumps(time.perf_counter() - started))
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
    side = parser.parse_args().side
    with tempfile.TemporaryDirectory() as cache:
        print(f"matmul {side}³ float32, cold: {seconds(side, cache) * 1e3:.0f} ms (cpu-measured; goal 1000 ms)")
        print(f"matmul {side}³ float32, warm: {seconds(side, cache) * 1e3:.0f} ms (cpu-measured; it traces)")


if __name__ == "__main__":
    main()
