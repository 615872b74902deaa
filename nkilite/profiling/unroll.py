"""Repeat the bodies of loops as often as they run, so that the timing model sees every instruction.

A loop whose trip count only the device knows runs once. Both tests of a loop stay in place, as control instructions.
"""

from __future__ import annotations

from array import array

from nkilite.errors import UnsupportedError
from nkilite.ir.loops import Loop, has_loops, loops, repeats
from nkilite.ir.program import Program
from nkilite.profiling.rewrite import copied

__all__ = ["unknown_loops", "unrolled"]

_MOST = 5_000_000  # instructions of a launch that can still be modelled


def unknown_loops(program: Program) -> list[Loop]:
    """The loops whose trip count the program does not tell."""
    return [loop for loop in loops(program) if loop.trips is None]


def unrolled(program: Program) -> Program:
    """The straight-line program; the one given if it has no loops.

    Raises:
        UnsupportedError: it would have more instructions than can be modelled.
    """
    if not has_loops(program):
        return program
    total = sum(repeats(program))
    if total > _MOST:
        raise UnsupportedError(feature=f"profiling a launch of {total:,} instructions (at most {_MOST:,})")
    sequence = _sequence(program)
    starts = program.starts()
    ends = [*starts[1:], len(program.code)]
    latest: dict[int, int] = {}  # where the last copy so far of each instruction is
    wanted: dict[int, list[int]] = {}
    for consumer, producer in program.dependencies:
        wanted.setdefault(consumer, []).append(producer)
    flat = copied(program)
    flat.code, flat.count, flat.names, flat.dependencies = array("q"), len(sequence), {}, []
    for new, old in enumerate(sequence):
        flat.code.extend(program.code[starts[old]:ends[old]])
        latest[old] = new
        if old in program.names:
            flat.names[new] = program.names[old]
        flat.dependencies += [(new, latest[producer]) for producer in wanted.get(old, ()) if producer in latest]
    return flat


def _sequence(program: Program) -> list[int]:
    """The instructions in the order in which they run."""
    found = loops(program)
    by_begin = {loop.begin: loop for loop in found}

    def run(first: int, last: int) -> list[int]:
        out: list[int] = []
        at = first
        while at <= last:
            out.append(at)
            loop = by_begin.get(at)
            if loop is not None:
                body = run(loop.begin + 1, loop.end)
                out += body * (1 if loop.trips is None else loop.trips)
                at = loop.end
            at += 1
        return out

    return run(0, len(program) - 1)
