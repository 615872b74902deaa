"""Refuse instructions with several results of which two are written to the same memory."""

from __future__ import annotations

from itertools import combinations

from nkilite.errors import OverlappingDestination
from nkilite.ir.accesses import Operands, same_memory
from nkilite.ir.program import Program
from nkilite.ir.types import MemoryRegion


class CheckDestinations:
    """Which result would stay in memory that an instruction writes twice is not known of the hardware.

    Raises:
        OverlappingDestination: two written operands of an instruction share memory.
    """

    def run(self, program: Program) -> Program:
        several = [
            (s, written) for s in program.signatures
            if len(written := [o for o in s.operands if o.writes and o.type.region is not MemoryRegion.registers]) > 1
        ]
        if not several:
            return program
        operands = Operands(program)
        for signature, written in several:
            starts = operands.table.starts[operands.table.rows(signature.id)]
            for one, other in combinations(written, 2):
                if not same_memory(one.type, other.type):
                    continue
                for start in operands.meet(starts, one, other, in_step=False).tolist():
                    names = f"{signature.said(one.name)} and {signature.said(other.name)}"
                    raise OverlappingDestination(
                        instruction=signature.title, what=f"{names} share memory",
                        location=program.locations[program.code[start + 1]],
                    )
        return program
