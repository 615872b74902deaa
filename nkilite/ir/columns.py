"""The instructions and the buffers of a program as arrays: what passes read that look at all of them.

They are made once and kept with the program as long as they are right, which is asked every time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from nkilite.ir.program import Operand, Program, Signature
from nkilite.ir.types import BufferKind, MemoryRegion, ViewType
from nkilite.once import cached_property


class Touched(NamedTuple):
    """What the operands of all instructions touch: equally long arrays, operand by operand, and as many `operands` as
    `number` has numbers.

    Attributes:
        row: instructions.
        buffer, offset: where the operand begins.
    """

    operands: list[tuple[Signature, Operand]]
    number: np.ndarray
    row: np.ndarray
    buffer: np.ndarray
    offset: np.ndarray

    def each(self, question: Callable[[Signature, Operand], object]) -> np.ndarray:
        """Something that is asked of every operand, for each of its instructions."""
        result: np.ndarray = np.array([question(*one) for one in self.operands] or [False])[self.number]
        return result

    @property
    def reads(self) -> np.ndarray:
        return self.each(lambda _, operand: operand.reads)

    @property
    def writes(self) -> np.ndarray:
        return self.each(lambda _, operand: operand.writes)

    def first(self, program: Program, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """The first instruction that touches each buffer, by operands that are chosen; `program.count` if none does."""
        found = np.full(len(program.buffers), program.count)
        np.minimum.at(found, self.buffer[chosen], self.row[chosen])
        return found

    def whole(self, buffers: BufferColumns) -> np.ndarray:
        """Which operands are, at a place that is known, as many elements as their buffers have, each once."""
        sizes = self.each(lambda _, o: -1 if o.type.indirection or 0 in o.type.strides else o.type.bytes)
        result: np.ndarray = buffers.size_bytes[self.buffer] == sizes
        return result


class Columns:
    """A program's instructions grouped by signature, as they are now. Arrays are not to be changed.

    Attributes:
        code: the words of all instructions (a copy).
        starts: the word position of every instruction.
        ids: the signature id of every instruction.
    """

    def __init__(self, program: Program, before: Columns | None = None) -> None:
        """`before` are those of the program with other words."""
        self._signatures = tuple(program.signatures)
        self.code = np.array(program.code, np.int64)
        self._positions = program.starts()
        same = before is not None and before._positions is self._positions
        self.starts: np.ndarray = before.starts if before is not None and same else np.array(self._positions, np.int64)
        self.ids = self.code[self.starts]
        self._order = np.argsort(self.ids.astype(np.int32), kind="stable")
        self._bounds = np.searchsorted(self.ids[self._order], np.arange(len(program.signatures) + 1)).tolist()
        self.code.flags.writeable = False

    @classmethod
    def of(cls, program: Program) -> Columns:
        """Those of a program, which it keeps."""
        known = program.derived.get(cls)
        if (
            known is None or len(known._signatures) != len(program.signatures)
            or not np.array_equal(known.code, np.asarray(program.code, np.int64))
        ):
            known = program.derived[cls] = cls(program, known)
        return known

    def rows(self, signature: int) -> np.ndarray:
        """The instructions of a signature, in program order."""
        return self._order[self._bounds[signature]:self._bounds[signature + 1]]

    def uses(self) -> Iterator[tuple[Signature, np.ndarray, np.ndarray]]:
        """Every signature in use, with its instructions and their word positions."""
        for signature in self._signatures:
            rows = self.rows(signature.id)
            if len(rows):
                yield signature, rows, self.starts[rows]

    @cached_property
    def touched(self) -> Touched:
        """What they touch."""
        operands: list[tuple[Signature, Operand]] = []
        numbers, rows, words = [np.empty(0, np.int64)], [self._order[:0]], [self.starts[:0]]
        for signature, which, starts in self.uses():
            for operand in signature.operands:
                numbers.append(np.full(len(which), len(operands)))
                rows.append(which)
                words.append(starts + operand.word)
                operands.append((signature, operand))
        at = np.concatenate(words)
        return Touched(operands, np.concatenate(numbers), np.concatenate(rows), self.code[at], self.code[at + 1])


_TYPE, _ADDRESS, _KIND, _LOOP = map(attrgetter, ("type", "address", "kind", "loop"))


class BufferColumns:
    """A program's buffers, in the order of their ids. Arrays are not to be changed.

    Attributes:
        row_bytes: bytes in a partition, or of one position of dimension 0.
        fixed: whether the user gave it an address.
        partition, byte: that address, or 0.
        internal: whether the kernel made it.
        loop: in which loop it was made, or -1.
    """

    def __init__(self, program: Program) -> None:
        self._buffers = buffers = list(program.buffers)
        own = list(map(_TYPE, buffers))
        ids = np.fromiter(map(id, own), np.int64, len(own))  # buffers share types, whose hashes are long
        by_id = dict(zip(ids.tolist(), own, strict=True))
        known = np.array(sorted(by_id), np.int64)
        numbers: dict[ViewType, int] = {}
        number = np.array([numbers.setdefault(by_id[one], len(numbers)) for one in known.tolist()], np.int64)
        self._types = types = number[np.searchsorted(known, ids)]
        self._kinds = list(numbers)
        self.row_bytes, self.size_bytes, self.partitions = np.array(
            [(t.free_bytes, t.size * t.dtype.itemsize, t.shape[0] if t.shape else 0) for t in numbers], np.int64,
        ).reshape(len(numbers), 3).T[:, types]
        self.on_chip = self.which(lambda kind: kind.region.on_chip)
        addresses = list(map(_ADDRESS, buffers))
        self.fixed = ~_each(addresses, None)
        self.partition, self.byte = np.zeros((2, len(buffers)), np.int64)
        if self.fixed.any():
            given = chain.from_iterable(filter(None, addresses))
            self.partition[self.fixed], self.byte[self.fixed] = np.fromiter(given, np.int64).reshape(-1, 2).T
        self.internal = _each(list(map(_KIND, buffers)), BufferKind.internal)
        loops = list(map(_LOOP, buffers))
        outside = _each(loops, None)
        self.loop = np.full(len(buffers), -1)
        if not outside.all():
            self.loop[~outside] = [loop for loop in loops if loop is not None]

    @classmethod
    def of(cls, program: Program) -> BufferColumns:
        """Those of a program, which it keeps."""
        known = program.derived.get(cls)
        if known is None or known._buffers != program.buffers:
            known = program.derived[cls] = cls(program)
        return known

    def keep_without_addresses(self, program: Program, ids: Sequence[int]) -> None:
        """These are those of a program again, but for some of its buffers, which have lost their addresses."""
        known = program.derived[BufferColumns] = copy(self)
        known._buffers = list(program.buffers)
        known.fixed, known.partition, known.byte = self.fixed.copy(), self.partition.copy(), self.byte.copy()
        known.fixed[ids], known.partition[ids], known.byte[ids] = False, 0, 0

    def within(self, *regions: MemoryRegion) -> np.ndarray:
        """Whether a buffer is in one of these memories."""
        return self.which(lambda kind: kind.region in regions)

    def which(self, question: Callable[[ViewType], bool]) -> np.ndarray:
        """Of which buffers something is true that is asked of their types."""
        return np.array([question(kind) for kind in self._kinds], bool)[self._types]

    def measured(self, question: Callable[[ViewType], int]) -> np.ndarray:
        """For every buffer, a number that follows from its type."""
        return np.array([question(kind) for kind in self._kinds], np.int64)[self._types]

    def chosen(self, ids: Collection[int] | np.ndarray) -> np.ndarray:
        """Whether the id of a buffer is among some."""
        found = np.zeros(len(self._buffers), bool)
        found[ids if isinstance(ids, np.ndarray) else list(ids)] = True
        return found


def _each(values: list[object], value: object) -> np.ndarray:
    """Which of some values are another one; mostly all are."""
    if values.count(value) == len(values):
        return np.ones(len(values), bool)
    return np.array([one is value for one in values], bool)


def numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct numbers of an array, sorted, where each comes first, and the number of every element's."""
    order = np.argsort(values, kind="stable")
    found = values[order]
    new = np.append(True, found[1:] != found[:-1])[: len(found)]
    numbers = np.empty(len(values), np.int64)
    numbers[order] = np.cumsum(new) - 1
    return found[new], order[new], numbers
