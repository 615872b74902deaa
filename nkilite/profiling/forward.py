"""Let the consumers of a broadcast read it where the Tensor Engine made it.

`nl.broadcast_to` promises an SBUF tile, so it copies the product out of PSUM. The vendor's compiler leaves it in its
bank when every consumer can read PSUM, which also halves the cost of two-input Vector instructions. This does the same
to the program that is timed; what runs is not changed.
"""

from __future__ import annotations

from nkilite.ir.program import Program, Signature
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.language.shaping import BROADCAST
from nkilite.profiling.rewrite import changed, copied, without

__all__ = ["forwarded"]


def forwarded(program: Program) -> Program:
    """The rewritten program; the one given if nothing changes."""
    copies = [i for i, name in program.names.items() if name == BROADCAST]
    if not copies:
        return program
    given, program = program, copied(program)
    starts = program.starts()
    uses = _uses(program, starts)
    dropped: set[int] = set()
    for copy in copies:
        at = starts[copy]
        signature = program.signatures[program.code[at]]
        target, source = signature.operand("dst"), signature.operand("data")
        tile, bank = program.code[at + target.word], program.code[at + source.word]
        whole = target.type.size == program.buffers[tile].type.size and target.type.dtype == source.type.dtype
        written = [i for i, _, writes in uses[tile] if writes]
        if not whole or written != [copy] or _written_later(uses, bank, copy):
            continue
        changes = _moved(program, starts, tile, bank, [(i, s) for i, s, writes in uses[tile] if not writes])
        if changes is not None:
            for word, value in changes:
                program.code[word] = value
            dropped.add(copy)
    return without(program, starts, dropped) if dropped else given


Use = tuple[int, int, bool]  # instruction, index of the operand in its signature, whether it writes


def _uses(program: Program, starts: list[int]) -> dict[int, list[Use]]:
    """Every access of every on-chip buffer, in program order."""
    found: dict[int, list[Use]] = {}
    plans = [
        [(k, o.word, o.writes) for k, o in enumerate(s.operands) if o.type.region.on_chip] for s in program.signatures
    ]
    for i, start in enumerate(starts):
        for k, word, writes in plans[program.code[start]]:
            found.setdefault(program.code[start + word], []).append((i, k, writes))
    return found


def _written_later(uses: dict[int, list[Use]], buffer: int, copy: int) -> bool:
    return any(writes and i > copy for i, _, writes in uses[buffer])


def _moved(
    program: Program, starts: list[int], tile: int, bank: int, readers: list[tuple[int, int]]
) -> list[tuple[int, int]] | None:
    """The (word position, new value) pairs that make the readers of a tile read the bank, or None if one cannot."""
    changes = []
    for instruction, operand in readers:
        start = starts[instruction]
        signature = program.signatures[program.code[start]]
        other = _in_psum(program, signature, operand)
        if other is None:
            return None
        changes += [(start, other.id), (start + signature.operands[operand].word, bank)]
    return changes


def _in_psum(program: Program, signature: Signature, operand: int) -> Signature | None:
    """The signature with one operand in PSUM; None where the hardware does not allow it."""
    name, kind = signature.operands[operand].name, signature.operands[operand].type
    if name not in signature.arguments or kind.indirection is not None:
        return None
    return changed(program, signature, name, ViewType.of(MemoryRegion.psum, kind.dtype, kind.shape, kind.strides))
