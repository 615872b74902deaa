"""Bring what compute engines access to partition 0, by DMA, where it begins at a partition at which they do not.

Only in programs whose tiles the vendor's compiler places: where a tile begins is its business, as it is which engine
moves a row. Other programs say both themselves, and CheckPartitions refuses what the chip cannot do.
"""

from __future__ import annotations

from nkilite.ir.limits import is_brought
from nkilite.ir.loops import innermost
from nkilite.ir.program import Instruction, Operand, Program
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.passes.check_partitions import misplaced
from nkilite.passes.splice import View, assemble, splice


class BringPartitions:
    """Does nothing in other programs, nor to operands that DMA cannot bring."""

    def run(self, program: Program) -> Program:
        found: dict[int, list[Operand]] = {}
        for at, signature, operand, _ in misplaced(program) if program.placed else ():
            if is_brought(program, signature, operand):
                found.setdefault(at, []).append(operand)
        if found:
            bodies = innermost(program)
            moved = [i for i in program if i.start in found]
            splice(program, {i.start: _run(program, i, found[i.start], bodies[i.index]) for i in moved})
        return program


def _run(program: Program, instruction: Instruction, operands: list[Operand], loop: int | None) -> list[int]:
    """The words of an instruction on tiles of their own, and of the DMA before and behind it."""
    call, words = instruction.signature, instruction.words
    arguments, brought = dict(call.arguments), {}
    before: list[int] = []
    behind: list[int] = []
    for operand in operands:
        kind = ViewType.dense(MemoryRegion.sbuf, operand.type.dtype, operand.type.shape)
        tile = program.add_buffer(kind.region, kind.shape, kind.dtype, loop=loop).id
        arguments[operand.name], brought[operand.name] = kind, tile
        here = View(operand.type, words[operand.word : operand.word + 2])
        there = View(kind, (tile, 0))
        if operand.reads:
            before += assemble(program, "dma_copy", words[1], dst=there, src=here)
        if operand.writes:
            behind += assemble(program, "dma_copy", words[1], dst=here, src=there)
    moved = program.signature(call.definition, arguments)
    own = [moved.id, *words[1:]]
    for operand in moved.operands:
        if operand.name in brought:
            own[operand.word : operand.word + 2] = brought[operand.name], 0
    return before + own + behind
