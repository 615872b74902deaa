"""What a run found of NaN and infinities: the first of all that a program wrote."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nkilite.ir.numbers import BITS, COLUMN, NUMBER, STATE_WORDS, WHEN, NumberFound
from nkilite.ir.program import Check


class Numbers(NamedTuple):
    """Where a program notes what it finds.

    Attributes:
        offset: of the state in the arena.
        fatal: what is found is an error, not a warning.
        checks: by number, from 1.
    """

    offset: int
    rows: int
    fatal: bool
    checks: tuple[Check, ...]

    @property
    def bytes(self) -> int:
        return 4 * STATE_WORDS * self.rows


def first_found(numbers: Numbers, memory: np.ndarray) -> NumberFound | None:
    """What the program wrote first; of what one instruction wrote, the first element.

    Args:
        memory: the bytes of the state after a run.
    """
    state = memory.view(np.uint32).reshape(numbers.rows, STATE_WORDS)
    rows = np.flatnonzero(state[:, NUMBER])
    if not len(rows):
        return None
    row = rows[np.lexsort((rows, state[rows, NUMBER], state[rows, WHEN]))[0]]
    check = numbers.checks[int(state[row, NUMBER]) - 1]
    index = np.unravel_index(int(state[row, COLUMN]), check.shape[1:] or (1,))
    place = (int(row), *map(int, index))[: len(check.shape)]
    value = float(state[row, BITS : BITS + 1].view(np.float32)[0])
    return NumberFound(check, place, value)
