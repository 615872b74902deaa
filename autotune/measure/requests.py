"""What a measuring process is asked.

Where it cannot import a workload's kernel, requests bring the program of the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.measure.timing import Protocol
from autotune.space import Configuration
from nkilite import Portable


@dataclass(frozen=True)
class Load:
    """Take on a workload: `arrays` are the arguments by name, `expected` its reference's results, or None."""

    kernel: str
    arguments: dict[str, Any]
    expected: tuple[np.ndarray, ...] | None
    reduction: int
    overrides: dict[str, float]


@dataclass(frozen=True)
class Take:
    """Take on a workload whose kernel cannot be imported: requests bring its programs, `arrays` is their memory."""

    kernel: str
    arrays: tuple[np.ndarray, ...]
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
    program: Portable | None = None


@dataclass(frozen=True)
class Judge:
    """Trace, compile and check a configuration of workload `index`; answered with an Outcome, its value the error."""

    index: int
    configuration: Configuration
    keep: bool  # to be measured later
    program: Portable | None = None


@dataclass(frozen=True)
class Expect:
    """Make the results of this configuration of workload `index` the expected ones; answered with an Outcome."""

    index: int
    configuration: Configuration
    program: Portable | None = None


@dataclass(frozen=True)
class Interleave:
    """Time configurations of all workloads in rounds; answered with samples[configuration][workload][round].

    Attributes:
        programs: by configuration and workload.
    """

    configurations: tuple[Configuration, ...]
    programs: tuple[tuple[Portable | None, ...], ...]
    protocol: Protocol
    seed: int
