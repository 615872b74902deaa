"""What becomes of memory: which tiles a run of instructions can keep to itself, and which tensors in HBM are large."""

from __future__ import annotations

import numpy as np

from nkilite.host.memory import LARGE
from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.program import Program
from nkilite.passes.liveness import accessed


class Own:
    """The instructions within which tiles are used that nothing but an instruction can refer to.

    Attributes:
        first, last: the first and the last that uses each buffer; first is -1 for others, and for those of no use.
    """

    def __init__(self, program: Program) -> None:
        buffers = BufferColumns.of(program)
        first, self.last = accessed(program, Columns.of(program))
        self.first = np.where(buffers.on_chip & ~buffers.fixed & buffers.internal, first, -1)
        self._lives: list[tuple[int, int]] = list(zip(self.first.tolist(), self.last.tolist(), strict=True))

    def by(self, buffer: int, begin: int, end: int) -> bool:
        """Whether instructions from `begin` to before `end` alone use a tile, and can keep it to themselves."""
        first, last = self._lives[buffer]
        return first >= begin and last < end


def large(program: Program) -> list[bool]:
    """Of every buffer, whether it is in HBM and does not stay in the caches."""
    buffers = BufferColumns.of(program)
    found: list[bool] = (~buffers.on_chip & (buffers.size_bytes >= LARGE)).tolist()
    return found


def never_read(program: Program) -> list[bool]:
    """Of every buffer, whether it is `large` and no instruction reads it."""
    found, columns = large(program), Columns.of(program)
    for signature, _, starts in columns.uses():
        for operand in signature.operands:
            if operand.reads and not operand.type.region.on_chip:
                for buffer in set(columns.code[starts + operand.word].tolist()):
                    found[buffer] = False
    return found
