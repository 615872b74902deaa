"""Checks that a Program is well formed; run between passes and on parsed text."""

from __future__ import annotations

from nkilite.errors import IrError
from nkilite.ir.loops import Loop, enclosing, loops
from nkilite.ir.partitions import require_rows
from nkilite.ir.program import Instruction, Operand, Program
from nkilite.ir.types import Buffer, BufferKind


class _Right(set[object]):
    """What was checked, and cannot change: signatures, and accesses by the types of view and buffer and the byte."""


def verify(program: Program, after: str = "") -> None:
    """Check tables, loops, operand bounds, every distinct signature's hardware rules.

    Args:
        after: what produced the program, for the message.

    Raises:
        IrError: the program is malformed.
        NkiValidationError: an instruction breaks a rule of the hardware, or follows no partitions.
    """
    where = f" after {after}" if after else ""
    known = set(map(id, program.buffers))
    for buffer in [*program.inputs, *program.outputs]:
        if id(buffer) not in known:
            raise IrError(f"buffer {buffer.label} is not part of the program{where}", location=buffer.location)
    for buffer in program.outputs:
        if buffer.region.on_chip:
            raise IrError(f"output {buffer.label} is on chip{where}", location=buffer.location)
    _check_instructions(program, where)
    for consumer, producer in program.dependencies:
        if not 0 <= producer < consumer < len(program):
            raise IrError(f"dependency of instruction {consumer} on {producer} does not point back{where}",
                          location=program.locations[0])
    _check_loops(program, where)


def _check_instructions(program: Program, where: str) -> None:
    """Signatures and accesses, but for those that were checked before."""
    right = program.derived.setdefault(_Right, _Right())
    for signature in program.signatures:
        if signature not in right:
            signature.definition.rule("check")(signature)
            right.add(signature)
    for instruction in program:
        for operand in instruction.signature.operands:
            buffer, offset = instruction.access(operand)
            if (operand.type, buffer.type, offset) not in right:
                _check_access(instruction, operand, buffer, offset, where)
                right.add((operand.type, buffer.type, offset))
            if operand.writes and buffer.kind is BufferKind.constant:
                raise IrError(f"{instruction.signature.name} writes constant {buffer.label}{where}",
                              location=instruction.location)


def _check_loops(program: Program, where: str) -> None:
    """Beginnings and ends pair up, and what is made in a body is used in that body alone."""
    all_loops = loops(program)
    for buffer in program.buffers:
        if buffer.loop is not None and buffer.loop >= len(all_loops):
            raise IrError(f"buffer {buffer.label} is made in loop {buffer.loop} of {len(all_loops)}{where}",
                          location=buffer.location)
    if not all_loops:
        return
    chains = _chains(program, all_loops)
    for instruction in program:
        for operand in instruction.signature.operands:
            buffer, _ = instruction.access(operand)
            if buffer.loop is not None and buffer.loop not in chains[instruction.index]:
                raise IrError(
                    f"{instruction.signature.name} uses {buffer.label} of loop {buffer.loop} outside of it{where}",
                    location=instruction.location,
                )
    for consumer, producer in program.dependencies:
        if not set(chains[producer]) <= set(chains[consumer]):
            raise IrError(f"instruction {consumer} depends on {producer}, which is in a loop that has ended{where}",
                          location=program.locations[0])


def _chains(program: Program, all_loops: list[Loop]) -> list[list[int]]:
    """The loops around every instruction, innermost first; the end of a loop is in its body, the beginning is not."""
    chains: list[list[int]] = [[]] * len(program)
    for loop in all_loops:  # inner loops begin later and overwrite their part
        chains[loop.begin + 1:loop.end + 1] = [enclosing(all_loops, loop.number)] * (loop.end - loop.begin)
    return chains


def _check_access(instruction: Instruction, operand: Operand, buffer: Buffer, offset: int, where: str) -> None:
    kind = operand.type
    problem = ""
    low, high = kind.span()
    size = kind.dtype.itemsize
    if kind.region is not buffer.region:
        problem = f"is a view of {kind.region} over a buffer in {buffer.region}"
    elif offset + low * size < 0 or offset + (high + 1) * size > buffer.size_bytes:
        problem = f"covers bytes {offset + low * size}..{offset + (high + 1) * size} of {buffer.size_bytes}"
    if problem:
        raise IrError(
            f"operand {operand.name} of {instruction.signature.name} ({buffer.label}) {problem}{where}",
            location=instruction.location,
        )
    if buffer.region.on_chip:
        require_rows(instruction.signature, operand, buffer, offset, instruction.location, where)
