"""What several cores of a launch read, or return, of shared HBM before one of them has written it.

A core sees what it wrote itself, and what the others wrote before the last meeting; what they do in the same phase is a
matter of races. The body of a loop is followed as its first turn.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nkilite.ir.columns import Columns
from nkilite.ir.coverage import Coverage, Covered, check_read
from nkilite.ir.loops import loops
from nkilite.ir.phases import meetings
from nkilite.ir.program import Operand, Program, Signature
from nkilite.ir.unwritten import Suspect, report


class _Use(NamedTuple):
    """An operand in a tensor that cores share.

    Attributes:
        position: the tensor's among the outputs, the same for all cores.
        sure: if it writes, whether it surely does: not through runtime indices, nor in a loop that may not run.
    """

    instruction: int
    signature: Signature
    operand: Operand
    position: int
    byte_offset: int
    sure: bool


def follow_shared(programs: Sequence[Program]) -> None:
    """Settle which outputs a launch fills (`Program.fresh`), and complain about reads of what no core has written.

    Raises:
        UninitializedRead: nothing of an operand is written.

    Warns:
        PartlyUninitialized: some elements are not.
    """
    if len(programs) == 1:
        return
    segments = _segments(programs)
    fresh = {use.position for _, use, _ in _doubtful(programs, segments, sure=True)}
    written = [Coverage(b) for b in programs[0].outputs]
    _mark(written, [use for segment in segments for uses in segment for use in uses], sure=True)
    fresh.update(i for i, b in enumerate(programs[0].outputs) if written[i].covered(b.type, 0) is not Covered.all)
    for program in programs:
        program.fresh = frozenset(fresh)
    if not fresh:
        return
    suspects: list[list[Suspect]] = [[] for _ in programs]
    said: set[tuple[object, ...]] = set()  # cores mostly run the same lines
    for core, use, cover in _doubtful(programs, segments, sure=False):
        program = programs[core]
        buffer = program.outputs[use.position]
        location = program.locations[program.code[program.starts()[use.instruction] + 1]]
        found = check_read(cover, use.signature, use.operand, buffer, use.byte_offset, location)
        if found is not None and (location, str(found)) not in said:
            said.add((location, str(found)))
            suspects[core].append(Suspect(use.instruction, found))
    for program, own in zip(programs, suspects, strict=True):
        report(program, own)


def _doubtful(
    programs: Sequence[Program], segments: list[list[list[_Use]]], sure: bool
) -> Iterator[tuple[int, _Use, Coverage]]:
    """The cores' reads of what is not wholly written, with what is; `sure` counts sure writes alone."""
    before = [Coverage(b) for b in programs[0].outputs]
    for segment in segments:
        for core, uses in enumerate(segment):
            asked = {u.position for u in uses if u.operand.reads and not before[u.position].full}
            if not asked:
                continue
            covers = {position: before[position].copy() for position in asked}
            _mark(covers, [u for other, theirs in enumerate(segment) if other != core for u in theirs], sure)
            for use in uses:
                cover = covers.get(use.position)
                if cover is None:
                    continue
                read = use.operand.reads and use.operand.name not in use.signature.definition.partly_read
                if read and cover.covered(use.operand.type, use.byte_offset) is not Covered.all:
                    yield core, use, cover
                _mark(covers, [use], sure)
        _mark(before, [use for uses in segment for use in uses], sure)


def _mark(covers: dict[int, Coverage] | list[Coverage], uses: list[_Use], sure: bool) -> None:
    for use in uses:
        if use.operand.writes and (use.sure or not sure) and (isinstance(covers, list) or use.position in covers):
            covers[use.position].mark(use.operand.type, use.byte_offset)


def _segments(programs: Sequence[Program]) -> list[list[list[_Use]]]:
    """What is done between two meetings, by core; a meeting itself belongs to what follows it.

    Cores whose loops with meetings are written differently are taken to do everything at the same time.
    """
    met = [_meetings(program) for program in programs]
    if len({len(m) for m in met}) > 1:
        met = [[] for _ in programs]
    found: list[list[list[_Use]]] = [[[] for _ in programs] for _ in range(len(met[0]) + 1)]
    for core, program in enumerate(programs):
        for use in _uses(program):
            found[bisect_left(met[core], use.instruction + 1)][core].append(use)
    return found


def _meetings(program: Program) -> list[int]:
    """The instructions at which a core waits for others."""
    ids = meetings(program)
    return [int(i) for i in np.flatnonzero(np.isin(Columns.of(program).ids, sorted(ids)))] if ids else []


def _uses(program: Program) -> list[_Use]:
    """All of a program's, in order; of an instruction, its reads first."""
    position = np.full(len(program.buffers), -1)
    for number, buffer in enumerate(program.outputs):
        position[buffer.id] = number
    optional = np.zeros(program.count + 1, bool)
    for loop in loops(program):
        if not loop.trips:
            optional[loop.begin + 1 : loop.end + 1] = True
    columns = Columns.of(program)
    found = []
    for signature, rows, starts in columns.uses():
        for operand in signature.operands:
            if operand.type.region.on_chip:
                continue
            numbers = position[columns.code[starts + operand.word]]
            at = numbers >= 0
            offsets = columns.code[starts[at] + operand.word + 1]
            indirect = operand.type.indirection is not None
            for row, number, offset in zip(rows[at].tolist(), numbers[at].tolist(), offsets.tolist(), strict=True):
                found.append(_Use(row, signature, operand, number, offset, not (indirect or optional[row])))
    return sorted(found, key=lambda use: (use.instruction, not use.operand.reads))
