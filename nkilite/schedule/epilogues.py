"""The epilogue of matmuls: elementwise instructions after them that take their sums, a few columns at a time."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import NamedTuple

from nkilite.ir.program import Operand
from nkilite.ir.types import BufferKind
from nkilite.passes.liveness import lifetimes
from nkilite.schedule.column_loops import ColumnLoop, Step, held
from nkilite.schedule.rows import Access, Rows, elements, in_order, view_shape
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.strips import strip_shape

_MOST = 4  # their code is written for strips of several widths


class Epilogue(NamedTuple):
    """What follows some matmuls.

    Attributes:
        members: how many instructions.
        strip: (member, operand) pairs that are what the matmuls write, if only they need it; else empty.
        values: of every member and every operand, a number: equal ones are the same elements.
        registers: (member, operand) pairs that are used in the epilogue alone, and made there.
        private: the buffers of the two, which need no memory.
    """

    members: int
    strip: tuple[tuple[int, int], ...] = ()
    values: tuple[tuple[int, ...], ...] = ()
    registers: tuple[tuple[int, int], ...] = ()
    private: tuple[int, ...] = ()


class _Candidate(NamedTuple):
    """An instruction that may follow: what it touches, and which of its operands are what the matmuls write."""

    operands: Sequence[Operand]
    accesses: tuple[Access, ...]
    reads: list[int]


class Epilogues:
    """Looks for epilogues in a program."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule, self._program = schedule, schedule.program
        self._rows = Rows(schedule)
        program = self._program
        self._lives = lifetimes(program)
        self._starts = program.starts()
        self._shapes = [strip_shape(s) for s in program.signatures]

    def of(
        self, matmuls: Sequence[int], first: int, dst: Operand, fresh: bool, sources: Collection[int]
    ) -> Epilogue:
        """The epilogue of matmuls that begin at some words, the first of them at instruction `first`.

        Args:
            dst: of the matmuls.
            fresh: they overwrite it.
            sources: buffers that they read.
        """
        code = self._program.code
        end = first + len(matmuls)
        shape = view_shape(self._program.signatures[code[matmuls[0]]], dst.name)
        (target,) = self._rows.accesses(shape, -1, matmuls[0])
        seen: list[_Candidate] = []
        for start in self._starts[end : end + _MOST]:
            strip = self._shapes[code[start]]
            if strip is None or strip.rows != shape.rows:
                break
            signature = self._program.signatures[code[start]]
            accesses = tuple(self._rows.accesses(strip, len(seen), start))
            reads = [
                i for i, (o, a) in enumerate(zip(signature.operands, accesses, strict=True))
                if elements(a) == elements(target) and not o.writes and o.type.dtype == dst.type.dtype
            ]
            seen.append(_Candidate(signature.operands, accesses, reads))
        if not any(candidate.reads for candidate in seen):
            return Epilogue(0)
        taken: list[tuple[Access, ...]] = []
        made = [target]
        last = 0  # those after it have nothing to do with the sums
        for candidate in seen:
            if not self._takes(candidate, dst, target, taken, sources):
                break
            taken.append(candidate.accesses)
            if any(elements(a) == elements(b) for a in candidate.accesses if a.operand.reads for b in made):
                made += [a for a in candidate.accesses if a.operand.writes]
                last = len(taken)
        del taken[last:]
        sums = tuple((number, i) for number, candidate in enumerate(seen[:last]) for i in candidate.reads)
        private: list[int] = []
        if taken and fresh and self._dies(target.buffer, first, end + len(taken), taken, sums):
            private.append(target.buffer)
        else:
            sums = ()
        numbers: dict[Hashable, int] = {}
        values = tuple(tuple(numbers.setdefault(elements(a), len(numbers)) for a in one) for one in taken)
        held = self._held(taken, end) if len(taken) > 1 else {}
        registers = tuple(place for places in held.values() for place in places)
        return Epilogue(len(taken), sums, values, registers, (*private, *held))

    def _held(self, taken: Sequence[tuple[Access, ...]], first: int) -> dict[int, list[tuple[int, int]]]:
        """By buffer, the operands of members that begin at an instruction which no others need."""
        uses: dict[int, list[Access]] = {}
        places: dict[int, list[tuple[int, int]]] = {}
        for m, accesses in enumerate(taken):
            for i, access in enumerate(accesses):
                uses.setdefault(access.buffer, []).append(access)
                places.setdefault(access.buffer, []).append((m, i))
        loop = ColumnLoop(0, len(taken), 0, tuple(Step(m, None, one, ()) for m, one in enumerate(taken)))
        return {
            buffer: places[buffer] for buffer, accesses in uses.items()
            if self._scratchable(buffer) and held(buffer, accesses, [loop])
            and self._lives.first[buffer] >= first and self._lives.last[buffer] < first + len(taken)
        }

    def _scratchable(self, id: int) -> bool:
        buffer = self._program.buffers[id]
        return buffer.address is None and buffer.kind is BufferKind.internal

    def _takes(
        self, candidate: _Candidate, dst: Operand, target: Access, taken: Sequence[Sequence[Access]],
        sources: Collection[int],
    ) -> bool:
        """Whether columns of an instruction meet the same columns of the matmuls and of other members alone."""
        columns = dst.type.free_size
        for operand, access in zip(candidate.operands, candidate.accesses, strict=True):
            if access.buffer in sources or operand.type.free_size not in (1, columns):
                return False
            if operand.writes and (operand.type.free_size == 1 or access.buffer in self._schedule.broadcast):
                return False
        rows = dst.type.shape[0]
        known = [target, *(a for one in taken for a in one)]
        return all(in_order(access, other, rows, True) for access in candidate.accesses for other in known)

    def _dies(
        self, buffer: int, first: int, end: int, taken: Sequence[Sequence[Access]], sums: Sequence[tuple[int, int]]
    ) -> bool:
        """Whether nothing but `sums` needs what the matmuls write."""
        uses = {(m, i) for m, accesses in enumerate(taken) for i, a in enumerate(accesses) if a.buffer == buffer}
        return (
            self._scratchable(buffer) and uses == set(sums)
            and self._lives.first[buffer] >= first and self._lives.last[buffer] < end
        )
