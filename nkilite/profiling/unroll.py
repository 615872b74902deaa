"""Repeat the bodies of loops as often as they run, so that the timing model sees every instruction.

A loop whose trip count only the device knows runs as often as the sizes of dynamic dimensions or the user say, else
once. Both tests of a loop stay in
place, as control instructions.
"""

from __future__ import annotations

import operator
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nkilite.errors import InvalidOperand, UnsupportedError
from nkilite.ir.loops import Loop, loops, repeats
from nkilite.ir.program import Instruction, Program
from nkilite.profiling.rewrite import copied

__all__ = ["Sizes", "told_loops", "unrolled"]

_MOST = 5_000_000  # instructions of a launch that can still be modelled


class Sizes(NamedTuple):
    """The sizes of a launch's dynamic dimensions, and the place among its inputs where a program reads them."""

    place: int
    values: Sequence[int]


def told_loops(program: Program, trips: int | Sequence[int] | None, sizes: Sizes | None = None) -> list[Loop]:
    """The program's loops, with the trip counts that only the device knows as given, or as sizes say.

    Args:
        trips: iterations of every such loop each time it is reached, or of each of them in the order in which they
            begin; None leaves them open.

    Raises:
        InvalidOperand: not as many numbers as such loops, or a negative one.
    """
    found = loops(program)
    if sizes is not None and found:
        found = _sized(program, found, sizes)
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


_OPERATORS: dict[str, Callable[[int, int], int]] = {"add": operator.add, "sub": operator.sub, "mul": operator.mul}


def _sized(program: Program, all_loops: list[Loop], sizes: Sizes) -> list[Loop]:
    """Loops with the trip counts that follow from the sizes."""
    instructions = list(program)
    known = _registers(program, instructions, sizes)
    found = []
    for loop in all_loops:
        begin = instructions[loop.begin]
        rule = begin.signature.definition.rules.get("trips")
        if loop.trips is None and rule is not None:
            bounds = {name: _value(begin, name, known) for name in ("lower", "upper")}
            bounds = {name: value for name, value in bounds.items() if value is not None}
            others = {i.name: begin.value(i) for i in begin.signature.immediates}
            loop = loop._replace(trips=rule(begin.signature, **{**others, **bounds}))
        found.append(loop)
    return found


def _registers(program: Program, instructions: Sequence[Instruction], sizes: Sizes) -> dict[int, int]:
    """The values of registers, by buffer id, that are computed once from sizes and numbers alone."""
    written = Counter(i.access(o)[0].id for i in instructions for o in i.signature.operands if o.writes)
    known: dict[int, int] = {}
    for instruction in instructions:
        name = instruction.signature.name
        value = None
        if name == "register_load":
            buffer, offset = instruction.access(instruction.signature.operand("src"))
            if buffer is program.inputs[sizes.place]:
                value = sizes.values[offset // buffer.dtype.itemsize]
        elif name == "register_move":
            value = _value(instruction, "src", known)
        elif name == "scalar_compute":
            a, b = (_value(instruction, operand, known) for operand in ("a", "b"))
            if a is not None and b is not None:
                value = _OPERATORS[instruction.signature.op](a, b)
        if value is not None:
            register, _ = instruction.access(instruction.signature.operand("dst"))
            if written[register.id] == 1:
                known[register.id] = value
    return known


def _value(instruction: Instruction, name: str, known: dict[int, int]) -> int | None:
    """The number, or the value of the register, that is an operand; None if it is not known."""
    signature = instruction.signature
    if not signature.is_tensor(name):
        return int(instruction.value(next(i for i in signature.immediates if i.name == name)))
    return known.get(instruction.access(signature.operand(name))[0].id)
