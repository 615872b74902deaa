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
        touched = Columns.of(program).touched
        self._operands = touched.operands
        at = np.flatnonzero(chosen[touched.buffer])
        at = at[np.lexsort((touched.number[at], (2 * touched.row + ~touched.reads)[at], touched.buffer[at]))]
        self._done = np.stack([touched.number[at], touched.offset[at]], axis=1)
        self._bytes = self._done.tobytes()
        self._rows = touched.row[at]
        self.buffers = np.flatnonzero(chosen).tolist()
        bounds = np.searchsorted(touched.buffer[at], [*self.buffers, len(chosen)]).tolist()
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
        found = []
        for row, (number, offset) in zip(rows.tolist(), done.tolist(), strict=True):
            signature, operand = self._operands[number]
            found.append(Access(row, operand, offset, operand.name in signature.definition.partly_read))
        return found

    def alike(self) -> list[list[int]]:
        """The buffers, those of one kind together."""
        kinds: dict[Hashable, list[int]] = {}
        for id in self.buffers:
            kinds.setdefault(self.kind(id), []).append(id)
        return list(kinds.values())
