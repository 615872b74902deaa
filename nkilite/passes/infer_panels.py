"""Decide which SBUF tiles lie in panels: those that only matmuls read, and that every access knows how to reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from nkilite.ir.panels import TILE_DTYPES, TILE_ROWS, WIDTH, Feed
from nkilite.ir.program import Operand, Program, Signature
from nkilite.ir.types import Buffer, BufferKind, MemoryRegion
from nkilite.passes.strips import panel_targets


class InferPanels:
    """Fill `program.panels` with what the matmuls make of each tile that can lie in panels.

    Tiles with an explicit address may alias others and stay in rows. A tile read both as stationary and as moving
    operand has no order that suits the tile unit for both.
    """

    def run(self, program: Program) -> Program:
        buffers, code = program.buffers, program.code
        uses = [_Uses() if _eligible(b) and b.id not in program.uniform else None for b in buffers]
        accesses = [_accesses(s) for s in program.signatures]
        widths = [s.n_words for s in program.signatures]
        start = 0
        for _ in range(program.count):
            number = code[start]
            for access in accesses[number]:
                id = code[start + access.word]
                use = uses[id]
                if use is None:
                    continue
                key = number, access.word, code[start + access.word + 1]
                if key not in use.seen:
                    use.seen.add(key)
                    if not use.add(access, buffers[id], key[2]):
                        uses[id] = None
            start += widths[number]
        found = {id: use for id, use in enumerate(uses) if use is not None and use.roles and use.written}
        program.panels = {id: use.feed() for id, use in found.items()}
        return program


def _eligible(buffer: Buffer) -> bool:
    return (
        buffer.region is MemoryRegion.sbuf
        and buffer.kind is BufferKind.internal
        and buffer.address is None
        and buffer.dtype.is_float
        and buffer.partition_bytes > 0
    )


class _Access(NamedTuple):
    """An operand of a signature, and whether it can be in panels.

    Attributes:
        exact: the tile unit multiplies both operands of the matmul that reads it.
    """

    word: int
    operand: Operand
    suits: bool
    exact: bool


def _accesses(signature: Signature) -> list[_Access]:
    suited = signature.definition.rules.get("panels", panel_targets)(signature)
    reads = [o for o in signature.operands if o.name in suited and o.reads]
    exact = all(o.type.dtype in TILE_DTYPES for o in reads)
    return [
        _Access(o.word, o, o.name in suited and o.type.indirection is None, exact)
        for o in signature.operands if o.type.region is MemoryRegion.sbuf
    ]


@dataclass
class _Uses:
    """What has been seen of a buffer's accesses."""

    roles: set[str] = field(default_factory=set)  # operand names of the matmuls that read it
    exact: set[bool] = field(default_factory=set)
    aligned: bool = True  # to the partitions of a tile register
    written: bool = False
    seen: set[tuple[int, int, int]] = field(default_factory=set)

    def add(self, access: _Access, buffer: Buffer, offset: int) -> bool:
        """Take note of an access at a byte offset; False if it cannot be to panels."""
        kind = access.operand.type
        if not access.suits or kind.dtype != buffer.dtype:
            return False
        size = kind.dtype.itemsize
        columns = buffer.partition_bytes // size
        partition, column = divmod(offset // size, columns)
        if column % WIDTH or (kind.shape[0] > 1 and kind.strides[0] != columns):
            return False
        runs = free_runs(kind.shape[1:], kind.strides[1:])
        if any(s % WIDTH for _, s in runs[:-1]) or runs[-1][1] != 1:
            return False
        self.aligned &= partition % TILE_ROWS == kind.shape[0] % TILE_ROWS == 0
        if access.operand.writes:
            self.written = True
            return True
        self.roles.add(access.operand.name)
        self.exact.add(access.exact)
        return len(runs) == 1 and len(self.exact) == 1

    def feed(self) -> Feed:
        if self.exact == {False}:
            return Feed.vectors
        return Feed(*self.roles) if self.aligned and len(self.roles) == 1 else Feed.tiles


def free_runs(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """Free dimensions as (count, stride) in as few as possible, the last of stride 1 if the elements are neighbours."""
    runs: list[tuple[int, int]] = []
    for n, stride in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if runs and runs[-1][1] == n * stride:
            runs[-1] = runs[-1][0] * n, stride
        else:
            runs.append((n, stride))
    return runs if runs and runs[-1][1] == 1 else [*runs, (1, 1)]
