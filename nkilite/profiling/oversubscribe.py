"""Addresses for a program whose tiles do not fit, so that it can still be timed.

The vendor's compiler spills tiles to HBM when they do not fit; nkilite reports an error. A profile goes on: each memory
that overflows is handed out as a ring, so that a new tile waits for the tiles it overwrites. Reloading those that are
used again is not counted, so the result is a lower bound, and says so.
"""

from __future__ import annotations

from nkilite.errors import MemoryOverflow
from nkilite.ir.program import Program
from nkilite.ir.types import MemoryRegion
from nkilite.passes.allocate import Allocate
from nkilite.passes.liveness import lifetimes


def allocate(program: Program) -> MemoryOverflow | None:
    """Place the program's tiles; returns what did not fit, or None.

    Raises:
        MemoryOverflow: a single tile is larger than its memory.
    """
    try:
        Allocate(strict=True).run(program)
    except MemoryOverflow as overflow:
        for region in (MemoryRegion.sbuf, MemoryRegion.psum):
            _ring(program, region, overflow)
        return overflow
    return None


def fits(program: Program, in_turn: bool = False) -> bool:
    """Place the program's tiles if they fit; returns whether they do.

    Args:
        in_turn: SBUF has to have room for tiles to use its bytes in turn, so that they do not wait for each other.
    """
    before, placing = dict(program.addresses), Allocate(strict=True)
    try:
        placing.run(program)
    except MemoryOverflow:
        program.addresses = before
        return False
    if in_turn and placing.policies.get(MemoryRegion.sbuf) != "spread":
        program.addresses = before
        return False
    return True


def _ring(program: Program, region: MemoryRegion, overflow: MemoryOverflow) -> None:
    target = program.target
    capacity = target.psum_partition_bytes if region is MemoryRegion.psum else target.sbuf_fmax_bytes
    grain = target.psum_bank_bytes if region is MemoryRegion.psum else 32
    first = lifetimes(program).first
    at = 0
    tiles = [b for b in program.buffers if b.region is region and first[b.id] >= 0]
    for tile in sorted(tiles, key=lambda b: first[b.id]):
        if tile.address is not None:
            program.addresses[tile.id] = tile.address
            continue
        size = -(-tile.partition_bytes // grain) * grain
        if tile.partition_bytes > capacity:
            raise overflow
        if at + tile.partition_bytes > capacity:
            at = 0
        program.addresses[tile.id] = (0, at)
        at += size
