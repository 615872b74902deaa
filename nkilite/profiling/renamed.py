"""Give every content of a tile memory of its own, as a compiler does that places live ranges and not names.

A tile that a kernel makes before a loop and fills again in every iteration is one name for many contents. Where an
instruction writes all of it and reads nothing of it, another content begins, which need not wait for those who read the
one before. The vendor's compiler allocates Beta 1 kernels like that, those too whose order it keeps
(`skip_middle_end_transformations`): a convolution that reloads one row 2,664 times keeps the Tensor Engine busy 90 % of
its time (calibration: convolution, as written).
"""

from __future__ import annotations

from array import array

import numpy as np

from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.loops import has_loops
from nkilite.ir.program import Operand, Program, Signature
from nkilite.ir.types import BufferKind
from nkilite.profiling.rewrite import copied

__all__ = ["renamed"]


def renamed(program: Program) -> Program:
    """The program with a buffer for every content of a tile; the one given if no tile has two, or none is renamed."""
    if not program.renames or has_loops(program):
        return program
    columns, buffers = Columns.of(program), BufferColumns.of(program)
    free = buffers.on_chip & buffers.internal & ~buffers.fixed
    begins = _beginnings(columns, buffers, free)
    order = np.lexsort((begins[:, 1], begins[:, 0]))
    tiles, rows = begins[order].T
    again = np.append(False, tiles[1:] == tiles[:-1])
    if not again.any():
        return program
    program = copied(program)
    program.buffers = list(program.buffers)
    tiles, rows = tiles[again], rows[again]
    fresh = np.array([_clone(program, tile) for tile in tiles.tolist()], np.int64)
    keys = tiles * (len(columns.ids) + 1) + rows  # ascending: by tile, then by where the content begins
    code = columns.code.copy()
    for signature, at, starts in columns.uses():
        for operand in signature.operands:
            used = columns.code[starts + operand.word]
            found = np.searchsorted(keys, used * (len(columns.ids) + 1) + at, "right") - 1
            moved = (found >= 0) & (tiles[found] == used)
            code[starts[moved] + operand.word] = fresh[found[moved]]
    program.reword(array("q", code.tobytes()))
    return program


def _beginnings(columns: Columns, buffers: BufferColumns, free: np.ndarray) -> np.ndarray:
    """The (tile, instruction) of all that write a whole tile, which they do not read."""
    found = [np.empty((0, 2), np.int64)]
    for signature, rows, starts in columns.uses():
        for operand in signature.operands:
            if not _fills(operand):
                continue
            used, offsets = columns.code[starts + operand.word], columns.code[starts + operand.word + 1]
            size = operand.type.size * operand.type.dtype.itemsize
            at = free[used] & (buffers.size_bytes[used] == size) & (offsets == 0)
            at &= ~_read_too(columns, signature, operand, starts)
            found.append(np.column_stack([used[at], rows[at]]))
    return np.concatenate(found)


def _fills(operand: Operand) -> bool:
    """Whether an operand is written, element by element, and nothing of it is read."""
    return operand.writes and not operand.reads and operand.type.indirection is None and 0 not in operand.type.strides


def _read_too(columns: Columns, signature: Signature, operand: Operand, starts: np.ndarray) -> np.ndarray:
    """In which instructions another operand is the same tile."""
    used = columns.code[starts + operand.word]
    found = np.zeros(len(used), bool)
    for other in signature.operands:
        if other is not operand:
            found |= columns.code[starts + other.word] == used
    return found


def _clone(program: Program, tile: int) -> int:
    original = program.buffers[tile]
    return program.add_buffer(
        original.region, original.shape, original.dtype, original.name, BufferKind.internal, location=original.location
    ).id
