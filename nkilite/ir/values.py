"""Values of a launch on two cores, by number: what has equal numbers is equal, bit for bit, whatever the arguments are.

A number stands for an instruction, its numbers and operators, and the numbers of what it reads, as in value numbering;
where cores meet, what one sends is what the other receives. Cores that sum up the same parts in the same order have
the same number for the sum, although each has computed another part.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from itertools import combinations
from typing import NamedTuple

import numpy as np

from nkilite.ir.accesses import Spaces, accesses
from nkilite.ir.definition import Meets
from nkilite.ir.places import Numbered, Place, around, covers, without
from nkilite.ir.program import Instruction, Operand, Program
from nkilite.ir.regions import Pattern, apart
from nkilite.ir.types import Buffer, BufferKind

_MOST_COMPARED = 1 << 21  # places with others
_MOST_SORTED = 64  # parts of a place
_NOTHING = -1  # what was there before all that was written over


Parts = list[tuple[int, Pattern, int]]  # from the place's lowest byte on, and their numbers, in order


class Wrote(NamedTuple):
    """What an instruction writes somewhere."""

    instruction: int
    space: int
    place: Place
    number: int


def written(programs: Sequence[Program]) -> Written | None:
    """What the instructions of each of two cores write in shared memory; None where it would take long.

    The spaces of shared memory are the positions of inputs and outputs. It is known up to the first loop that the
    device runs.
    """
    try:
        return _run(programs)
    except _TakesLong:
        return None


class Written:
    """What the instructions of each of two cores write in shared memory.

    Attributes:
        log: by core, in order.
    """

    def __init__(self, log: list[list[Wrote]], numbers: _Numbers) -> None:
        self.log, self._numbers = log, numbers

    def left(self, wrote: Sequence[Sequence[Wrote]]) -> Left:
        """What the cores leave by some of what they write, given by core."""
        memories = [_Memory(self._numbers) for _ in wrote]
        with suppress(_TakesLong):
            for memory, own in zip(memories, wrote, strict=True):
                for one in own:
                    memory.write(one.space, one.place, one.number)
        return Left(memories, self._numbers)


class Left:
    """What each of two cores leaves in shared memory."""

    def __init__(self, memories: list[_Memory], numbers: _Numbers) -> None:
        self._memories, self._numbers = memories, numbers
        self._known: dict[tuple[int, Place], bool] = {}

    def same(self, space: int, place: Place) -> bool:
        """Whether they leave the same at a place; False where it would take long to find out."""
        key = space, place
        if key not in self._known:
            try:
                one, other = (
                    memory.read(space, place, self._numbers.of("not written by", core))
                    for core, memory in enumerate(self._memories)
                )
                self._known[key] = one == other
            except _TakesLong:
                self._known[key] = False
        return self._known[key]


def _run(programs: Sequence[Program]) -> Written:
    numbers = _Numbers()
    shared = _Memory(numbers)
    cores = [_Core(number, program, numbers, shared) for number, program in enumerate(programs)]
    for met in zip(*(core.run() for core in cores), strict=False):
        if None in met:
            break
        for core in cores:
            core.publish()
        brought = [core.brings(instruction) for core, instruction in zip(cores, met, strict=True)]
        for core, instruction, mine, theirs in zip(cores, met, brought, reversed(brought), strict=True):
            core.meets(instruction, mine, theirs)
    return Written([core.log for core in cores], numbers)


class _TakesLong(Exception):
    """Too much has been compared."""


class _Brought(NamedTuple):
    """What a core brings to a meeting.

    Attributes:
        reads: by operand, the number of what it reads.
        parts: by number, the parts that it was written in.
    """

    reads: dict[str, int]
    parts: dict[int, Parts]


class _Numbers:
    """Gives equal things equal numbers."""

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}
        self._left = _MOST_COMPARED

    def spend(self, comparisons: int) -> None:
        """Raise _TakesLong once there were too many."""
        self._left -= comparisons
        if self._left < 0:
            raise _TakesLong

    def of(self, *what: Hashable) -> int:
        return self._known.setdefault(what, len(self._known))


class _Memory:
    """What was last written where, in one space after another."""

    def __init__(self, numbers: _Numbers) -> None:
        self._numbers = numbers
        self._spaces: dict[int, Numbered] = {}
        self._apart: dict[tuple[Pattern, Pattern, int], bool] = {}

    def write(self, space: int, place: Place, number: int) -> None:
        """The latest is the last. What it replaces is gone, unless only some bytes of the place may be meant."""
        known = self._spaces.setdefault(space, Numbered())
        before = known.get(place)
        if not place.pattern.exact:
            number = self._numbers.of("some of", number, before)
        elif before is None:
            self._replaced(known, place)
        known.put(place, number)

    def _replaced(self, known: Numbered, place: Place) -> None:
        """Forget what is written over as a whole."""
        near = known.near(place)
        self._numbers.spend(len(near))
        for other, _ in near:
            if other == place or covers(place, other):
                known.drop(other)

    def read(self, space: int, place: Place, before: int) -> int:
        """The number of what is at a place, where there was `before` at first."""
        parts: Parts = []
        left = [around(place)]
        near = self._near(space, place)
        self._numbers.spend(len(near))
        for other, number in near:
            if other == place and place.pattern.exact:
                before = number
                break
            if self._meet(place, other):
                parts.append((other.low - place.low, other.pattern, number))
                left = without(left, other)
                if not left:
                    before = _NOTHING
                    break
        return self._numbers.of("parts", place.pattern, before, *self._sorted(parts)) if parts else before

    def _sorted(self, parts: Parts) -> Parts:
        """In one order, whatever order they were written in, if none is written over another."""
        if 1 < len(parts) <= _MOST_SORTED:
            places = [Place(low, pattern) for low, pattern, _ in parts]
            if not any(self._meet(one, other) for one, other in combinations(places, 2)):
                return sorted(parts)
        return parts

    def parts(self, space: int, place: Place) -> Parts:
        """What is at a place, by the parts that were written; none if some reach beyond it."""
        found = [(o, n) for o, n in reversed(self._near(space, place)) if self._meet(place, o)]
        inside = all(o == place or covers(place, o) for o, _ in found)
        return [(o.low - place.low, o.pattern, n) for o, n in found] if inside else []

    def write_parts(self, space: int, place: Place, parts: Parts) -> None:
        """Write what `parts` found at another place with the same pattern."""
        self._replaced(self._spaces.setdefault(space, Numbered()), place)
        for low, part, number in parts:
            self.write(space, Place(place.low + low, part), number)

    def _near(self, space: int, place: Place) -> list[tuple[Place, int]]:
        known = self._spaces.get(space)
        return [] if known is None else known.near(place)

    def _meet(self, one: Place, other: Place) -> bool:
        key = one.pattern, other.pattern, other.low - one.low
        found = self._apart.get(key)
        if found is None:
            found = self._apart[key] = apart(*key)
        return not found


class _Core:
    """A core that runs its program in numbers.

    What it writes in shared memory becomes visible to the other at the next meeting, as in a launch without races.

    Attributes:
        log: what it has written in shared memory.
    """

    def __init__(self, number: int, program: Program, numbers: _Numbers, shared: _Memory) -> None:
        self._number, self._program, self._numbers = number, program, numbers
        self._common, self._own = shared, _Memory(numbers)
        self._recent = _Memory(numbers)  # since the last meeting
        self._published = 0
        self.log: list[Wrote] = []
        spaces = Spaces(program)
        self._arrays = {int(spaces.space[b.id]): i for i, b in enumerate([*program.inputs, *program.outputs])}
        self._constants = {
            int(spaces.space[b.id]): _contents(b) for b in program.buffers if b.kind is BufferKind.constant
        }
        self._touched = accesses(program, spaces)
        self._first = np.searchsorted(self._touched.instruction, np.arange(program.count + 1)).tolist()
        self._space, self._low = self._touched.space.tolist(), self._touched.low.tolist()
        self._pattern = self._touched.pattern.tolist()

    def run(self) -> Iterator[Instruction | None]:
        """Stops at meetings; the last stop, at none, is the end, or a loop."""
        for instruction in self._program:
            if instruction.signature.definition.control is not None:
                break
            if instruction.signature.definition.meets not in (None, Meets.nobody):
                yield instruction
            else:
                self._write(instruction, self._computed(instruction, self.reads(instruction)))
        yield None

    def publish(self) -> None:
        """Let the other core see what was written in shared memory."""
        for wrote in self.log[self._published:]:
            self._common.write(wrote.space, wrote.place, wrote.number)
        self._published = len(self.log)
        self._recent = _Memory(self._numbers)

    def reads(self, instruction: Instruction) -> dict[str, int]:
        """The numbers of what an instruction reads, by operand."""
        return {
            operand.name: self._read(space, place)
            for operand, space, place in self._operands(instruction) if operand.reads
        }

    def brings(self, instruction: Instruction) -> _Brought:
        """What this core brings to a meeting."""
        reads = self.reads(instruction)
        return _Brought(reads, {
            reads[operand.name]: self._own.parts(space, place)
            for operand, space, place in self._operands(instruction)
            if operand.reads and space not in self._arrays
        })

    def meets(self, instruction: Instruction, mine: _Brought, theirs: _Brought) -> None:
        """Write what a meeting leaves here, given what both cores bring to it."""
        definition = instruction.signature.definition
        rule = definition.rules.get("equals")
        if definition.meets is not Meets.cores or rule is None:  # other ranks have a part in it
            self._write(instruction, self._numbers.of("met", self._number, instruction.index))
            return
        told = rule(instruction.signature, mine.reads, theirs.reads)
        if not isinstance(told, int):
            self._write(instruction, self._numbers.of(told))
            return
        for operand, space, place in self._operands(instruction):
            if operand.writes and (parts := theirs.parts.get(told)):
                self._own.write_parts(space, place, parts)
            elif operand.writes:
                self._own.write(space, place, told)

    def _computed(self, instruction: Instruction, read: dict[str, int]) -> int:
        signature = instruction.signature
        if signature.definition.meets is Meets.nobody:
            return self._numbers.of("only here", self._number, instruction.index)
        rule = signature.definition.rules.get("equals")
        what = tuple(read.values()) if rule is None else rule(signature, read, {})
        immediates = tuple(instruction.value(i) for i in signature.immediates)
        return self._numbers.of(signature.key, repr(immediates), what)

    def _write(self, instruction: Instruction, number: int) -> None:
        for operand, space, place in self._operands(instruction):
            if not operand.writes:
                continue
            one = self._numbers.of(operand.name, number)
            array = self._arrays.get(space)
            if array is None:
                self._own.write(space, place, one)
            else:
                self._recent.write(array, place, one)
                self.log.append(Wrote(instruction.index, array, place, one))

    def _operands(self, instruction: Instruction) -> Iterator[tuple[Operand, int, Place]]:
        """The operands with where they are."""
        for i, operand in enumerate(instruction.signature.operands, start=self._first[instruction.index]):
            yield operand, self._space[i], Place(self._low[i], self._touched.patterns[self._pattern[i]])

    def _read(self, space: int, place: Place) -> int:
        array = self._arrays.get(space)
        if array is None:
            return self._own.read(space, place, self._first_number(space, place))
        common = self._common.read(array, place, self._numbers.of("array", array, place))
        return self._recent.read(array, place, common)

    def _first_number(self, space: int, place: Place) -> int:
        """Of memory of this core's own that nothing was written to: a constant, or the same bytes everywhere."""
        data = self._constants.get(space)
        return self._numbers.of("fresh", place.pattern) if data is None else self._numbers.of("constant", data, place)


def _contents(constant: Buffer) -> bytes:
    """The bytes of a constant, which are in the simulator's memory while it runs."""
    return np.asarray(getattr(constant.data, "memory", constant.data)).tobytes()
