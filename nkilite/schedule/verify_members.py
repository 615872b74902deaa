"""The members of a group as the verifier sees them: what they touch, row by row, in terms of nkilite/ir/regions.py."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nkilite.errors import IrError
from nkilite.ir.accesses import Spaces
from nkilite.ir.program import Operand, Signature
from nkilite.ir.regions import PARTITION, Rows, all_apart, apart, in_step, line_strides, pattern
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import Group, Slice


class Touch(NamedTuple):
    """An operand of a member.

    Attributes:
        rows: its bytes by the positions of dimension 0.
        low: the lowest byte of row 0 on the line of the space.
        start: the byte of row 0 in its partition, or of its buffer off chip, at which the first element is.
        before, after: bytes of a row in front of the first element and from it on.
        dense: the elements of a row follow each other without gaps.
    """

    member: int
    position: int
    operand: Operand
    buffer: int
    offset: int
    space: int
    rows: Rows
    low: int
    start: int
    before: int
    after: int
    dense: bool

    def same(self, other: Touch, cut: Slice | None = None, other_cut: Slice | None = None) -> bool:
        """Whether it is the same elements, or such columns of them, row by row and in the same order."""
        if cut or other_cut or not (self.dense and other.dense):
            sizes = {t.operand.type.dtype.itemsize for t in (self, other)}
            alike = (self.space, self.rows.step) == (other.space, other.rows.step) and len(sizes) == 1
            return alike and np.array_equal(self.columns(cut), other.columns(other_cut))
        if (self.space, self.low, self.rows) != (other.space, other.low, other.rows):
            return False
        mine, theirs = (t.operand.type for t in (self, other))
        kinds = [(kind.dtype.itemsize, kind.shape[1:], kind.strides[1:]) for kind in (mine, theirs)]
        return kinds[0] == kinds[1] or (self.dense and other.dense and kinds[0][0] == kinds[1][0])


    def columns(self, cut: Slice | None) -> np.ndarray:
        """Where the elements of row 0 begin on the line of the space, in their order; or some columns of them."""
        kind = self.operand.type
        at = np.array([self.low + self.before])
        for n, stride in zip(kind.shape[1:], kind.strides[1:], strict=True):
            at = (at[:, None] + np.arange(n) * stride * kind.dtype.itemsize).reshape(-1)
        if cut is None or len(at) == 1:
            return at
        runs: np.ndarray = at.reshape(-1, cut.of, cut.run)[:, cut.index].reshape(-1)
        return runs

    def apart(self, other: Touch, cut: Slice | None, other_cut: Slice | None) -> bool:
        """Whether row i of some columns does not meet row i of others."""
        if self.space != other.space:
            return True
        one, two = (
            (t.columns(c)[:, None] + np.arange(t.operand.type.dtype.itemsize)).reshape(-1)
            for t, c in ((self, cut), (other, other_cut))
        )
        return self.rows.step == other.rows.step and not len(np.intersect1d(one, two))


class Members:
    """The members of one group.

    Attributes:
        count: rows that all members have; 0 if they do not work by row.
        private: buffers that the group keeps to itself.
    """

    def __init__(self, schedule: Schedule, group: Group, spaces: Spaces, where: str) -> None:
        program = schedule.program
        self.schedule, self.program, self.group, self._where = schedule, program, group, where
        starts = program.starts()[group.first : group.first + group.size]
        self.signatures = [program.signatures[program.code[start]] for start in starts]
        self.touches = [self._touches(spaces, i, start) for i, start in enumerate(starts)]
        self.private = set(group.private)
        counts = {rows_of(s) for s in self.signatures}
        self.count = counts.pop() if len(counts) == 1 else 0

    def fail(self, problem: str) -> IrError:
        """The error for something that is wrong with the group."""
        group, program = self.group, self.program
        line = program.locations[program.code[program.starts()[group.first] + 1]]
        return IrError(
            f"group of {group.size} from instruction {group.first}: {problem}{self._where}", location=line
        )

    def need(self, holds: bool, problem: str) -> None:
        if not holds:
            raise self.fail(problem)

    def name(self, touch: Touch) -> str:
        """An operand, for messages."""
        return f"{touch.operand.name} ({self.program.buffers[touch.buffer].label}) of member {touch.member}"

    def sums(self, touch: Touch) -> bool:
        """Whether an operand takes what a row is combined to."""
        return touch.operand.name in self.signatures[touch.member].access.sums

    def meet(self, one: Touch, other: Touch) -> bool:
        """Whether two operands touch the same memory, in any of their rows."""
        height = max(t.operand.type.shape[0] for t in (one, other))  # one row that serves all has step 0
        return one.space == other.space and not all_apart(one.rows, other.rows, height, other.low - one.low)

    def in_step(self, one: Touch, other: Touch) -> bool:
        """Whether row i of one only meets row i of the other."""
        return one.space != other.space or in_step(one.rows, other.rows, self.count, other.low - one.low)

    def rows_apart(self, one: Touch, other: Touch) -> bool:
        """Whether row i of one does not meet row i of the other."""
        if one.space != other.space:
            return True
        if one.rows.step == other.rows.step:
            return apart(one.rows.row, other.rows.row, other.low - one.low)
        return not self.meet(one, other)

    def _touches(self, spaces: Spaces, member: int, start: int) -> list[Touch]:
        found = []
        code = self.program.code
        for position, operand in enumerate(self.signatures[member].operands):
            buffer, offset = code[start + operand.word], code[start + operand.word + 1]
            kind, row = operand.type, int(spaces.row[buffer])
            size = kind.dtype.itemsize
            strides = line_strides(kind, row)
            uniform = kind.region.on_chip and buffer in self.schedule.broadcast
            free = list(zip(kind.shape[1:], strides[1:], strict=True))
            before = -sum((n - 1) * s for n, s in free if s < 0)
            place = int(spaces.start[buffer]) + (offset % row if uniform else _line(offset, row))
            found.append(Touch(
                member, position, operand, buffer, offset, int(spaces.space[buffer]),
                Rows(pattern(size, free), 0 if uniform or kind.shape[0] == 1 else strides[0]), place - before,
                offset % row, before, sum((n - 1) * s for n, s in free if s > 0) + size, _dense(free, size),
            ))
        return found


def rows_of(signature: Signature) -> int:
    """How many rows a signature works on, each on its own; 0 if it does not work by row."""
    access = signature.access
    if access.rows is None or any(o.type.indirection is not None for o in signature.operands):
        return 0
    needed = (o for o in signature.operands if not access.runs_over(o.name, access.rows))
    return access.extents[access.rows] if all(o.type.shape[0] == 1 for o in needed) else 0


def _line(offset: int, row: int) -> int:
    return offset // row * PARTITION + offset % row


def _dense(free: list[tuple[int, int]], size: int) -> bool:
    step = size
    for n, stride in reversed(free):
        if n > 1 and stride != step:
            return False
        step *= n
    return True
