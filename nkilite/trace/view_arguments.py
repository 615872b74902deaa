"""Checks of what view operations are called with: ints, dtypes, access patterns inside their storage."""

from __future__ import annotations

from typing import Any

import numpy as np

from nkilite.dtypes import ALL, DType, as_dtype
from nkilite.errors import InvalidOperand, InvalidView, PatternOutOfBounds, describe
from nkilite.ir.types import Buffer, extent


def is_int(value: Any) -> bool:
    """Whether a value is an integer, which a bool is not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def require_ints(operation: str, **values: Any) -> None:
    """Raise InvalidView for the first argument that is not an int."""
    for name, value in values.items():
        if not is_int(value):
            raise InvalidView(
                operation=operation, reason=f"{name} is {describe(value)}", hint=f"pass {name} as an int."
            )


def element_type(operation: str, dtype: Any) -> DType:
    """The DType an argument names. Raises InvalidOperand when there is none."""
    try:
        return as_dtype(dtype)
    except KeyError:
        raise InvalidOperand(
            instruction=operation, operand="dtype", found=describe(dtype),
            expected="one of " + ", ".join(sorted(ALL)), fix="pass an nl dtype, for example nl.bfloat16",
        ) from None


def pattern_pairs(pattern: Any) -> list[tuple[int, int]]:
    """The (stride, count) pairs of an access pattern. Raises InvalidView when it is something else."""
    if not isinstance(pattern, (tuple, list)) or not all(_is_pair(p) for p in pattern):
        raise InvalidView(
            operation=".ap()", reason=f"pattern {pattern!r} is no list of pairs of ints",
            hint="write [[stride, count], ...], the partition dimension first on chip.",
        )
    pairs = [(int(s), int(n)) for s, n in pattern]
    if not pairs or min(n for _, n in pairs) < 1:
        raise InvalidView(
            operation=".ap()", reason=f"pattern {list(map(list, pairs))} selects nothing",
            hint="every count must be at least 1.",
        )
    return pairs


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(is_int(v) for v in value)


def require_inside(
    storage: Buffer, pairs: list[tuple[int, int]], strides: tuple[int, ...], start: int, per_partition: int
) -> None:
    """Raise PatternOutOfBounds for a pattern that leaves its storage or, on chip, its partitions.

    Args:
        pairs: the pattern.
        strides: those of its static part.
        start: its first element in the storage.
        per_partition: elements in a partition (on chip) or row of the storage.
    """
    on_chip = storage.region.on_chip
    shape = tuple(n for _, n in pairs)
    free = slice(1 if on_chip else 0, None)
    position = start % per_partition if on_chip else start
    total = per_partition if on_chip else per_partition * storage.partitions
    low, high = (position + end for end in extent(shape[free], strides[free]))
    last = start // per_partition + shape[0] - 1
    if on_chip and not 0 <= last < storage.partitions:
        reaches, size = f"partition {last}", f"{storage.partitions} partitions"
    elif low < 0 or high >= total:
        reaches = f"element {low if low < 0 else high}"
        size = f"{total} in each partition" if on_chip else f"{total} elements"
    else:
        return
    raise PatternOutOfBounds(
        pattern=[list(p) for p in pairs], offset=start, reaches=reaches, size=size, tensor=storage.label
    )
