"""The epilogue of matmuls: elementwise instructions after them that take their sums, a few columns at a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain
from typing import NamedTuple

from nkilite.ir.program import Operand
from nkilite.schedule.column_loops import made_before_used, numbered
from nkilite.schedule.lives import Own
from nkilite.schedule.rows import Access, Rows, elements, in_order, view_shape
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.strips import strip_shape

_MOST = 4  # their code is written for strips of several widths


class Epilogue(NamedTuple):
    """What follows some matmuls; members are counted from the first of these.

    Attributes:
        values: of every member of it and every operand, a number: equal ones are the same elements.
        strip: (member, operand) pairs that are what the matmuls write, if only the group needs it; else empty.
        registers: (member, operand) pairs that are used in the epilogue alone, and made there.
        private: the buffers of the two, which need no memory.
    """

    values: tuple[tuple[int, ...], ...] = ()
    strip: tuple[tuple[int, int], ...] = ()
    registers: tuple[tuple[int, int], ...] = ()
    private: tuple[int, ...] = ()


class Epilogues:
    """Looks for epilogues in a program."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule, self._program = schedule, schedule.program
        self._rows, self._own = Rows(schedule), Own(self._program)
        self._starts = self._program.starts()
        self._shapes = [strip_shape(s) for s in self._program.signatures]

    def of(
        self, matmuls: Sequence[int], first: int, dst: Operand, fresh: bool, sources: Collection[int]
    ) -> Epilogue:
        """The epilogue of matmuls that begin at some words, the first of them at instruction `first`.

        Args:
            dst: of the matmuls.
            fresh: they overwrite it.
            sources: buffers that they read.
        """
        code, count = self._program.code, len(matmuls)
        end = first + count
        shape = view_shape(self._program.signatures[code[matmuls[0]]], dst.name)
        (target,) = self._rows.accesses(shape, 0, matmuls[0])
        taken: list[tuple[Access, ...]] = []
        made = {elements(target)}
        last = 0  # those after it have nothing to do with the sums
        for start in self._starts[end : end + _MOST]:
            strip = self._shapes[code[start]]
            if strip is None or strip.rows != shape.rows:
                break
            accesses = tuple(self._rows.accesses(strip, count + len(taken), start))
            operands = self._program.signatures[code[start]].operands
            if not self._takes(operands, accesses, dst, [target, *chain(*taken)], sources):
                break
            taken.append(accesses)
            if any(elements(a) in made for a in accesses if a.operand.reads):
                made.update(elements(a) for a in accesses if a.operand.writes)
                last = len(taken)
        del taken[last:]
        end += last
        uses: dict[int, list[Access]] = {}
        for access in chain(*taken):
            uses.setdefault(access.buffer, []).append(access)
        sums = uses.pop(target.buffer, [])
        mine = self._own.by(target.buffer, first, end) and all(elements(a) == elements(target) for a in sums)
        strips = fresh and last > 0 and mine and not any(a.operand.writes for a in sums)
        held = [
            buffer for buffer, accesses in uses.items()
            if last > 1 and self._own.by(buffer, first + count, end)
            and made_before_used([(a.member, a) for a in accesses])
        ]
        terms = ((m, target.operand.operand) for m in range(count))
        return Epilogue(
            numbered(taken), (*terms, *((a.member, a.operand.operand) for a in sums)) if strips else (),
            tuple((a.member, a.operand.operand) for buffer in held for a in uses[buffer]),
            (*([target.buffer] if strips else []), *held),
        )

    def _takes(
        self, operands: Sequence[Operand], accesses: Sequence[Access], dst: Operand, known: Sequence[Access],
        sources: Collection[int],
    ) -> bool:
        """Whether columns of an instruction meet the same columns of the matmuls and of other members alone."""
        columns, target = dst.type.free_size, elements(known[0])
        for operand, access in zip(operands, accesses, strict=True):
            if access.buffer in sources or operand.type.free_size not in (1, columns):
                return False
            if operand.writes and (operand.type.free_size == 1 or access.buffer in self._schedule.broadcast):
                return False
            if elements(access) == target and operand.type.dtype != dst.type.dtype:
                return False
        return all(in_order(access, other, dst.type.shape[0], True) for access in accesses for other in known)
