"""Look through what instructions write for NaN and infinities, as it is written, and note the first that is found.

`program.checks` says which check is which; what was found is read when the program has ended
(nkilite/native/numbers.py). The instructions are the CPU's own. Runs after rounding has been made explicit.
"""

from __future__ import annotations

import numpy as np

from nkilite.dtypes import uint32
from nkilite.ir.definition import Control
from nkilite.ir.numbers import NAN, NOW, STATE_WORDS, overflows, watched
from nkilite.ir.program import Check, Instruction, Operand, Program
from nkilite.ir.types import BufferKind, MemoryRegion, ViewType
from nkilite.passes.splice import View, assemble, splice


class WatchNumbers:
    """Does nothing unless the program is to be watched, and writes numbers that can be special."""

    def run(self, program: Program) -> Program:
        if program.watch:
            splice(program, _Watcher(program).runs())
        return program


class _Watcher:
    def __init__(self, program: Program) -> None:
        self._program = program
        rows, region = program.target.num_partitions, MemoryRegion.sbuf
        self._state = program.add_buffer(region, (rows, STATE_WORDS), uint32, "numbers", BufferKind.registers)
        one = np.ones((1, 1), np.uint32)
        self._one = program.add_buffer(MemoryRegion.shared_hbm, one.shape, uint32, "", BufferKind.constant, data=one)

    def runs(self) -> dict[int, list[int]]:
        """What replaces instructions, by their word position."""
        found: dict[int, list[int]] = {}
        advance = False
        before: Instruction | None = None
        instructions = list(self._program)
        following = [*instructions[1:], None]
        for instruction, after in zip(instructions, following, strict=True):
            words = self._advance(instruction) if advance else []
            checks = self._checks(instruction, before, after)
            if words or checks:
                found[instruction.start] = words + instruction.words + checks
            advance = instruction.signature.definition.control is Control.begin
            before = instruction
        return found

    def _checks(
        self, instruction: Instruction, before: Instruction | None, after: Instruction | None
    ) -> list[int]:
        """The words that look through what an instruction writes; not if the next one rounds it."""
        call = instruction.signature
        words: list[int] = []
        rounds = after is not None and after.signature.name == "round_stochastically"
        numbers = [instruction.value(i) for i in call.immediates]
        for operand in watched(call):
            buffer, offset = instruction.access(operand)
            if rounds and after is not None and after.access(after.signature.operand("data"))[0] is buffer:
                continue
            writer = instruction
            if call.name == "round_stochastically" and before is not None:
                writer = before
                numbers = [before.value(i) for i in before.signature.immediates]
            what = self._program.watch if overflows(writer.signature, numbers) else NAN
            words += self._check(operand, what, [buffer.id, offset], instruction, writer)
        return words

    def _check(
        self, operand: Operand, what: str, view: list[int], instruction: Instruction, writer: Instruction
    ) -> list[int]:
        program = self._program
        program.watched = self._state.id
        buffer = program.buffers[view[0]]
        name, shape = writer.signature.said(operand.name), tuple(operand.type.shape)
        program.checks.append(Check(writer.signature.name, name, buffer.label, shape, instruction.location))
        state = View.columns(self._state, operand.type.shape[0], 0, STATE_WORDS)
        return assemble(
            program, "find_special", program.code[instruction.start + 1], data=View(operand.type, view), state=state,
            number=float(len(program.checks)), what=what,
        )

    def _advance(self, instruction: Instruction) -> list[int]:
        """The words that count an iteration, before the first instruction of a loop's body."""
        rows, where = self._state.partitions, self._program.code[instruction.start + 1]
        one = View(ViewType.of(MemoryRegion.shared_hbm, uint32, (rows, 1), (0, 1)), (self._one.id, 0))
        return assemble(
            self._program, "advance_counters", where, dst=View.columns(self._state, rows, NOW, 1), step=one
        )
