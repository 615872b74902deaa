"""Checks that moves leave every element where the members do in whose place they are, by moving numbers instead."""

from __future__ import annotations

from math import gcd

import numpy as np

from nkilite.ir.program import Operand
from nkilite.ir.types import extent
from nkilite.schedule.members import Members
from nkilite.schedule.moves import writable
from nkilite.schedule.tree import Move, Nowhere, Tree, Use

_MOST = 1 << 26  # bytes of the tensors of a group whose elements are followed


def verify_moves(members: Members, tree: Tree) -> None:
    """Check a group of copies and transposes.

    Raises:
        IrError: it is not what its instructions do one after another.
    """
    _Check(members, tree).check()


class _Check:
    def __init__(self, members: Members, tree: Tree) -> None:
        self.members, self.tree, self.need = members, tree, members.need
        self.buffers = members.program.buffers
        self.sides = [  # of every member: buffer, byte and operand of what it reads and of what it writes
            {o.writes: (*memory, o) for memory, o in zip(own, signature.operands, strict=True)}
            for own, signature in zip(members.memory, members.signatures, strict=True)
        ]

    def check(self) -> None:
        members, need = self.members, self.need
        for op in self.tree.ops:
            signature = members.signatures[op.member]
            plain = all(o.reads != o.writes and o.type.indirection is None for o in signature.operands)
            moves = signature.access.order is not None and len(signature.operands) == 2 and plain
            need(moves and op.elided, f"member {op.member} does not only move elements")
            for i, (use, (buffer, _)) in enumerate(zip(op.uses, members.memory[op.member], strict=True)):
                kept = Use(Nowhere()) if buffer in members.private else Use()
                need(use == kept, f"{members.name(op.member, i)} is in {use.place}")
        need(len(self.tree.ops) + len(self.tree.moves) == len(self.tree.body), "it has loops")
        for move in self.tree.moves:
            need(min(move.to.member, move.origin.member) >= 0, "a move of a member that there is not")
            buffer, _, to = self.sides[move.to.member][True]
            source, _, origin = self.sides[move.origin.member][False]
            need(not {buffer, source} & members.private, "a move begins or ends in a buffer without memory")
            same = to.type.dtype.itemsize == origin.type.dtype.itemsize and all(loop.count > 0 for loop in move.loops)
            need(same, "a move of elements of two sizes, or of none")
            packed = writable(members.schedule, buffer, move, to.type.dtype.itemsize)
            need(packed, f"{self.buffers[buffer].label} cannot be packed so")
        touched = sorted({buffer for memory in members.memory for buffer, _ in memory})
        if sum(self.buffers[b].size_bytes for b in touched) <= _MOST:
            self._follow(touched)

    def _follow(self, touched: list[int]) -> None:
        steps = (
            n for move in self.tree.moves
            for n in (move.to.bytes, move.origin.bytes, *(step[1] for loop in move.loops for step in loop[1:]))
        )
        sides = (side for pair in self.sides for side in pair.values())
        unit = gcd(*steps, *(n for _, offset, o in sides for n in (offset, o.type.dtype.itemsize)))
        sizes = [self.buffers[id].size_bytes // unit for id in touched]
        parts = np.split(np.arange(sum(sizes), dtype=np.int32), np.cumsum(sizes)[:-1])
        numbers = dict(zip(touched, parts, strict=True))
        moved, planned = ({b: array.copy() for b, array in numbers.items()} for _ in range(2))
        for signature, pair in zip(self.members.signatures, self.sides, strict=True):
            to, origin = (
                _view(moved[id], first, o.type.shape, [s * o.type.dtype.itemsize for s in o.type.strides], o, unit)
                for id, first, o in (pair[True], pair[False])
            )
            order = signature.access.order
            assert order is not None
            to[...] = origin.transpose(*order, len(order)).copy().reshape(to.shape)
        for move in self.tree.moves:
            self._reached(move, True, planned, unit)[...] = self._reached(move, False, numbers, unit)
        for id in set(touched) - self.members.private:
            same = bool((moved[id] == planned[id]).all())
            self.need(same, f"other elements are left in {self.buffers[id].label}")

    def _reached(self, move: Move, writes: bool, memory: dict[int, np.ndarray], unit: int) -> np.ndarray:
        """What a move reads or writes."""
        spot, steps = (move.to if writes else move.origin), [loop.to if writes else loop.origin for loop in move.loops]
        id, offset, operand = self.sides[spot.member][writes]
        buffer, size = self.buffers[id], operand.type.dtype.itemsize
        row = buffer.partition_bytes if buffer.region.on_chip else buffer.size_bytes
        counts, first = tuple(loop.count for loop in move.loops), offset + spot.partitions * row + spot.bytes
        reach = (offset // row + spot.partitions, buffer.size_bytes // row - 1), (offset % row + spot.bytes, row - size)
        for axis, (begin, end) in enumerate(reach):
            low, high = extent(counts, [step[axis] for step in steps])
            self.need(begin + low >= 0 and begin + high <= end, f"a move reaches out of rows of {buffer.label}")
        return _view(memory[id], first, counts, [p * row + b for p, b in steps], operand, unit)


def _view(
    memory: np.ndarray, first: int, counts: tuple[int, ...], strides: list[int], operand: Operand, unit: int
) -> np.ndarray:
    """Elements as large as an operand's at byte strides, each as its units, of memory in units of so many bytes."""
    wide, size = memory.itemsize, operand.type.dtype.itemsize
    steps = (*(s // unit * wide for s in strides), wide)
    result: np.ndarray = np.ndarray((*counts, size // unit), memory.dtype, memory, first // unit * wide, steps)
    return result
