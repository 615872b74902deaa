"""Runs of instructions whose order may change from row to row: the candidates for row groups."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from nkilite.ir.program import Program
from nkilite.passes.rows import Access, Rows, RowShape, keep_to_rows, row_shape

_ROW_LIMIT = 512 << 10  # bytes of a block with the fewest rows a run is efficient with
_LONGEST = 64  # members


class Run(NamedTuple):
    """Instructions that may be fused: index of the first one, and for each its signature, word position and shape."""

    first: int
    signatures: tuple[int, ...]
    starts: tuple[int, ...]
    shapes: tuple[RowShape, ...]
    accesses: tuple[tuple[Access, ...], ...]

    @property
    def rows(self) -> int:
        return self.shapes[0].rows

    def part(self, begin: int, end: int) -> Run:
        moved = tuple(tuple(a._replace(member=a.member - begin) for a in one) for one in self.accesses[begin:end])
        return Run(
            self.first + begin, self.signatures[begin:end], self.starts[begin:end], self.shapes[begin:end], moved
        )


def longest_runs(program: Program) -> Iterator[Run]:
    """The longest runs of instructions that may be interchanged with their rows, cut where a new piece of work begins.

    A piece of work begins with a load after a store to HBM.
    """
    shapes = [row_shape(s) for s in program.signatures]
    loads = [moves(shape, True) for shape in shapes]
    stores = [moves(shape, False) for shape in shapes]
    taken = {i for g in program.groups for i in range(g.first, g.first + g.size)}
    widths = [s.n_words for s in program.signatures]
    reader = Rows(program)
    code = program.code
    growing = _Growing()
    start = 0
    for index in range(program.count):
        signature = code[start]
        shape = shapes[signature]
        packed = shape is not None and any(code[start + o.word] in program.panels for o in shape.operands)
        if shape is None or index in taken or packed:
            if growing.size:
                yield growing.end()
        else:
            if growing.stored and loads[signature]:
                yield growing.end()
            accesses = reader.accesses(shape, growing.size, start)
            if growing.size and not growing.takes(shape, accesses):
                yield growing.end()
                accesses = reader.accesses(shape, 0, start)
            if not reader.writes_uniform(accesses):
                growing.add(index, signature, start, shape, accesses)
                growing.stored |= stores[signature]
            elif growing.size:
                yield growing.end()
        start += widths[signature]
    if growing.size:
        yield growing.end()


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
        self._first = 0
        self._least = self._bytes = 0
        self._members: list[tuple[int, int, RowShape, tuple[Access, ...]]] = []
        self._by_space: dict[int, dict[tuple, Access]] = {}

    def takes(self, shape: RowShape, accesses: list[Access]) -> bool:
        """Whether one more instruction keeps the run legal and of reasonable size."""
        rows = self._members[0][2].rows
        if shape.rows != rows or self.size >= _LONGEST:
            return False
        least = max(shape.least, self._least)
        if least > 1 and least * (shape.bytes + self._bytes) > _ROW_LIMIT:
            return False
        for access in accesses:
            known = self._by_space.get(access.space)
            if known is not None:
                writes = access.operand.writes
                for other in known.values():
                    if (writes or other.operand.writes) and not keep_to_rows(access, other, rows):
                        return False
        return True

    def add(self, index: int, signature: int, start: int, shape: RowShape, accesses: list[Access]) -> None:
        if not self.size:
            self._first = index
        self._members.append((signature, start, shape, tuple(accesses)))
        self.size += 1
        self._least = max(self._least, shape.least)
        self._bytes += shape.bytes
        for access in accesses:
            self._by_space.setdefault(access.space, {})[access[1:]] = access

    def end(self) -> Run:
        """The finished run; begins the next."""
        signatures, starts, shapes, accesses = zip(*self._members, strict=True)
        first = self._first
        self.__init__()  # type: ignore[misc]
        return Run(first, signatures, starts, shapes, accesses)


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


