"""The memory planner: an offset for every buffer from its size and live interval, or why there is none.

It serves SBUF (bytes of a partition), PSUM (the same, bank-aware) and the CPU arena alike, and knows nothing
of what the buffers hold. `plan` sweeps the buffers in order of first use and chooses among the free holes:

    spread   next fit: go round the memory like a ring, so the hole used is the one left alone the longest and
             consecutive tiles do not wait for each other's storage on the chip
    reuse    the hole freed last if it fits without growing the arena (it is still in the CPU's cache), else
             the tightest
    tight    the tightest hole, lowest address first: less fragmentation

A sweep costs O(log holes) per buffer, and the number of holes follows from the memory's size, not from the
length of the program. When the policy asked for runs out of room, `plan` starts over with ``tight`` and then,
largest buffer first, with ``by_size``, before it declares an overflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from nkilite.machine.placement import UNBOUNDED, Occupied, Rules, Sweep, place_by_size

__all__ = ["Overflow", "Plan", "Policy", "Request", "Reservation", "peak", "plan"]

Policy = Literal["spread", "reuse"]


class Request(NamedTuple):
    """A buffer to place: `size` bytes, live from instruction `start` to instruction `end`, both included."""

    size: int
    start: int
    end: int


class Reservation(NamedTuple):
    """Bytes [offset, offset + size) that an explicitly addressed tile holds from `start` to `end` inclusive.

    Reservations may overlap each other: explicit addresses may alias.
    """

    offset: int
    size: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A placement of every request.

    Attributes:
        offsets: byte offset of each request, in the order given.
        peak: most bytes live at once (sizes rounded as placed), reservations not counted.
        extent: end of the highest byte used by a request: what an unbounded arena must hold.
        policy: what succeeded: ``spread``, ``reuse``, ``tight`` or ``by_size``.
    """

    offsets: list[int]
    peak: int
    extent: int
    policy: str


@dataclass(frozen=True, slots=True)
class Overflow:
    """Why no placement was found: the first request that did not fit and what was in its way.

    Attributes:
        index: the request that failed.
        capacity: bytes available.
        peak: most bytes ever live at once over the whole program (sizes rounded as placed).
        live: requests live when `index` was to be placed, by offset.
        live_bytes: what they occupy.
        reservations: reservations live at some time during the life of `index`.
        reserved_bytes: bytes they cover together.
        missing: bytes by which it missed: the request's size beyond all that is free or, when that much is
            free but scattered, beyond the largest free piece.
        fragmented: whether the second of the two is the case.
    """

    index: int
    capacity: int
    peak: int
    live: tuple[int, ...]
    live_bytes: int
    reservations: tuple[int, ...]
    reserved_bytes: int
    missing: int
    fragmented: bool


def peak(
    requests: Sequence[tuple[int, int, int]] | np.ndarray, *, align: int = 1, bank: int | None = None
) -> int:
    """Most bytes live at once, each size rounded as `plan` rounds it: a lower bound on any placement."""
    if not len(requests):
        return 0
    table = np.asarray(requests, dtype=np.int64)
    sizes = Rules(UNBOUNDED, align, bank).rounded_all(table[:, 0])
    deltas = np.concatenate((sizes, -sizes))
    times = np.concatenate((table[:, 1], table[:, 2] + 1))
    order = np.lexsort((deltas, times))  # at equal times, free before allocating
    return int(np.cumsum(deltas[order]).max())


def plan(
    requests: Sequence[tuple[int, int, int]] | np.ndarray,
    *,
    capacity: int | None,
    align: int = 1,
    policy: Policy = "spread",
    bank: int | None = None,
    reserved: Sequence[tuple[int, int, int, int]] = (),
) -> Plan | Overflow:
    """Place every request so that no two that are live together share a byte.

    Args:
        requests: `Request`s (or plain ``(size, start, end)``), usually in instruction order. An empty buffer
            gets offset 0.
        capacity: bytes available; None for an arena that grows as needed.
        align: every offset is a multiple of it, and sizes are rounded up to it.
        policy: ``"spread"`` for the chip, ``"reuse"`` for the CPU (see the module).
        bank: bank size in bytes; a buffer then lies within one bank, or, when larger, starts on a bank
            boundary and takes whole banks. With ``spread``, consecutive buffers go to different banks.
        reserved: `Reservation`s to keep out of.

    Returns:
        A `Plan`, or an `Overflow` describing the first request that could not be placed.

    Raises:
        ValueError: a malformed argument: a negative size, an interval that ends before it starts, `align`
            below 1, `bank` no multiple of `align`, ``spread`` without a capacity.
    """
    table = np.array(requests, np.int64).reshape(-1, 3)
    _validate(table, capacity, align, policy, bank, reserved)
    rules = Rules(UNBOUNDED if capacity is None else capacity, align, bank)
    needed = peak(table, align=align, bank=bank)
    for attempt in (policy, "tight"):
        if needed > rules.capacity and attempt == policy:
            continue  # cannot fit; the tight sweep gives the account
        sweep = Sweep(table, rules, _occupied(reserved) if reserved else None, attempt)
        failed = sweep.run()
        if failed is None:
            return Plan(sweep.offsets, needed, sweep.extent, attempt)
    listed = [Request(*request) for request in table.tolist()]
    if needed <= rules.capacity:
        offsets = place_by_size(listed, rules, _occupied(reserved))
        if offsets is not None:
            extent = max(offset + rules.rounded(request.size) for offset, request in zip(offsets, listed, strict=True))
            return Plan(offsets, needed, extent, "by_size")
    assert failed is not None
    return _overflow(listed, rules, reserved, sweep, failed, needed)


def _occupied(reserved: Sequence[tuple[int, int, int, int]]) -> Occupied:
    occupied = Occupied()
    for offset, size, start, end in reserved:
        if size:
            occupied.add(offset, offset + size, start, end)
    return occupied


def _overflow(
    requests: Sequence[tuple[int, int, int]],
    rules: Rules,
    reserved: Sequence[tuple[int, int, int, int]],
    sweep: Sweep,
    index: int,
    needed: int,
) -> Overflow:
    """Account for `index`, the request at which the tight sweep stopped."""
    size, start, end = requests[index]
    size = rules.rounded(size)
    live = sorted((i for i in sweep.placed if requests[i][2] >= start), key=sweep.offsets.__getitem__)
    closed = _occupied(reserved).during(start, end)
    widths = [
        high - low
        for hole in sweep.holes
        for low, high in rules.gaps(*hole, closed)
    ]
    free, largest = sum(widths), max(widths, default=0)
    fragmented = free >= size
    return Overflow(
        index=index,
        capacity=rules.capacity,
        peak=needed,
        live=tuple(live),
        live_bytes=sum(rules.rounded(requests[i][0]) for i in live),
        reservations=tuple(i for i, r in enumerate(reserved) if r[1] and r[2] <= end and r[3] >= start),
        reserved_bytes=sum(min(high, rules.capacity) - low for low, high in closed if low < rules.capacity),
        # A piece that is large enough may straddle a bank boundary; then report at least one alignment unit.
        missing=max(size - largest, rules.align) if fragmented else size - free,
        fragmented=fragmented,
    )


def _validate(
    requests: np.ndarray,
    capacity: int | None,
    align: int,
    policy: str,
    bank: int | None,
    reserved: Sequence[tuple[int, int, int, int]],
) -> None:
    if align < 1:
        raise ValueError(f"align must be at least 1, not {align}")
    if bank is not None and (bank < 1 or bank % align):
        raise ValueError(f"bank size {bank} is not a positive multiple of the alignment {align}")
    if policy not in ("spread", "reuse"):
        raise ValueError(f"unknown policy {policy!r}; choose spread or reuse")
    if policy == "spread" and capacity is None:
        raise ValueError("spread goes round a memory of known capacity; use reuse for an unbounded arena")
    malformed = np.flatnonzero((requests[:, 0] < 0) | (requests[:, 2] < requests[:, 1]))
    if len(malformed):
        size, start, end = requests[malformed[0]].tolist()
        raise ValueError(f"malformed request: size {size}, live [{start}, {end}]")
    for offset, size, start, end in reserved:
        if offset < 0 or size < 0 or end < start:
            raise ValueError(f"malformed reservation: offset {offset}, size {size}, live [{start}, {end}]")
