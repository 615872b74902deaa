"""What a measuring process is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.measure.timing import Protocol
from autotune.space import Configuration


@dataclass(frozen=True)
class Load:
    """Take on a workload: `arrays` are the arguments by name, `expected` its reference's results, or None."""

    kernel: str
    arguments: dict[str, Any]
    expected: tuple[np.ndarray, ...] | None
    reduction: int
    overrides: dict[str, float]


@dataclass(frozen=True)
class Measure:
    """Time a configuration of workload `index` that was judged and kept; answered with an Outcome."""

    index: int
    configuration: Configuration
    incumbent: float | None
    protocol: Protocol


@dataclass(frozen=True)
class Judge:
    """Trace, compile and check a configuration of workload `index`; answered with an Outcome, its value the error."""

    index: int
    configuration: Configuration
    keep: bool  # to be measured later


@dataclass(frozen=True)
class Expect:
    """Make the results of this configuration of workload `index` the expected ones; answered with an Outcome."""

    index: int
    configuration: Configuration


@dataclass(frozen=True)
class Interleave:
    """Time configurations of all workloads in rounds; answered with samples[configuration][workload][round]."""

    configurations: tuple[Configuration, ...]
    protocol: Protocol
    seed: int
