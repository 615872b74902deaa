"""What a view of on-chip memory may cover: whole steps from partition to partition, and in each the same bytes.

A tile is an array of partitions, all of which perform the same access. So dimension 0 of a view goes from partition to
partition, and all other dimensions stay inside of one; a runtime index moves a view either way. DMA may skip, repeat
and reverse partitions. Compute engines may not (nkilite/ir/limits.py), and the first step of `.ap()` is one partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nkilite.errors import PartitionStrideMismatch, PatternOutOfBounds
from nkilite.ir.program import Operand, Signature
from nkilite.ir.types import Buffer, Indirection, Problem, ViewType, extent
from nkilite.location import Location

Number = int | np.ndarray


class Steps(NamedTuple):
    """What of a view's type decides, in bytes; or arrays with that of several views.

    Attributes:
        step: from one partition to the next; 0 if there is one.
        turns: the number of steps.
        low, high: where in a partition the first element begins and the last one ends.
        by, moves: how far it moves from one runtime index to the next, and how often at most.
    """

    step: Number
    turns: Number
    low: Number
    high: Number
    by: Number
    moves: Number

    @classmethod
    def of(cls, shape: Sequence[int], strides: Sequence[int], size: int, index: Indirection | None = None) -> Steps:
        """Those of a view of elements of `size` bytes."""
        low, high = extent(shape[1:], strides[1:])
        by, moves = (0, 0) if index is None else (index.stride * size, max(index.limit - 1, 0))
        return cls(strides[0] * size if shape[0] > 1 else 0, shape[0] - 1, low * size, (high + 1) * size, by, moves)


class Cover(NamedTuple):
    """What a view covers; or arrays with what several do.

    Attributes:
        rest: bytes by which a step along dimension 0 misses a partition.
        first, last: partitions of the buffer.
        begin, end: bytes in a partition.
    """

    rest: Number
    first: Number
    last: Number
    begin: Number
    end: Number

    @classmethod
    def of(cls, steps: Steps, offset: Number, pitch: Number) -> Cover:
        """That of a view at a byte of a buffer whose partitions have `pitch` bytes."""
        first, byte = divmod(offset, pitch)
        apart, rest = divmod(steps.step, pitch)
        last = apart * steps.turns
        covered = cls(rest, first + _below(last), first + _above(last), byte + steps.low, byte + steps.high)
        if not np.any(steps.by):
            return covered
        rows, skew = divmod(steps.by, pitch)
        along = skew == 0  # an index that moves the view from partition to partition
        rows, inside = rows * along * steps.moves, steps.by * (1 - along) * steps.moves
        _, first, last, begin, end = covered
        return cls(rest, first + _below(rows), last + _above(rows), begin + _below(inside), end + _above(inside))

    def fits(self, partitions: Number, pitch: Number) -> bool | np.ndarray:
        """Whether an instruction can follow the view in a buffer of so many partitions."""
        rows = (self.rest == 0) & (self.first >= 0) & (self.last < partitions)
        return rows & (self.begin >= 0) & (self.end <= pitch)


def _below(number: Number) -> Number:
    """A number if it is negative, else 0."""
    return number * (number < 0)


def _above(number: Number) -> Number:
    return number * (number > 0)


def excess(
    buffer: Buffer, shape: Sequence[int], strides: Sequence[int], size: int, offset: int, what: str,
    index: Indirection | None = None, adjacent: bool = False,
) -> Problem | None:
    """Why no instruction can follow a view of a buffer on chip, None if one can.

    Args:
        size: bytes of its elements, which `strides` count.
        offset: the byte at which it begins.
        what: how the message names it.
        adjacent: whether a step along dimension 0 has to be one partition.
    """
    pitch = max(buffer.partition_bytes, 1)
    steps = Steps.of(shape, strides, size, index)
    covered = Cover.of(steps, offset, pitch)
    skips = adjacent and shape[0] > 1 and steps.step != pitch
    if not skips and covered.fits(buffer.partitions, pitch):
        return None
    if skips or covered.rest:
        relation = "" if adjacent else "a multiple of "
        return Problem(PartitionStrideMismatch, {
            "what": what, "found": strides[0], "relation": relation, "expected": pitch // size,
        })
    reached, name, has = covered.first, "partition", f"{buffer.partitions} partitions"
    if 0 <= covered.first <= covered.last < buffer.partitions:
        begin, end = covered.begin // size, covered.end // size - 1
        reached, name, has = begin if begin < 0 else end, "element", f"{pitch // size} in each partition"
    elif covered.first >= 0:
        reached = covered.last
    return Problem(PatternOutOfBounds, {
        "pattern": [[s, n] for s, n in zip(strides, shape, strict=True)], "offset": offset // size,
        "reaches": f"{name} {reached}", "size": has, "tensor": buffer.label,
    })


def require_rows(
    call: Signature, operand: Operand, buffer: Buffer, offset: int, location: Location, where: str = ""
) -> None:
    """Check that an operand on chip goes from partition to partition along dimension 0 alone.

    Args:
        where: what produced the program, for the message.

    Raises:
        PartitionStrideMismatch: it misses partitions along dimension 0.
        PatternOutOfBounds: it leaves the partitions of its buffer, or one of them along another dimension.
    """
    kind = operand.type
    view = buffer, kind.shape, kind.strides, kind.dtype.itemsize, offset
    if excess(*view, "", kind.indirection) is None:  # names take longer to find than to do without
        return
    found = excess(*view, f"{call.title}: {call.said(operand.name)} ({buffer.label}){where}", kind.indirection)
    assert found is not None
    raise found.error(location=location, **found.fields)


def stacked(kinds: Sequence[ViewType], counts: Sequence[int]) -> Steps:
    """The steps of views of several types, of each of which there are so many, as arrays."""
    steps = np.array([Steps.of(k.shape, k.strides, k.dtype.itemsize, k.indirection) for k in kinds], np.int64)
    return Steps(*np.repeat(steps.reshape(len(kinds), len(Steps._fields)), counts, axis=0).T)
