"""Runs of instructions whose order may change from row to row: the candidates for row groups."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from nkilite.ir.columns import Columns
from nkilite.once import cached_property
from nkilite.schedule.patterns import Patterns
from nkilite.schedule.rows import Access, Rows, RowShape, in_order, row_shape
from nkilite.schedule.schedule import Schedule

_ROW_LIMIT = 512 << 10  # bytes of a block with the fewest rows a run is efficient with
_LONGEST = 64  # members
_REMEMBERED = 8  # series of signatures that begin alike
_WORD = 4  # bytes of a signature's number
_AT_ONCE = 8  # times a run is looked for at first, where it has come three times


@dataclass(eq=False)
class Run:
    """Instructions that may be fused, and those after them that are the same once more.

    Attributes:
        first: index of the first one.
        pattern: of equal runs, and of all that are legal alike, the same number.
        count: how often it comes, one after the other.
    """

    first: int
    signatures: tuple[int, ...]
    finder: Finder
    pattern: int
    count: int = 1

    @property
    def rows(self) -> int:
        return self.shapes[0].rows

    @cached_property
    def shapes(self) -> tuple[RowShape, ...]:
        return tuple(self.finder.shape(signature) for signature in self.signatures)

    @cached_property
    def accesses(self) -> tuple[tuple[Access, ...], ...]:
        """What every member touches, the first time."""
        reader, starts = self.finder.reader, self.finder.starts(self.first, len(self.signatures))
        return tuple(
            tuple(reader.accesses(shape, member, start))
            for member, (shape, start) in enumerate(zip(self.shapes, starts, strict=True))
        )

    def part(self, begin: int, end: int) -> Run:
        """Some of the instructions, the first time."""
        return self.finder.run(self.first + begin, self.first + end)

    def times(self, begin: int, end: int) -> Run:
        """It, some of the times."""
        return replace(self, first=self.first + begin * len(self.signatures), count=end - begin)


class Finder:
    """Finds the longest runs of instructions that may be interchanged with their rows.

    They are cut where a new piece of work begins: with a load after a store to HBM.
    """

    def __init__(self, schedule: Schedule) -> None:
        program = schedule.program
        self.reader = Rows(schedule)
        self._shapes = [row_shape(s) for s in program.signatures]
        self.patterns = Patterns(schedule, [[o.word for o in s.operands] if s else () for s in self._shapes])
        self._loads = [moves(shape, True) for shape in self._shapes]
        self._stores = [moves(shape, False) for shape in self._shapes]
        self._panels = schedule.panels
        self._code = program.code
        self._starts = program.starts()
        self._ids = Columns.of(program).ids
        self._signatures = self._ids.tolist()
        self._words = self._ids.astype(np.int32).tobytes()
        by_row = np.array([shape is not None for shape in self._shapes], bool)
        self._free = bytearray(by_row[self._ids].tobytes())
        for group in schedule.groups:
            self._free[group.first : group.first + group.size] = bytes(group.size)
        self._numbers: dict[Hashable, int] = {}  # of patterns

    def shape(self, signature: int) -> RowShape:
        """How a signature that is in a run works by row."""
        shape = self._shapes[signature]
        assert shape is not None
        return shape

    def starts(self, first: int, count: int) -> Sequence[int]:
        """Word positions of so many instructions."""
        return self._starts[first : first + count]

    def runs(self) -> Iterator[Run]:
        """All of them, in order."""
        known: dict[int, _Similar] = {}  # by the first signature
        index = self._free.find(1)
        streak = -1  # pattern of the last two runs, if they were alike
        before = -1
        while index >= 0:
            similar = known.setdefault(self._signatures[index], {})
            run = self._repetition(similar, index, streak) or self._longest(similar, index)
            if run is not None:
                yield run
                streak = run.pattern if before == run.pattern else -1
                before = run.pattern
            index = self._free.find(1, index + (1 if run is None else len(run.signatures) * run.count))

    def _repetition(self, similar: _Similar, index: int, streak: int) -> Run | None:
        """A run once more, from an instruction on, or more often where the last ones were like it; None if none is
        repeated, or may go on."""
        for words, legal in similar.items():
            if not self._words.startswith(words, _WORD * index):
                continue
            size = len(words) // _WORD
            end = index + size
            if self._free.find(0, index, end) >= 0:
                continue
            known = legal.get(self.patterns.of(index, size))
            if known is not None and (known.size < size or self._ends(end, known.stored)):
                count = self._times(index, size, known) if known.pattern == streak else 1
                return Run(index, known.signatures, self, known.pattern, count)
        return None

    def _times(self, index: int, size: int, known: _Known) -> int:
        """How often a run that is known from an instruction on comes, one after the other, at least."""
        count, more, step = 1, _AT_ONCE, known.size
        while True:
            more = min(more, (len(self._signatures) - index - size) // step - count + 1)
            if more < 1:
                return count
            firsts = index + (count + np.arange(more)) * step
            there = firsts[:, None] + np.arange(size)
            alike = (self._ids[there] == self._ids[index : index + size]).all(axis=1)
            alike &= np.frombuffer(self._free, bool)[there].all(axis=1)
            alike[alike] = self.patterns.repeated(index, size, firsts[alike])
            if known.size == size:
                alike[alike] = [self._ends(first + size, known.stored) for first in firsts[alike].tolist()]
            if not alike.all():
                return count + int(alike.argmin())
            count, more = count + more, 2 * more

    def _longest(self, similar: _Similar, index: int) -> Run | None:
        """The longest run from an instruction on, which is kept among the similar ones; None if it is in none."""
        growing = _Growing()
        at = index
        while not self._ends(at, growing.stored) and self._takes(growing, at):
            at += 1
        if at == index:
            return None
        end = at if self._ends(at, growing.stored) else at + 1
        words = self._words[_WORD * index : _WORD * end]
        if words not in similar and len(similar) == _REMEMBERED:
            del similar[next(iter(similar))]
        found = self.run(index, at)
        known = _Known(at - index, growing.stored, found.signatures, found.pattern)
        similar.setdefault(words, {})[self.patterns.of(index, end - index)] = known
        return found

    def _ends(self, index: int, stored: bool) -> bool:
        """Whether no run goes on with an instruction, whatever it touches."""
        return index == len(self._starts) or not self._free[index] or (stored and self._loads[self._signatures[index]])

    def _takes(self, growing: _Growing, index: int) -> bool:
        """Add an instruction to a run, if it may be."""
        signature, start = self._signatures[index], self._starts[index]
        shape = self.shape(signature)
        if self._panels and any(self._code[start + o.word] in self._panels for o in shape.operands):
            return False
        accesses = self.reader.accesses(shape, growing.size, start)
        if self.reader.writes_uniform(accesses) or not growing.takes(shape, accesses):
            return False
        growing.add(shape, accesses, self._stores[signature])
        return True

    def run(self, begin: int, end: int) -> Run:
        """The run of some instructions."""
        signatures = tuple(self._signatures[begin:end])
        pattern = signatures, self.patterns.of(begin, end - begin)
        return Run(begin, signatures, self, self._numbers.setdefault(pattern, len(self._numbers)))


class _Known(NamedTuple):
    """How many of some instructions, all or all but the last, are a run, whether they store to HBM, and the run."""

    size: int
    stored: bool
    signatures: tuple[int, ...]
    pattern: int


# What is known of instructions by their signatures and their pattern.
_Similar = dict[bytes, dict[Hashable, _Known]]


def moves(shape: RowShape | None, load: bool) -> bool:
    """Whether a signature moves data from HBM to the chip (load) or from the chip to HBM."""
    if shape is None:
        return False
    return any(not o.on_chip and o.reads == load for o in shape.operands) and any(
        o.on_chip and o.writes == load for o in shape.operands
    )


class _Growing:
    """A run that is being put together."""

    def __init__(self) -> None:
        self.size = 0
        self.stored = False
        self._rows = self._least = self._bytes = 0
        self._by_space: dict[int, dict[tuple[object, ...], Access]] = {}

    def takes(self, shape: RowShape, accesses: list[Access]) -> bool:
        """Whether one more instruction keeps the run legal and of reasonable size."""
        if not self.size:
            return True
        if shape.rows != self._rows or self.size >= _LONGEST:
            return False
        least = max(shape.least, self._least)
        if least > 1 and least * (shape.bytes + self._bytes) > _ROW_LIMIT:
            return False
        for access in accesses:
            for other in self._by_space.get(access.space, {}).values():
                if not in_order(access, other, self._rows, False):
                    return False
        return True

    def add(self, shape: RowShape, accesses: list[Access], stores: bool) -> None:
        self.size += 1
        self.stored |= stores
        self._rows = shape.rows
        self._least = max(self._least, shape.least)
        self._bytes += shape.bytes
        for access in accesses:
            self._by_space.setdefault(access.space, {})[access[1:]] = access


def with_common_ends(runs: list[Run]) -> list[Run]:
    """Cut what precedes the first of several equal runs, such as the set-up of a kernel, off it."""
    result: list[Run] = []
    for run, following in itertools.zip_longest(runs, runs[1:]):
        size = len(run.signatures)
        tail = 0 if following is None else len(following.signatures)
        if following is not None and 1 < tail < size and run.signatures[-tail:] == following.signatures:
            if run.count > 1:
                result.append(run.times(0, run.count - 1))
            last = run.times(run.count - 1, run.count)
            result += [last.part(0, size - tail), last.part(size - tail, size)]
        else:
            result.append(run)
    return result
