"""Compute once what a kernel computes again from the same tiles.

The vendor's compiler takes invariant work out of unrolled loops: the published profile of mamba_v2 shows four Vector
Engine instructions where the source has five, the fifth being the same for every state. Here an instruction is dropped
when an earlier one of the same signature read the same values into a tile of its own, and compute instructions (not
DMA, which may be timed for its own sake) are all who read the two results. What is computed from tiles that are
loaded again is computed again: mamba_v1, which loads in every iteration, takes as much longer than mamba_v2 as that,
though its loads are merged.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.loops import has_loops
from nkilite.ir.program import Program, Signature
from nkilite.ir.types import MemoryRegion
from nkilite.machine.engine import Engine
from nkilite.machine.rows import distinct
from nkilite.profiling.rewrite import copied, without

__all__ = ["reused"]


def reused(program: Program, largest: int = 0) -> Program:
    """The program without repeated computations and, where the vendor's compiler manages it, without repeated loads.

    Args:
        largest: most bytes of an HBM tensor of which tiles are kept instead of loaded again.

    Returns:
        The one given if nothing is repeated.
    """
    if has_loops(program):
        return program
    columns = Columns.of(program)
    simple = [_is_simple(s, program.managed) for s in program.signatures]
    kept = [b.region.on_chip or b.size_bytes <= largest for b in program.buffers]
    single = _written_once_and_computed_with(program, columns)
    if not _repeats(columns, simple, single):
        return program
    program, starts = copied(program), columns.starts.tolist()
    code, signatures = program.code, program.signatures
    version: Counter[int] = Counter()
    known: dict[tuple[object, ...], int] = {}
    computed: dict[int, int] = {}  # tile -> the earlier tile with its values
    loaded: dict[int, int] = {}
    dropped: set[int] = set()
    for index, start in enumerate(starts):
        signature = signatures[code[start]]
        own = {}  # tiles as those see them who look for what is computed again
        for operand in signature.operands:
            tile = own[operand.word] = computed.get(code[start + operand.word], code[start + operand.word])
            code[start + operand.word] = loaded.get(tile, tile)
        written = [code[start + o.word] for o in signature.operands if o.writes]
        if simple[signature.id] and single[written[0]] and all(
            kept[code[start + o.word]] for o in signature.operands if o.reads
        ):
            reads = [(own[o.word], code[start + o.word + 1]) for o in signature.operands if o.reads]
            numbers = tuple(code[start + i.word] for i in signature.immediates)
            key = (signature.id, numbers, *((b, offset, version[b]) for b, offset in reads))
            found = known.setdefault(key, written[0])
            if found != written[0]:
                again = loaded if signature.name == "dma_copy" else computed
                again[written[0]] = found
                dropped.add(index)
                continue
        version.update(written)
    return without(program, starts, dropped) if dropped else program


def _is_simple(signature: Signature, managed: bool) -> bool:
    """Whether an instruction makes one whole new tile from its operands and from nothing else; by a load only where the
    vendor's compiler manages the program."""
    if "registers" in signature.arguments or any(o.type.indirection for o in signature.operands):
        return False
    written = [o for o in signature.operands if o.writes]
    if len(written) != 1 or written[0].reads or len(signature.operands) < 2:
        return False
    if written[0].type.region is not MemoryRegion.sbuf:
        return False
    engine = signature.definition.rule("cost")(signature).engine
    if engine is Engine.dma:
        loads = not any(o.type.region.on_chip for o in signature.operands if o.reads)
        return managed and signature.name == "dma_copy" and loads
    return engine is not Engine.sync


def _written_once_and_computed_with(program: Program, columns: Columns) -> np.ndarray:
    """By buffer: whether it is a tile without a fixed address that one instruction writes whole, and that only compute
    instructions read."""
    buffers = program.buffers
    writes, reads = np.zeros(len(buffers), np.int64), np.zeros(len(buffers), np.int64)
    known = BufferColumns.of(program)
    fit = known.internal & ~known.fixed
    sizes = known.measured(lambda kind: kind.size)
    for signature, _, starts in columns.uses():
        dma = signature.definition.rule("cost")(signature).engine is Engine.dma
        for operand in signature.operands:
            at = columns.code[starts + operand.word]
            if operand.writes:
                writes += np.bincount(at, minlength=len(buffers))
                fit[at[sizes[at] != operand.type.size]] = False
            if operand.reads:
                reads += np.bincount(at, minlength=len(buffers))
                fit[at] &= not dma
    result: np.ndarray = fit & (writes == 1) & (reads > 0)
    return result


def _repeats(columns: Columns, simple: list[bool], single: np.ndarray) -> bool:
    """Whether two instructions that may be dropped have equal operands, whatever happens between them."""
    for signature, _, starts in columns.uses():
        if simple[signature.id]:
            target = next(o for o in signature.operands if o.writes)
            starts = starts[single[columns.code[starts + target.word]]]
            words = [w for o in signature.operands if o.reads for w in (o.word, o.word + 1)]
            words += [i.word for i in signature.immediates]
            given = columns.code[starts[:, None] + np.array(words)]
            if len(distinct(given)[0]) < len(given):
                return True
    return False
