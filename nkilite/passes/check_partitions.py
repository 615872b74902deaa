"""Check that views follow the partitions of their tiles, and start where a compute engine may access them."""

from __future__ import annotations

import numpy as np

from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.limits import partition_rules, require_partitions
from nkilite.ir.partitions import Cover, require_rows, stacked
from nkilite.ir.program import Operand, Program, Signature


class CheckPartitions:
    """Changes nothing.

    Raises:
        PartitionStrideMismatch, PatternOutOfBounds: the first instruction with an operand that follows no partitions.
        PartitionStartMisplaced, PartitionsNotAdjacent: the first instruction with an operand that is elsewhere.
    """

    def run(self, program: Program) -> Program:
        for at, signature, operand in skewed(program):
            buffer, offset = program.buffers[program.code[at + operand.word]], program.code[at + operand.word + 1]
            require_rows(signature, operand, buffer, offset, program.locations[program.code[at + 1]])
        for at, signature, operand, allowed in misplaced(program):
            buffer, offset = program.buffers[program.code[at + operand.word]], program.code[at + operand.word + 1]
            location = program.locations[program.code[at + 1]]
            require_partitions(signature, operand, allowed, buffer, offset, location)
        return program


def skewed(program: Program) -> list[tuple[int, Signature, Operand]]:
    """Operands on chip that do not go from partition to partition, by the position of their instruction."""
    columns, buffers = Columns.of(program), BufferColumns.of(program)
    operands, number, row, used, offsets = columns.touched
    counts = np.bincount(number, minlength=len(operands)).tolist()
    pitch = np.maximum(buffers.row_bytes, 1)[used]
    fits = Cover.of(stacked([operand.type for _, operand in operands], counts), offsets, pitch)
    wrong = np.flatnonzero(buffers.on_chip[used] & ~fits.fits(buffers.partitions[used], pitch))
    found = [(int(columns.starts[row[one]]), *operands[number[one]]) for one in wrong]
    return sorted(found, key=lambda one: one[0])


def misplaced(program: Program) -> list[tuple[int, Signature, Operand, tuple[int, ...]]]:
    """Operands that begin elsewhere or skip partitions, by the position of their instruction; where they may begin."""
    columns = Columns.of(program)
    buffers = BufferColumns.of(program)
    base, pitch = buffers.partition, np.maximum(buffers.row_bytes, 1)
    tables: dict[tuple[int, ...], np.ndarray] = {}
    found: list[tuple[int, Signature, Operand, tuple[int, ...]]] = []
    for signature, _, starts in columns.uses():
        for operand, allowed in partition_rules(signature):
            table = tables.get(allowed)
            if table is None:
                table = tables[allowed] = np.zeros(program.target.num_partitions, bool)
                table[list(allowed)] = True
            used, offsets = columns.code[starts + operand.word], columns.code[starts + operand.word + 1]
            right = table[base[used] + offsets // pitch[used]]
            if operand.type.partitions > 1:
                right &= pitch[used] == operand.type.strides[0] * operand.type.dtype.itemsize
            found += [(int(at), signature, operand, allowed) for at in starts[~right]]
    return sorted(found, key=lambda one: one[0])
