"""What the instructions of a program touch, in terms of nkilite/ir/regions.py: arrays, an entry per operand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.program import Operand, Program
from nkilite.ir.regions import PARTITION, Footprint, Pattern, apart, footprint, shared
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.machine.rows import unique

_TILES = (MemoryRegion.sbuf, MemoryRegion.psum)
_OFF_CHIP = 1 << 62  # bytes of a row: there are no partitions


class Spaces:
    """Where the buffers of a program are, as arrays over buffer ids.

    Operands can only touch where their buffers have the same space: the buffer itself, or, for tiles with an explicit
    address, which may alias, their memory.

    Attributes:
        space: of each buffer.
        start: its first byte on the line of its space.
        row: bytes in a partition.
        end: the byte after its last one.
    """

    def __init__(self, program: Program) -> None:
        buffers = BufferColumns.of(program)
        self.space = np.arange(len(program.buffers))
        for number, region in enumerate(_TILES):
            self.space[buffers.fixed & buffers.within(region)] = len(program.buffers) + number
        self.start = np.where(buffers.fixed & buffers.within(*_TILES), buffers.partition * PARTITION + buffers.byte, 0)
        self.row = np.where(buffers.on_chip, np.maximum(buffers.row_bytes, 1), _OFF_CHIP)
        extent = (buffers.partitions - 1) * PARTITION + buffers.row_bytes
        self.end = self.start + np.where(buffers.on_chip, extent, buffers.size_bytes)

    def line(self, buffer: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Byte offsets into buffers as bytes on the lines of their spaces."""
        row = self.row[buffer]
        result: np.ndarray = self.start[buffer] + offset // row * PARTITION + offset % row
        return result


class Footprints:
    """The footprints of view types, computed once for each length of rows."""

    def __init__(self) -> None:
        self._known: dict[tuple[ViewType, int], Footprint] = {}

    def of(self, kind: ViewType, row_bytes: int) -> Footprint:
        if not kind.region.on_chip:
            row_bytes = 0
        found = self._known.get((kind, row_bytes))
        if found is None:
            found = self._known[kind, row_bytes] = footprint(kind, row_bytes)
        return found


def same_memory(one: ViewType, other: ViewType) -> bool:
    """Whether views of two types can touch at all."""
    return one.region is other.region or not (one.region.on_chip or other.region.on_chip)


class Operands:
    """What two operands of the same instruction have to do with each other."""

    def __init__(self, program: Program) -> None:
        self.table = Columns.of(program)
        self._spaces, self._footprints = Spaces(program), Footprints()

    def meet(self, starts: np.ndarray, one: Operand, other: Operand, in_step: bool) -> np.ndarray:
        """The word positions, of those given, of the instructions two of whose operands have a byte in common.

        Args:
            in_step: those whose operands are the same elements in the same order do not count.
        """
        code, spaces = self.table.code, self._spaces
        starts = starts[spaces.space[code[starts + one.word]] == spaces.space[code[starts + other.word]]]
        if not len(starts):
            return starts
        buffers = [code[starts + o.word] for o in (one, other)]
        first, second = (spaces.line(b, code[starts + o.word + 1]) for b, o in zip(buffers, (one, other), strict=True))
        columns = (spaces.row[buffers[0]], spaces.row[buffers[1]], second - first)
        decided: dict[tuple[int, ...], bool] = {}
        found = []
        for key in zip(*(c.tolist() for c in columns), strict=True):
            if key not in decided:
                mine, theirs = self._footprints.of(one.type, key[0]), self._footprints.of(other.type, key[1])
                same = in_step and mine.order == theirs.order and key[2] == 0
                decided[key] = not same and not apart(mine.pattern, theirs.pattern, key[2] + theirs.low - mine.low)
            found.append(decided[key])
        return starts[found]


class Accesses(NamedTuple):
    """Equally long arrays, in the order of instructions.

    Attributes:
        space: see `Spaces`. Whoever compares programs renumbers what they share.
        low: the first byte on the line of the space.
        pattern: its number in `patterns`.
    """

    instruction: np.ndarray
    space: np.ndarray
    low: np.ndarray
    pattern: np.ndarray
    reads: np.ndarray
    writes: np.ndarray
    patterns: list[Pattern]

    def only(self, chosen: np.ndarray) -> Accesses:
        """Some of them, by index or mask."""
        instruction, space, low, pattern, reads, writes, patterns = self
        return Accesses(
            instruction[chosen], space[chosen], low[chosen], pattern[chosen], reads[chosen], writes[chosen], patterns
        )

    def distinct(self) -> Accesses:
        """The first of those that do the same to the same bytes."""
        keys = np.stack(self[1:6])
        order = np.lexsort(keys)
        new = (np.diff(keys[:, order]) != 0).any(axis=0)
        return self.only(np.sort(order[np.append(True, new)[: len(order)]]))


def accesses(program: Program, spaces: Spaces | None = None) -> Accesses:
    """What all operands of a program touch."""
    spaces = spaces or Spaces(program)
    table, footprints = Columns.of(program), Footprints()
    numbers: dict[Pattern, int] = {}
    found: list[np.ndarray] = []
    for signature, rows, starts in table.uses():
        for operand in signature.operands:
            buffer, offset = table.code[starts + operand.word], table.code[starts + operand.word + 1]
            low, pattern = spaces.line(buffer, offset), np.empty(len(rows), np.int64)
            for row_bytes in unique(spaces.row[buffer]).tolist():
                at = spaces.row[buffer] == row_bytes
                covers = footprints.of(operand.type, row_bytes)
                low[at] += covers.low
                pattern[at] = numbers.setdefault(covers.pattern, len(numbers))
            flags = (np.full(len(rows), operand.reads), np.full(len(rows), operand.writes))
            found.append(np.stack([rows, spaces.space[buffer], low, pattern, *flags]))
    every = np.concatenate(found, axis=1) if found else np.empty((6, 0), np.int64)
    every = every[:, np.argsort(every[0], kind="stable")]
    instruction, space, low, pattern, reads, writes = every
    return Accesses(instruction, space, low, pattern, reads.astype(bool), writes.astype(bool), list(numbers))


class Overlap(NamedTuple):
    """Two instructions that touch the same memory, and the first bytes [low, high) of its space that both do."""

    one: int
    other: int
    space: int
    low: int
    high: int


def conflicts(one: Accesses, other: Accesses) -> Iterator[Overlap]:
    """Where what two programs, or parts of one, touch is the same memory, and one of the two writes it.

    Of equal accesses the first instruction is named. Exact but for what an index chooses while running.
    """
    one, other = one.distinct(), other.distinct()
    known: dict[tuple[int, int, int], tuple[int, int] | None] = {}
    spans = [np.array([p.span for p in found.patterns], np.int64)[found.pattern] for found in (one, other)]
    order = np.argsort(other.low, kind="stable")
    other = other.only(order)
    ends = other.low + spans[1][order]
    for i in range(len(one.low)):
        low, high = int(one.low[i]), int(one.low[i] + spans[0][i])
        near = slice(0, np.searchsorted(other.low, high))
        meets = (other.space[near] == one.space[i]) & (ends[near] > low) & (other.writes[near] | one.writes[i])
        for k in np.flatnonzero(meets).tolist():
            key = int(one.pattern[i]), int(other.pattern[k]), int(other.low[k]) - low
            if key not in known:
                known[key] = shared(one.patterns[key[0]], other.patterns[key[1]], key[2])
            bytes = known[key]
            if bytes is not None:
                yield Overlap(
                    int(one.instruction[i]), int(other.instruction[k]), int(one.space[i]), low + bytes[0],
                    low + bytes[1],
                )
