"""Spill tiles to HBM, as the vendor's compiler does where a program that it manages does not fit on chip.

When a tile needs room, the resident tile that is needed again last makes room: it is written to HBM if it holds what is
nowhere else, and loaded again, into a tile of its own, before its next use. What was loaded from a tensor that nothing
writes is loaded from there again.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from nkilite.ir.columns import Columns
from nkilite.ir.loops import has_loops
from nkilite.ir.program import Program
from nkilite.ir.types import BufferKind, MemoryRegion
from nkilite.location import Location
from nkilite.passes.allocate import SBUF_ALIGN
from nkilite.passes.splice import View, assemble
from nkilite.profiling.oversubscribe import fits
from nkilite.profiling.rewrite import copied

__all__ = ["Spills", "spilled"]

# Of SBUF that live tiles fill together: as much as leaves them room to use its bytes in turn, so that transfers
# overlap; more only where one instruction needs it. Source: the bytes that profiles of NKIBench's kernels spill.
_SHARES = (0.8, 0.7, 0.6, 0.5)
_LAST_SHARES = (0.8, 0.9, 0.95, 1.0)


class Spills(NamedTuple):
    """What does not fit on chip and goes through HBM.

    Attributes:
        saved_bytes, reloaded_bytes: written to HBM, and read again.
        tiles: (where it is made, bytes moved) of every tile that made room, by source line, the most first.
    """

    saved_bytes: int
    reloaded_bytes: int
    tiles: tuple[tuple[Location, int], ...]


def spilled(program: Program) -> tuple[Program, Spills] | None:
    """The program with the transfers of a compiler that spills, and its addresses; None where that is not modelled: of
    programs with loops of the device or tiles of fixed addresses, and where one instruction's tiles do not fit."""
    if has_loops(program) or any(b.address is not None for b in program.buffers):
        return None
    for share, in_turn in [*((share, True) for share in _SHARES), *((share, False) for share in _LAST_SHARES)]:
        spiller = _Spiller(program, int(share * program.target.sbuf_fmax_bytes))
        if spiller.run() and fits(spiller.program, in_turn):
            return spiller.program, spiller.spills()
    return None


def together(spills: Sequence[Spills | None]) -> Spills | None:
    """What all cores spill; None if none does."""
    some = [each for each in spills if each is not None]
    traffic: Counter[Location] = Counter()
    for each in some:
        traffic.update(dict(each.tiles))
    saved, reloaded = sum(each.saved_bytes for each in some), sum(each.reloaded_bytes for each in some)
    return Spills(saved, reloaded, tuple(traffic.most_common())) if some else None


class _Spiller:
    """Rewrites a straight-line program to use no more than so many bytes of an SBUF partition."""

    def __init__(self, program: Program, capacity: int) -> None:
        self.program = copied(program)
        self.program.buffers = list(program.buffers)
        self._capacity, self._used = capacity, 0
        columns = Columns.of(program)
        self._code, self._starts = program.code.tolist(), columns.starts.tolist()
        self._plans = [
            [(o.word, o.writes) for o in s.operands if o.type.region is MemoryRegion.sbuf] for s in program.signatures
        ]
        self._uses: dict[int, list[int]] = {}  # by tile, the instructions, the last one first
        self._writers: Counter[int] = Counter()
        self._written_in_hbm: set[int] = set()
        for i, start in enumerate(self._starts):
            signature = program.signatures[self._code[start]]
            for operand in signature.operands:
                buffer = self._code[start + operand.word]
                if operand.type.region is MemoryRegion.sbuf:
                    self._uses.setdefault(buffer, []).append(i)
                    self._writers[buffer] += operand.writes
                elif operand.writes and not operand.type.region.on_chip:
                    self._written_in_hbm.add(buffer)
        for uses in self._uses.values():
            uses.reverse()
        self._now: dict[int, int] = {}  # the resident tiles, and the buffers they are in now
        self._dirty: set[int] = set()  # tiles that hold what is nowhere in HBM
        self._saved: dict[int, int] = {}  # their buffers in HBM
        self._loads: dict[int, list[int]] = {}  # of tiles that are loaded and not changed: the words that load them
        self._latest: list[tuple[int, int]] = []  # (- next use, tile), some out of date
        self._out = array("q")
        self._moved: list[int] = []  # the new index of every instruction
        self._count = 0
        self._traffic: Counter[Location] = Counter()
        self._saves = self._reloads = 0

    def run(self) -> bool:
        """Rewrite the program; whether the tiles of every instruction fit together."""
        for i, start in enumerate(self._starts):
            end = self._starts[i + 1] if i + 1 < len(self._starts) else len(self._code)
            words = self._code[start:end]
            plan = self._plans[words[0]]
            tiles = dict.fromkeys(words[word] for word, _ in plan)
            for tile in tiles:
                if tile not in self._now and not self._bring(tile, tiles, words[1]):
                    return False
            origin = self._is_load(words)
            for word, writes in plan:
                tile = words[word]
                words[word] = self._now[tile]
                if origin:
                    self._loads[tile] = list(words)
                elif writes:
                    self._dirty.add(tile)
            self._emit(words)
            self._moved.append(self._count - 1)
            for tile in tiles:
                uses = self._uses[tile]
                while uses and uses[-1] <= i:
                    uses.pop()
                if uses:
                    heappush(self._latest, (-uses[-1], tile))
                else:
                    self._leave(tile)
        program = self.program
        program.code, program.count = self._out, self._count
        program.names = {self._moved[i]: name for i, name in program.names.items()}
        program.dependencies = [(self._moved[a], self._moved[b]) for a, b in program.dependencies]
        return True

    def spills(self) -> Spills:
        """What has been moved."""
        return Spills(self._saves, self._reloads, tuple(self._traffic.most_common()))

    def _bring(self, tile: int, needed: dict[int, None], where: int) -> bool:
        """Make room for a tile, and bring back what it held."""
        size = self._size(tile)
        while self._used + size > self._capacity:
            victim = self._victim(needed)
            if victim is None:
                return False
            self._evict(victim, where)
        self._used += size
        buffers = self.program.buffers
        if tile in self._saved:
            self._now[tile] = self._clone(tile)
            self._copy(self._now[tile], self._saved[tile], where)
        elif tile in self._loads:
            self._now[tile] = self._clone(tile)
            words = [*self._loads[tile]]
            (word, _), = self._plans[words[0]]
            words[word], words[1] = self._now[tile], where
            self._emit(words)
        else:
            self._now[tile] = tile
            return True
        self._reloads += buffers[tile].size_bytes
        self._traffic[buffers[tile].location] += buffers[tile].size_bytes
        return True

    def _victim(self, needed: dict[int, None]) -> int | None:
        """The resident tile that is needed again last."""
        kept = []
        found = None
        while self._latest and found is None:
            entry = heappop(self._latest)
            tile = entry[1]
            if tile in self._now and self._uses[tile] and self._uses[tile][-1] == -entry[0]:
                if tile in needed:
                    kept.append(entry)
                else:
                    found = tile
        for entry in kept:
            heappush(self._latest, entry)
        return found

    def _evict(self, tile: int, where: int) -> None:
        if tile in self._dirty:
            self._dirty.discard(tile)
            self._loads.pop(tile, None)
            original = self.program.buffers[tile]
            if tile not in self._saved:
                self._saved[tile] = self.program.add_buffer(
                    MemoryRegion.private_hbm, original.shape, original.dtype, f"{original.name} spilled".strip(),
                    location=original.location,
                ).id
            self._copy(self._saved[tile], self._now[tile], where)
            self._saves += original.size_bytes
            self._traffic[original.location] += original.size_bytes
        self._leave(tile)

    def _leave(self, tile: int) -> None:
        del self._now[tile]
        self._used -= self._size(tile)

    def _is_load(self, words: list[int]) -> bool:
        """Whether an instruction is all that ever fills a tile, from a tensor that nothing writes."""
        signature = self.program.signatures[words[0]]
        if signature.name != "dma_copy" or any(o.type.indirection for o in signature.operands):
            return False
        dst, src = signature.operand("dst"), signature.operand("src")
        tile = words[dst.word]
        return (
            dst.type.region is MemoryRegion.sbuf and not src.type.region.on_chip and self._writers[tile] == 1
            and words[src.word] not in self._written_in_hbm and dst.type.size == self.program.buffers[tile].type.size
        )

    def _clone(self, tile: int) -> int:
        original = self.program.buffers[tile]
        return self.program.add_buffer(
            original.region, original.shape, original.dtype, original.name, BufferKind.internal,
            location=original.location,
        ).id

    def _copy(self, dst: int, src: int, where: int) -> None:
        """Copy all of a buffer to another one."""
        to, source = (View(self.program.buffers[id].type, (id, 0)) for id in (dst, src))
        self._emit(assemble(self.program, "dma_copy", where, dst=to, src=source))

    def _emit(self, words: list[int]) -> None:
        self._out.extend(words)
        self._count += 1

    def _size(self, tile: int) -> int:
        result: int = -(-self.program.buffers[tile].partition_bytes // SBUF_ALIGN) * SBUF_ALIGN
        return result
