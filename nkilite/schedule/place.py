"""Put every on-chip buffer into the CPU arena: a compact region reused by liveness, or the window of fixed addresses.

Chip addresses decide what fits and what waits for what on the chip; on the CPU, tiles are compact and the memory
freed last is used next, because it is still in the cache. Tiles of equal rows, or equal panels, take it from each other
alone: a thread that has the same share of both then waits for no other one. Tiles that still have an explicit address
alias each other, so they live together in one window per memory that mirrors the chip's addresses.

The instructions of a group may run in another order than they are written in, so whatever one of them uses is taken
to be in use throughout the group.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nkilite.host.cpu import Products
from nkilite.host.memory import ALIASING, LINE
from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.types import Buffer, MemoryRegion
from nkilite.machine.memory import Plan, peak, plan
from nkilite.passes.liveness import accessed
from nkilite.schedule.panels import Panels, panels
from nkilite.schedule.schedule import Schedule

ARENA = 0  # index of the arena among an executable's bases

_LARGER = 2  # times the memory that is in use at once may be taken to keep kinds of tiles apart


class CpuBuffer(NamedTuple):
    """Where a buffer is: `bases[base] + offset`, in panels or in rows, one per partition, `pitch` bytes apart.

    A pitch of 0 says that all partitions are the same row.
    """

    base: int
    offset: int
    pitch: int
    panels: Panels | None = None


class CpuPlacement(NamedTuple):
    """Where all buffers are: arrays over their ids, and the panels of those that lie in panels.

    Attributes:
        external: the buffers that are bases of their own, in base order.
    """

    base: np.ndarray
    offset: np.ndarray
    pitch: np.ndarray
    panels: dict[int, Panels]
    arena_bytes: int
    external: list[Buffer]

    def of(self, buffer: int) -> CpuBuffer:
        """Where one buffer is."""
        base, offset, pitch = (int(of[buffer]) for of in (self.base, self.offset, self.pitch))
        return CpuBuffer(base, offset, pitch, self.panels.get(buffer))


def place(schedule: Schedule, products: Products = Products.vectors) -> CpuPlacement:
    """Lay out all buffers of a program for a CPU that multiplies bfloat16 in a way."""
    program = schedule.program
    facts = BufferColumns.of(program)
    first, last = _by_group(schedule, accessed(program, Columns.of(program)))
    base, offset, pitch = np.zeros((3, len(program.buffers)), np.int64)
    external = np.flatnonzero(~facts.on_chip)
    base[external] = np.arange(1, len(external) + 1)
    pitch[external] = facts.row_bytes[external]
    private = facts.chosen({id for group in schedule.groups for id in group.private})
    chosen = np.flatnonzero(facts.on_chip & ~facts.fixed & (first >= 0) & ~private)
    automatic = chosen[np.argsort(first[chosen], kind="stable")]
    pitch[automatic] = _pitch(facts.row_bytes, facts.partitions)[automatic]
    pitch[list(schedule.broadcast)] = 0
    sizes = np.maximum(facts.partitions * pitch, facts.row_bytes)
    kinds = pitch.copy()
    placed = set(automatic.tolist())
    packed: dict[int, Panels] = {}
    for id, feed in schedule.panels.items():
        buffer = program.buffers[id]
        found = panels(feed, buffer.partitions, products)
        if found is not None and id in placed:
            packed[id] = found
            sizes[id] = found.size(buffer.partition_bytes // buffer.dtype.itemsize)
            kinds[id] = -found.panel
    # What engines remember outlives everything, and so does what is noted of results.
    registers = facts.on_chip & ~facts.internal
    begins, ends = np.where(registers, 0, first), np.where(registers, program.count, last)
    requests = np.stack([sizes, begins, ends])[:, automatic].T
    offset[automatic], end = _offsets(requests, kinds[automatic])
    for region in (MemoryRegion.sbuf, MemoryRegion.psum):
        fixed = facts.fixed & facts.within(region)
        if fixed.any():
            width = int((facts.byte + facts.row_bytes)[fixed].max())
            pitch[fixed] = _pitch(np.array(-(-width // LINE) * LINE), np.array(program.target.num_partitions))
            offset[fixed] = (end + facts.partition * pitch + facts.byte)[fixed]
            end += program.target.num_partitions * int(pitch[fixed][0])
    return CpuPlacement(base, offset, pitch, packed, end, [program.buffers[id] for id in external.tolist()])


def _offsets(requests: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, int]:
    """Offsets of buffers, and the end of their memory; each kind has memory of its own if that takes little more."""
    offsets, end = np.zeros(len(kinds), np.int64), 0
    order = np.argsort(kinds, kind="stable")
    alike = np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1)
    for those in alike:
        result = plan(requests[those], capacity=None, align=LINE, policy="reuse")
        assert isinstance(result, Plan)
        offsets[those] = end + np.array(result.offsets, np.int64)
        end += -(-result.extent // LINE) * LINE
    if len(alike) > 1 and end > _LARGER * peak(requests, align=LINE):
        return _offsets(requests, np.zeros_like(kinds))
    return offsets, end


def _by_group(schedule: Schedule, found: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """First and last accesses of buffers, by groups: they begin and end with the groups they begin and end in."""
    firsts = np.arange(schedule.program.count + 1)
    lasts = firsts.copy()
    for group in schedule.groups:
        firsts[group.first : group.first + group.size] = group.first
        lasts[group.first : group.first + group.size] = group.first + group.size - 1
    first, last = found
    return np.where(first < 0, first, firsts[first]), np.where(last < 0, last, lasts[last])


def _pitch(row_bytes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Row pitches: compact, but never a multiple of the cache's aliasing distance."""
    aliasing = (rows > 1) & (row_bytes > 0) & (row_bytes % ALIASING == 0)
    pitch: np.ndarray = row_bytes + LINE * aliasing
    return pitch
