"""Loops over columns of a row group: elementwise members that a few columns at a time go through in registers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from nkilite.ir.program import Program, Signature
from nkilite.schedule.rows import Access, meet
from nkilite.schedule.runs import Run


class ColumnLoop(NamedTuple):
    """Members `first` to `end - 1`, elementwise, which a few columns at a time go through in registers.

    Attributes:
        columns: how many elements per row a member works on.
        values: for every member that is not left out and every one of its tensor operands, a number: equal numbers are
            the same elements.
    """

    first: int
    end: int
    columns: int
    values: dict[int, tuple[int, ...]]


_LEAST_COLUMNS = 32  # shorter rows are better collapsed, or read across, by a member on its own


def find_column_loops(
    program: Program, run: Run, elided: Collection[int], sources: Mapping[int, int]
) -> list[ColumnLoop]:
    """The elementwise members that follow each other in step.

    Args:
        elided: members that are left out.
        sources: tiles whose readers read what a load, one of these members, would have copied.
    """
    found: list[ColumnLoop] = []
    members: list[int] = []
    columns = 0
    for m in range(len(run.shapes) + 1):
        if m in elided:
            continue
        own = _columns(program.signatures[run.signatures[m]], run.accesses[m]) if m < len(run.shapes) else 0
        if members and (own != columns or not _in_step(run, members, m, sources)):
            if len(members) > 1:
                found.append(_loop(run, members, columns))
            members = []
        if own:
            members.append(m)
            columns = own
    return found


def _columns(signature: Signature, accesses: Sequence[Access]) -> int:
    """Elements per row of an instruction that goes over each on its own, its operands dense; 0 for any other."""
    columns = signature.sweep
    return columns if columns >= _LEAST_COLUMNS and all(a.operand.dense for a in accesses) else 0


def elements(access: Access) -> tuple[int, ...]:
    """What tells accesses in step apart: equal ones are the same elements, others have none in common."""
    memory = access.space if access.operand.on_chip else access.buffer
    return memory, access.low, access.high, access.first, access.step


def _in_step(run: Run, members: list[int], new: int, sources: Mapping[int, int]) -> bool:
    """Whether a column of one more member only meets the same column of the others, at a known address.

    What is combined over the row is there after the last column: only what is combined, too, may follow it there.
    Stores past the caches go over elements at the ends of a row several times.
    """
    every = [a for m in (*members, new) for a in run.accesses[m]]
    if any(a.operand.sums for a in every) and any(a.operand.writes and not a.operand.on_chip for a in every):
        return False
    for access in _accesses(run, new, sources):
        for m in members:
            for other in _accesses(run, m, sources):
                if access.space != other.space or not (access.operand.writes or other.operand.writes):
                    continue
                if access.operand.sums != other.operand.sums and meet(access, other, run.rows):
                    return False
                if elements(access) != elements(other) and meet(access, other, run.rows):
                    return False
    return True


def _accesses(run: Run, member: int, sources: Mapping[int, int]) -> list[Access]:
    """What a member touches, with the memory that a load copies in the place of its tile."""
    return [_at_source(run, a, sources[a.buffer]) if a.buffer in sources else a for a in run.accesses[member]]


def _at_source(run: Run, access: Access, load: int) -> Access:
    """A read of a tile as one of what is loaded to it: both are dense, of one dtype."""
    target, source = sorted(run.accesses[load], key=lambda a: not a.operand.writes)
    shift = source.low - target.low
    return access._replace(
        operand=access.operand._replace(on_chip=source.operand.on_chip), buffer=source.buffer, space=source.space,
        first=source.first, step=source.step, low=access.low + shift, high=access.high + shift,
    )


def _loop(run: Run, members: list[int], columns: int) -> ColumnLoop:
    first, end = members[0], members[-1] + 1
    numbers: dict[tuple[object, ...], int] = {}
    values = {m: tuple(numbers.setdefault(elements(a), len(numbers)) for a in run.accesses[m]) for m in members}
    return ColumnLoop(first, end, columns, values)


def held(accesses: Sequence[Access], loops: Sequence[ColumnLoop]) -> bool:
    """Whether a tile that dies in a run is but a value of a loop, given all that touches it, in order."""
    written: set[tuple[int, ...]] = set()
    for access in sorted(accesses, key=lambda a: (a.member, not a.operand.reads)):  # a member reads before it writes
        known = elements(access)
        if (known not in written and access.operand.reads) or access.operand.sums:
            return False
        written.add(known)
    return any(all(s.first <= a.member < s.end for a in accesses) for s in loops)


def row_bytes(touched: dict[int, list[Access]], apart: Collection[int] = ()) -> int:
    """About the bytes of all buffers but some that a row touches."""
    return 1 + sum(
        min(max(a.high for a in accesses) - min(a.low for a in accesses), sum(a.operand.bytes for a in accesses))
        for buffer, accesses in touched.items()
        if buffer not in apart
    )
