"""What is said about memory that was read, or returned, before anything was written to it.

A dead instruction may read what it likes: nothing of it reaches an argument, a result or the outside. What a program
writes in loops and through runtime indices counts as written, so that nothing is said without reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from nkilite.errors import NkiError, UnwrittenOutput
from nkilite.ir.columns import Columns
from nkilite.ir.coverage import Coverage, Covered
from nkilite.ir.program import Program, Signature
from nkilite.ir.types import Buffer, BufferKind, MemoryRegion, ViewType
from nkilite.notices import Notice, give


class PartlyUnwritten(UserWarning):
    """A kernel returns a tensor of which it never wrote some elements: they are undefined on the chip."""


class NothingReturned(UserWarning):
    """A kernel returns no tensor, writes no argument and shows nothing: all it does is lost."""


class Suspect(NamedTuple):
    """A read of what was not, or only partly, written.

    Attributes:
        instruction: its number; None if the program does not have it.
        finding: what is said if the instruction is not dead.
    """

    instruction: int | None
    finding: NkiError | Notice


def report(program: Program, suspects: Sequence[Suspect]) -> None:
    """Raise the first error, and give the warnings before it, of instructions that are not dead."""
    if not suspects:
        return
    live = _live(program)
    for instruction, finding in suspects:
        if instruction is not None and not live[instruction]:
            continue
        if isinstance(finding, NkiError):
            raise finding
        give(finding)


def matters(signature: Signature) -> bool:
    """Whether instructions of a signature are never dead: they steer a loop, show something, or follow indices."""
    steers = signature.definition.control is not None
    return signature.checks_indices or steers or not any(o.writes for o in signature.operands)


def _live(program: Program) -> list[bool]:
    """Which instructions may matter to an argument, a result, a loop or what is printed."""
    buffers = program.buffers
    # Tiles with addresses of their own are one memory.
    place = [len(buffers) + (b.region is MemoryRegion.psum) if b.address is not None else b.id for b in buffers]
    needed = {b.id for b in buffers if b.kind is BufferKind.input} | {b.id for b in program.outputs}
    code, starts = program.code, program.starts()
    facts = [
        (
            [o.word for o in s.operands if o.writes],
            [o.word for o in s.operands if o.reads or not o.writes],
            matters(s),
        )
        for s in program.signatures
    ]
    live = [False] * len(starts)
    changed = True
    while changed:  # once, and once more for every way around a loop
        changed = False
        for index in range(len(starts) - 1, -1, -1):
            start = starts[index]
            writes, reads, acts = facts[code[start]]
            if not live[index] and (acts or any(place[code[start + word]] in needed for word in writes)):
                live[index] = changed = True
                needed.update(place[code[start + word]] for word in reads)
    return live


# --- results ----------------------------------------------------------------------------------------------------------


class Returned(NamedTuple):
    """A view that a kernel returns."""

    buffer: Buffer
    type: ViewType
    byte_offset: int


def check_written(programs: Sequence[Program], returned: Iterable[Returned], kernel: str) -> None:
    """Complain about results that no program of a launch writes; their outputs are the same, in one order.

    Raises:
        UnwrittenOutput: nothing of a result is written.

    Warns:
        PartlyUnwritten: some elements are not.
        NothingReturned: there is no result, and nothing else comes of the launch.
    """
    returned = tuple(returned)
    if not returned:
        _check_lost(programs, kernel)
    outputs = {b.id: position for position, b in enumerate(programs[0].outputs)}
    covers = [Coverage(b) for b in programs[0].outputs]
    for program in programs:
        _mark(program, covers)
    for buffer, type, byte_offset in dict.fromkeys(returned):
        if buffer.id not in outputs:
            continue  # an argument
        cover = covers[outputs[buffer.id]]
        covered = cover.covered(type, byte_offset)
        if covered is Covered.all:
            continue
        where = buffer.location
        what = f"{buffer.label} {type.dtype} {type.shape}"
        if covered is Covered.none:
            raise UnwrittenOutput(kernel=kernel, what=what, location=where)
        missing = cover.unwritten(type, byte_offset)
        first = tuple(int(i) for i in np.unravel_index(int(missing.argmax()), missing.shape))
        message = (
            f"kernel {kernel!r} returns {what}, of which {int(missing.sum())} of {missing.size} elements were never "
            f"written; the first is {list(first)}"
        )
        give(Notice(message, PartlyUnwritten, where.file, where.line))


def _check_lost(programs: Sequence[Program], kernel: str) -> None:
    """Warn about a kernel without a result of which no instruction matters, at the line of what it may have meant."""
    if any(any(_live(program)) for program in programs):
        return
    made = [b for program in programs for b in program.buffers if b.kind is BufferKind.internal]
    meant = next((b for b in reversed(made) if b.region is MemoryRegion.shared_hbm), made[-1] if made else None)
    if meant is not None:
        fix = "" if meant.region is MemoryRegion.shared_hbm else "store it to a tensor in nl.shared_hbm, and "
        message = (
            f"kernel {kernel!r} returns nothing and writes no argument, so that all it computes is lost, {meant.label} "
            f"of this line, too: {fix}return it"
        )
        give(Notice(message, NothingReturned, meant.location.file, meant.location.line))


def _mark(program: Program, covers: Sequence[Coverage]) -> None:
    """Record what a program writes to its outputs."""
    position = np.full(len(program.buffers), -1)
    for number, buffer in enumerate(program.outputs):
        position[buffer.id] = number
    touched = Columns.of(program).touched
    at = touched.writes & (position[touched.buffer] >= 0)
    places = zip(touched.number[at].tolist(), touched.buffer[at].tolist(), touched.offset[at].tolist(), strict=True)
    for operand, buffer, byte_offset in dict.fromkeys(places):
        covers[position[buffer]].mark(touched.operands[operand][1].type, byte_offset)
