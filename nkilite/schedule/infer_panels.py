"""Decide which SBUF tiles lie in panels: those that only matmuls read, and that every access knows how to reach."""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import numpy as np

from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.program import Operand, Signature
from nkilite.ir.regions import joined
from nkilite.ir.types import MemoryRegion
from nkilite.schedule.panels import PAIR, TILE_DTYPES, TILE_ROWS, WIDTH, Feed
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.strips import panel_targets


class InferPanels:
    """Fill `panels` with what the matmuls make of each tile that can lie in panels.

    Tiles that still have an explicit address alias others and stay in rows. A tile read both as stationary and as
    moving operand has no order that suits the tile unit for both.
    """

    def run(self, schedule: Schedule) -> Schedule:
        schedule.panels = feeds(schedule)
        return schedule


def feeds(schedule: Schedule) -> dict[int, Feed]:
    """By buffer, what the matmuls make of each tile that can lie in panels, given those that are one row for all."""
    accesses = [(a, starts) for s, _, starts in Columns.of(schedule.program).uses() for a in _accesses(s)]
    if not any(access.suits and not access.operand.writes for access, _ in accesses):
        return {}  # nothing reads them
    uses = _Uses(schedule)
    for access, starts in accesses:
        uses.add(access, starts)
    return uses.feeds()


def _eligible(schedule: Schedule) -> np.ndarray:
    buffers = BufferColumns.of(schedule.program)
    holds = buffers.which(lambda kind: kind.region is MemoryRegion.sbuf and kind.dtype.is_float and kind.free_bytes > 0)
    found: np.ndarray = holds & buffers.internal & ~buffers.fixed & ~buffers.chosen(schedule.broadcast)
    return found


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


class _Uses:
    """What has been seen of the accesses to every buffer."""

    def __init__(self, schedule: Schedule) -> None:
        program = schedule.program
        self._buffers = BufferColumns.of(program)
        self._code = Columns.of(program).code
        self._eligible = _eligible(schedule)  # as long as every access can be to panels
        self._roles, self._exact = np.zeros((2, len(program.buffers)), np.int64)  # sets of bits
        self._names: dict[str, int] = {}  # the bits of operands of the matmuls that read it
        self._step = np.full(len(program.buffers), TILE_ROWS)  # every view begins and ends at a multiple of it
        self._written = np.zeros(len(program.buffers), bool)

    def add(self, access: _Access, starts: np.ndarray) -> None:
        """Take note of an operand of the instructions at some word positions."""
        kind, size = access.operand.type, access.operand.type.dtype.itemsize
        used, offsets = self._code[starts + access.word], self._code[starts + access.word + 1] // size
        columns = np.maximum(self._buffers.row_bytes[used] // size, 1)
        runs = free_runs(kind.shape[1:], kind.strides[1:])
        dense = runs[-1][1] == 1 and not any(s % WIDTH for _, s in runs[:-1])
        fits = np.full(len(used), access.suits and dense and (access.operand.writes or len(runs) == 1))
        fits &= self._buffers.which(lambda whole: whole.dtype == kind.dtype)[used] & (offsets % columns % WIDTH == 0)
        if kind.shape[0] > 1:
            fits &= columns == kind.strides[0]
        self._eligible[used[~fits]] = False
        np.minimum.at(self._step, used, np.gcd(offsets // columns, gcd(kind.shape[0], TILE_ROWS)))
        if access.operand.writes:
            self._written[used] = True
        else:
            self._roles[used] |= self._names.setdefault(access.operand.name, 1 << len(self._names))
            self._exact[used] |= 1 + access.exact

    def feeds(self) -> dict[int, Feed]:
        """What the matmuls make of the buffers that can lie in panels."""
        found = self._eligible & self._written & np.isin(self._exact, (1, 2))
        return {id: self._feed(id) for id in np.flatnonzero(found).tolist()}

    def _feed(self, id: int) -> Feed:
        if self._exact[id] == 1:
            return Feed.vectors
        roles = [name for name, bit in self._names.items() if self._roles[id] & bit]
        if self._step[id] % PAIR:
            return Feed.odd
        return Feed(*roles) if self._step[id] == TILE_ROWS and len(roles) == 1 else Feed.pairs


def free_runs(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """Free dimensions as (count, stride) in as few as possible, the last of stride 1 if the elements are neighbours."""
    runs = joined(zip(shape, strides, strict=True))
    return runs if runs and runs[-1][1] == 1 else [*runs, (1, 1)]
