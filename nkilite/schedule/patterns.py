"""What repeated runs of instructions have in common: the same instructions, on memory that is related alike."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from nkilite.ir.accesses import Spaces
from nkilite.ir.columns import BufferColumns, Columns
from nkilite.schedule.schedule import Schedule

_NEVER = 1 << 60  # accesses back to one that there is not


class Patterns:
    """Finds the patterns of runs in the words of a program.

    Runs of the same pattern touch memory alike: what may be done with the rows of one may be done with another's. For
    each access, the pattern says how many accesses ago its buffer and its space were touched within the run, and how
    far from there it is. So it does not depend on where the buffers are.
    """

    def __init__(self, schedule: Schedule, operands: Sequence[Sequence[int]]) -> None:
        """`operands` are the words of those of every signature that count as accesses."""
        program = schedule.program
        columns, spaces = Columns.of(program), Spaces(program)
        code, counts = columns.code, np.array([len(words) for words in operands], np.int64)
        ends = np.cumsum(counts[columns.ids])
        words = np.empty(ends[-1] if len(ends) else 0, np.int64)
        for signature, rows, starts in columns.uses():
            for i, operand in enumerate(operands[signature.id]):
                words[ends[rows] - counts[signature.id] + i] = starts + operand
        self._firsts = np.append(0, ends)
        self._first = self._firsts.tolist()
        self.touched = code[words]
        line = spaces.line(self.touched, code[words + 1])
        self._kinds = _kinds(schedule, spaces)[self.touched]
        self._back = _back(self.touched)
        self._near = self._back
        if not np.array_equal(spaces.space[self.touched], self.touched):
            self._near = _back(spaces.space[self.touched])
        again = np.flatnonzero(self._near < _NEVER)
        shift = np.zeros(len(line), np.int64)
        shift[again] = line[again] - line[again - self._near[again]]
        self._count = np.arange(len(line))
        self._ways = np.stack([self._near, shift], axis=1)
        self._before = (self._count - self._near)[:, None]

    @property
    def instruction(self) -> np.ndarray:
        """Of every access, whose it is."""
        return np.repeat(np.arange(len(self._firsts) - 1), np.diff(self._firsts))

    def accesses(self, first: int, size: int) -> slice:
        """Those of so many instructions, counted over the program."""
        return slice(self._first[first], self._first[first + size])

    def of(self, first: int, size: int) -> Hashable:
        """The pattern of so many instructions of known signatures."""
        where = self.accesses(first, size)
        found: bytes = (self._ways[where] * (self._before[where] >= where.start)).tobytes()
        found += self._kinds[where].tobytes()
        if self._back is not self._near:
            back = self._back[where]
            found += (back * (back <= self._count[: where.stop - where.start])).tobytes()
        return found

    def repeated(self, first: int, size: int, others: np.ndarray) -> np.ndarray:
        """Whether so many instructions from others on, of the same signatures, have the same pattern as those from
        `first` on."""
        where = self.accesses(first, size)
        position = self._count[: where.stop - where.start]
        there = self._firsts[np.append(first, others)][:, None] + position
        alike = [self._ways[there] * (self._before[there] >= there[:, :1, None]), self._kinds[there]]
        if self._back is not self._near:
            back = self._back[there]
            alike.append(back * (back <= position))
        result: np.ndarray = np.logical_and.reduce([(f[1:] == f[0]).all(axis=tuple(range(1, f.ndim))) for f in alike])
        return result


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
