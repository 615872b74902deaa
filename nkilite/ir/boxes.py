"""Many regions of one space at once: which of them share bytes, by the cells of a grid that they cover.

The line of bytes is written in digits, as many as regions have strides of which each divides the next wider one: rows,
columns in a row, bytes. A region covers a box of digits. What is no box, such as every other row, or a run that goes
around the end of a row, is taken for the smallest box around it: regions without a common cell are apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import numpy as np

from nkilite.ir.regions import Pattern
from nkilite.machine.rows import ranked, unique

_MOST_CELLS = 32  # of a region, on average


def cells(patterns: Sequence[Pattern], number: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Every region, by index, with every cell it covers; None if there are too many.

    Args:
        number: which of the patterns each region has.
        start: its first byte, not negative.
    """
    first, end = _boxes(patterns, number, start, _pitches(patterns[n] for n in unique(number).tolist()))
    for digit in range(len(first)):
        first[digit], end[digit] = np.split(ranked(np.concatenate([first[digit], end[digit]]))[0], 2)
    widths = end - first
    counts = widths.prod(axis=0)
    most = end.max(axis=1, initial=1).tolist()
    if counts.sum() > _MOST_CELLS * len(start) or prod(most) >= 1 << 62:
        return None
    region = np.repeat(np.arange(len(start)), counts)
    left = np.arange(len(region)) - np.repeat(np.cumsum(counts) - counts, counts)
    cell = np.zeros(len(region), np.int64)
    for one, width, values in zip(first, widths, most, strict=True):
        cell = cell * values + one[region] + left % width[region]
        left //= width[region]
    return region, cell


def _pitches(patterns: Iterable[Pattern]) -> list[int]:
    """Bytes that digits stand for, the widest first: strides each of which divides the one before, and 1."""
    found: list[int] = []
    for stride in sorted({stride for one in patterns for _, stride in one.dims}, reverse=True):
        if not found or found[-1] % stride == 0:
            found.append(stride)
    return found if found and found[-1] == 1 else [*found, 1]


def _boxes(
    patterns: Sequence[Pattern], number: np.ndarray, start: np.ndarray, pitches: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """By digit and region: the first value, and the one after the last."""
    reach = np.array([_reach(one, pitches) for one in patterns], np.int64).T[:, number]
    first, end = np.empty((2, len(pitches), len(start)), np.int64)
    carried = np.zeros(len(start), np.int64)
    for digit in reversed(range(len(pitches))):
        whole = start // pitches[digit]
        if digit:
            values = pitches[digit - 1] // pitches[digit]
            low = whole % values
            last = low + reach[digit] + carried
            around = last >= values
            first[digit], end[digit] = np.where(around, 0, low), np.where(around, values, last + 1)
            carried = last // values
        else:
            first[0], end[0] = whole, whole + reach[0] + carried + 1
    return first, end


def _reach(one: Pattern, pitches: Sequence[int]) -> list[int]:
    """How far a pattern goes in every digit."""
    found = [0] * len(pitches)
    for count, stride in ((one.width, 1), *one.dims):
        digit = next(i for i, pitch in enumerate(pitches) if stride % pitch == 0)
        found[digit] += (count - 1) * (stride // pitches[digit])
    return found
