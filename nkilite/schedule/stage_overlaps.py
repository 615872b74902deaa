"""Copy operands that an instruction would overwrite while it still reads them.

An instruction reads all of its operands before it writes. Native micro-kernels read and write as they go,
which is the same thing when operands and destination are apart, or are the same view of an instruction that
works elementwise. Where they overlap in any other way, the operand is copied to a buffer of its own first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nkilite.ir.accesses import Operands, same_memory
from nkilite.ir.program import Operand, Program, Signature
from nkilite.ir.types import Buffer, Indirection, MemoryRegion, ViewType
from nkilite.machine.engine import Engine
from nkilite.passes.splice import View, assemble, splice
from nkilite.schedule.schedule import Schedule


class StageOverlaps:
    """Redirect operands that partially overlap the destination to a copy.

    Runs after chip addresses are planned: the copies are an artifact of the CPU and take no chip memory.
    """

    def run(self, schedule: Schedule) -> Schedule:
        program = schedule.program
        staged = overlaps(program)
        stages = _Stages(program)
        splice(program, {start: stages.run_for(start, staged[start]) for start in sorted(staged)})
        return schedule


def overlaps(program: Program) -> dict[int, list[Operand]]:
    """By the word positions of instructions, the operands that they would overwrite while they still read them."""
    operands = Operands(program)
    found: dict[int, list[Operand]] = {}
    for signature, _, starts in operands.table.uses():
        for written, read in _pairs(signature):
            for start in _conflicts(operands, starts, signature, written, read):
                found.setdefault(start, []).append(read)
    return found


def _pairs(signature: Signature) -> Iterator[tuple[Operand, Operand]]:
    """The (written, read) operands of a signature that can be in the same memory."""
    for written in signature.operands:
        if not written.writes or written.type.region is MemoryRegion.registers:
            continue
        for read in signature.operands:
            if not read.writes and same_memory(written.type, read.type):
                yield written, read


def _conflicts(
    operands: Operands, starts: np.ndarray, signature: Signature, written: Operand, read: Operand
) -> list[int]:
    """The word positions of the instructions whose `read` operand must be staged."""
    in_place = signature.access.in_place(written.name, read.name)
    starts = operands.meet(starts, written, read, in_step=in_place and written.type.indirection is None)
    if len(starts) and in_place and written.type.indirection is not None and written.type is read.type:
        # Equal indices reach the same elements: buffer and offset, of the tensor and of its index.
        code, words = operands.table.code, np.arange(4)
        here, there = starts[:, None] + written.word + words, starts[:, None] + read.word + words
        starts = starts[(code[here] != code[there]).any(axis=1)]
    found: list[int] = starts.tolist()
    return found


class _Stages:
    """Writes the copies and the instructions that read them; operands of one type share a buffer."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._buffers: dict[tuple[object, ...], Buffer] = {}

    def run_for(self, start: int, operands: list[Operand]) -> list[int]:
        """The words that replace the instruction at `start`: a copy per operand, then the instruction."""
        program = self._program
        signature = program.signatures[program.code[start]]
        words = list(program.code[start:start + signature.n_words])
        copies: list[int] = []
        views: dict[str, ViewType] = {}
        for operand in dict.fromkeys(operands):
            buffer, offset = words[operand.word], words[operand.word + 1]
            if operand.type.indirection is not None:
                # The index is still needed to find the elements, so the whole buffer is copied.
                whole = program.buffers[buffer].type
                stage = self._buffer(whole, operand.name)
                copies += self._copy(whole, buffer, 0, stage, words[1])
                words[operand.word] = stage.id
                kind = operand.type
                views[operand.name] = ViewType.of(stage.region, kind.dtype, kind.shape, kind.strides, kind.indirection)
            else:
                stage = self._buffer(operand.type, operand.name)
                copies += self._copy(operand.type, buffer, offset, stage, words[1])
                words[operand.word:operand.word + 2] = stage.id, 0
                views[operand.name] = stage.type
        words[0] = self._redirected(signature, views).id
        return copies + words

    def _buffer(self, kind: ViewType, operand: str) -> Buffer:
        """A buffer for values of a type; operands of one instruction need different ones."""
        region = kind.region if kind.region.on_chip else MemoryRegion.private_hbm
        key = region, kind.shape, kind.dtype, operand
        found = self._buffers.get(key)
        if found is None:
            found = self._buffers[key] = self._program.add_buffer(region, kind.shape, kind.dtype)
        return found

    def _copy(self, kind: ViewType, buffer: int, offset: int, stage: Buffer, where: int) -> list[int]:
        """The words of the instruction that copies a view into its stage."""
        name, engine = ("tensor_copy", Engine.vector) if kind.region.on_chip else ("dma_copy", Engine.unknown)
        to, source = View(stage.type, (stage.id, 0)), View(kind, (buffer, offset))
        return assemble(self._program, name, where, dst=to, src=source, engine=engine)

    def _redirected(self, signature: Signature, views: dict[str, ViewType]) -> Signature:
        """The signature with the types of the staged operands; that of an index comes after that of its tensor."""
        arguments = dict(signature.arguments)
        for name, kind in views.items():
            tensor, _, index = name.partition(".")
            if index:
                view: ViewType = arguments[tensor]
                old = view.indirection
                assert old is not None
                moved = Indirection.of(old.kind, kind, old.stride, old.limit)
                arguments[tensor] = ViewType.of(view.region, view.dtype, view.shape, view.strides, moved)
            else:
                arguments[name] = kind
        return self._program.signature(signature.definition, arguments)
