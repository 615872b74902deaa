"""Find the tiles whose partitions all hold the same, such as a vector of weights that a DMA copies to every partition.

On the chip every partition needs a copy, for engines cannot reach across. The CPU needs one, which then stays in the
nearest cache while all rows use it.
"""

from __future__ import annotations

import numpy as np

from nkilite.ir.program import Program, Signature
from nkilite.ir.types import BufferKind, MemoryRegion


class FindUniform:
    """Note in `program.uniform` the SBUF tiles of which one partition is as good as all.

    Whatever writes such a tile covers all of its partitions, works by row, and reads nothing but such tiles, numbers
    and one row of HBM for all partitions; the tile itself is not among what it reads. Whatever else uses the tile
    works by row.
    """

    def run(self, program: Program) -> Program:
        buffers = program.buffers
        uniform = np.array([
            b.region is MemoryRegion.sbuf and b.address is None and b.kind is BufferKind.internal and b.partitions > 1
            for b in buffers
        ], bool)
        if not uniform.any():
            return program
        rows = np.array([b.partition_bytes for b in buffers])
        partitions = np.array([b.partitions if b.shape else 0 for b in buffers])
        code = np.array(program.code, np.int64)
        starts = np.array(program.starts(), np.int64)
        order = np.argsort(code[starts], kind="stable")
        bounds = np.searchsorted(code[starts][order], np.arange(len(program.signatures) + 1))
        written = np.zeros(len(buffers), bool)
        sources: set[tuple[int, int]] = set()  # (written, read) tiles
        for signature in program.signatures:
            at = starts[order[bounds[signature.id] : bounds[signature.id + 1]]]
            by_rows, spreads = signature.access.rows is not None or signature.access.straight, _spreads(signature)
            for operand in signature.operands:
                used = code[at + operand.word]
                if not operand.writes:
                    if not by_rows or operand.type.indirection is not None:
                        uniform[used] = False
                    continue
                written[used] = True
                if not spreads or not operand.type.region.on_chip:
                    uniform[used] = False
                    continue
                whole = (partitions[used] == operand.type.shape[0]) & (code[at + operand.word + 1] < rows[used])
                whole &= operand.type.strides[0] * operand.type.dtype.itemsize == rows[used]
                uniform[used[~whole]] = False
                for read in signature.operands:
                    if read.reads and read.type.region.on_chip:
                        sources.update(zip(used.tolist(), code[at + read.word].tolist(), strict=True))
        uniform &= written
        changed = True
        while changed:
            wrong = {to for to, source in sources if uniform[to] and (to == source or not uniform[source])}
            uniform[list(wrong)] = False
            changed = bool(wrong)
        program.uniform = frozenset(np.flatnonzero(uniform).tolist())
        return program


def _spreads(signature: Signature) -> bool:
    """Whether a signature writes the same to all rows if all tiles that it reads have equal rows."""
    access = signature.access
    return access.rows is not None and all(
        o.type.indirection is None
        and (o.type.region.on_chip or o.writes or o.type.strides[0] == 0 or not access.runs_over(o.name, access.rows))
        for o in signature.operands
    )
