"""Compute once what a kernel computes again from the same tiles.

The vendor's compiler takes invariant work out of unrolled loops: the published profile of mamba_v2 shows four Vector
Engine instructions where the source has five, the fifth being the same for every state. Here an instruction is dropped
when an earlier one of the same signature read the same values into a tile of its own, and compute instructions (not
DMA, which may be timed for its own sake) are all who read the two results.
"""

from __future__ import annotations

from collections import Counter

from nkilite.ir.loops import has_loops
from nkilite.ir.program import Program, Signature
from nkilite.ir.types import BufferKind, MemoryRegion
from nkilite.machine.engine import Engine
from nkilite.profiling.rewrite import copied, without

__all__ = ["reused"]


def reused(program: Program) -> Program:
    """The program without repeated computations; the one given if there are none."""
    if has_loops(program):
        return program
    program, starts = copied(program), program.starts()
    code, signatures = program.code, program.signatures
    simple = [_is_simple(s) for s in signatures]
    single = _written_once_and_computed_with(program, starts)
    version: Counter[int] = Counter()
    known: dict[tuple, int] = {}
    replaced: dict[int, int] = {}  # tile -> the earlier tile with its values
    dropped: set[int] = set()
    for index, start in enumerate(starts):
        signature = signatures[code[start]]
        for operand in signature.operands:
            earlier = replaced.get(code[start + operand.word])
            if earlier is not None:
                code[start + operand.word] = earlier
        written = [code[start + o.word] for o in signature.operands if o.writes]
        if simple[signature.id] and written[0] in single:
            reads = [(code[start + o.word], code[start + o.word + 1]) for o in signature.operands if o.reads]
            numbers = tuple(code[start + i.word] for i in signature.immediates)
            key = (signature.id, numbers, *((b, offset, version[b]) for b, offset in reads))
            found = known.setdefault(key, written[0])
            if found != written[0]:
                replaced[written[0]] = found
                dropped.add(index)
                continue
        version.update(written)
    return without(program, starts, dropped) if dropped else program


def _is_simple(signature: Signature) -> bool:
    """Whether an instruction computes one whole new tile from its operands and from nothing else."""
    if "registers" in signature.arguments or any(o.type.indirection for o in signature.operands):
        return False
    written = [o for o in signature.operands if o.writes]
    if len(written) != 1 or written[0].reads or len(signature.operands) < 2:
        return False
    if written[0].type.region is not MemoryRegion.sbuf:
        return False
    return signature.definition.rule("cost")(signature).engine not in (Engine.dma, Engine.sync)


def _written_once_and_computed_with(program: Program, starts: list[int]) -> set[int]:
    """Tiles without a fixed address that one instruction writes whole, and that only compute instructions read."""
    writes: Counter[int] = Counter()
    reads: Counter[int] = Counter()
    spoiled: set[int] = set()
    plans = []
    for signature in program.signatures:
        dma = signature.definition.rule("cost")(signature).engine is Engine.dma
        plans.append([(o.word, o.writes, o.reads, dma, o.type) for o in signature.operands])
    for start in starts:
        for word, written, read, dma, kind in plans[program.code[start]]:
            buffer = program.code[start + word]
            if written:
                writes[buffer] += 1
                if kind.size != program.buffers[buffer].type.size:
                    spoiled.add(buffer)
            if read:
                reads[buffer] += 1
                if dma:
                    spoiled.add(buffer)
    return {
        b for b, n in writes.items()
        if n == 1 and reads[b] and b not in spoiled and program.buffers[b].address is None
        and program.buffers[b].kind is BufferKind.internal
    }
