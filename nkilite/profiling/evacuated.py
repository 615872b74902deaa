"""Copy to SBUF what PSUM has no room for, as the vendor's compiler does it.

A kernel that the compiler manages may keep more in PSUM than its banks hold, such as all scores of an attention between
two loops. Where a new tile does not fit, the tile that is needed again last leaves: it is copied to SBUF once it is
complete, and read there (and spilled on, where SBUF has no room either).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np

from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.loops import has_loops
from nkilite.ir.program import Program
from nkilite.ir.types import BufferKind, MemoryRegion, ViewType
from nkilite.machine.engine import Engine
from nkilite.machine.memory import peak
from nkilite.passes.liveness import accessed
from nkilite.passes.splice import View, splice
from nkilite.profiling.rewrite import changed, copied, words

__all__ = ["evacuated"]


class _Uses(NamedTuple):
    """Accesses of tiles in PSUM, in program order: instruction, tile, and whether the instruction writes it."""

    instructions: list[int]
    tiles: list[int]
    writes: list[bool]


def evacuated(program: Program) -> Program:
    """The program with such tiles in SBUF; the one given if it is not managed, all fit, or it cannot be done."""
    if not program.managed or has_loops(program):
        return program
    columns, buffers = Columns.of(program), BufferColumns.of(program)
    tiles = buffers.within(MemoryRegion.psum) & buffers.internal
    if (tiles & buffers.fixed).any() or _fit(program, columns, buffers, tiles):
        return program
    leaving = _leaving(program, _uses(columns, tiles))
    return _moved(program, columns, leaving) if leaving else program


def _fit(program: Program, columns: Columns, buffers: BufferColumns, tiles: np.ndarray) -> bool:
    """Whether PSUM has room for all tiles that are in use at any moment."""
    first, last = accessed(program, columns)
    used = np.flatnonzero(tiles & (first >= 0))
    requests = np.column_stack([buffers.row_bytes[used], first[used], last[used]])
    target = program.target
    most = peak(requests, align=target.psum_min_align, bank=target.psum_bank_bytes)
    return most <= target.psum_partition_bytes


def _uses(columns: Columns, tiles: np.ndarray) -> _Uses:
    found = [np.empty((0, 3), np.int64)]
    for signature, rows, starts in columns.uses():
        for operand in signature.operands:
            if operand.type.region is MemoryRegion.psum:
                used = columns.code[starts + operand.word]
                mine = tiles[used]
                found.append(np.column_stack([rows[mine], used[mine], np.full(mine.sum(), operand.writes)]))
    table = np.concatenate(found)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return _Uses(table[:, 0].tolist(), table[:, 1].tolist(), (table[:, 2] > 0).tolist())


def _leaving(program: Program, uses: _Uses) -> dict[int, int]:
    """The tiles that leave, with the instruction that completes each; empty if they cannot."""
    complete: dict[int, int] = {}
    when: dict[int, list[int]] = {}  # by tile: its instructions
    for instruction, tile, writes in zip(*uses, strict=True):
        when.setdefault(tile, []).append(instruction)
        if writes:
            complete[tile] = instruction
    sizes = {tile: program.buffers[tile].partition_bytes for tile in when}
    leaving: dict[int, int] = {}
    live: dict[int, None] = {}
    for instruction, tile in zip(uses.instructions, uses.tiles, strict=True):
        if tile in leaving:
            continue
        for gone in [t for t in live if when[t][-1] < instruction]:
            del live[gone]
        if tile not in live:
            while sum(sizes[t] for t in live) + sizes[tile] > program.target.psum_partition_bytes:
                next_use = {t: when[t][bisect_left(when[t], instruction)] for t in live}
                ready = [t for t, n in next_use.items() if n > instruction and complete.get(t, n) < instruction]
                if not ready:
                    return {}
                victim = max(ready, key=next_use.__getitem__)
                if len(when[victim]) - bisect_right(when[victim], complete[victim]) > 1:
                    leaving[victim] = complete[victim]
                del live[victim]
            live[tile] = None
    return leaving


def _moved(program: Program, columns: Columns, leaving: dict[int, int]) -> Program:
    """The program with copies of these tiles, for all who read them when they are complete."""
    given, program = program, copied(program)
    program.buffers, program.open_engines = list(program.buffers), set(program.open_engines)
    copies: dict[int, list[int]] = {}  # by the instruction that completes tiles
    clones: dict[int, int] = {}
    for tile, instruction in leaving.items():
        bank = program.buffers[tile]
        clone = program.add_buffer(
            MemoryRegion.sbuf, bank.shape, bank.dtype, bank.name, BufferKind.internal, location=bank.location
        )
        clones[tile] = clone.id
        place = program.code[int(columns.starts[instruction]) + 1]
        to, source = View(clone.type, (clone.id, 0)), View(bank.type, (tile, 0))
        copies.setdefault(instruction, []).extend(
            words(program, "tensor_copy", place, dst=to, src=source, engine=Engine.vector)
        )
    for signature, rows, starts in columns.uses():
        for operand in signature.operands:
            if operand.writes or operand.type.region is not MemoryRegion.psum:
                continue
            for row, start in zip(rows.tolist(), starts.tolist(), strict=True):
                tile = program.code[start + operand.word]
                if row > leaving.get(tile, row):
                    kind = operand.type
                    own = program.signatures[program.code[start]]  # another operand may have moved
                    there = ViewType.of(MemoryRegion.sbuf, kind.dtype, kind.shape, kind.strides)
                    found = changed(program, own, operand.name, there)
                    if found is None:
                        return given
                    if own.id in program.open_engines:
                        program.open_engines.add(found.id)
                    program.code[start], program.code[start + operand.word] = found.id, clones[tile]
    starts = columns.starts
    splice(program, {
        int(starts[i]): [*program.code[int(starts[i]):_end(program, int(starts[i]))], *more]
        for i, more in copies.items()
    })
    return program


def _end(program: Program, start: int) -> int:
    return start + program.signatures[program.code[start]].n_words
