"""Tiles whose explicit addresses say nothing about their contents become tiles like any other.

Most kernels with addresses use a memory again and again, for one tile after the other. Where a tile holds what was
written to it under its own name, and no other tile is in use at its place meanwhile, it is a buffer of its own: on the
CPU it need not be where the chip has it.
"""

from __future__ import annotations

import numpy as np

from nkilite.compiled import Ints, compiled
from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.coverage import Coverage, Covered
from nkilite.ir.program import Program
from nkilite.ir.types import Buffer, MemoryRegion
from nkilite.passes.histories import Access, Histories
from nkilite.passes.liveness import accessed
from nkilite.passes.plain_writes import first_writes


class SeparateTiles:
    """Forget the explicit addresses of tiles that share no memory with another one while they are in use.

    Runs after chip addresses are planned, which stay, and after what may be read before it is written has been filled
    (nkilite/passes/fill_unwritten.py): a tile that is filled when the program begins is in use from then on.
    """

    def run(self, program: Program) -> Program:
        buffers = BufferColumns.of(program)
        first, last = (times.copy() for times in accessed(program, Columns.of(program)))
        fixed = buffers.fixed & (first >= 0)
        if not fixed.any():
            return program
        borrowing = _borrowing(program, fixed)
        first[borrowing], last[borrowing] = 0, program.count
        alone: list[int] = []
        for region in (MemoryRegion.sbuf, MemoryRegion.psum):
            ids = np.flatnonzero(fixed & buffers.within(region))
            ids = ids[np.argsort(first[ids], kind="stable")]
            below = buffers.partition + buffers.partitions - 1, buffers.byte + buffers.row_bytes - 1
            boxes = np.stack([first, last, buffers.partition, below[0], buffers.byte, below[1]], axis=1)[ids]
            shared = np.zeros(len(ids), np.int64)
            _meet.run(len(ids), boxes.reshape(-1), np.zeros(len(ids), np.int64), shared, len(ids))
            alone += ids[(shared == 0) & ~borrowing[ids]].tolist()
        for id in alone:
            tile = program.buffers[id]
            assert tile.address is not None
            program.addresses[id] = tile.address
            program.buffers[id] = Buffer.internal(id, tile.type, tile.name, None, tile.location, tile.loop)
        buffers.keep_without_addresses(program, alone)
        return program


@compiled
def _meet(boxes: Ints, active: Ints, shared: Ints, count: int) -> None:
    """Note the boxes, in the order of their first instruction, that have a byte and an instruction in common.

    Args:
        boxes: rows of six: first and last instruction, first and last partition, first and last byte in a partition.
        active: room for `count` numbers.
        shared: a 1 is written for each such box.
    """
    used = 0
    for i in range(count):
        kept = 0
        for k in range(used):
            j = active[k]
            if boxes[6 * j + 1] >= boxes[6 * i]:
                active[kept] = j
                kept += 1
                rows = boxes[6 * j + 2] <= boxes[6 * i + 3] and boxes[6 * i + 2] <= boxes[6 * j + 3]
                if rows and boxes[6 * j + 4] <= boxes[6 * i + 5] and boxes[6 * i + 4] <= boxes[6 * j + 5]:
                    shared[i] = 1
                    shared[j] = 1
        active[kept] = i
        used = kept + 1


def _borrowing(program: Program, fixed: np.ndarray) -> np.ndarray:
    """Whether an instruction may take from a tile what was written at its address under another name."""
    histories = Histories(program, fixed & ~first_writes(program)[1])
    found = np.zeros(len(fixed), bool)
    for same in histories.alike():
        found[same] = _borrows(program.buffers[same[0]], histories.of(same[0]))
    return found


def _borrows(buffer: Buffer, accesses: list[Access]) -> bool:
    cover = Coverage(buffer)
    for access in accesses:
        operand = access.operand
        if operand.reads and cover.covered(operand.type, access.byte_offset) is not Covered.all:
            return True
        if operand.writes and operand.type.indirection is None:
            cover.mark(operand.type, access.byte_offset)
    return False
