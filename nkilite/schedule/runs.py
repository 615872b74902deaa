"""Runs of instructions whose order may change from row to row: the candidates for row groups."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from nkilite.schedule.patterns import Patterns
from nkilite.schedule.rows import Access, Rows, RowShape, keep_to_rows, row_shape
from nkilite.schedule.schedule import Schedule

_ROW_LIMIT = 512 << 10  # bytes of a block with the fewest rows a run is efficient with
_LONGEST = 64  # members
_REMEMBERED = 8  # series of signatures that begin alike


@dataclass(frozen=True)
class Run:
    """Instructions that may be fused.

    Attributes:
        first: index of the first one.
        starts: word position of each.
    """

    first: int
    signatures: tuple[int, ...]
    starts: tuple[int, ...]
    finder: Finder
    pattern: Hashable  # equal for runs that are legal alike

    @property
    def rows(self) -> int:
        return self.shapes[0].rows

    @cached_property
    def shapes(self) -> tuple[RowShape, ...]:
        return tuple(self.finder.shape(signature) for signature in self.signatures)

    @cached_property
    def accesses(self) -> tuple[tuple[Access, ...], ...]:
        """What every member touches."""
        reader = self.finder.reader
        return tuple(
            tuple(reader.accesses(shape, member, start))
            for member, (shape, start) in enumerate(zip(self.shapes, self.starts, strict=True))
        )

    @property
    def touched(self) -> np.ndarray:
        """The buffer of every access, in order."""
        patterns = self.finder.patterns
        return patterns.touched[patterns.accesses(self.first, len(self.signatures))]

    def part(self, begin: int, end: int) -> Run:
        return self.finder.run(self.first + begin, self.first + end)


class Finder:
    """Finds the longest runs of instructions that may be interchanged with their rows.

    They are cut where a new piece of work begins: with a load after a store to HBM.
    """

    def __init__(self, schedule: Schedule) -> None:
        program = schedule.program
        self.reader = Rows(schedule)
        self._shapes = [row_shape(s) for s in program.signatures]
        self.patterns = Patterns(schedule, self._shapes)
        self._loads = [moves(shape, True) for shape in self._shapes]
        self._stores = [moves(shape, False) for shape in self._shapes]
        self._panels = schedule.panels
        self._code = program.code
        self._starts = program.starts()
        self._signatures = [program.code[start] for start in self._starts]
        self._free = bytearray(self._shapes[signature] is not None for signature in self._signatures)
        for group in schedule.groups:
            self._free[group.first : group.first + group.size] = bytes(group.size)

    def shape(self, signature: int) -> RowShape:
        """How a signature that is in a run works by row."""
        shape = self._shapes[signature]
        assert shape is not None
        return shape

    def runs(self) -> Iterator[Run]:
        """All of them, in order."""
        known: dict[int, _Similar] = {}  # by the first signature
        index = self._free.find(1)
        while index >= 0:
            similar = known.setdefault(self._signatures[index], {})
            run = self._repetition(similar, index) or self._longest(similar, index)
            if run is not None:
                yield run
            index = self._free.find(1, index + (1 if run is None else len(run.signatures)))

    def _repetition(self, similar: _Similar, index: int) -> Run | None:
        """A run once more, from an instruction on; None if none is repeated, or may go on."""
        for signatures, legal in similar.items():
            end = index + len(signatures)
            if tuple(self._signatures[index:end]) != signatures or 0 in self._free[index:end]:
                continue
            known = legal.get(self.patterns.of(index, len(signatures)))
            if known is not None and (known.size < len(signatures) or self._ends(end, known.stored)):
                return self.run(index, index + known.size, known.pattern)
        return None

    def _longest(self, similar: _Similar, index: int) -> Run | None:
        """The longest run from an instruction on, which is kept among the similar ones; None if it is in none."""
        growing = _Growing()
        at = index
        while not self._ends(at, growing.stored) and self._takes(growing, at):
            at += 1
        if at == index:
            return None
        end = at if self._ends(at, growing.stored) else at + 1
        signatures = tuple(self._signatures[index:end])
        if signatures not in similar and len(similar) == _REMEMBERED:
            del similar[next(iter(similar))]
        found = self.run(index, at)
        known = _Known(at - index, growing.stored, found.pattern)
        similar.setdefault(signatures, {})[self.patterns.of(index, end - index)] = known
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

    def run(self, begin: int, end: int, pattern: Hashable = None) -> Run:
        """The run of some instructions, whose pattern may be known."""
        signatures = tuple(self._signatures[begin:end])
        pattern = pattern or (signatures, self.patterns.of(begin, end - begin))
        return Run(begin, signatures, tuple(self._starts[begin:end]), self, pattern)


class _Known(NamedTuple):
    """How many of some instructions, all or all but the last, are a run, whether they store to HBM, and its pattern."""

    size: int
    stored: bool
    pattern: Hashable


# What is known of instructions by their signatures and their pattern.
_Similar = dict[tuple[int, ...], dict[Hashable, _Known]]


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
            known = self._by_space.get(access.space)
            if known is not None:
                writes = access.operand.writes
                for other in known.values():
                    if (writes or other.operand.writes) and not keep_to_rows(access, other, self._rows):
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
            result += [run.part(0, size - tail), run.part(size - tail, size)]
        else:
            result.append(run)
    return result
