"""Check that what compute engines access starts at a partition where it may."""

from __future__ import annotations

import numpy as np

from nkilite.ir.columns import Columns
from nkilite.ir.limits import partition_rules, require_partitions
from nkilite.ir.program import Operand, Program, Signature


class CheckPartitions:
    """Changes nothing.

    Raises:
        PartitionStartMisplaced, PartitionsNotAdjacent: the first instruction with an operand that is elsewhere.
    """

    def run(self, program: Program) -> Program:
        columns = Columns(program)
        base = np.array([b.address[0] if b.address is not None else 0 for b in program.buffers], np.int64)
        pitch = np.array([max(b.partition_bytes, 1) for b in program.buffers], np.int64)
        tables: dict[tuple[int, ...], np.ndarray] = {}
        suspects: list[tuple[int, Signature, Operand, tuple[int, ...]]] = []
        for signature, _, starts in columns.uses():
            for operand, allowed in partition_rules(signature):
                table = tables.get(allowed)
                if table is None:
                    table = tables[allowed] = np.zeros(program.target.num_partitions, bool)
                    table[list(allowed)] = True
                buffers, offsets = columns.code[starts + operand.word], columns.code[starts + operand.word + 1]
                right = table[base[buffers] + offsets // pitch[buffers]]
                if operand.type.partitions > 1:
                    right &= pitch[buffers] == operand.type.strides[0] * operand.type.dtype.itemsize
                suspects += [(int(at), signature, operand, allowed) for at in starts[~right]]
        for at, signature, operand, allowed in sorted(suspects, key=lambda found: found[0]):
            buffer, offset = program.buffers[program.code[at + operand.word]], program.code[at + operand.word + 1]
            location = program.locations[program.code[at + 1]]
            require_partitions(signature, operand, allowed, buffer, offset, location)
        return program
