"""Checks that a plan of moves leaves every element where the moves do, by moving numbers instead of elements."""

from __future__ import annotations

from math import gcd

import numpy as np

from nkilite.ir.types import extent
from nkilite.schedule.tree import Nowhere, Tree
from nkilite.schedule.verify_members import Members, Touch

_MOST = 1 << 26  # bytes of the tensors of a group whose elements are followed


def verify_moves(members: Members, tree: Tree) -> None:
    """Check a group of copies and transposes.

    Raises:
        IrError: it is not what its instructions do one after another.
    """
    need = members.need
    sources: list[tuple[Touch, Touch, tuple[int, ...]]] = []
    for number, (signature, touches) in enumerate(zip(members.signatures, members.touches, strict=True)):
        order = signature.access.order
        need(order is not None and len(touches) == 2, f"member {number} does not only move elements")
        assert order is not None
        source, target = sorted(touches, key=lambda touch: touch.operand.writes)
        plain = not target.operand.reads and source.operand.type.indirection is None
        need(plain, f"member {number} does more than move")
        sources.append((target, source, order))
    for op, touches in zip(tree.ops, members.touches, strict=True):
        need(op.elided, f"member {op.member} is moved and runs")
        for touch, use in zip(touches, op.uses, strict=True):
            private = touch.buffer in members.private
            need((use.place == Nowhere()) == private, f"{touch.operand.name} of member {op.member} is in {use.place}")
    for piece in tree.moves:
        for spot in (piece.to, piece.origin):
            need(0 <= spot.member < len(sources), f"a piece of member {spot.member}")
        to, origin = sources[piece.to.member][0], sources[piece.origin.member][1]
        need(not {to.buffer, origin.buffer} & members.private, "a piece begins or ends in a buffer without memory")
        same = to.operand.type.dtype.itemsize == origin.operand.type.dtype.itemsize
        need(same and all(loop.count > 0 for loop in piece.loops), "a piece of elements of two sizes, or of none")
    touched = {t.buffer for pair in sources for t in pair[:2]}
    if sum(members.program.buffers[b].size_bytes for b in touched) <= _MOST:
        _follow(members, tree, sources, touched)


def _follow(
    members: Members, tree: Tree, sources: list[tuple[Touch, Touch, tuple[int, ...]]], touched: set[int]
) -> None:
    buffers = members.program.buffers
    unit = gcd(*(n for pair in sources for t in pair[:2] for n in (t.operand.type.dtype.itemsize, t.offset)))
    begin, numbers = 0, {}
    for id in sorted(touched):
        size = buffers[id].size_bytes // unit
        numbers[id] = np.arange(begin, begin + size, dtype=np.int32)
        begin += size
    moved, planned = ({b: array.copy() for b, array in numbers.items()} for _ in range(2))
    for target, source, order in sources:
        values = _view(moved[source.buffer], source, unit).transpose(*order, len(order)).copy()
        into = _view(moved[target.buffer], target, unit)
        into[...] = values.reshape(into.shape)
    for piece in tree.moves:
        to, origin = sources[piece.to.member][0], sources[piece.origin.member][1]
        counts, size = tuple(loop.count for loop in piece.loops), to.operand.type.dtype.itemsize
        ends = []
        for touch, memory, spot, steps in (
            (to, planned, piece.to, [loop.to for loop in piece.loops]),
            (origin, numbers, piece.origin, [loop.origin for loop in piece.loops]),
        ):
            buffer = buffers[touch.buffer]
            row = buffer.partition_bytes if buffer.region.on_chip else 0
            strides = tuple(p * row + b for p, b in steps)
            first = touch.offset + spot.partitions * row + spot.bytes
            low, high = (first + reach for reach in extent(counts, strides))
            members.need(low >= 0 and high + size <= buffer.size_bytes, f"a piece reaches out of {buffer.label}")
            ends.append(_strided(memory[touch.buffer], first, counts, strides, size, unit))
        ends[0][...] = ends[1]
    for id in touched - members.private:
        members.need(bool((moved[id] == planned[id]).all()), f"other elements are left in {buffers[id].label}")


def _view(memory: np.ndarray, touch: Touch, unit: int) -> np.ndarray:
    """The units of an operand's elements, along a dimension more."""
    kind = touch.operand.type
    size = kind.dtype.itemsize
    return _strided(memory, touch.offset, kind.shape, tuple(s * size for s in kind.strides), size, unit)


def _strided(
    memory: np.ndarray, first: int, counts: tuple[int, ...], strides: tuple[int, ...], size: int, unit: int
) -> np.ndarray:
    """Elements of `size` bytes, of memory in units of so many."""
    wide = memory.itemsize
    steps = (*(s // unit * wide for s in strides), wide)
    result: np.ndarray = np.ndarray((*counts, size // unit), memory.dtype, memory, first // unit * wide, steps)
    return result
