"""Find the tiles whose partitions all hold the same, such as a vector of weights that a DMA copies to every partition.

On the chip every partition needs a copy, for engines cannot reach across. The CPU needs one, which then stays in the
nearest cache while all rows use it.
"""

from __future__ import annotations

import numpy as np

from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.program import Program, Signature
from nkilite.ir.types import MemoryRegion
from nkilite.schedule.schedule import Schedule


class FindBroadcast:
    """Note in `broadcast` the SBUF tiles of which one partition is as good as all.

    Whatever writes such a tile covers all of its partitions, works by row, and reads nothing but such tiles, numbers
    and one row of HBM for all partitions; the tile itself is not among what it reads. Whatever else uses the tile
    works by row.
    """

    def run(self, schedule: Schedule) -> Schedule:
        schedule.broadcast = equal_partitions(schedule.program)
        return schedule


def equal_partitions(program: Program) -> frozenset[int]:
    """The tiles whose partitions all hold the same whenever something reads them."""
    buffers, columns = BufferColumns.of(program), Columns.of(program)
    rows, partitions, code = buffers.row_bytes, buffers.partitions, columns.code
    alike = buffers.within(MemoryRegion.sbuf) & ~buffers.fixed & buffers.internal & (partitions > 1)
    if not alike.any():
        return frozenset()
    written = np.zeros(len(alike), bool)
    sources: list[np.ndarray] = []  # (written, read) tiles
    for signature, _, at in columns.uses():
        by_rows, spreads = signature.access.rows is not None or signature.access.straight, _spreads(signature)
        for operand in signature.operands:
            used = code[at + operand.word]
            if not operand.writes:
                if not by_rows or operand.type.indirection is not None:
                    alike[used] = False
                continue
            written[used] = True
            if not spreads or not operand.type.region.on_chip:
                alike[used] = False
                continue
            whole = (partitions[used] == operand.type.shape[0]) & (code[at + operand.word + 1] < rows[used])
            whole &= operand.type.strides[0] * operand.type.dtype.itemsize == rows[used]
            alike[used[~whole]] = False
            for read in signature.operands:
                if read.reads and read.type.region.on_chip:
                    sources.append(np.stack([used, code[at + read.word]]))
    alike &= written
    to, source = np.concatenate(sources, axis=1) if sources else np.empty((2, 0), np.int64)
    alike[to[to == source]] = False
    while len(wrong := to[alike[to] & ~alike[source]]):
        alike[wrong] = False
    return frozenset(np.flatnonzero(alike).tolist())


def _spreads(signature: Signature) -> bool:
    """Whether a signature writes the same to all rows if all tiles that it reads have equal rows."""
    access = signature.access
    return access.rows is not None and not access.placed and all(
        o.type.indirection is None
        and (o.type.region.on_chip or o.writes or o.type.strides[0] == 0 or not access.runs_over(o.name, access.rows))
        for o in signature.operands
    )
