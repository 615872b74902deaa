"""Tiles are set where they are next used: for programs whose tiles do not fit as they are written.

The vendor's compiler orders instructions within what their data allow, so that public kernels set many tiles long
before they use them. Only what reads nothing is moved. Loads stay: when to begin them is what a kernel says.
"""

from __future__ import annotations

import numpy as np

from nkilite.ir.columns import BufferColumns, Columns, numbered
from nkilite.ir.program import Program, Signature
from nkilite.ir.types import MemoryRegion
from nkilite.machine.rows import unique
from nkilite.passes.reorder import reorder, stretches


def delay_writes(program: Program) -> bool:
    """Move first writes of SBUF tiles that read nothing to just before the next access, within a loop body and between
    two meetings.

    Returns whether there was anything to move.
    """
    columns, buffers = Columns.of(program), BufferColumns.of(program)
    first, second = _first_two(program, columns)
    stated = {i for pair in program.dependencies for i in pair}
    stretch = stretches(program, columns)
    order = 2 * np.arange(program.count)
    _, _, rows, tile, _ = touched = columns.touched
    moves = touched.each(lambda signature, _: _reads_nothing(signature)) & ~buffers.fixed[tile]
    moves &= (first[tile] == rows) & (second[tile] > rows + 1) & (second[tile] < program.count)
    rows, until = rows[moves], second[tile[moves]]
    same = (stretch[rows] == stretch[until]) & ~np.isin(rows, list(stated))
    order[rows[same]] = 2 * until[same] - 1
    if (np.diff(order) > 0).all():
        return False
    reorder(program, columns, np.argsort(order, kind="stable"))
    return True


def _reads_nothing(signature: Signature) -> bool:
    """Whether all that an instruction touches is an SBUF tile that it writes, at a place that is known."""
    return signature.definition.control is None and signature.definition.meets is None and [
        (o.type.region, o.writes, o.reads, o.type.indirection) for o in signature.operands
    ] == [(MemoryRegion.sbuf, True, False, None)]


def _first_two(program: Program, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """The first two instructions that touch every buffer; `program.count` where there is none."""
    pairs = columns.touched.buffer * program.count + columns.touched.row
    touched = np.stack(np.divmod(unique(pairs), max(program.count, 1)))
    first, second = np.full((2, len(program.buffers)), program.count)
    number, at, _ = numbered(touched[0])
    first[number] = touched[1, at]
    several = at[np.diff(np.append(at, touched.shape[1])) > 1]
    second[touched[0, several]] = touched[1, several + 1]
    return first, second
