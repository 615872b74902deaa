"""How far a modelled latency may be off: from published measurements of kernels like it, by kind.

measurements.json is what `python -m benchmarks calibration` found; a kind is how a program is scheduled and what bounds
it. The statement is about the rows that no rule of the model was chosen with: those of the kind if they are enough,
else all of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

__all__ = ["SMALL_US", "Accuracy", "Measurement", "accuracy_of", "kind_of", "measurements"]

_TABLE = Path(__file__).with_name("measurements.json")
SMALL_US = 100.0  # modelled; below, launch and latencies decide
_ENOUGH = 5  # rows that say something about an interval
_PERCENTILES = (10, 90)


class Measurement(NamedTuple):
    """A published latency beside the modelled one, in microseconds.

    Attributes:
        family: the kernel and its source, a family of benchmarks/calibration/rows.toml.
        row: which of it.
        kind: as `kind_of` says.
        held_out: no rule of the model was chosen with a look at it.
        bound: the busiest engine in the model.
        measured_bound: the busiest engine as published; empty if it was not.
        hbm_bytes: read and written in the model.
        measured_hbm_bytes: the same as published; empty if it was not.
        cores: how many ran it.
    """

    family: str
    row: str
    target: str
    kind: str
    held_out: bool
    measured_us: float
    modelled_us: float
    bound: str
    measured_bound: str = ""
    hbm_bytes: Sequence[int] = ()
    measured_hbm_bytes: Sequence[int] = ()
    cores: int = 1

    @property
    def error(self) -> float:
        return self.modelled_us / self.measured_us - 1


class Accuracy(NamedTuple):
    """What is known of the error of one modelled latency.

    Attributes:
        kind: of kernels, or "" where too few like it were held out and the figures are those of all.
        rows: held-out measurements behind the figures.
        median: absolute error of half of them.
        low_us, high_us: what the measured latency is between, for 8 of 10 of them, wide enough for the modelled one.
        warnings: what sets the kernel apart from those that were measured.
    """

    kind: str
    rows: int
    median: float
    low_us: float
    high_us: float
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.low_us:.4g} to {self.high_us:.4g} us expected; median error of {self.rows} held-out measurements"
        return "; ".join([f"{text} of {self.kind or 'all'} kernels {self.median:.0%}", *self.warnings])


@cache
def measurements() -> tuple[Measurement, ...]:
    """The table."""
    return tuple(Measurement(**row) for row in json.loads(_TABLE.read_text()))


def kind_of(managed: bool, latency_us: float, bound: str) -> str:
    """How a kernel is scheduled, and what decides its time: starting it, memory, or compute."""
    decides = "small" if latency_us < SMALL_US else "memory-bound" if bound == "DMA" else "compute-bound"
    return f"{'compiler-managed' if managed else 'as-written'} {decides}"


def accuracy_of(kind: str, target: str, latency_us: float, engines: Sequence[str], cores: int = 1) -> Accuracy:
    """The accuracy of a modelled latency of a kernel of this kind, whose instructions run on these engines of so many
    cores."""
    table = measurements()
    unseen = [m for m in table if m.held_out]
    same = [m for m in unseen if m.kind == kind]
    rows = same if len(same) >= _ENOUGH else unseen
    ratios = [m.measured_us / m.modelled_us for m in rows]
    low = np.percentile(ratios, _PERCENTILES[0], method="lower")
    high = np.percentile(ratios, _PERCENTILES[1], method="higher")
    warnings = []
    if rows is unseen:
        warnings.append(f"{len(same)} of them are {kind}")
    if target not in {m.target for m in table}:
        warnings.append(f"no kernel was measured on {target}")
    shortest, longest = min(m.modelled_us for m in table), max(m.modelled_us for m in table)
    if not shortest * 0.9 <= latency_us <= longest * 1.1:
        warnings.append(f"measured kernels take {shortest:.0f} to {longest:.0f} us")
    if "GpSimd" in engines:
        warnings.append("no measured kernel computes on GpSimd")
    if "Collectives" in engines:
        warnings.append("no measured kernel communicates")
    if cores not in {m.cores for m in table if m.target == target}:
        warnings.append(f"no kernel was measured on {cores} cores of {target}")
    return Accuracy(
        kind if rows is same else "", len(rows), median(abs(m.error) for m in rows), latency_us * min(float(low), 1.0),
        latency_us * max(float(high), 1.0), tuple(warnings),
    )
