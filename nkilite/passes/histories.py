"""What happens to buffers, one by one: those with the same history are right or wrong alike."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from nkilite.ir.columns import Columns, numbered
from nkilite.ir.program import Operand, Program

_BYTES = 16  # of an access that is done


class Access(NamedTuple):
    """An operand that touches a buffer.

    Attributes:
        partly: the instruction reads some elements of it only.
    """

    instruction: int
    operand: Operand
    byte_offset: int
    partly: bool


class Histories:
    """The accesses to some buffers of a program, in order; an instruction reads before it writes."""

    def __init__(self, program: Program, chosen: np.ndarray) -> None:
        """`chosen` says for every buffer whether it is one of them."""
        self._program = program
        columns = Columns.of(program)
        self._operands: list[Operand] = []
        self._partly: list[bool] = []
        found = [np.empty((5, 0), np.int64)]
        for signature, rows, starts in columns.uses():
            for operand in signature.operands:
                number = len(self._operands)
                self._operands.append(operand)
                self._partly.append(operand.name in signature.definition.partly_read)
                used, offsets = columns.code[starts + operand.word], columns.code[starts + operand.word + 1]
                at = chosen[used]
                if at.any():
                    when = 2 * rows[at] + (not operand.reads)
                    found.append(np.stack([used[at], when, np.full(len(when), number), offsets[at], rows[at]]))
        buffers, when, numbers, offsets, rows = np.concatenate(found, axis=1)
        order = np.lexsort((numbers, when, buffers))
        self._done = np.stack([numbers[order], offsets[order]], axis=1)
        self._bytes = self._done.tobytes()
        self._rows = rows[order]
        self.buffers = np.flatnonzero(chosen).tolist()
        bounds = np.searchsorted(buffers[order], [*self.buffers, len(chosen)]).tolist()
        self._bounds = dict(zip(self.buffers, pairwise(bounds), strict=True))

    def kind(self, buffer: int) -> Hashable:
        """Equal for buffers of one type to which the same is done in the same order."""
        whole, (first, end) = self._program.buffers[buffer], self._bounds[buffer]
        return id(whole.type), whole.address is None, self._bytes[first * _BYTES : end * _BYTES]

    def of(self, buffer: int, repeated: bool = True) -> list[Access]:
        """What is done to a buffer, in order; without those that touch it as an earlier one, if they are not asked for.
        """
        where = slice(*self._bounds[buffer])
        rows, done = self._rows[where], self._done[where]
        if not repeated:
            number, offset = done.T
            _, first, _ = numbered(number * (int(offset.max(initial=0)) + 1) + offset)
            first.sort()
            rows, done = rows[first], done[first]
        return [
            Access(row, self._operands[number], offset, self._partly[number])
            for row, (number, offset) in zip(rows.tolist(), done.tolist(), strict=True)
        ]

    def alike(self) -> list[list[int]]:
        """The buffers, those of one kind together."""
        kinds: dict[Hashable, list[int]] = {}
        for id in self.buffers:
            kinds.setdefault(self.kind(id), []).append(id)
        return list(kinds.values())
