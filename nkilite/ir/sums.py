"""The longest sum of a program: how many terms are added, one after another, on the way from inputs to a result.

Instructions that reduce a loop add its positions, those that accumulate add to what was there; along a chain of
instructions the additions count together, because their rounding errors do.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from nkilite.ir.program import Instruction, Program, Signature


def longest_sum(program: Program) -> int:
    """Terms of the longest chain of additions before an output; a body of a loop that the device runs counts once."""
    terms = [0] * len(program.buffers)
    for instruction, reduced in _reductions(program):
        operands = instruction.signature.operands
        before = max([1, *(terms[instruction.access(o)[0].id] for o in operands if o.reads and not o.writes)])
        for operand in operands:
            if operand.writes:
                buffer = instruction.access(operand)[0].id
                kept = terms[buffer] if _accumulates(instruction.signature) else 0
                terms[buffer] = max(terms[buffer], before + reduced - 1, kept + reduced)
    return max([1, *(terms[buffer.id] for buffer in program.outputs)])


def _reductions(program: Program) -> Iterator[tuple[Instruction, int]]:
    """Every instruction, with the positions that go into one element of what it writes."""
    known: dict[int, int] = {}
    for instruction in program:
        signature = instruction.signature
        found = known.get(signature.id)
        if found is None:
            found = known[signature.id] = _reduced(signature)
        yield instruction, found


def _reduced(signature: Signature) -> int:
    access = signature.access
    written = [o.name for o in signature.operands if o.writes and o.name != "registers"]
    return max((prod(access.extents[loop] for loop in access.reduced(name)) for name in written), default=1)


def _accumulates(signature: Signature) -> bool:
    return signature.arguments.get("accumulate", False) is not False
