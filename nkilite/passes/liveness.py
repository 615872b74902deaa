"""When each buffer is in use: the first and last instruction that touches it.

A buffer that lives across the iterations of a loop is in use from the loop's first instruction to its last, wherever
in the body it is touched. One that was made in the body is not: every iteration has a fresh one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.loops import loops
from nkilite.ir.program import Program


class Lifetimes(NamedTuple):
    """Indices of the first and last access of every buffer; first is -1 for buffers that are never touched."""

    first: list[int]
    last: list[int]


def lifetimes(program: Program, columns: Columns | None = None) -> Lifetimes:
    """Look at every operand once; `columns` are the program's, where the caller has them."""
    first, last = accessed(program, columns or Columns.of(program))
    return Lifetimes(first.tolist(), last.tolist())


def accessed(program: Program, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """What `lifetimes` says, as arrays, which are not to be changed."""
    made_in = BufferColumns.of(program).loop
    known = program.derived.get(Lifetimes)
    if known is None or known[0] is not columns or known[1] is not made_in:
        known = program.derived[Lifetimes] = columns, made_in, _accessed(program, columns, made_in)
    result: tuple[np.ndarray, np.ndarray] = known[2]
    return result


def _accessed(program: Program, columns: Columns, made_in: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, _, instructions, buffers, _ = touched = columns.touched
    first, last = touched.first(program), np.full(len(program.buffers), -1)
    np.maximum.at(last, buffers, instructions)
    for loop in loops(program):
        # The loop carries what was made outside of it, but not outside of the loop around it.
        inside = buffers[(instructions > loop.begin) & (instructions <= loop.end)]
        carried = inside[made_in[inside] == (-1 if loop.parent is None else loop.parent)]
        first[carried] = np.minimum(first[carried], loop.begin)
        last[carried] = np.maximum(last[carried], loop.end)
    first[first == program.count] = -1
    first.flags.writeable = last.flags.writeable = False
    return first, last
