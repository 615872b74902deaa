"""Let a few partitions at a time go through a run of instructions while they are in the cache nearest to the core.

Instructions that work by row (nkilite/passes/rows.py) and follow each other can be interchanged with the loop over
blocks of rows, as long as a row of one only ever meets the same row of another. What is kept in a tile that dies in
the run then needs a block of rows of scratch memory instead of the tile's, a tile that a DMA only loads need not be
filled at all, and results go to HBM past the caches.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from nkilite import knobs
from nkilite.ir.group import Forwarded, Group, RowPlan, Scratch, Segment
from nkilite.ir.program import Program, Signature
from nkilite.ir.types import BufferKind, MemoryRegion
from nkilite.passes.liveness import Lifetimes, lifetimes
from nkilite.passes.rows import Access, Rows, RowShape, keep_to_rows, meet, row_shape

_BLOCK_BYTES = 64 << 10  # of a block of rows that goes through a run: fits a large L1 or a corner of L2
_ROW_LIMIT = 512 << 10  # of a block with the fewest rows a run is efficient with
_SCRATCH_BYTES = 256 << 10  # at most on a thread's stack
_LEAST_BYTES = 64 << 10  # a run that touches less is in the cache anyway
_LEAST_ALONE = 256 << 10  # the same of an instruction that is only cut up for threads
_LONGEST = 64  # members
_PARTS = 8  # blocks at least, for as many threads
_LARGE = 4 << 20  # HBM buffers of which little is left in the caches when it is needed again
_STREAMED_ROW = 1 << 10  # bytes a row must have to be stored past the caches
_PIECE_BYTES = 8 << 10  # of the columns that go through a segment at a time; measured to be best
_LEAST_PIECE, _MOST_PIECE = 256, 2048  # columns
_ALIGN, _ALIASING = 64, 4096
_BUDGET = 96  # members of distinct groups that are always compiled


class Fuse:
    """Group runs of instructions that work by row; leaves those of other groups alone."""

    def run(self, program: Program) -> Program:
        if not knobs.fuse():
            return program
        runs = _with_common_ends(list(_runs(program)))
        planner = _Planner(program)
        found = [group for run in runs if (group := planner.group(run)) is not None]
        groups = _affordable(program, found)
        program.groups = sorted([*program.groups, *groups])
        return program


class _Run(NamedTuple):
    """Instructions that may be fused: index of the first one, and for each its signature, word position and shape."""

    first: int
    signatures: tuple[int, ...]
    starts: tuple[int, ...]
    shapes: tuple[RowShape, ...]
    accesses: tuple[tuple[Access, ...], ...]

    @property
    def rows(self) -> int:
        return self.shapes[0].rows

    def part(self, begin: int, end: int) -> _Run:
        moved = tuple(tuple(a._replace(member=a.member - begin) for a in one) for one in self.accesses[begin:end])
        return _Run(
            self.first + begin, self.signatures[begin:end], self.starts[begin:end], self.shapes[begin:end], moved
        )


# --- runs ---------------------------------------------------------------------------------------------------


def _runs(program: Program) -> Iterator[_Run]:
    """The longest runs of instructions that may be interchanged with their rows, cut where a new piece of work begins.

    A piece of work begins with a load after a store to HBM.
    """
    shapes = [row_shape(s) for s in program.signatures]
    loads = [_moves(shape, True) for shape in shapes]
    stores = [_moves(shape, False) for shape in shapes]
    taken = {i for g in program.groups for i in range(g.first, g.first + g.size)}
    widths = [s.n_words for s in program.signatures]
    reader = Rows(program)
    code = program.code
    growing = _Growing()
    start = 0
    for index in range(program.count):
        signature = code[start]
        shape = shapes[signature]
        packed = shape is not None and any(code[start + o.word] in program.panels for o in shape.operands)
        if shape is None or index in taken or packed:
            if growing.size:
                yield growing.end()
        else:
            if growing.stored and loads[signature]:
                yield growing.end()
            accesses = reader.accesses(shape, growing.size, start)
            if growing.size and not growing.takes(shape, accesses):
                yield growing.end()
                accesses = reader.accesses(shape, 0, start)
            if not reader.writes_uniform(accesses):
                growing.add(index, signature, start, shape, accesses)
                growing.stored |= stores[signature]
            elif growing.size:
                yield growing.end()
        start += widths[signature]
    if growing.size:
        yield growing.end()


def _moves(shape: RowShape | None, load: bool) -> bool:
    """Whether a signature moves data from HBM to the chip (load) or from the chip to HBM."""
    if shape is None:
        return False
    return any(not o.on_chip and o.reads == load for o in shape.operands) and any(
        o.on_chip and o.writes == load for o in shape.operands
    )


class _Growing:
    """A run that is being put together."""

    def __init__(self) -> None:
        self.size = 0
        self.stored = False
        self._first = 0
        self._least = self._bytes = 0
        self._members: list[tuple[int, int, RowShape, tuple[Access, ...]]] = []
        self._by_space: dict[int, dict[tuple, Access]] = {}

    def takes(self, shape: RowShape, accesses: list[Access]) -> bool:
        """Whether one more instruction keeps the run legal and of reasonable size."""
        rows = self._members[0][2].rows
        if shape.rows != rows or self.size >= _LONGEST:
            return False
        least = max(shape.least, self._least)
        if least > 1 and least * (shape.bytes + self._bytes) > _ROW_LIMIT:
            return False
        for access in accesses:
            known = self._by_space.get(access.space)
            if known is not None:
                writes = access.operand.writes
                for other in known.values():
                    if (writes or other.operand.writes) and not keep_to_rows(access, other, rows):
                        return False
        return True

    def add(self, index: int, signature: int, start: int, shape: RowShape, accesses: list[Access]) -> None:
        if not self.size:
            self._first = index
        self._members.append((signature, start, shape, tuple(accesses)))
        self.size += 1
        self._least = max(self._least, shape.least)
        self._bytes += shape.bytes
        for access in accesses:
            self._by_space.setdefault(access.space, {})[access[1:]] = access

    def end(self) -> _Run:
        """The finished run; begins the next."""
        signatures, starts, shapes, accesses = zip(*self._members, strict=True)
        first = self._first
        self.__init__()  # type: ignore[misc]
        return _Run(first, signatures, starts, shapes, accesses)


def _with_common_ends(runs: list[_Run]) -> list[_Run]:
    """Cut what precedes the first of several equal runs, such as the set-up of a kernel, off it."""
    result: list[_Run] = []
    for run, following in itertools.zip_longest(runs, runs[1:]):
        size = len(run.signatures)
        tail = 0 if following is None else len(following.signatures)
        if following is not None and 1 < tail < size and run.signatures[-tail:] == following.signatures:
            result += [run.part(0, size - tail), run.part(size - tail, size)]
        else:
            result.append(run)
    return result


# --- plans --------------------------------------------------------------------------------------------------


class _Planner:
    """Decides how runs are written."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._lifetimes: Lifetimes = lifetimes(program)
        read = set()
        words = [tuple(o.word for o in s.operands if o.reads and not o.type.region.on_chip) for s in program.signatures]
        code = program.code
        for start in program.starts():
            for word in words[code[start]]:
                read.add(code[start + word])
        self._large = [not b.region.on_chip and b.size_bytes >= _LARGE for b in program.buffers]
        self._never_read = [large and i not in read for i, large in enumerate(self._large)]
        self._scratchable = [
            b.region.on_chip and b.address is None and b.kind is BufferKind.internal for b in program.buffers
        ]
        self._plans: dict[tuple, tuple[RowPlan, tuple[int, ...]]] = {}
        self._private: dict[tuple, list[int]] = {}  # of a plan, by the order in which a run meets buffers

    def group(self, run: _Run) -> Group | None:
        """The group of a run, or None if its instructions are better off on their own."""
        if sum(s.bytes for s in run.shapes) * run.rows < (_LEAST_BYTES if len(run.shapes) > 1 else _LEAST_ALONE):
            return None
        numbers, key = self._pattern(run)
        found = self._plans.get(key)
        if found is None:
            found = self._plans[key] = self._plan(run)
            order = {buffer: number for number, buffer in enumerate(numbers)}
            self._private[key] = [order[b] for b in found[1]]
        buffers = list(numbers)
        return Group(run.first, len(run.signatures), found[0], tuple(buffers[n] for n in self._private[key]))

    def _pattern(self, run: _Run) -> tuple[dict[int, int], tuple]:
        """The buffers of a run with where it first meets them, and what runs of the same plan have in common."""
        numbers: dict[int, int] = {}
        order: dict[int, int] = {}
        parts: list[object] = [run.signatures]
        first, end = run.first, run.first + len(run.signatures)
        for accesses in run.accesses:
            for a in accesses:
                buffer = a.buffer
                if buffer not in numbers:
                    order[buffer] = len(numbers)
                    numbers[buffer] = 0 if a.operand.on_chip else a.low
                    inside = self._lifetimes.first[buffer] >= first and self._lifetimes.last[buffer] < end
                    parts += (self._large[buffer], self._never_read[buffer], inside and self._scratchable[buffer])
                parts += (order[buffer], a.low - numbers[buffer], a.first, a.step)
        return numbers, tuple(parts)

    def _plan(self, run: _Run) -> tuple[RowPlan, tuple[int, ...]]:
        """How a run is written, and the buffers that need no memory."""
        dead = {b: a for b, a in _touched(run.accesses).items() if self._dies(b, a, run)}
        idle = _idle(run, dead)
        touched = _touched([() if i in idle else accesses for i, accesses in enumerate(run.accesses)])
        forwarded = {b: m for b in dead if b in touched and (m := self._load(touched[b], touched, run)) is not None}
        rows = _rows_per_block(run, touched, forwarded)
        skipped = idle | set(forwarded.values())
        segments = _segments(self._program, run, skipped, rows, touched)
        slots: list[int] = []
        homes: dict[int, Scratch] = {}  # of the byte at which a partition of the buffer begins
        space = _SCRATCH_BYTES
        for buffer in dead:
            if buffer in touched and buffer not in forwarded:
                low, width, in_piece = _extent(touched[buffer], segments)
                pitch = _pitch(width)
                if rows * pitch <= space:
                    space -= rows * pitch
                    homes[buffer] = Scratch(len(slots), -low, in_piece)
                    slots.append(pitch)
        places = tuple(
            tuple(self._place(a, homes, forwarded, touched) if m not in skipped else None for a in accesses)
            for m, accesses in enumerate(run.accesses)
        )
        streams = tuple(
            m for m, accesses in enumerate(run.accesses)
            if m not in skipped
            and any(a.operand.writes and self._never_read[a.buffer] and _streamable(a) for a in accesses)
        )
        unread = tuple(
            (m, i) for m, accesses in enumerate(run.accesses) for i, a in enumerate(accesses)
            if m not in skipped and a.buffer in homes and not any(o.operand.reads for o in touched[a.buffer])
        )
        plan = RowPlan(
            rows, run.rows // rows, tuple(slots), places, tuple(sorted(skipped)), tuple(segments), streams,
            self._ahead(run, places, skipped), unread,
        )
        return plan, (*homes, *forwarded, *(b for b in dead if b not in touched))

    def _place(
        self, access: Access, homes: dict[int, Scratch], forwarded: dict[int, int], touched: dict[int, list[Access]]
    ) -> Scratch | Forwarded | None:
        """Where an operand is, if not where its buffer is."""
        start = access.low - access.operand.low
        if access.buffer in homes:
            home = homes[access.buffer]
            return home._replace(byte=home.byte + start)
        if access.buffer in forwarded:
            return Forwarded(forwarded[access.buffer], start - _written(touched[access.buffer]).low)
        return None

    def _dies(self, buffer: int, accesses: list[Access], run: _Run) -> bool:
        """Whether nothing outside the run needs a tile, and its rows are those of the run."""
        return (
            self._scratchable[buffer]
            and self._lifetimes.first[buffer] >= run.first
            and self._lifetimes.last[buffer] < run.first + len(run.signatures)
            and len({(a.first, a.step) for a in accesses}) == 1
        )

    def _load(self, accesses: list[Access], touched: dict[int, list[Access]], run: _Run) -> int | None:
        """The DMA load in whose place a tile's readers can read HBM; None if there is no such load."""
        load = accesses[0]
        signature = self._program.signatures[run.signatures[load.member]]
        if not load.operand.writes or load.operand.reads or sum(a.operand.writes for a in accesses) > 1:
            return None
        if not _moves(run.shapes[load.member], True) or signature.dst.dtype != signature.src.dtype:
            return None
        (source,) = (a for a in run.accesses[load.member] if not a.operand.writes)
        if not (load.operand.dense and source.operand.dense):
            return None
        if any(a.low < load.low or a.high > load.high for a in accesses):
            return None
        last = accesses[-1].member
        for other in touched[source.buffer]:
            if other.operand.writes and load.member < other.member <= last and meet(source, other, run.rows):
                return None
        return load.member

    def _ahead(self, run: _Run, places: tuple, skipped: set[int]) -> tuple[tuple[int, int], ...]:
        """The last reader of each piece of a large HBM tensor."""
        readers: dict[int, tuple[int, int]] = {}
        for member, (accesses, own) in enumerate(zip(run.accesses, places, strict=True)):
            for position, (access, place) in enumerate(zip(accesses, own, strict=True)):
                source = member
                if isinstance(place, Forwarded):
                    source = place.member
                elif access.operand.on_chip or access.operand.writes or member in skipped:
                    continue
                (origin,) = (a for a in run.accesses[source] if not a.operand.writes)
                if self._large[origin.buffer] and origin.step:
                    readers[source] = member, position
        return tuple(sorted(readers.values()))


def _touched(members: Iterable[Sequence[Access]]) -> dict[int, list[Access]]:
    """Accesses by buffer, in order."""
    found: dict[int, list[Access]] = {}
    for accesses in members:
        for access in accesses:
            found.setdefault(access.buffer, []).append(access)
    return found


def _idle(run: _Run, dead: dict[int, list[Access]]) -> set[int]:
    """Members that write nothing that anything reads."""
    idle: set[int] = set()
    changed = True
    while changed:
        read = {
            a.buffer for m, accesses in enumerate(run.accesses) if m not in idle for a in accesses if a.operand.reads
        }
        found = {
            m for m, accesses in enumerate(run.accesses)
            if all(a.buffer in dead and a.buffer not in read for a in accesses if a.operand.writes)
        }
        changed = found != idle
        idle = found
    return idle


def _extent(accesses: list[Access], segments: list[Segment]) -> tuple[int, int, bool]:
    """First byte and bytes of a row of scratch that holds a tile, and whether that is a piece of the columns."""
    for segment in segments:
        inside = all(segment.first <= a.member < segment.end for a in accesses)
        if inside and len({(a.low, a.high) for a in accesses}) == 1:
            size = (accesses[0].high - accesses[0].low) // segment.columns
            return accesses[0].low, segment.piece * size, True
    low = min(a.low for a in accesses)
    low -= low % _ALIGN
    return low, max(a.high for a in accesses) - low, False


def _written(accesses: list[Access]) -> Access:
    return next(a for a in accesses if a.operand.writes)


def _streamable(access: Access) -> bool:
    """Whether the rows an operand writes are long runs in HBM."""
    operand = access.operand
    return not operand.on_chip and operand.dense and operand.high - operand.low >= _STREAMED_ROW


def _rows_per_block(run: _Run, touched: dict[int, list[Access]], forwarded: dict[int, int]) -> int:
    """The largest divisor of the rows with which a block stays in the cache."""
    least = max(s.least for s in run.shapes)
    most = max(least, min(_BLOCK_BYTES // _width(touched, forwarded), -(-run.rows // _PARTS)))
    if run.rows <= most:
        return run.rows
    rows = next(n for n in range(most, 0, -1) if run.rows % n == 0)
    return rows if rows >= least else run.rows


def _width(touched: dict[int, list[Access]], apart: Collection[int] = ()) -> int:
    """About the bytes that a row of all buffers but some spans."""
    return 1 + sum(
        max(a.high for a in accesses) - min(a.low for a in accesses)
        for buffer, accesses in touched.items()
        if buffer not in apart
    )


# --- segments -----------------------------------------------------------------------------------------------


def _segments(
    program: Program, run: _Run, skipped: set[int], rows: int, touched: dict[int, list[Access]]
) -> list[Segment]:
    """The elementwise members that follow each other, where rows are too long for the nearest cache."""
    if rows * _width(touched) <= _PIECE_BYTES:
        return []
    found: list[Segment] = []
    members: list[int] = []
    columns = 0
    for m in range(len(run.shapes) + 1):
        if m in skipped:
            continue
        own = _columns(program.signatures[run.signatures[m]], run.accesses[m]) if m < len(run.shapes) else 0
        if members and (own != columns or not _in_step(run, members, m, columns)):
            if len(members) > 1:
                segment = _segment(run, members, columns, rows)
                found += [segment] if segment is not None else []
            members = []
        if own:
            members.append(m)
            columns = own
    return found


def _columns(signature: Signature, accesses: Sequence[Access]) -> int:
    """The number of elements per row of an elementwise instruction whose operands are dense; 0 for any other."""
    if not signature.definition.elementwise:
        return 0
    counts = set()
    for operand, access in zip(signature.operands, accesses, strict=True):
        count = operand.type.free_size
        if operand.type.region is MemoryRegion.registers or not access.operand.dense or (operand.writes and count == 1):
            return 0
        counts.add(count)
    counts.discard(1)
    return counts.pop() if len(counts) == 1 else 0


def _in_step(run: _Run, members: list[int], new: int, columns: int) -> bool:
    """Whether a column of one more member only meets the same column of the others."""
    for access in run.accesses[new]:
        for m in members:
            for other in run.accesses[m]:
                if access.space != other.space or not (access.operand.writes or other.operand.writes):
                    continue
                same = (access.low, access.high, access.first, access.step) == (
                    other.low, other.high, other.first, other.step
                )
                if not same and meet(access, other, run.rows):
                    return False
    return True


def _segment(run: _Run, members: list[int], columns: int, rows: int) -> Segment | None:
    """The segment of some members; None if all their columns fit the cache at once."""
    spans = {(a.buffer, a.low): a.high - a.low for m in members for a in run.accesses[m]}
    piece = _PIECE_BYTES * columns // (rows * sum(spans.values()))
    piece = max(_LEAST_PIECE, min(_MOST_PIECE, 1 << max(piece, 1).bit_length() - 1))
    return Segment(members[0], members[-1] + 1, columns, piece) if 2 * piece <= columns else None


def _pitch(row_bytes: int) -> int:
    """Row pitch of scratch: whole cache lines, but never a multiple of the distance at which rows compete for them."""
    pitch = -(-row_bytes // _ALIGN) * _ALIGN
    return pitch + _ALIGN if pitch % _ALIASING == 0 else pitch


# --- how many -----------------------------------------------------------------------------------------------


def _affordable(program: Program, groups: list[Group]) -> list[Group]:
    """The groups worth compiling: code is written per distinct group, and a program may have thousands.

    Those that repeat most, by their members, come first, until the distinct ones together have a few members per
    signature of the program.
    """
    code, starts = program.code, program.starts()
    kinds: dict[tuple, list[Group]] = {}
    for group in groups:
        members = tuple(code[at] for at in starts[group.first : group.first + group.size])
        kinds.setdefault((members, group.plan), []).append(group)
    budget = max(_BUDGET, 2 * len(program.signatures))
    chosen: list[Group] = []
    for (members, _), same in sorted(kinds.items(), key=lambda kind: -len(kind[1]) * len(kind[0][0])):
        budget -= len(members)
        if budget < 0:
            break
        chosen += same
    return chosen
