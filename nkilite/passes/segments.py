"""Segments of a row group: elementwise members that a few columns at a time go through, where rows are long."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nkilite.ir.group import Segment
from nkilite.ir.program import Program, Signature
from nkilite.ir.types import MemoryRegion
from nkilite.passes.rows import Access, meet
from nkilite.passes.runs import Run

_PIECE_BYTES = 8 << 10  # of the columns that go through a segment at a time; measured to be best
_LEAST_PIECE, _MOST_PIECE = 256, 2048  # columns


def find_segments(
    program: Program, run: Run, skipped: set[int], rows: int, touched: dict[int, list[Access]]
) -> list[Segment]:
    """The elementwise members that follow each other, where rows are too long for the nearest cache."""
    if rows * row_bytes(touched) <= _PIECE_BYTES:
        return []
    found: list[Segment] = []
    members: list[int] = []
    columns = 0
    for m in range(len(run.shapes) + 1):
        if m in skipped:
            continue
        own = _columns(program.signatures[run.signatures[m]], run.accesses[m]) if m < len(run.shapes) else 0
        if members and (own != columns or not _in_step(run, members, m, columns)):
            if len(members) > 1:
                segment = _segment(run, members, columns, rows)
                found += [segment] if segment is not None else []
            members = []
        if own:
            members.append(m)
            columns = own
    return found


def _columns(signature: Signature, accesses: Sequence[Access]) -> int:
    """The number of elements per row of an elementwise instruction whose operands are dense; 0 for any other."""
    if not signature.definition.elementwise:
        return 0
    counts = set()
    for operand, access in zip(signature.operands, accesses, strict=True):
        count = operand.type.free_size
        if operand.type.region is MemoryRegion.registers or not access.operand.dense or (operand.writes and count == 1):
            return 0
        counts.add(count)
    counts.discard(1)
    return counts.pop() if len(counts) == 1 else 0


def _in_step(run: Run, members: list[int], new: int, columns: int) -> bool:
    """Whether a column of one more member only meets the same column of the others."""
    for access in run.accesses[new]:
        for m in members:
            for other in run.accesses[m]:
                if access.space != other.space or not (access.operand.writes or other.operand.writes):
                    continue
                same = (access.low, access.high, access.first, access.step) == (
                    other.low, other.high, other.first, other.step
                )
                if not same and meet(access, other, run.rows):
                    return False
    return True


def _segment(run: Run, members: list[int], columns: int, rows: int) -> Segment | None:
    """The segment of some members; None if all their columns fit the cache at once."""
    spans = {(a.buffer, a.low): a.high - a.low for m in members for a in run.accesses[m]}
    piece = _PIECE_BYTES * columns // (rows * sum(spans.values()))
    piece = max(_LEAST_PIECE, min(_MOST_PIECE, 1 << max(piece, 1).bit_length() - 1))
    return Segment(members[0], members[-1] + 1, columns, piece) if 2 * piece <= columns else None


def row_bytes(touched: dict[int, list[Access]], apart: Collection[int] = ()) -> int:
    """About the bytes of all buffers but some that a row touches."""
    return 1 + sum(
        min(max(a.high for a in accesses) - min(a.low for a in accesses), sum(a.operand.bytes for a in accesses))
        for buffer, accesses in touched.items()
        if buffer not in apart
    )
