"""Memory that a program reads, or returns, before it has surely written it holds the byte that the
target says, as when simulated.

Tiles take each other's places on the CPU, and results are memory that somebody had before. What is surely written first
is not filled, which is nearly everything.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from nkilite import dtypes
from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.coverage import Coverage, Covered
from nkilite.ir.loops import Loop, carrying, enclosing, loops
from nkilite.ir.program import Program
from nkilite.ir.types import Buffer, MemoryRegion, ViewType
from nkilite.passes.histories import Access, Histories
from nkilite.passes.plain_writes import first_writes
from nkilite.passes.splice import View, assemble, splice

_FILLED = (MemoryRegion.sbuf, MemoryRegion.psum, MemoryRegion.private_hbm, MemoryRegion.shared_hbm)


class FillUnwritten:
    """Fills a buffer before its first access, or before the loop that carries it, if a read may come before a write.

    Writes whose place or number only the device knows are not counted: those through runtime indices, and in loops
    that may not run at all. A tile with an explicit address is filled when the program begins, because others may have
    written its memory later. What several cores share is filled by their launch
    (`nkilite.ir.shared_writes`), and so are results with dynamic dimensions, whose sizes a launch knows.
    """

    def run(self, program: Program) -> Program:
        doubtful = _doubtful(program)
        if not doubtful.any() or not program.count:
            return program
        all_loops = loops(program)
        histories = Histories(program, doubtful)
        returned = {b.id for b in program.outputs}
        places: dict[int, list[int]] = {}  # buffers by the instruction before which they are filled
        # Where all loops run, it does not matter which instructions the accesses are, nor whether they are repeated.
        certain = all(loop.trips for loop in all_loops)
        known: dict[Hashable, bool] = {}
        for id in histories.buffers:
            key = (histories.kind(id), id in returned) if certain else id
            if key not in known:
                accesses = histories.of(id, repeated=not certain)
                known[key] = _needs_fill(program.buffers[id], accesses, id in returned, all_loops)
            if known[key]:
                places.setdefault(_place(program.buffers[id], histories.of(id), all_loops), []).append(id)
        starts = program.starts()
        widths = [s.n_words for s in program.signatures]
        runs = {}
        for index, ids in places.items():
            start = starts[index]
            own = program.code[start : start + widths[program.code[start]]].tolist()
            runs[start] = [word for id in ids for word in _filling(program, program.buffers[id])] + own
        splice(program, runs)
        return program


def _doubtful(program: Program) -> np.ndarray:
    """Of every buffer, whether it is read or returned, and its first access is no write of the whole."""
    touched, buffers = Columns.of(program).touched, BufferColumns.of(program)
    read = buffers.chosen({b.id for b in program.outputs})
    read[touched.buffer[touched.reads]] = True
    optional = np.zeros(program.count + 1, bool)  # instructions that may not run at all
    for loop in loops(program):
        if not loop.trips:
            optional[loop.begin + 1 : loop.end + 1] = True
    eligible = buffers.internal & buffers.within(*_FILLED) & ~buffers.chosen({b.id for b in program.buffers if b.dims})
    if program.cores > 1:
        eligible &= ~buffers.within(MemoryRegion.shared_hbm)
    first, whole = first_writes(program)
    result: np.ndarray = eligible & read & (~whole | optional[first])
    return result


def _needs_fill(buffer: Buffer, accesses: list[Access], returned: bool, all_loops: list[Loop]) -> bool:
    """Whether something is read, or returned, before it is surely written."""
    around = enclosing(all_loops, buffer.loop)
    optional = [loop for loop in all_loops if not loop.trips and loop.number not in around]
    cover = Coverage(buffer)
    open_loops: list[tuple[Loop, Coverage]] = []  # with what was covered before
    for instruction, operand, byte_offset, partly in accesses:
        while open_loops and instruction > open_loops[-1][0].end:
            _, cover = open_loops.pop()
        for loop in optional:
            if loop.begin < instruction <= loop.end and all(loop is not other for other, _ in open_loops):
                open_loops.append((loop, cover.copy()))
        if operand.reads and not partly and cover.covered(operand.type, byte_offset) is not Covered.all:
            return True
        if operand.writes and operand.type.indirection is None:
            cover.mark(operand.type, byte_offset)
    if open_loops:
        _, cover = open_loops[0]
    return returned and cover.covered(buffer.type, 0) is not Covered.all


def _place(buffer: Buffer, accesses: list[Access], all_loops: list[Loop]) -> int:
    """The instruction before which a buffer is filled."""
    if buffer.address is not None or not accesses:
        return 0
    first = accesses[0].instruction
    loop = carrying([loop for loop in all_loops if loop.begin < first <= loop.end], buffer)
    return first if loop is None else loop.begin


def _filling(program: Program, buffer: Buffer) -> list[int]:
    """The words of the instruction that fills a buffer."""
    where = program.location_id(buffer.location)
    shape = (buffer.partitions, buffer.partition_bytes) if buffer.region.on_chip else (buffer.size_bytes,)
    whole = View(ViewType.dense(buffer.region, dtypes.uint8, shape), (buffer.id, 0))
    return assemble(program, "fill_unwritten", where, dst=whole, value=float(program.target.unwritten_byte))
