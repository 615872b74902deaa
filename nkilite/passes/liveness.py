"""When each buffer is in use: the first and last instruction that touches it."""

from __future__ import annotations

from typing import NamedTuple

from nkilite.ir.program import Program


class Lifetimes(NamedTuple):
    """Indices of the first and last access of every buffer; first is -1 for buffers that are never touched."""

    first: list[int]
    last: list[int]


def lifetimes(program: Program) -> Lifetimes:
    """Scan the instruction table once."""
    first = [-1] * len(program.buffers)
    last = [-1] * len(program.buffers)
    words = [tuple(o.word for o in s.operands) for s in program.signatures]
    widths = [s.n_words for s in program.signatures]
    code = program.code
    start = 0
    for index in range(program.count):
        signature = code[start]
        for word in words[signature]:
            buffer = code[start + word]
            if first[buffer] < 0:
                first[buffer] = index
            last[buffer] = index
        start += widths[signature]
    return Lifetimes(first, last)
