"""Do the cores of a launch come to the same meetings, in the same order? Found out before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from nkilite.errors import CoresDiffer, Deadlock
from nkilite.ir.definition import Meets
from nkilite.ir.loops import loops
from nkilite.ir.meeting import meeting_key, said, there
from nkilite.ir.phases import meetings
from nkilite.ir.program import Instruction, Operand, Program
from nkilite.ir.types import MemoryRegion
from nkilite.location import UNKNOWN, Location


class Step(NamedTuple):
    """A meeting, or the beginning or end of a loop that has meetings in its body.

    Attributes:
        key: what the steps of all cores have in common.
        instruction: how messages name that of a meeting.
    """

    key: tuple[object, ...]
    said: str
    location: Location
    instruction: str = ""


def steps(program: Program) -> list[Step]:
    """The meetings of a program in order, with the loops around them."""
    meeting = meetings(program)
    if not meeting:
        return []
    arrays = {b.id: i for i, b in enumerate([*program.inputs, *program.outputs])}
    met = {i.index: _meeting(i, arrays) for i in program if i.signature.id in meeting}
    found = dict(met)
    for loop in loops(program):
        if any(loop.begin < index < loop.end for index in met):
            trips = "as many turns as the device counts" if loop.trips is None else f"{loop.trips} turns"
            found[loop.begin] = Step(("loop", loop.trips), f"a loop of {trips}", _location(program, loop.begin))
            found[loop.end] = Step(("end of loop",), "the end of a loop", _location(program, loop.end))
    return [found[index] for index in sorted(found)]


def _meeting(instruction: Instruction, arrays: dict[int, int]) -> Step:
    call = instruction.signature
    key, text = meeting_key(call.name, call.arguments), said(call.name, call.arguments)
    if "data" in call.arguments:
        buffer, _ = instruction.access(call.operand("data"))
        key, text = (*key, arrays.get(buffer.id)), f"{text} of {buffer.label}"
    elif call.definition.meets is Meets.ranks:
        places = [_place(instruction, operand, arrays) for operand in call.operands]
        key, text = (*key, *(p for p, _ in places)), f"{text} of {', '.join(s for _, s in places)}"
    return Step(key, text, instruction.location, call.title)


def _place(instruction: Instruction, operand: Operand, arrays: dict[int, int]) -> tuple[tuple[object, ...], str]:
    """Where a tensor is that a collective transfers, and how messages name it.

    What the cores of a rank share is transferred once, so that all of them have to mean the same.
    """
    buffer, offset = instruction.access(operand)
    shared = buffer.region is MemoryRegion.shared_hbm
    place = (operand.name, buffer.region, *((arrays.get(buffer.id), operand.type, offset) if shared else ()))
    return place, f"{instruction.signature.said(operand.name)} {buffer.label} in {buffer.region}"


def _location(program: Program, index: int) -> Location:
    return program.locations[program.code[program.starts()[index] + 1]]


def require_same_meetings(programs: Sequence[Program]) -> None:
    """Raise unless all cores come to the same meetings.

    Raises:
        CoresDiffer: two cores meet others at different instructions.
        Deadlock: one waits for another that has ended.
    """
    first = steps(programs[0])
    for core, program in enumerate(programs[1:], start=1):
        for one, other in zip_longest(first, steps(program)):
            if one is None or other is None:
                waits, (waiting, ended) = (one, (0, core)) if other is None else (other, (core, 0))
                assert waits is not None
                raise Deadlock(
                    instruction=waits.instruction or waits.said, core=waiting, other=ended,
                    there=there(_end(programs[ended])), location=waits.location,
                )
            if one.key != other.key:
                raise CoresDiffer(
                    what="meet at different instructions", core=0, first=one.said, other=core, second=other.said,
                    there=there(other.location), location=one.location,
                )


def _end(program: Program) -> Location:
    """The last line of a program."""
    return _location(program, program.count - 1) if program.count else UNKNOWN
