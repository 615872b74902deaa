"""The statistics of timing on a noisy machine: quantiles, paired ratios, and what counts as a tie.

Noise only ever adds, comes in bursts, and drifts. So a configuration is described by its median with the 20th and 80th
percentile, and two configurations are compared by the ratios of launches that ran next to each other, in rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
INDISTINCT = 0.01  # medians closer than this are a tie however certain the difference


@dataclass(frozen=True)
class Protocol:
    """How long and how often candidates are timed.

    Attributes:
        warmup_launches, warmup_seconds: warm-up ends with whichever comes first.
        launches, seconds: so does timing in the breadth-first pass, after at least `least` launches.
        hopeless: a candidate whose fastest warm-up launch is slower than the incumbent by this factor is dropped.
        finalists, within: how many of the best are timed again, and how far from the best their p20 may be.
        rounds, final_seconds: of interleaved re-timing; it ends with whichever comes first, after `least` rounds.
        timeout: seconds a candidate may take to compile, check and time.
    """

    warmup_launches: int = 5
    warmup_seconds: float = 0.1
    launches: int = 20
    seconds: float = 0.3
    least: int = 5
    hopeless: float = 1.5
    finalists: int = 6
    within: float = 1.10
    rounds: int = 25
    final_seconds: float = 10.0
    timeout: float = 60.0


@dataclass(frozen=True)
class Spread:
    """Median and 20th to 80th percentile, in the unit of the samples."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        return cls(quantile(samples, 0.2), quantile(samples, 0.5), quantile(samples, 0.8))


def quantile(samples: Sequence[float], share: float) -> float:
    """By linear interpolation between the order statistics."""
    ordered = sorted(samples)
    at = share * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


def median_interval(samples: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Order statistics that enclose the median of the distribution with the given confidence, whatever it is.

    With too few samples for that confidence it is their whole range.
    """
    ordered, n = sorted(samples), len(samples)
    tail, cut = 0.0, 0
    while cut < n // 2:
        tail += math.comb(n, cut) / 2**n
        if 2 * tail > 1 - confidence:
            break
        cut += 1
    first = max(0, cut - 1)
    return ordered[first], ordered[n - 1 - first]


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Median of ours / theirs over rounds, with its confidence interval."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, high = median_interval(ratios)
    return quantile(ratios, 0.5), low, high


def indistinct(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Whether two candidates timed in the same rounds are a tie."""
    ratio, low, high = paired_ratio(ours, theirs)
    return low <= 1 <= high or abs(ratio - 1) < INDISTINCT
