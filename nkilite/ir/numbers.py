"""Which results are looked through for NaN, and for infinities, as they are written."""

from __future__ import annotations

import math
from typing import NamedTuple

from nkilite.errors import NotANumber
from nkilite.ir.program import Check, Operand, Signature
from nkilite.ir.types import MemoryRegion
from nkilite.notices import Notice, give

#: What a program can be asked to look for.
NAN, SPECIAL = "nan", "nan and inf"

# Words of a row of what a compiled program notes: the number of the check that found something first, the iteration it
# was in, column and bits of the element; and the iteration that is under way.
NUMBER, WHEN, COLUMN, BITS, NOW = range(5)
STATE_WORDS = 5

_TILES = (MemoryRegion.sbuf, MemoryRegion.psum)


class NumberFound(NamedTuple):
    """An element that was looked for.

    Attributes:
        place: its index in what the instruction wrote.
    """

    check: Check
    place: tuple[int, ...]
    value: float

    def error(self) -> NotANumber:
        """The error, at the user's line."""
        check = self.check
        return NotANumber(
            instruction=check.instruction, value=f"{self.value:g}".replace("nan", "NaN"), operand=check.operand,
            tensor=check.tensor, shape=check.shape, index=list(self.place), location=check.location,
        )


    def report(self, fatal: bool) -> None:
        """Raise the error, or warn of it."""
        error = self.error()
        if fatal:
            raise error
        where = self.check.location
        give(Notice(str(error).splitlines()[0], NotANumberWarning, where.file, where.line))


class NotANumberWarning(UserWarning):
    """An instruction wrote NaN, or an infinity, with NKILITE_NAN or check_nan on."""


def watched(signature: Signature) -> tuple[Operand, ...]:
    """The tiles of floats that an instruction writes, where it is known which elements."""
    if signature.definition.control is not None or signature.definition.meets is not None:
        return ()
    return tuple(
        o for o in signature.operands
        if o.writes and o.type.region in _TILES and o.type.dtype.is_float and o.type.indirection is None
    )


def overflows(signature: Signature, numbers: list[float]) -> bool:
    """Whether an infinity that an instruction writes is one too many.

    What only moves elements or reads no tile writes those it is given, and numbers that are infinite are meant.
    """
    reads = any(not o.writes and o.type.region in _TILES for o in signature.operands)
    return reads and signature.access.move is None and not any(map(math.isinf, numbers))
