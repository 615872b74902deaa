"""What a second, different kernel of the same operations takes to compile, where the code of the first one is on disk.

    python -m benchmarks second [softmax ...] [--repeats 3]

Each kernel of the gallery is launched in a process of its own, then with other sizes and options in another one: with
the disk cache that the first has left, and with an empty one. Compiling is passes, lowering and LLVM; the launch is
all of it: tracing, compiling, running, and what is written to disk. Times are processor time on one thread; imports and
the start of LLVM are excluded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

_LAUNCH = """
import importlib, json, sys, time
from nkilite.host.cpu import host
from nkilite.native.library import assembly
from nkilite.native.parallel import Walk
from nkilite.native.walker import WALK
from nkilite.runtime import specialization
name, shape, options, dtype = json.loads(sys.argv[1])
module = importlib.import_module(f"kernels.{name}")
arrays = module.inputs(dtype=dtype, seed=1, **shape)
Walk(host(), 1, 1)
assembly([WALK], host())
clock, original, compiling = time.process_time, specialization.compile_program, []
def compile_program(*arguments, **how):
    started = clock()
    found = original(*arguments, **how)
    compiling.append(clock() - started)
    return found
specialization.compile_program = compile_program
started = clock()
getattr(module, name)(*arrays, **options)
print(json.dumps([sum(compiling), clock() - started]))
"""


class Call(NamedTuple):
    """A launch of a kernel of the gallery."""

    shape: dict[str, int]
    options: Mapping[str, Any] = MappingProxyType({})
    dtype: str = "float32"


class Pair(NamedTuple):
    """Two launches, and what is different in the second."""

    kernel: str
    first: Call
    second: Call
    what: str


_FLASH = {"heads": 2, "kv_heads": 1, "S_q": 256, "S_k": 512, "D": 64}
_MLP = {"tokens": 128, "H": 256, "F": 512}
PAIRS = (
    Pair("softmax", Call({"rows": 256, "D": 768}), Call({"rows": 384, "D": 1536}), "sizes"),
    Pair("softmax", Call({"rows": 256, "D": 768}), Call({"rows": 300, "D": 1000}), "uneven sizes"),
    Pair("layernorm", Call({"rows": 256, "D": 768}), Call({"rows": 512, "D": 1536}), "sizes"),
    Pair("rmsnorm", Call({"rows": 256, "D": 768}), Call({"rows": 384, "D": 640}), "sizes"),
    Pair("swiglu", Call({"rows": 256, "D": 768}), Call({"rows": 384, "D": 640}), "sizes"),
    Pair("swiglu", Call({"rows": 256, "D": 768}), Call({"rows": 256, "D": 768}, {"act": "gelu"}), "activation"),
    Pair("rope", Call({"batch": 1, "tokens": 128, "heads": 2, "D": 64}),
         Call({"batch": 2, "tokens": 256, "heads": 4, "D": 128}), "sizes"),
    Pair("adam", Call({"rows": 256, "D": 768}), Call({"rows": 384, "D": 640}), "sizes"),
    Pair("mamba", Call({"batch": 1, "channels": 128, "T": 128, "S": 4}),
         Call({"batch": 1, "channels": 256, "T": 256, "S": 8}), "sizes"),
    Pair("flash_attention", Call(_FLASH), Call({**_FLASH, "S_q": 384, "S_k": 1024}), "sizes"),
    Pair("flash_attention", Call(_FLASH), Call(_FLASH, {"TRANSPOSES_PER_COPY": 2, "QUERY_TILES_IN_BLOCK": 1}), "tiles"),
    Pair("flash_attention", Call(_FLASH), Call(_FLASH, {"causal": True}), "causal"),
    Pair("flash_attention", Call(_FLASH), Call(_FLASH, {"COPY_ENGINE": "scalar"}), "one instruction"),
    Pair("mlp", Call(_MLP), Call({"tokens": 256, "H": 384, "F": 768}), "sizes"),
    Pair("mlp", Call(_MLP), Call(_MLP, {"act": "gelu"}), "activation"),
    Pair("mlp", Call(_MLP), Call(_MLP, {"F_TILES_IN_BLOCK": 2}), "tiles"),
    Pair("matmul", Call({"M": 128, "N": 512, "K": 256}), Call({"M": 256, "N": 512, "K": 384}), "sizes"),
    Pair("softmax", Call({"rows": 256, "D": 768}), Call({"rows": 256, "D": 768}, {}, "bfloat16"), "dtype"),
)


def launched(kernel: str, call: Call, cache: str) -> tuple[float, float]:
    """Milliseconds that a first launch takes to compile, and in all, in a process of its own."""
    environment = {**os.environ, "NKILITE_CACHE_DIR": cache, "NKILITE_CACHE": "1", "NKILITE_NUM_THREADS": "1"}
    given = json.dumps([kernel, call.shape, dict(call.options), call.dtype])
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCH, given], env=environment, capture_output=True, text=True, check=True
    )
    compiling, all = json.loads(done.stdout)
    return compiling * 1e3, all * 1e3


def measured(pair: Pair) -> list[tuple[float, float]]:
    """(to compile, in all) of the second launch of a pair: cold, and after the first one."""
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as used:
        launched(pair.kernel, pair.first, used)
        return [launched(pair.kernel, pair.second, cache) for cache in (empty, used)]


def main() -> None:
    """Print a line for every pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernels", nargs="*", help="those to measure; by default all")
    parser.add_argument("--repeats", type=int, default=3, help="of which the median counts")
    arguments = parser.parse_args()
    print("compile / launch, ms (cpu-measured)       cold         second     second : cold")
    for pair in PAIRS:
        if arguments.kernels and pair.kernel not in arguments.kernels:
            continue
        runs = [measured(pair) for _ in range(arguments.repeats)]
        cold, warm = (tuple(median(run[i][j] for run in runs) for j in (0, 1)) for i in (0, 1))
        print(
            f"{pair.kernel:16} {pair.what:16} {cold[0]:8.1f} {cold[1]:6.0f} {warm[0]:8.1f} {warm[1]:6.0f}"
            f"     {warm[0] / cold[0]:5.2f} {warm[1] / cold[1]:5.2f}", flush=True,
        )


if __name__ == "__main__":
    main()
