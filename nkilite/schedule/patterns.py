"""What repeated runs of instructions have in common: the same instructions, on memory that is related alike."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from nkilite.ir.accesses import Spaces
from nkilite.ir.columns import BufferColumns, Columns
from nkilite.schedule.rows import RowShape
from nkilite.schedule.schedule import Schedule

_NEVER = 1 << 60  # accesses back to one that there is not


class Patterns:
    """Finds the patterns of runs in the words of a program.

    Runs of the same pattern touch memory alike: what may be done with the rows of one may be done with another's. For
    each access, the pattern says how many accesses ago its buffer and its space were touched within the run, and how
    far from there it is. So it does not depend on where the buffers are.
    """

    def __init__(self, schedule: Schedule, shapes: Sequence[RowShape | None]) -> None:
        program = schedule.program
        columns, spaces = Columns.of(program), Spaces(program)
        code, counts = columns.code, np.array([len(s.operands) if s else 0 for s in shapes], np.int64)
        ends = np.cumsum(counts[columns.ids])
        words = np.empty(ends[-1] if len(ends) else 0, np.int64)
        for signature, rows, starts in columns.uses():
            for i, operand in enumerate(_operands(shapes[signature.id])):
                words[ends[rows] - counts[signature.id] + i] = starts + operand
        self._first = [0, *ends.tolist()]
        self.touched = code[words]
        line = spaces.line(self.touched, code[words + 1])
        self._kinds = _kinds(schedule, spaces)[self.touched]
        self._back = _back(self.touched)
        self._near, self._shift = self._back, line
        if not np.array_equal(spaces.space[self.touched], self.touched):
            self._near = _back(spaces.space[self.touched])
        again = np.flatnonzero(self._near < _NEVER)
        self._shift = np.zeros(len(line), np.int64)
        self._shift[again] = line[again] - line[again - self._near[again]]
        self._count = np.arange(len(line))

    def accesses(self, first: int, size: int) -> slice:
        """Those of so many instructions, counted over the program."""
        return slice(self._first[first], self._first[first + size])

    def of(self, first: int, size: int) -> Hashable:
        """The pattern of so many instructions of known signatures."""
        where = self.accesses(first, size)
        near, position = self._near[where], self._count[: where.stop - where.start]
        inside = near <= position
        found = (near * inside).tobytes() + (self._shift[where] * inside).tobytes() + self._kinds[where].tobytes()
        if self._back is not self._near:
            back = self._back[where]
            found += (back * (back <= position)).tobytes()
        return found


def _operands(shape: RowShape | None) -> list[int]:
    return [o.word for o in shape.operands] if shape else []


def _kinds(schedule: Schedule, spaces: Spaces) -> np.ndarray:
    """A number for each buffer, equal for those of which accesses by equal words are alike."""
    buffers = BufferColumns.of(schedule.program)
    facts = (buffers.fixed, buffers.chosen(schedule.broadcast), buffers.chosen(schedule.panels))
    return spaces.row + sum(fact.astype(np.int64) << 32 + bit for bit, fact in enumerate(facts))


def _back(values: np.ndarray) -> np.ndarray:
    """How many entries ago each value was there before."""
    order = np.argsort(values, kind="stable")
    found = np.full(len(values), _NEVER, np.int64)
    again = np.flatnonzero(values[order[1:]] == values[order[:-1]])
    found[order[again + 1]] = order[again + 1] - order[again]
    return found
