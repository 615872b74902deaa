"""Races: what one core writes in shared memory between two meetings, while the other reads or writes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from nkilite.ir.accesses import Accesses, Overlap, accesses, conflicts
from nkilite.ir.phases import Phase, phases
from nkilite.ir.places import Place
from nkilite.ir.program import Instruction, Program
from nkilite.ir.regions import apart
from nkilite.ir.types import Buffer
from nkilite.ir.values import Left, Written, Wrote, written
from nkilite.location import Location
from nkilite.machine.rows import unique
from nkilite.once import cached_property


class Side(NamedTuple):
    """What a core does in a race.

    Attributes:
        instruction: its name.
        location: its line.
    """

    instruction: str
    location: Location
    writes: bool


class Race(NamedTuple):
    """Two instructions that are not ordered, of which one at least writes bytes [low, high) of a shared tensor.

    Attributes:
        open: whether it would take long to find out that they write the same.
    """

    one: Side
    other: Side
    tensor: str
    low: int
    high: int
    open: bool = False


def races(programs: Sequence[Program]) -> Iterator[Race]:
    """The races of two cores, once for each pair of lines.

    What a runtime index chooses is not known before a kernel runs, and left out; while cores are simulated it is looked
    at, too (nkilite/trace/encounters.py). Where both cores write the same values
    to the same place, it is no race that they do, nor that one reads it after it has written it. What both leave in a
    place that neither of them reads counts, and not what they have written over.
    """
    one, other = programs
    alike = _alike(one, other)
    touched = [_shared(program) for program in programs]
    instructions = [list(program) for program in programs]
    known: set[tuple[object, ...]] = set()
    writers = set(touched[0].instruction[touched[0].writes].tolist())
    same = _Same(programs, touched)
    for mine, theirs in zip(phases(one), phases(other), strict=True):
        near = _near(_within(touched[0], mine), _within(touched[1], theirs))
        for overlap in conflicts(*near):
            pair = (overlap.one, overlap.other) if alike else same.culprits(overlap, (mine, theirs))
            if pair is None or (alike and _harmless(overlap, writers)) or same.settles(overlap, (mine, theirs)):
                continue
            sides = [
                _side(of[index], [*program.inputs, *program.outputs][overlap.space])
                for program, of, index in zip(programs, instructions, pair, strict=True)
            ]
            key = *(side.location for side in sides), overlap.space
            if key not in known:
                known.add(key)
                buffer = [*one.inputs, *one.outputs][overlap.space]
                yield Race(sides[0], sides[1], buffer.label, overlap.low, overlap.high, not alike and same.open)


def _alike(one: Program, other: Program) -> bool:
    """Whether both cores run the same program."""
    return (
        one.code == other.code
        and one.constants == other.constants
        and [s.key for s in one.signatures] == [s.key for s in other.signatures]
        and [b.type for b in one.buffers] == [b.type for b in other.buffers]
    )


def _harmless(overlap: Overlap, writers: set[int]) -> bool:
    """Of cores that run the same program: whether both instructions write, or one reads what its core wrote before."""
    first, second = overlap.one, overlap.other
    if first in writers and second in writers:
        return first == second
    return (first < second) == (first in writers)


class _End(NamedTuple):
    """What both cores leave in a space at the end of a phase.

    Attributes:
        places: by core, where its instructions write.
        read: what either of them reads in the phase.
    """

    places: list[dict[int, set[Place]]]
    read: list[Place]
    left: Left | None

    def same(self, space: int, place: Place) -> bool:
        """Whether they leave the same at a place, and have not looked at it before."""
        return self.left is not None and self.left.same(space, place) and all(
            apart(place.pattern, other.pattern, other.low - place.low) for other in self.read
        )


_NOTHING = _End([{}, {}], [], None)  # is known
Phases = tuple[Phase, Phase]  # of both cores, the same one


class _Same:
    """Where two programs that differ write the same values to the same place; looked at once there is a conflict."""

    def __init__(self, programs: Sequence[Program], touched: Sequence[Accesses]) -> None:
        self._programs, self._touched = programs, touched
        self._ends: dict[tuple[Phases, int], _End] = {}

    @cached_property
    def _known(self) -> Written | None:
        return written(self._programs)

    @property
    def open(self) -> bool:
        """Whether nothing is known, because it would take long."""
        return self._known is None

    @property
    def _written(self) -> list[list[Wrote]]:
        """By core, what is written in shared tensors."""
        return [[], []] if self._known is None else self._known.log

    def settles(self, overlap: Overlap, phases: Phases) -> bool:
        """Whether both write, and in the end leave the same there, and neither reads it in the phase."""
        at, space = (overlap.one, overlap.other), overlap.space
        if self._known is None or any((i, space) not in self._wrote[core] for core, i in enumerate(at)):
            return False
        end = self._ends.get((phases, space))
        if end is None:
            end = self._ends[phases, space] = self._end(self._known, phases, space)
        return any(  # the places of either instruction cover what both touch
            all(end.same(space, place) for place in places)
            for i, of in zip(at, end.places, strict=True) if (places := of.get(i))
        )

    def _end(self, known: Written, phases: Phases, space: int) -> _End:
        """What both leave in a space at the end of a phase."""
        wrote = [
            [w for w in log if w.space == space and _in(phase, w.instruction)]
            for log, phase in zip(known.log, phases, strict=True)
        ]
        places: list[dict[int, set[Place]]] = [{}, {}]
        read: list[Place] = []
        for core, phase in enumerate(phases):
            for w in wrote[core]:
                places[core].setdefault(w.instruction, set()).add(w.place)
            if any(s == space and _in(phase, i) and i not in places[core] for i, s in self._wrote[core]):
                return _NOTHING
            if any(s == space and _in(phase, i) for i, s in self._looked[core]):
                return _NOTHING  # it may be read anywhere
            touched = self._touched[core]
            read += [
                Place(int(touched.low[i]), touched.patterns[touched.pattern[i]])
                for i in np.flatnonzero(touched.reads & (touched.space == space)).tolist()
                if _in(phase, touched.instruction[i])
            ]
        return _End(places, list(dict.fromkeys(read)), known.left(wrote))

    @cached_property
    def _read(self) -> list[set[tuple[int, int]]]:
        """By core, which instructions read which shared tensors."""
        return [_pairs(touched, touched.reads) for touched in self._touched]

    @cached_property
    def _looked(self) -> list[set[tuple[int, int]]]:
        """The same of those that read what runtime indices choose."""
        return [_pairs(found, found.reads) for found in (_shared(program, chosen=True) for program in self._programs)]

    @cached_property
    def _wrote(self) -> list[set[tuple[int, int]]]:
        """The same of those that write."""
        return [_pairs(touched, touched.writes) for touched in self._touched]

    def _writes(self, core: int, phase: Phase, space: int, place: set[Place]) -> set[int]:
        """The instructions of a phase that write just that place."""
        touched, ((low, pattern),) = self._touched[core], place
        same = touched.writes & (touched.space == space) & (touched.low == low)
        return {
            int(touched.instruction[i]) for i in np.flatnonzero(same)
            if touched.patterns[touched.pattern[i]] == pattern and _in(phase, touched.instruction[i])
        }

    def culprits(self, overlap: Overlap, phases: Sequence[Phase]) -> tuple[int, int] | None:
        """The instructions of both cores that race, or None: both write the same, or read it after having done so.

        Args:
            phases: of each core, the one in which they do so.
        """
        at = overlap.one, overlap.other
        places = [
            {w.place for w in wrote if (w.instruction, w.space) == (index, overlap.space)}
            for wrote, index in zip(self._written, at, strict=True)
        ]
        if len(place := places[0] | places[1]) != 1:
            return at
        for core in (0, 1):
            if not places[core] and (at[core], overlap.space) in self._wrote[core]:
                return at  # nothing is known of what it writes
        there = [
            [w for w in self._written[core] if _in(phase, w.instruction) and w.space == overlap.space
             and w.place in place]
            for core, phase in enumerate(phases)
        ]
        for core in (0, 1):
            if self._writes(core, phases[core], overlap.space, place) != {w.instruction for w in there[core]}:
                return at  # nothing is known of some
            reads = (at[core], overlap.space) in self._read[core]
            if reads and (places[core] or not there[core] or there[core][0].instruction > at[core]):
                return at
        return next(
            ((one.instruction, other.instruction) for one, other in product(*there) if one.number != other.number), None
        )


def _pairs(touched: Accesses, chosen: np.ndarray) -> set[tuple[int, int]]:
    """Instructions and spaces of some accesses."""
    return set(zip(touched.instruction[chosen].tolist(), touched.space[chosen].tolist(), strict=True))


def _in(phase: Phase, instruction: int) -> bool:
    return any(begin <= instruction < end for begin, end in phase)


def _side(instruction: Instruction, buffer: Buffer) -> Side:
    operands = instruction.signature.operands
    writes = any(o.writes and instruction.access(o)[0] is buffer for o in operands)
    return Side(instruction.signature.title, instruction.location, writes)


def _shared(program: Program, chosen: bool = False) -> Accesses:
    """What a program touches of inputs and outputs, or what runtime indices choose of them; spaces are positions."""
    numbers = np.full(len(program.buffers), -1)
    for position, buffer in enumerate([*program.inputs, *program.outputs]):
        numbers[buffer.id] = position
    found = accesses(program)
    exact = np.array([p.exact for p in found.patterns], bool)
    inside = found.space < len(numbers)
    inside[inside] = numbers[found.space[inside]] >= 0
    kept = found.only(inside & (exact[found.pattern] != chosen))
    return kept._replace(space=numbers[kept.space])


def _within(found: Accesses, phase: Phase) -> Accesses:
    inside = np.zeros(len(found.instruction), bool)
    for begin, end in phase:
        inside |= (begin <= found.instruction) & (found.instruction < end)
    return found.only(inside)


def _near(one: Accesses, other: Accesses) -> tuple[Accesses, Accesses]:
    """What remains without tensors nobody writes, and without what overlaps nothing of the other side."""
    written = np.union1d(one.space[one.writes], other.space[other.writes])
    one, other = (side.only(np.isin(side.space, written)).distinct() for side in (one, other))
    return one.only(_overlaps(one, other)), other.only(_overlaps(other, one))


def _overlaps(one: Accesses, other: Accesses) -> np.ndarray:
    """Of every access, whether it may share bytes with one of the other side."""
    result = np.zeros(len(one.space), bool)
    ends = [_ends(one), _ends(other)]
    for space in unique(one.space).tolist():
        mine, theirs = one.space == space, other.space == space
        if not theirs.any():
            continue
        order = np.argsort(other.low[theirs], kind="stable")
        low, reach = other.low[theirs][order], np.maximum.accumulate(ends[1][theirs][order])
        before = np.searchsorted(low, ends[0][mine])  # those that begin before it ends
        result[mine] = (before > 0) & (reach[np.maximum(before, 1) - 1] > one.low[mine])
    return result


def _ends(found: Accesses) -> np.ndarray:
    result: np.ndarray = found.low + np.array([p.span for p in found.patterns], np.int64)[found.pattern]
    return result
