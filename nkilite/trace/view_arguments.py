"""Checks of what view operations are called with: ints, dtypes, access patterns inside their storage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeGuard

import numpy as np

from nkilite.dtypes import ALL, DType, DTypeLike, as_dtype
from nkilite.errors import InvalidOperand, InvalidView, PatternOutOfBounds, describe
from nkilite.ir.partitions import excess
from nkilite.ir.types import Buffer, Problem, extent


def is_int(value: object) -> TypeGuard[int]:
    """Whether a value is an integer, which a bool is not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def require_ints(operation: str, **values: object) -> None:
    """Raise InvalidView for the first argument that is not an int."""
    for name, value in values.items():
        if not is_int(value):
            raise InvalidView(
                operation=operation, reason=f"{name} is {describe(value)}", hint=f"pass {name} as an int."
            )


def element_type(operation: str, dtype: DTypeLike) -> DType:
    """The DType an argument names. Raises InvalidOperand when there is none."""
    try:
        return as_dtype(dtype)
    except KeyError:
        raise InvalidOperand(
            instruction=operation, operand="dtype", found=describe(dtype),
            expected="one of " + ", ".join(sorted(ALL)), fix="pass an nl dtype, for example nl.bfloat16",
        ) from None


def pattern_key(pattern: Iterable[object], offset: object, dtype: DTypeLike | None) -> tuple[object, ...] | None:
    """A hashable stand-in for what `.ap()` is called with, if these are the usual types; None for anything else."""
    if type(pattern) not in (list, tuple) or type(offset) not in (int, type(None)):
        return None
    if dtype is not None and type(dtype) is not DType:
        return None
    key = [dtype, offset]
    for pair in pattern:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            return None
        stride, count = pair
        if type(stride) is not int or type(count) is not int:
            return None
        key += pair
    return tuple(key)


def pattern_pairs(pattern: object) -> list[tuple[int, int]]:
    """The (stride, count) pairs of an access pattern. Raises InvalidView when it is something else."""
    if not isinstance(pattern, (tuple, list)) or not all(_is_pair(p) for p in pattern):
        raise InvalidView(
            operation=".ap()", reason=f"pattern {pattern!r} is no list of pairs of ints",
            hint="write [[stride, count], ...], the partition dimension first on chip.",
        )
    pairs = [(int(s), int(n)) for s, n in pattern]
    if not pairs or min(n for _, n in pairs) < 0:
        raise InvalidView(
            operation=".ap()", reason=f"pattern {list(map(list, pairs))} has no size",
            hint="write at least one pair, whose count is at least 1.",
        )
    return pairs


def _is_pair(value: object) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(is_int(v) for v in value)


def pattern_problem(storage: Buffer, pairs: list[tuple[int, int]], scattered: bool, byte: int, dtype: DType) -> (
    Problem | None
):
    """Why no instruction can follow a pattern: it leaves its storage or, on chip, its partitions; None if it does not.

    Args:
        pairs: the pattern, in elements of `dtype`.
        scattered: its first stride has no meaning, because every position has an index of its own.
        byte: where in the storage its first element begins.
    """
    pattern, size, row = [list(p) for p in pairs], dtype.itemsize, storage.partition_bytes
    on_chip = storage.region.on_chip
    if any(n == 0 for _, n in pairs):
        return Problem.of(
            InvalidView, operation=".ap()", reason=f"pattern {pattern} selects nothing",
            hint="every count must be at least 1.",
        )
    if byte % size or (on_chip and row % size):
        what = f"it begins at byte {byte}" if byte % size else f"a partition of {storage.label} has {row} bytes"
        return Problem.of(
            InvalidView, operation=".ap()", reason=f"{what}, and elements of {dtype} have {size}",
            hint=f"make offsets and partitions multiples of {size} bytes.",
        )
    counts, strides = [n for _, n in pairs], [s for s, _ in pairs]
    if on_chip:
        found = excess(storage, counts, strides, size, byte, ".ap() on an on-chip tensor", adjacent=True)
        return None if found is None else Problem.of(found.error, **found.fields)
    start, limit = byte // size, storage.size_bytes // size
    low, high = extent(counts[1:], strides[1:]) if scattered else extent(counts, strides)
    if start + low >= 0 and start + high < limit:
        return None
    return Problem.of(
        PatternOutOfBounds, pattern=pattern, offset=start,
        reaches=f"element {start + low if start + low < 0 else start + high}", size=f"{limit} elements",
        tensor=storage.label,
    )
