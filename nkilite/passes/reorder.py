"""Another order of a program's instructions, for passes that move some of them."""

from __future__ import annotations

from array import array

import numpy as np

from nkilite.ir.columns import Columns
from nkilite.ir.program import Program


def stretches(program: Program, columns: Columns) -> np.ndarray:
    """For every instruction, in which stretch it is: no instruction leaves a loop's body, or passes a meeting."""
    ends = np.array([s.definition.control is not None or s.definition.meets is not None for s in program.signatures])
    return np.cumsum(ends[columns.ids]) if len(columns.ids) else np.zeros(0, np.int64)


def reorder(program: Program, columns: Columns, order: np.ndarray) -> None:
    """Put instructions in another order, with their names and dependencies."""
    widths = np.array([s.n_words for s in program.signatures], np.int64)[columns.ids[order]]
    begins = np.cumsum(widths) - widths
    words = np.repeat(columns.starts[order] - begins, widths) + np.arange(widths.sum())
    program.code = array("q", columns.code[words].tobytes())
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    program.names = {int(place[i]): name for i, name in program.names.items()}
    program.dependencies = [(int(place[a]), int(place[b])) for a, b in program.dependencies]
