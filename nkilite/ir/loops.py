"""The loops of a program: which instructions their bodies are, how they nest, and how often they run.

A loop is a pair of control instructions in the table. The one that ends a loop belongs to its body, the one that
begins it does not. Loops are numbered in the order in which they begin.
"""

from __future__ import annotations

from typing import NamedTuple

from nkilite.errors import IrError
from nkilite.ir.definition import Control
from nkilite.ir.program import Instruction, Program
from nkilite.ir.types import Buffer


class Loop(NamedTuple):
    """A loop of a program.

    Attributes:
        begin, end: indices of its control instructions.
        parent: number of the loop around it, or None.
        trips: iterations each time it is reached, or None when only the device knows.
    """

    number: int
    begin: int
    end: int
    parent: int | None
    trips: int | None


def has_loops(program: Program) -> bool:
    """Whether any signature is a control instruction."""
    return any(s.definition.control is not None for s in program.signatures)


def loops(program: Program) -> list[Loop]:
    """All loops, by number.

    Raises:
        IrError: beginnings and ends do not pair up.
    """
    if not has_loops(program):
        return []
    found: list[Loop] = []
    pending: list[tuple[int, Instruction]] = []
    for instruction in program:
        control = instruction.signature.definition.control
        if control is Control.begin:
            parent = pending[-1][0] if pending else None
            pending.append((len(found), instruction))
            found.append(Loop(len(found), instruction.index, -1, parent, _trips(instruction)))
        elif control is Control.end:
            if not pending or not _pair(pending[-1][1], instruction):
                raise IrError(
                    f"{instruction.signature.name} ends no loop that is open", location=instruction.location
                )
            number, _ = pending.pop()
            found[number] = found[number]._replace(end=instruction.index)
    if pending:
        begin = pending[-1][1]
        raise IrError(f"the loop that {begin.signature.name} begins has no end", location=begin.location)
    return found


def innermost(program: Program) -> list[int | None]:
    """Of every instruction, the number of the loop whose body it is in, None outside of all."""
    found: list[int | None] = [None] * program.count
    for loop in loops(program):  # those inside come later
        found[loop.begin + 1 : loop.end + 1] = [loop.number] * (loop.end - loop.begin)
    return found


def enclosing(all_loops: list[Loop], number: int | None) -> list[int]:
    """The loop with that number and those around it, innermost first."""
    chain = []
    while number is not None:
        chain.append(number)
        number = all_loops[number].parent
    return chain


def carrying(open_loops: list[Loop], buffer: Buffer) -> Loop | None:
    """The outermost of the open loops (given outermost first) that carries a buffer from iteration to iteration.

    That is the outermost one in which the buffer was not made; None when the buffer is made anew for every
    iteration of all of them.
    """
    for position, loop in enumerate(open_loops):
        if loop.number == buffer.loop:
            return open_loops[position + 1] if position + 1 < len(open_loops) else None
    return open_loops[0] if open_loops else None


def repeats(program: Program, all_loops: list[Loop] | None = None) -> list[int]:
    """How often each instruction runs; a loop whose trip count only the device knows is taken to run once.

    Args:
        all_loops: the program's loops, if more is known of them than the program says.
    """
    times = [1] * len(program)
    for loop in loops(program) if all_loops is None else all_loops:
        if loop.trips is not None:
            for index in range(loop.begin + 1, loop.end + 1):
                times[index] *= loop.trips
    return times


def _pair(begin: Instruction, end: Instruction) -> bool:
    return begin.signature.name.removesuffix("_begin") == end.signature.name.removesuffix("_end")


def _trips(begin: Instruction) -> int | None:
    signature = begin.signature
    rule = signature.definition.rules.get("trips")
    if rule is None:
        return None
    trips: int | None = rule(signature, **{i.name: begin.value(i) for i in signature.immediates})
    return trips
