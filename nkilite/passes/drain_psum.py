"""Results leave PSUM as soon as they are complete: for programs whose PSUM tiles do not fit as they are written.

Kernels accumulate into many tiles and read them all afterwards. On the chip, what reads the first one runs on another
engine than the matmuls, as soon as that tile is complete. The queues of the engines stay as the kernel has them.
"""

from __future__ import annotations

import numpy as np

from nkilite.ir.accesses import Spaces
from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.program import Program, Signature
from nkilite.ir.types import MemoryRegion
from nkilite.machine.engine import Engine
from nkilite.passes.liveness import accessed
from nkilite.passes.reorder import reorder, stretches

_ON_CHIP = (MemoryRegion.sbuf, MemoryRegion.psum, MemoryRegion.registers)


def drain_psum(program: Program) -> bool:
    """Move instructions that are the last to touch a PSUM tile to where all is there that they read, within a loop body
    and between two meetings, past none of their own engine. Buffers count as a whole.

    Returns whether there was anything to move.
    """
    columns = Columns.of(program)
    moving = _last_reads(program, columns)
    if not moving.any():
        return False
    order = _earliest(program, columns, moving)
    if (np.diff(order) >= 0).all():
        return False
    reorder(program, columns, np.argsort(order, kind="stable"))
    return True


def _last_reads(program: Program, columns: Columns) -> np.ndarray:
    """Which instructions read a PSUM tile for the last time, and touch nothing but tiles and registers."""
    buffers, touched = BufferColumns.of(program), columns.touched
    _, last = accessed(program, columns)
    psum = buffers.within(MemoryRegion.psum) & ~buffers.fixed
    at = touched.each(lambda signature, operand: operand.reads and _moves_tiles(signature))
    at &= psum[touched.buffer] & (last[touched.buffer] == touched.row)
    found = np.zeros(program.count, bool)
    found[touched.row[at]] = True
    found[[i for pair in program.dependencies for i in pair]] = False
    return found


def _moves_tiles(signature: Signature) -> bool:
    """Whether an instruction computes tiles from tiles."""
    definition, operands = signature.definition, signature.operands
    return definition.control is None and definition.meets is None and any(o.writes for o in operands) and all(
        o.type.region in _ON_CHIP for o in operands
    )


def _earliest(program: Program, columns: Columns, moving: np.ndarray) -> np.ndarray:
    """Behind which instruction each of them goes, itself where it does not move: an order for a stable sort."""
    space = Spaces(program).space
    stretch = stretches(program, columns)
    begins = np.searchsorted(stretch, stretch)  # the first instruction of its stretch
    place = np.arange(program.count)
    touched: list[list[tuple[int, bool]]] = [[] for _ in range(program.count)]
    queues: dict[Engine, int] = {}  # an engine is like a place that all of its instructions write
    for signature, rows, _ in columns.uses():
        queue = queues.setdefault(signature.definition.rule("cost")(signature).engine, -1 - len(queues))
        for row in rows.tolist():
            touched[row].append((queue, True))
    every = columns.touched
    for row, where, writes in np.column_stack([every.row, space[every.buffer], every.writes]).tolist():
        touched[row].append((where, writes))
    wrote: dict[int, int] = {}
    read: dict[int, int] = {}  # since the beginning: by space, behind what a write of it goes
    for row, (moves, begin) in enumerate(zip(moving.tolist(), begins.tolist(), strict=True)):
        at = row
        if moves:
            before = [wrote.get(where, -1) for where, _ in touched[row]]
            before += [read.get(where, -1) for where, writes in touched[row] if writes]
            at = max(begin, *before)
            place[row] = at
        for where, writes in touched[row]:
            known = wrote if writes else read
            known[where] = max(known.get(where, -1), at)
    return place
