"""The programs of the cores of a launch as one program, whose instructions know their core.

Nothing is shared between the parts but signatures and constants: a tensor that both cores see is a buffer of each, for
nothing but a meeting makes one core wait for another.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nkilite.errors import UnsupportedError
from nkilite.ir.columns import Columns
from nkilite.ir.phases import meetings
from nkilite.ir.program import Program

__all__ = ["Joined", "joined"]


class Joined(NamedTuple):
    """A launch as one program.

    Attributes:
        cores: how many run it.
        core: of every instruction.
        buffer_core: of every buffer.
        meetings: the meeting of every instruction, -1 for none; a meeting has an instruction of every core.
    """

    program: Program
    cores: int
    core: np.ndarray
    buffer_core: np.ndarray
    meetings: np.ndarray


def joined(programs: Sequence[Program]) -> Joined:
    """The straight-line programs of all cores, one after the other; of one core, its own.

    Raises:
        UnsupportedError: cores come to different numbers of meetings, because loops were told different trip counts.
    """
    first = programs[0]
    whole = first if len(programs) == 1 else Program(first.name, first.target, first.cores)
    if whole is not first:
        whole.managed, whole.placed, whole.disable_dge = first.managed, first.placed, first.disable_dge
        for program in programs:
            _append(whole, program)
    counts = [len(p) for p in programs]
    numbers = [_numbers(p) if len(programs) > 1 else np.full(len(p), -1) for p in programs]
    met = {int(n.max(initial=-1)) + 1 for n in numbers}
    if len(met) > 1:
        raise UnsupportedError(feature=f"the profile of cores that meet {min(met)} and {max(met)} times")
    return Joined(
        whole, len(programs), np.repeat(np.arange(len(programs)), counts),
        np.repeat(np.arange(len(programs)), [len(p.buffers) for p in programs]), np.concatenate(numbers),
    )


def _numbers(program: Program) -> np.ndarray:
    """The number of the meeting of every instruction, -1 for none."""
    meets = np.isin(Columns.of(program).ids, list(meetings(program)))
    return np.where(meets, np.cumsum(meets) - 1, -1)


def _append(whole: Program, program: Program) -> None:
    """Add the instructions of a program, with its buffers."""
    buffers, instructions = len(whole.buffers), len(whole)
    columns = Columns.of(program)
    code, starts = columns.code.copy(), columns.starts
    places = np.array([whole.location_id(place) for place in program.locations], np.int64)
    constants = np.array([whole.constant_id(value) for value in program.constants], np.int64)
    if len(starts):
        code[starts + 1] = places[code[starts + 1]]
    for signature, _, at in columns.uses():
        code[at] = whole.signature(signature.definition, signature.arguments).id
        for operand in signature.operands:
            code[at + operand.word] += buffers
        for immediate in signature.immediates:
            code[at + immediate.word] = constants[code[at + immediate.word]]
    whole.code.frombytes(code.tobytes())
    whole.count += len(program)
    for buffer in program.buffers:
        moved = copy.copy(buffer)
        moved.id = buffers + buffer.id
        whole.buffers.append(moved)
    whole.addresses.update({buffers + buffer: place for buffer, place in program.addresses.items()})
    whole.names.update({instructions + i: name for i, name in program.names.items()})
    whole.dependencies += [(instructions + a, instructions + b) for a, b in program.dependencies]
