"""When each buffer is in use: the first and last instruction that touches it.

A buffer that lives across the iterations of a loop is in use from the loop's first instruction to its last, wherever
in the body it is touched. One that was made in the body is not: every iteration has a fresh one.
"""

from __future__ import annotations

from typing import NamedTuple

from nkilite.ir.definition import Control
from nkilite.ir.loops import Loop, carrying, loops
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
    controls = [s.definition.control for s in program.signatures]
    all_loops = loops(program)
    begun = 0
    open_loops: list[Loop] = []
    code = program.code
    start = 0
    for index in range(program.count):
        signature = code[start]
        for word in words[signature]:
            buffer = code[start + word]
            begin = end = index
            if open_loops:
                loop = carrying(open_loops, program.buffers[buffer])
                if loop is not None:
                    begin, end = loop.begin, loop.end
            if first[buffer] < 0 or begin < first[buffer]:
                first[buffer] = begin
            if end > last[buffer]:
                last[buffer] = end
        if controls[signature] is Control.begin:
            open_loops.append(all_loops[begun])
            begun += 1
        elif controls[signature] is Control.end:
            open_loops.pop()
        start += widths[signature]
    return Lifetimes(first, last)
