"""The time of a function on this CPU, as a stand-in for its time on a GpSimd core."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from nkilite.codegen.foreign import Foreign
from nkilite.errors import OperatorFailed

_RUNS = 5
_known: dict[tuple[object, ...], float] = {}


def nanoseconds(function: Foreign, arguments: Sequence[np.ndarray | float]) -> float:
    """cpu-measured: the shortest of a few runs of all cores one after the other, once per process and shapes.

    Raises:
        OperatorFailed: it fails on these arguments.
    """
    key = function.name, tuple((a.shape, a.dtype.str) if isinstance(a, np.ndarray) else a for a in arguments)
    if key not in _known:
        times = []
        for _ in range(_RUNS):
            started = time.perf_counter_ns()
            failure = function(arguments)
            times.append(time.perf_counter_ns() - started)
            if failure:
                raise OperatorFailed(operator=function.title, found=f"{failure} (while its cost was measured)")
        _known[key] = float(min(times))
    return _known[key]
