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

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nkilite.codegen import nest
from nkilite.codegen.kernel import CpuOperand, MicroKernel, Split
from nkilite.ir.program import WORDS_BEFORE_ARGUMENTS
from nkilite.machine.engine import Engine
from nkilite.runtime.walker import LEAD, MEET, SPLIT

# Rough single-thread cost of work, to tell programs that threads make faster from those they do not.
_ELEMENTS_PER_NS = 10
_PRODUCTS_PER_NS = 40

# Single-thread work that pays for a further thread: to wake it, and for every meeting.
WAKE_NS = 100_000
MEETING_NS = 1_000

_CROWD = 32  # intervals that one access may meet before they are merged


class Stripe(NamedTuple):
    """The part of piece i of `pieces`: bytes [low, high) + i * step of an operand, in each of the rows `period` bytes
    apart (one row if 0)."""

    pieces: int
    step: int
    period: int
    low: int
    high: int

    def at(self, address: int) -> Stripe:
        """The stripe of an operand at an address, in bytes of its base or of a period."""
        shift = address + self.low
        if self.period:
            shift %= self.period
        return self._replace(low=shift, high=shift + self.high - self.low)


class Access(NamedTuple):
    """An operand: bytes [low, high) around the address whose base and offset are the two words at `word`."""

    word: int
    low: int
    high: int
    writes: bool
    stripe: Stripe | None


class Footprint(NamedTuple):
    """What a micro-kernel does to memory.

    Attributes:
        flags: SPLIT and LEAD, see nkilite/runtime/walker.py.
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
            word = first + operand.word - WORDS_BEFORE_ARGUMENTS
            accesses.append(_access(kernel.operands[operand.name], word, operand.writes, split))
        ns += _work(kernel)
        first += kernel.call.n_words - WORDS_BEFORE_ARGUMENTS
    return Footprint((SPLIT if split else 0) | (LEAD if leads else 0), ns, tuple(accesses))


def _access(operand: CpuOperand, word: int, writes: bool, split: Split | None) -> Access:
    low, high = _extent(*operand.layout, operand.dtype.itemsize)
    if operand.indirection is not None:
        return Access(word, low, high + (operand.indirection.limit - 1) * operand.index_stride, writes, None)
    stripe = _stripe(operand, split) if split is not None else None
    return Access(word, low, high, writes, stripe)


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
        (count, *others), (stride, *_) = nest.collapse((shape[1:], strides[1:])) if len(shape) > 1 else ((1,), (size,))
        if others:
            return None
        low, high = _extent((min(split.columns, count),), (stride,), size)
        step = split.columns * stride
        period = strides[0] if shape[0] > 1 else 0
    else:
        return None
    covered = -(-count // (split.rows or split.columns)) == split.pieces
    if not covered or high - low > step or (period and split.pieces * step > period):
        return None
    return Stripe(split.pieces, step, period, low, high)


def _extent(shape: Sequence[int], strides: Sequence[int], size: int) -> tuple[int, int]:
    """First byte and the byte after the last one, relative to the first element."""
    reach = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    return sum(r for r in reach if r < 0), sum(r for r in reach if r > 0) + size


def _work(kernel: MicroKernel) -> float:
    """Rough nanoseconds of a member on one thread."""
    call = kernel.call
    if call.definition.rule("cost")(call).engine is Engine.tensor:
        rows = max((o.type.partitions for o in call.operands if not o.writes), default=1)
        return sum(o.type.size for o in call.operands if o.writes) * rows / _PRODUCTS_PER_NS
    return sum(o.type.size for o in call.operands) / _ELEMENTS_PER_NS


def meetings(table: list[int], entries: list[int], footprints: Sequence[Footprint]) -> tuple[np.ndarray, int]:
    """The flags of every entry, and the number of threads beyond which more would not make the walk faster.

    Args:
        table: words; an entry begins with the number of its footprint.
        entries: word position of every entry.
    """
    flags = np.array([footprints[table[at]].flags for at in entries], np.int32)
    shared = sum(footprints[table[at]].ns for at, flag in zip(entries, flags.tolist(), strict=True) if flag & SPLIT)
    if shared < 2 * WAKE_NS:
        return flags, 1
    written = _written_bases(table, entries, footprints)
    memory: dict[int, _Memory] = {}
    for number, at in enumerate(entries):
        own = footprints[table[at]]
        if own.flags & LEAD:
            flags[number] |= MEET  # and all meet again once its status is known
            memory.clear()
            continue
        touched = []
        for word, low, high, writes, stripe in own.accesses:
            base, offset = table[at + 2 + word], table[at + 3 + word]
            if base in written:
                owner = _ALONE if not own.flags & SPLIT else stripe and stripe.at(offset)
                touched.append((base, offset + low, offset + high, writes, owner))
        for base, start, end, writes, owner in touched:
            if base in memory and memory[base].conflicts(start, end, writes, owner):
                flags[number] |= MEET
                memory.clear()
                break
        for base, start, end, writes, owner in touched:
            memory.setdefault(base, _Memory()).add(start, end, writes, owner)
    count = int(np.count_nonzero(flags & MEET)) + int(np.count_nonzero(flags & LEAD))
    return flags, max(1, int(shared // max(1, WAKE_NS + MEETING_NS * count)))


def _written_bases(table: list[int], entries: list[int], footprints: Sequence[Footprint]) -> set[int]:
    """The bases that some entry writes: what is only read needs no care."""
    words = [tuple(2 + a.word for a in f.accesses if a.writes) for f in footprints]
    return {table[at + word] for at in entries for word in words[table[at]]}


_ALONE = Stripe(0, 0, 0, 0, 0)  # entries that do not split: part 0 does them
_Owner = Stripe | None  # None: any thread may touch any of it


def _joined(one: _Owner, other: _Owner) -> _Owner:
    """The stripe of two accesses under which every thread keeps to bytes of its own, if there is one."""
    if one == other:
        return one
    if one is None or other is None or one[:3] != other[:3]:
        return None
    low, high = min(one.low, other.low), max(one.high, other.high)
    return one._replace(low=low, high=high) if high - low <= one.step else None


class _Touched(NamedTuple):
    """Who has read and who has written an interval since the last meeting; `any` thread unless there is an owner."""

    read: bool = False
    written: bool = False
    owner: _Owner = None

    def add(self, writes: bool, owner: _Owner) -> _Touched:
        if self.read or self.written:
            owner = _joined(self.owner, owner)
        return _Touched(self.read or not writes, self.written or writes, owner)

    def merged(self, other: _Touched) -> _Touched:
        """Of two neighbouring intervals taken as one."""
        if not (self.read or self.written):
            return other
        if not (other.read or other.written):
            return self
        owner = _joined(self.owner, other.owner)
        return _Touched(self.read or other.read, self.written or other.written, owner)

    def conflicts(self, writes: bool, owner: _Owner) -> bool:
        if not (self.written or (writes and self.read)):
            return False
        return _joined(self.owner, owner) is None


_UNTOUCHED = _Touched()


class _Memory:
    """What has been touched of a base since the last meeting: consecutive intervals, the last one without an end."""

    def __init__(self) -> None:
        self._starts: list[int] = [-_FAR]
        self._states: list[_Touched] = [_UNTOUCHED]

    def conflicts(self, start: int, end: int, writes: bool, owner: _Owner) -> bool:
        """Whether threads must meet before an access."""
        first, last = bisect_right(self._starts, start) - 1, bisect_left(self._starts, end)
        return any(state.conflicts(writes, owner) for state in self._states[first:last])

    def add(self, start: int, end: int, writes: bool, owner: _Owner) -> None:
        first, last = self._split(start), self._split(end)
        states = self._states
        if last - first > _CROWD:
            state = states[first]
            for other in states[first + 1 : last]:
                state = state.merged(other)
            self._starts[first:last], states[first:last] = [start], [state]
            last = first + 1
        for i in range(first, last):
            states[i] = states[i].add(writes, owner)

    def _split(self, at: int) -> int:
        """The interval that starts at `at`, made by cutting one in two if need be."""
        found = bisect_right(self._starts, at) - 1
        if self._starts[found] == at:
            return found
        self._starts.insert(found + 1, at)
        self._states.insert(found + 1, self._states[found])
        return found + 1


_FAR = 1 << 60
