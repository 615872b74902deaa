"""Put every on-chip buffer into the CPU arena: a compact region reused by liveness, or the window of fixed addresses.

Chip addresses decide what fits and what waits for what on the chip; on the CPU, tiles are compact and the memory
freed last is used next, because it is still in the cache. Tiles with an explicit address may alias each other, so they
live together in one window per memory that mirrors the chip's addresses.

The instructions of a group may run in another order than they are written in, so whatever one of them uses is taken
to be in use throughout the group.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nkilite.ir.panels import Panels, panels
from nkilite.ir.program import Program
from nkilite.ir.types import Buffer, BufferKind, MemoryRegion
from nkilite.machine.memory import Plan, Request, plan
from nkilite.passes.liveness import Lifetimes, lifetimes

ARENA = 0  # index of the arena among an executable's bases
_ALIGN = 64
_ALIASING = 4096  # rows this far apart compete for the same cache sets


class CpuBuffer(NamedTuple):
    """Where a buffer is: `bases[base] + offset`, in panels or in rows, one per partition, `pitch` bytes apart.

    A pitch of 0 says that all partitions are the same row.
    """

    base: int
    offset: int
    pitch: int
    panels: Panels | None = None


class CpuPlacement(NamedTuple):
    """A CpuBuffer per buffer id, the arena's size, and the buffers that are bases of their own, in base order."""

    buffers: list[CpuBuffer]
    arena_bytes: int
    external: list[Buffer]


def place(program: Program, tile_unit: bool = False) -> CpuPlacement:
    """Lay out all buffers of a program for a CPU with or without a unit that multiplies tiles."""
    first, last = _by_group(program, lifetimes(program))
    private = {id for group in program.groups for id in group.private}
    placed: list[CpuBuffer] = [CpuBuffer(ARENA, 0, 0)] * len(program.buffers)
    external: list[Buffer] = []
    windows: dict[MemoryRegion, int] = {}
    automatic: list[Buffer] = []
    for buffer in program.buffers:
        if not buffer.region.on_chip:
            external.append(buffer)
            placed[buffer.id] = CpuBuffer(len(external), 0, buffer.partition_bytes)
        elif buffer.address is not None:
            end = buffer.address[1] + buffer.partition_bytes
            windows[buffer.region] = max(windows.get(buffer.region, 0), end)
        elif first[buffer.id] >= 0 and buffer.id not in private:
            automatic.append(buffer)
    automatic.sort(key=lambda b: first[b.id])
    pitches = [0 if b.id in program.uniform else _pitch(b.partition_bytes, b.partitions) for b in automatic]
    packed = {id: panels(feed, program.buffers[id].partitions, tile_unit) for id, feed in program.panels.items()}

    def size(buffer: Buffer, pitch: int) -> int:
        found = packed.get(buffer.id)
        if found is not None:
            return found.size(buffer.partition_bytes // buffer.dtype.itemsize)
        return buffer.partitions * pitch or buffer.partition_bytes

    requests = [
        Request(size(b, pitch), first[b.id] if b.kind is not BufferKind.registers else 0,
                last[b.id] if b.kind is not BufferKind.registers else program.count)
        for b, pitch in zip(automatic, pitches, strict=True)
    ]
    result = plan(requests, capacity=None, align=_ALIGN, policy="reuse")
    assert isinstance(result, Plan)
    for buffer, pitch, offset in zip(automatic, pitches, result.offsets, strict=True):
        placed[buffer.id] = CpuBuffer(ARENA, offset, pitch, packed.get(buffer.id))
    end = -(-result.extent // _ALIGN) * _ALIGN
    for region, width in windows.items():
        pitch = _pitch(-(-width // _ALIGN) * _ALIGN, program.target.num_partitions)
        for buffer in program.buffers:
            if buffer.region is region and buffer.address is not None:
                partition, byte = buffer.address
                placed[buffer.id] = CpuBuffer(ARENA, end + partition * pitch + byte, pitch)
        end += program.target.num_partitions * pitch
    return CpuPlacement(placed, end, external)


def _by_group(program: Program, found: Lifetimes) -> Lifetimes:
    """Lifetimes that begin and end with the groups they begin and end in."""
    if not program.groups:
        return found
    firsts = np.arange(program.count)
    lasts = firsts.copy()
    for group in program.groups:
        firsts[group.first : group.first + group.size] = group.first
        lasts[group.first : group.first + group.size] = group.first + group.size - 1
    begins, ends = firsts.tolist(), lasts.tolist()
    return Lifetimes(
        [begins[i] if i >= 0 else i for i in found.first], [ends[i] if i >= 0 else i for i in found.last]
    )


def _pitch(row_bytes: int, rows: int) -> int:
    """Row pitch: compact, but never a multiple of the cache's aliasing distance."""
    return row_bytes + _ALIGN if rows > 1 and row_bytes and row_bytes % _ALIASING == 0 else row_bytes
