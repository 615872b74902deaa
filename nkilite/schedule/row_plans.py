"""How a run of instructions becomes a row group: blocks, scratch, what is read in place and what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from nkilite.host.memory import ALIASING, LINE, NEAR
from nkilite.schedule.column_loops import ColumnLoop, find_column_loops, held, nested, pipelined, row_bytes
from nkilite.schedule.lives import Own, large, never_read
from nkilite.schedule.panels import WIDTH
from nkilite.schedule.rows import Access, forwards, streamable
from nkilite.schedule.runs import Run, moves
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import (
    PARTS,
    Dim,
    Group,
    Loop,
    Nowhere,
    Op,
    Place,
    Prefetch,
    Register,
    Scratch,
    Source,
    Tree,
    Use,
)

_SCRATCH_BYTES = 256 << 10  # at most on a thread's stack
_LEAST_BYTES = 64 << 10  # a run that touches less is in the cache anyway
_LEAST_ALONE = 256 << 10  # the same of an instruction that is only cut up for threads
_PARTS = 8  # blocks at least, for as many threads
_EARLY = 1  # of `PARTS`, what the first readers of an HBM tensor fetch of the next block


class _Fetch(NamedTuple):
    """A member that fetches a part of an operand's next rows while it reads the operand."""

    member: int
    operand: int
    what: Prefetch


class Alike(NamedTuple):
    """Groups of the same signatures and of one tree; equal trees are the same object."""

    signatures: tuple[int, ...]
    tree: Tree
    groups: list[Group]


class Planner:
    """Decides how runs are written."""

    def __init__(self, schedule: Schedule) -> None:
        self._program = program = schedule.program
        self._own, self._large, self._never_read = Own(program), large(program), never_read(program)
        # Threads then have the same rows of matmuls, and of the panels in between, as of row groups.
        self._panels = any(g.tree.terms and g.tree.loop.dim is Dim.rows for g in schedule.groups)
        self._hbm = np.array(self._large) + 2 * np.array(self._never_read)
        # Private buffers are known by an access of the run that touches them.
        self._plans: dict[tuple[int, bytes], tuple[Tree, list[int]] | None] = {}
        self._trees: dict[Tree, Tree] = {}  # equal ones are one

    def groups(self, runs: Sequence[Run]) -> Iterator[Alike]:
        """The groups of runs, all the times they come, but for those whose instructions are better off on their own."""
        if not runs:
            return
        patterns = runs[0].finder.patterns
        touched, fates = patterns.touched, self._fates(runs)
        for run in runs:
            size = len(run.signatures)
            first = patterns.accesses(run.first, size)
            width = first.stop - first.start
            begin = 0
            while begin < run.count:
                at = first.start + begin * width
                end, fate = begin + 1, fates[at : at + width]
                while end < run.count and fates.startswith(fate, first.start + end * width):
                    end += 1
                key = run.pattern, fate
                if key not in self._plans:
                    self._plans[key] = self._made(run.times(begin, end), touched[at : at + width].tolist())
                found = self._plans[key]
                if found is not None:
                    tree, places = found
                    private = touched[at : at + (end - begin) * width].reshape(-1, width)[:, places].tolist()
                    firsts = range(run.first + begin * size, run.first + end * size, size)
                    groups = [Group(n, size, tree, tuple(own)) for n, own in zip(firsts, private, strict=True)]
                    yield Alike(run.signatures, tree, groups)
                begin = end

    def _made(self, run: Run, touched: list[int]) -> tuple[Tree, list[int]] | None:
        """The plan of a run, and by which of its accesses its private buffers are known."""
        if sum(s.bytes for s in run.shapes) * run.rows < (_LEAST_BYTES if len(run.shapes) > 1 else _LEAST_ALONE):
            return None
        tree, private = self._plan(run)
        return self._trees.setdefault(tree, tree), [touched.index(buffer) for buffer in private]

    def _fates(self, runs: Sequence[Run]) -> bytes:
        """What plans depend on beside the patterns of runs: for every access in them, a byte."""
        patterns = runs[0].finder.patterns
        first, size, count = np.array([(run.first, len(run.signatures), run.count) for run in runs], np.int64).T
        whole = size * count
        run = np.repeat(np.arange(len(runs)), whole)
        inside = np.arange(len(run)) - np.repeat(np.cumsum(whole) - whole, whole)
        begin = np.zeros(self._program.count, np.int64)
        end = begin.copy()
        instructions = first[run] + inside
        begin[instructions] = first[run] + inside // size[run] * size[run]
        end[instructions] = begin[instructions] + size[run]
        touched, own = patterns.touched, patterns.instruction
        private = (self._own.first[touched] >= begin[own]) & (self._own.last[touched] < end[own])
        found: np.ndarray = self._hbm[touched] + 4 * private
        return found.astype(np.uint8).tobytes()

    def _plan(self, run: Run) -> tuple[Tree, tuple[int, ...]]:
        """How a run is written, and the buffers that need no memory."""
        touched = _touched(run.accesses)
        dead = [b for b, accesses in touched.items() if self._dies(b, accesses, run)]
        sources = {b: m for b in dead if (m := self._load(touched[b], run)) is not None}
        rows = _rows_per_block(run, touched, sources)
        elided = set(sources.values())
        loops = find_column_loops(self._program, run, elided, sources)
        slots: list[int] = []
        homes: dict[int, Scratch | Register] = {}  # scratch of the byte at which a partition of the buffer begins
        space = _SCRATCH_BYTES
        for buffer in dead:
            if buffer in sources:
                continue
            if held(buffer, touched[buffer], loops):
                homes[buffer] = Register()
            else:
                low, width = _extent(touched[buffer])
                pitch = _pitch(width)
                if rows * pitch <= space:
                    space -= rows * pitch
                    homes[buffer] = Scratch(len(slots), -low)
                    slots.append(pitch)
        ops = [
            Op(m, tuple(Use(Nowhere() if a.operand.on_chip else None) for a in accesses), elided=True)
            if m in elided
            else Op(m, tuple(self._use(a, homes, sources, touched) for a in accesses))
            for m, accesses in enumerate(run.accesses)
        ]
        ahead = self._ahead(run, ops, loops)
        for member, operand, what in ahead:
            uses = list(ops[member].uses)
            uses[operand] = replace(uses[operand], prefetch=what)
            ops[member] = Op(member, tuple(uses))
        beside = self._beside(run, loops, ops, ahead, rows)
        each = WIDTH // rows if self._panels and WIDTH % rows == run.rows % WIDTH == 0 else 1
        tree = Tree(tuple(slots), (Loop(Dim.rows, run.rows, nested(ops, loops, beside), rows, each),))
        return tree, (*homes, *sources)

    def _use(
        self, access: Access, homes: dict[int, Scratch | Register], sources: dict[int, int],
        touched: dict[int, list[Access]],
    ) -> Use:
        """An operand of a member that is not elided."""
        streams = access.operand.writes and self._never_read[access.buffer] and streamable(access)
        unread = access.buffer in homes and not any(o.operand.reads for o in touched[access.buffer])
        return Use(self._place(access, homes, sources, touched), nontemporal=streams, unread=unread)

    def _place(
        self, access: Access, homes: dict[int, Scratch | Register], sources: dict[int, int],
        touched: dict[int, list[Access]],
    ) -> Place | None:
        """Where an operand is, if not where its buffer is."""
        start = access.low - access.operand.low
        if access.buffer in homes:
            home = homes[access.buffer]
            return Scratch(home.slot, home.byte + start) if isinstance(home, Scratch) else home
        if access.buffer in sources:
            return Source(sources[access.buffer], start - _written(touched[access.buffer]).low)
        return None

    def _dies(self, buffer: int, accesses: list[Access], run: Run) -> bool:
        """Whether nothing outside the run needs a tile, and its rows are those of the run."""
        alone = self._own.by(buffer, run.first, run.first + len(run.signatures))
        return alone and len({(a.first, a.step) for a in accesses}) == 1

    def _load(self, accesses: Sequence[Access], run: Run) -> int | None:
        """The DMA load in whose place a tile's readers can read HBM; None if there is no such load."""
        load = accesses[0]
        signature = self._program.signatures[run.signatures[load.member]]
        if not load.operand.writes or load.operand.reads or sum(a.operand.writes for a in accesses) > 1:
            return None
        if not moves(run.shapes[load.member], True) or not signature.access.copies:
            return None
        found = all(forwards(run.accesses, load.member, read, run.rows) for read in accesses[1:])
        return load.member if found else None

    def _ahead(self, run: Run, ops: Sequence[Op], loops: Sequence[ColumnLoop]) -> list[_Fetch]:
        """Who fetches the next block of large HBM tensors: their last reader, and a little of it those before."""
        readers: dict[tuple[int, int], list[tuple[Access, int, int]]] = {}  # by the operand that is in HBM
        for op, accesses in zip(ops, run.accesses, strict=True):
            member = op.member
            for position, (access, use) in enumerate(zip(accesses, op.uses, strict=True)):
                origin = access
                if isinstance(use.place, Source):
                    (origin,) = (a for a in run.accesses[use.place.member] if not a.operand.writes)
                elif access.operand.on_chip or access.operand.writes or op.elided:
                    continue
                if self._large[origin.buffer] and origin.step:
                    readers.setdefault((origin.member, origin.operand.operand), []).append((access, member, position))
        found: list[_Fetch] = []
        for *earlier, (late, last, position) in readers.values():
            at = late.low
            for early, first, operand in earlier:
                together = first == last or any(s.first <= first and last < s.end for s in loops)  # read once
                if together or not early.operand.dense or early.low != at or early.high > late.high:
                    continue
                at = early.high
                apart = (late.low - early.low) * (PARTS - _EARLY) // PARTS
                found.append(_Fetch(first, operand, Prefetch(0, _EARLY, apart)))
            found.append(_Fetch(last, position, Prefetch(_EARLY, PARTS - _EARLY) if at > late.low else Prefetch()))
        return sorted(found, key=lambda fetch: fetch[:2])

    def _beside(
        self, run: Run, loops: Sequence[ColumnLoop], ops: Sequence[Op], ahead: Sequence[_Fetch], rows: int
    ) -> int | None:
        """The member that fetches from HBM, if the last loop stores there afterwards: memory can do both at once."""
        if not loops or not ahead or rows == run.rows:
            return None
        last, member = loops[-1], ahead[-1].member
        ends = all(op.member < last.end or op.elided for op in ops)
        alike = last.flat and self._program.signatures[run.signatures[member]].sweep == last.columns
        if not (ends and alike) or member >= last.first or any(s.first <= member < s.end for s in loops):
            return None
        uses = [
            (op.member, use, a) for op in ops if not op.elided
            for use, a in zip(op.uses, run.accesses[op.member], strict=True)
        ]
        return member if pipelined(uses, member, last.first, last.columns) else None


def _touched(members: Iterable[Sequence[Access]]) -> dict[int, list[Access]]:
    """Accesses by buffer, in order."""
    found: dict[int, list[Access]] = {}
    for accesses in members:
        for access in accesses:
            found.setdefault(access.buffer, []).append(access)
    return found


def _extent(accesses: list[Access]) -> tuple[int, int]:
    """First byte and bytes of a row of scratch that holds a tile."""
    low = min(a.low for a in accesses)
    low -= low % LINE
    return low, max(a.high for a in accesses) - low


def _written(accesses: list[Access]) -> Access:
    return next(a for a in accesses if a.operand.writes)


def _rows_per_block(run: Run, touched: dict[int, list[Access]], sources: dict[int, int]) -> int:
    """The largest divisor of the rows with which a block stays in the cache."""
    least = max(s.least for s in run.shapes)
    most = max(least, min(NEAR // row_bytes(touched, sources), -(-run.rows // _PARTS)))
    if run.rows <= most:
        return run.rows
    rows = next(n for n in range(most, 0, -1) if run.rows % n == 0)
    return rows if rows >= least else run.rows


def _pitch(row_bytes: int) -> int:
    """Row pitch of scratch: whole cache lines, but never a multiple of the distance at which rows compete for them."""
    pitch = -(-row_bytes // LINE) * LINE
    return pitch + LINE if pitch % ALIASING == 0 else pitch
