"""Where the threads that walk a table together must meet: before an entry that needs what others may have touched.

Threads run ahead of each other between two meetings, so an entry may only touch memory that a different thread has not
written, and only write memory that none has read, since the last meeting. What an entry touches is known from its
operands: a byte range of a base, whole tiles of an arena whose memory is reused included, and for entries that split
its *stripe*, the same range of which every piece of the work touches its own part. Entries of equal stripes, such as a
chain of instructions each of which gives a thread the same rows, follow each other without a meeting.

The scan is linear in the number of operands. It is exact about intervals and stripes, else conservative: a meeting
too many costs half a microsecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nkilite.codegen.kernel import CpuOperand, MicroKernel, Split
from nkilite.host.cpu import Products
from nkilite.ir import nest
from nkilite.ir.program import WORDS_BEFORE_ARGUMENTS, Signature
from nkilite.ir.regions import Pattern, pattern
from nkilite.machine.engine import Engine
from nkilite.machine.rows import ranked
from nkilite.native.meeting_scan import ALONE, ANYBODY, scan
from nkilite.native.walker import LEAD, MEET, SPLIT
from nkilite.once import cached_property
from nkilite.schedule.panels import WIDTH, Panels, means

# Rough single-thread cost of work, to tell programs that threads make faster from those they do not.
_ELEMENTS_PER_NS = 10
_PRODUCTS_PER_NS = {Products.vectors: 40, Products.pairs: 80, Products.tiles: 320}

# Single-thread work that pays for a further thread: to wake it, and for every meeting.
WAKE_NS = 75_000
MEETING_NS = 1_000

_CROWD = 32  # stretches of memory an operand may have on average before they are merged


class Stripe(NamedTuple):
    """The part of piece i of `pieces`: bytes [low, high) + i * step of an operand, in each of the rows `period` bytes
    apart (one row if 0)."""

    pieces: int
    step: int
    period: int
    low: int
    high: int


class Access(NamedTuple):
    """An operand: a pattern that begins `low` bytes from the address whose base and offset are the words at `word`."""

    word: int
    low: int
    pattern: Pattern
    writes: bool
    stripe: Stripe | None


class Footprint(NamedTuple):
    """What a micro-kernel does to memory.

    Attributes:
        flags: SPLIT and LEAD, see nkilite/native/walker.py.
        ns: rough time on one thread.
    """

    flags: int
    ns: float
    accesses: tuple[Access, ...]


def footprint(kernels: Sequence[MicroKernel]) -> Footprint:
    """The footprint of a finished micro-kernel: that of an instruction, or of the members of a group."""
    split = next((k.split for k in kernels if k.split is not None), None)
    leads = any(k.leads for k in kernels)
    accesses = []
    first, ns = 0, 0.0
    for kernel in kernels:
        for operand in kernel.call.operands:
            if operand.name in kernel.private:
                continue
            word = first + operand.word - WORDS_BEFORE_ARGUMENTS
            paneled = operand.name in kernel.paneled
            accesses.append(_access(kernel.operands[operand.name], word, operand.writes, split, paneled))
        ns += work(kernel.call, kernel.host.products)
        first += kernel.call.n_words - WORDS_BEFORE_ARGUMENTS
    return Footprint((SPLIT if split else 0) | (LEAD if leads else 0), ns, tuple(accesses))


def _access(operand: CpuOperand, word: int, writes: bool, split: Split | None, paneled: bool) -> Access:
    if operand.panels is not None:
        _, last = _extent(operand.shape[1:], operand.strides[1:], 0)
        stripe = _panel_stripe(operand, operand.panels, split) if split is not None and paneled else None
        return Access(word, 0, Pattern(operand.panels.size(last // operand.dtype.itemsize + 1)), writes, stripe)
    dims = list(zip(*operand.layout, strict=True))
    low, _ = _extent(*operand.layout, operand.dtype.itemsize)
    if operand.indirection is not None:
        dims.append((operand.indirection.limit, operand.index_stride))
    stripe = _stripe(operand, split) if split is not None and operand.indirection is None else None
    return Access(word, low, pattern(operand.dtype.itemsize, dims), writes, stripe)


def _stripe(operand: CpuOperand, split: Split) -> Stripe | None:
    """What a piece touches of an operand, if it is known and no other piece touches it."""
    shape, strides, size = operand.shape, operand.strides, operand.dtype.itemsize
    if split.of and operand.name not in split.of:
        return None
    if split.rows:
        count, period = shape[0], 0
        low, high = _extent((min(split.rows, count), *shape[1:]), strides, size)
        step = split.rows * strides[0]
    elif split.columns:
        counts, steps = nest.collapse((shape[1:], strides[1:]))
        if len(counts) != 1:  # one column, or columns of which others lie in between
            return None
        (count,), (stride,) = counts, steps
        low, high = _extent((min(split.columns, count),), (stride,), size)
        step = split.columns * stride
        period = strides[0] if shape[0] > 1 else 0
    else:
        return None
    covered = -(-count // (split.rows or split.columns)) == split.pieces
    if not covered or high - low > step or (period and split.pieces * step > period):
        return None
    return Stripe(split.pieces, step, period, low, high)


def _panel_stripe(operand: CpuOperand, panels: Panels, split: Split) -> Stripe | None:
    """The panels that a piece touches, every `period` bytes again."""
    size, each = operand.dtype.itemsize, split.rows
    if not each or each % WIDTH:
        return None
    shape, strides = nest.collapse(operand.free)
    span = split.pieces * each
    if not shape or strides[-1] != size or shape[-1] % span or any(s % (span * size) for s in strides[:-1]):
        return None
    step = each // WIDTH * panels.panel
    high = step - panels.panel + -(-operand.shape[0] // panels.depth) * panels.group
    return Stripe(split.pieces, step, split.pieces * step, 0, high)


def _extent(shape: Sequence[int], strides: Sequence[int], size: int) -> tuple[int, int]:
    """First byte and the byte after the last one, relative to the first element."""
    reach = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    return sum(r for r in reach if r < 0), sum(r for r in reach if r > 0) + size


def work(call: Signature, products: Products) -> float:
    """Rough nanoseconds of an instruction on one thread of a host with such means."""
    if call.definition.rule("cost")(call).engine is Engine.tensor:
        read = [o.type for o in call.operands if not o.writes]
        rate = _PRODUCTS_PER_NS[means((t.dtype for t in read), products)]
        rows = max((t.partitions for t in read), default=1)
        return float(sum(o.type.size for o in call.operands if o.writes) * rows / rate)
    return float(sum(o.type.size for o in call.operands) / _ELEMENTS_PER_NS)


def meetings(table: Table) -> tuple[np.ndarray, int]:
    """The flags of every entry, and the number of threads beyond which more would not make the walk faster."""
    flags = np.array([f.flags for f in table.footprints], np.int64)[table.number]
    shared = float(table.ns[flags & SPLIT != 0].sum())
    if shared < 2 * WAKE_NS:
        return flags, 1
    met = scan(flags, *_touches(table.intervals))
    flags[met] |= MEET
    count = len(met) + int(np.count_nonzero(flags & LEAD))  # all meet again once a leader's status is known
    return flags, max(1, int(shared // max(1, WAKE_NS + MEETING_NS * count)))


class Intervals(NamedTuple):
    """What the entries touch of memory, in order: bytes [start, end) of a base.

    Attributes:
        ends: for every entry, the number of touches by it and the entries before it.
        what: twice the number of the owner, and 1 if it is written.
        low: where the owner's first piece begins.
        owners: as the scan takes them.
    """

    ends: np.ndarray
    base: np.ndarray
    start: np.ndarray
    end: np.ndarray
    what: np.ndarray
    low: np.ndarray
    owners: list[tuple[int, int, int, int]]

    @property
    def writes(self) -> np.ndarray:
        """Of every touch, whether it writes."""
        found: np.ndarray = self.what & 1 != 0
        return found

    @property
    def changing(self) -> np.ndarray:
        """Of every touch, whether some entry writes to its base: what is only read needs no care."""
        written = np.zeros(int(self.base.max(initial=0)) + 1, bool)
        written[self.base[self.writes]] = True
        found: np.ndarray = written[self.base]
        return found


class Table:
    """A table whose entries begin with the numbers of their footprints.

    Attributes:
        entries: word position of every entry.
        number: of every entry's footprint.
    """

    def __init__(self, words: np.ndarray, entries: np.ndarray, footprints: Sequence[Footprint]) -> None:
        self._words, self.entries, self.footprints = words, entries, footprints
        self.number: np.ndarray = words[entries]

    @cached_property
    def ns(self) -> np.ndarray:
        """Rough time of every entry on one thread."""
        found: np.ndarray = np.array([f.ns for f in self.footprints], np.float64)[self.number]
        return found

    @property
    def patterns(self) -> tuple[list[Pattern], np.ndarray]:
        """Those of all accesses, and the number of every touch's."""
        counts = np.array([len(f.accesses) for f in self.footprints], np.int64)
        ends = np.cumsum(counts[self.number])
        behind = np.repeat((np.cumsum(counts) - counts)[self.number] - ends + counts[self.number], counts[self.number])
        return [a.pattern for f in self.footprints for a in f.accesses], behind + np.arange(len(behind))

    @cached_property
    def intervals(self) -> Intervals:
        """What entries touch."""
        entries, number, words = self.entries, self.number, self._words
        ends = np.cumsum(np.array([len(f.accesses) for f in self.footprints], np.int64)[number])
        base, start, end, what, low = np.zeros((5, int(ends[-1]) if len(ends) else 0), np.int64)
        owners = [ALONE, ANYBODY]
        order = np.argsort(number.astype(np.min_scalar_type(len(self.footprints))), kind="stable")
        bounds = np.searchsorted(number[order], np.arange(len(self.footprints) + 1)).tolist()
        for i, footprint in enumerate(self.footprints):
            mine = order[bounds[i] : bounds[i + 1]]
            first = ends[mine] - len(footprint.accesses)
            for place, access in enumerate(footprint.accesses):
                word, at = entries[mine] + 2 + access.word, first + place
                offset = words[word + 1]
                base[at], start[at] = words[word], offset + access.low
                end[at] = start[at] + access.pattern.span
                owner = 1 if footprint.flags & SPLIT else 0
                if owner and access.stripe is not None:
                    owner, begins = len(owners), offset + access.stripe.low
                    low[at] = begins % access.stripe.period if access.stripe.period else begins
                    owners.append((*access.stripe[:3], access.stripe.high - access.stripe.low))
                what[at] = 2 * owner + access.writes
        return Intervals(ends, base, start, end, what, low, owners)


def _touches(found: Intervals) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """What the entries touch of memory that some entry writes, as `scan` takes it."""
    kept = found.changing
    ends = np.concatenate([[0], np.cumsum(kept)])[found.ends]
    first, last, count = atoms(found.base[kept], found.start[kept], found.end[kept])
    touches = np.stack([first, last, found.what[kept], found.low[kept]], axis=1)
    return ends, touches, np.array(found.owners, np.int64), count


def atoms(base: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The first atom of every touch, the one after its last, and how many there are."""
    first, last = np.empty_like(start), np.empty_like(end)
    total = 0
    for one in np.flatnonzero(np.bincount(base)).tolist():
        there = base == one
        begins, ends, count = _numbered(start[there], end[there])
        first[there], last[there] = total + begins, total + ends
        total += count
    return first, last, total


def _numbered(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Intervals of a base as atoms: those that begin and end where some interval does, or, if too many of them overlap
    (thin columns of a tall matrix), those that intervals which overlap make together."""
    ranks, edges = ranked(np.concatenate([start, end]))
    first, last = np.split(ranks, 2)
    if (last - first).sum() <= _CROWD * len(start):
        return first, last, len(edges)
    farthest = np.full(len(edges), edges[0])
    np.maximum.at(farthest, first, end)
    begins = np.zeros(len(edges), bool)
    begins[first] = True
    begins[1:] &= edges[1:] >= np.maximum.accumulate(farthest)[:-1]
    number = np.cumsum(begins) - 1
    return number[first], number[first] + 1, int(begins.sum())
