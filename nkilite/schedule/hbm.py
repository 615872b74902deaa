"""Tensors in HBM and the caches: which are too large to stay in them, and which of those nothing reads again."""

from __future__ import annotations

from nkilite.host.memory import LARGE
from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.program import Program


def large(program: Program) -> list[bool]:
    """Of every buffer, whether it is in HBM and does not stay in the caches."""
    buffers = BufferColumns.of(program)
    found: list[bool] = (~buffers.on_chip & (buffers.size_bytes >= LARGE)).tolist()
    return found


def never_read(program: Program, columns: Columns) -> list[bool]:
    """Of every buffer, whether it is `large` and no instruction reads it; `columns` are the program's."""
    found = large(program)
    for signature, _, starts in columns.uses():
        for operand in signature.operands:
            if operand.reads and not operand.type.region.on_chip:
                for buffer in set(columns.code[starts + operand.word].tolist()):
                    found[buffer] = False
    return found
