"""The distinct numbers of an array, by looking at all or by sorting, and the distinct rows of a table, by hashing."""

from __future__ import annotations

import numpy as np

from nkilite.compiled import Ints, compiled

__all__ = ["distinct", "ranked", "unique"]

_LOOKED_AT = 8  # numbers, for each that there is: where there are more, sorting is faster


def unique(values: np.ndarray) -> np.ndarray:
    """The distinct numbers of an array, sorted, without what np.unique loads for arrays with masks."""
    found = np.sort(values, axis=None)
    result: np.ndarray = found[np.append(True, found[1:] != found[:-1])[: len(found)]]
    return result


def ranked(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rank of every number among the distinct ones, and these, ascending."""
    low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)
    if high - low > _LOOKED_AT * len(numbers):
        found = unique(numbers)
        return np.searchsorted(found, numbers), found
    present = np.zeros(high - low + 1, bool)
    present[numbers - low] = True
    return (np.cumsum(present) - 1)[numbers - low], np.flatnonzero(present) + low


def distinct(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of a table of ints, in the order in which they first come, and the number of each row's."""
    count, width = table.shape
    numbers, first = np.empty(count, np.int64), np.empty(count, np.int64)
    slots = np.full(1 << (2 * count).bit_length(), -1, np.int64)
    flat = np.ascontiguousarray(table, np.int64).reshape(-1)
    found = _numbered.run(count, flat, width, slots, len(slots) - 1, numbers, first, count)
    return table[first[:found]], numbers


@compiled
def _numbered(
    table: Ints, width: int, slots: Ints, mask: int, numbers: Ints, first: Ints, count: int
) -> int:
    """Number `count` rows; `slots` is a hash table, `first` the first row of every number. Returns how many numbers."""
    found = 0
    for i in range(count):
        mixed = 0
        for k in range(width):
            mixed = ((mixed ^ table[width * i + k]) & 0xFFFFFFFF) * 0x2545F491 & 0x3FFFFFFFFFFFFFFF
            mixed ^= mixed >> 29
        slot = mixed & mask
        while slots[slot] >= 0 and not _equal(table, width, first[slots[slot]], i):
            slot = (slot + 1) & mask
        if slots[slot] < 0:
            slots[slot], first[found] = found, i
            found += 1
        numbers[i] = slots[slot]
    return found


@compiled
def _equal(table: Ints, width: int, one: int, other: int) -> bool:
    k = 0
    while k < width and table[width * one + k] == table[width * other + k]:
        k += 1
    return k == width
