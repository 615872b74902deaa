"""Split instructions that round stochastically: one leaves its results in float32, the next rounds them.

The tiles between are the CPU's own, and row fusion keeps them in registers. Runs after chip addresses are planned.
"""

from __future__ import annotations

from nkilite.dtypes import uint32
from nkilite.ir.definition import Control
from nkilite.ir.loops import innermost
from nkilite.ir.program import Instruction, Program, Signature
from nkilite.ir.rounding import Rounded, rounded, widened
from nkilite.ir.types import Buffer, BufferKind, MemoryRegion, ViewType
from nkilite.machine.engine import Engine
from nkilite.passes.splice import View, assemble, splice
from nkilite.rounding import Sites, columns

_WORD = (1 << 32) - 1


def rounds_stochastically(program: Program) -> bool:
    """Whether it sets the state that rounding draws from: how an instruction rounds then follows from its place."""
    return any(s.name == "set_rounding" for s in program.signatures)


class RoundStochastically:
    """Does nothing in a program without `set_rounding`; what follows that instruction is followed as it runs."""

    def run(self, program: Program) -> Program:
        if rounds_stochastically(program):
            splice(program, _Splitter(program).runs())
        return program


class _Splitter:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._rounded: dict[int, Rounded | None] = {}
        self._state: Buffer  # of the engines, from `set_rounding` on
        found = [(s, self._rounds(s)) for s in program.signatures]
        free = max((s.arguments[n].free_size for s, rounds in found if rounds for n in rounds.names), default=1)
        data = columns(free).reshape(1, -1)
        self._columns = program.add_buffer(
            MemoryRegion.shared_hbm, data.shape, uint32, kind=BufferKind.constant, data=data
        ).id

    def runs(self) -> dict[int, list[int]]:
        """What replaces instructions, by their word position."""
        found: dict[int, list[int]] = {}
        sites: Sites | None = None
        bodies, advance = innermost(self._program), False
        for instruction in self._program:
            call = instruction.signature
            if sites is None:
                if call.name == "set_rounding":
                    self._state = instruction.access(call.operand("dst"))[0]
                    sites = Sites(call.core)
                continue
            if call.name == "fill_unwritten":  # of a pass; the kernel's instructions are counted
                continue
            key = sites.next()
            before = self._advance(instruction) if advance else []
            advance = call.definition.control is Control.begin
            rounds = self._rounds(call)
            if rounds is not None:
                found[instruction.start] = before + self._split(instruction, rounds, key, bodies[instruction.index])
            elif before:
                found[instruction.start] = before + instruction.words
            if call.definition.control is Control.begin:
                sites.begin(key)
            elif call.definition.control is Control.end:
                sites.end()
        return found

    def _rounds(self, call: Signature) -> Rounded | None:
        if call.id not in self._rounded:
            self._rounded[call.id] = rounded(call)
        return self._rounded[call.id]

    def _split(self, instruction: Instruction, rounds: Rounded, key: int, loop: int | None) -> list[int]:
        """The words of an instruction whose results are float32, and of those that round them."""
        program, call, words = self._program, instruction.signature, instruction.words
        wide = program.signature(call.definition, rounds.wide)
        given = {o.name: words[o.word : o.word + 2] for o in call.operands}
        before: list[int] = []
        after: list[int] = []
        for name in rounds.names:
            operand = call.operand(name)
            view = given[name] + given.get(f"{name}.index", [])
            kind = widened(operand.type)
            buffer = program.add_buffer(kind.region, kind.shape, kind.dtype, loop=loop)
            given[name] = [buffer.id, 0]
            tile, target = View(kind, given[name]), View(operand.type, view)
            if operand.reads:
                before += assemble(program, "tensor_copy", words[1], dst=tile, src=target, engine=Engine.vector)
            after += self._round(target, tile, key, words[1])
        own = [wide.id, words[1], *[0] * (wide.n_words - 2)]
        for operand in wide.operands:
            own[operand.word : operand.word + 2] = given[operand.name]
        for new, old in zip(wide.immediates, call.immediates, strict=True):
            own[new.word] = words[old.word]
        return before + own + after

    def _round(self, dst: View, data: View, key: int, where: int) -> list[int]:
        """The words of the instruction that rounds a tile to a view."""
        rows, *row = dst.type.shape
        low, high = (View.columns(self._state, rows, word, 1) for word in range(2))
        columns = View(ViewType.dense(MemoryRegion.shared_hbm, uint32, (1, *row)), (self._columns, 0))
        return assemble(
            self._program, "round_stochastically", where, dst=dst, data=data, low=low, high=high, columns=columns,
            site_low=float(key & _WORD), site_high=float(key >> 32),
        )

    def _advance(self, instruction: Instruction) -> list[int]:
        """The words of the instruction that gives the rows new keys, before the first one of a loop's body."""
        keys, steps = (View.columns(self._state, self._state.partitions, word, 2) for word in (0, 2))
        where = self._program.code[instruction.start + 1]
        return assemble(self._program, "advance_counters", where, dst=keys, step=steps)
