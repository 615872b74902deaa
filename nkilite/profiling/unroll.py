"""Repeat the bodies of loops as often as they run, so that the timing model sees every instruction.

A loop whose trip count only the device knows runs as often as the user says, else once. Both tests of a loop stay in
place, as control instructions.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from nkilite.errors import InvalidOperand, UnsupportedError
from nkilite.ir.loops import Loop, loops, repeats
from nkilite.ir.program import Program
from nkilite.profiling.rewrite import copied

__all__ = ["told_loops", "unrolled"]

_MOST = 5_000_000  # instructions of a launch that can still be modelled


def told_loops(program: Program, trips: int | Sequence[int] | None) -> list[Loop]:
    """The program's loops, with the trip counts that only the device knows as given.

    Args:
        trips: iterations of every such loop each time it is reached, or of each of them in the order in which they
            begin; None leaves them open.

    Raises:
        InvalidOperand: not as many numbers as such loops, or a negative one.
    """
    found = loops(program)
    unknown = [loop for loop in found if loop.trips is None]
    if trips is None:
        return found
    counts = [trips] * len(unknown) if isinstance(trips, int) else list(trips)
    if len(counts) != len(unknown) or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise InvalidOperand(
            instruction="nkilite.profile", operand="trips", found=repr(trips),
            expected=f"an int, or a list of {len(unknown)} ints: one for each loop with a runtime trip count",
        )
    for loop, count in zip(unknown, counts, strict=True):
        found[loop.number] = loop._replace(trips=count)
    return found


def unrolled(program: Program, all_loops: list[Loop]) -> Program:
    """The straight-line program; the one given if it has no loops.

    Args:
        all_loops: its loops; one without a trip count runs once.

    Raises:
        UnsupportedError: it would have more instructions than can be modelled.
    """
    if not all_loops:
        return program
    total = sum(repeats(program, all_loops))
    if total > _MOST:
        raise UnsupportedError(feature=f"profiling a launch of {total:,} instructions (at most {_MOST:,})")
    sequence = _sequence(program, all_loops)
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


def _sequence(program: Program, all_loops: list[Loop]) -> list[int]:
    """The instructions in the order in which they run."""
    by_begin = {loop.begin: loop for loop in all_loops}

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
