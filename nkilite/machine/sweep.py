"""The sweep of the memory planner: buffers in order of first use, each into one of the holes that are free then.

Holes are disjoint and coalesced. They are kept twice, sorted by address and by size.
"""

from __future__ import annotations

from nkilite.compiled import Ints, compiled

__all__ = ["EXTENT", "HOLES", "PLACED", "POLICIES", "STATE", "sweep"]

POLICIES = {"spread": 0, "reuse": 1, "tight": 2}

_ALIGN, _BANK, _POLICY = 0, 1, 2  # of rules

#: What a sweep keeps: how many holes there are and requests were placed; the end of the highest byte used so far; where
#: the hole that took in the range freed last begins; and where `spread` goes on.
HOLES, PLACED, EXTENT, _LATEST, _ROVER = range(5)
STATE = 5

# Holes that next fit looks at before it takes the tightest, so that crumbs cannot make the sweep quadratic.
_RING_REACH = 32

_NONE = -1


@compiled
def sweep(
    requests: Ints, order: Ints, leaving: Ints, closed: Ints, closed_from: Ints, rules: Ints, holes: Ints,
    by_size: Ints, offsets: Ints, state: Ints, count: int,
) -> int:
    """Place `count` requests; returns the first that does not fit, or -1.

    Args:
        requests: rows of (rounded size, first instruction, last instruction).
        order, leaving: the requests by first and by last instruction.
        closed, closed_from: rows of (low, high), disjoint and sorted, that are taken during the life of request i:
            those from closed_from[i] to closed_from[i + 1].
        rules: the alignment, the size of a bank or 0, and the policy.
        holes, by_size: rows of (begin, end) and of (size, begin), with room for two rows a request and three more; the
            first row of holes is the memory, if it has any room.
        offsets: by request: the result.
        state: STATE numbers, of which HOLES is given.
    """
    if state[HOLES]:
        by_size[0], by_size[1] = holes[1] - holes[0], holes[0]
    bank = rules[_BANK]
    gone = 0
    for k in range(count):
        index = order[k]
        size, start = requests[3 * index], requests[3 * index + 1]
        # A request that ended before this one starts also started before it, so it has been placed.
        while requests[3 * leaving[gone] + 2] < start:
            done = leaving[gone]
            gone += 1
            if requests[3 * done]:
                _free(holes, by_size, state, offsets[done], offsets[done] + requests[3 * done])
        if size:
            first, last = closed_from[index], closed_from[index + 1]
            if rules[_POLICY] == 0:
                offset = _next_fit(holes, by_size, state, closed, rules, first, last, size)
            elif rules[_POLICY] == 1:
                offset = _latest_fit(holes, by_size, state, closed, rules, first, last, size)
            else:
                offset = _tightest_fit(by_size, state, closed, rules, first, last, size)
            if offset == _NONE:
                return index
            stop = offset + size
            _take(holes, by_size, state, offset, stop)
            offsets[index] = offset
            state[EXTENT] = max(state[EXTENT], stop)
            # In a banked memory go on in the next bank, so that engines do not meet in one.
            state[_ROVER] = stop if bank == 0 else -(-stop // bank) * bank
        state[PLACED] = k + 1
    return _NONE


# --- where ------------------------------------------------------------------------------------------------------------


@compiled
def _next_fit(
    holes: Ints, by_size: Ints, state: Ints, closed: Ints, rules: Ints, first: int, last: int, size: int
) -> int:
    """The first fit from the rover on, once round the ring; the tightest when that is out of reach.

    Where the rover's hole ends too soon but reaches back far enough, the end of it: what overlaps the last tile least
    waits least for it.
    """
    count, rover, align = state[HOLES], state[_ROVER], rules[_ALIGN]
    current = _after(holes, count, rover) - 1
    if current >= 0 and holes[2 * current + 1] > rover:
        end = holes[2 * current + 1]
        offset = _fit(closed, rules, first, last, rover, end, size)
        if offset == _NONE and rules[_BANK] == 0 and end - size >= holes[2 * current]:
            offset = _fit(closed, rules, first, last, (end - size) // align * align, end, size)
        if offset != _NONE:
            return offset
    for step in range(1, min(count, _RING_REACH) + 1):
        i = (current + step) % count
        offset = _fit(closed, rules, first, last, holes[2 * i], holes[2 * i + 1], size)
        if offset != _NONE:
            return offset
    return _tightest_fit(by_size, state, closed, rules, first, last, size)


@compiled
def _latest_fit(
    holes: Ints, by_size: Ints, state: Ints, closed: Ints, rules: Ints, first: int, last: int, size: int
) -> int:
    """The hole freed last, if that does not push the extent up; otherwise the tightest."""
    latest = state[_LATEST]
    i = _after(holes, state[HOLES], latest) - 1
    if i >= 0 and holes[2 * i] == latest:
        offset = _fit(closed, rules, first, last, latest, min(holes[2 * i + 1], state[EXTENT]), size)
        if offset != _NONE:
            return offset
    return _tightest_fit(by_size, state, closed, rules, first, last, size)


@compiled
def _tightest_fit(by_size: Ints, state: Ints, closed: Ints, rules: Ints, first: int, last: int, size: int) -> int:
    count = state[HOLES]
    i = _ranked(by_size, count, size, 0)
    offset = _NONE
    while i < count and offset == _NONE:
        begin = by_size[2 * i + 1]
        offset = _fit(closed, rules, first, last, begin, begin + by_size[2 * i], size)
        i += 1
    return offset


@compiled
def _fit(closed: Ints, rules: Ints, first: int, last: int, low: int, high: int, size: int) -> int:
    """The lowest legal offset for a size in the aligned free range [low, high), outside of what is closed, or -1."""
    align = rules[_ALIGN]
    for k in range(first, last):
        begin, end = closed[2 * k], closed[2 * k + 1]
        if end > low and begin < high:
            found = _lowest(rules, low, begin // align * align, size)
            if found != _NONE:
                return found
            low = max(low, -(-end // align) * align)
    return _lowest(rules, low, high, size)


@compiled
def _lowest(rules: Ints, low: int, high: int, size: int) -> int:
    bank = rules[_BANK]
    if bank and low % bank + size > bank:
        low = -(-low // bank) * bank
    return low if low + size <= high else _NONE


# --- holes ------------------------------------------------------------------------------------------------------------


@compiled
def _take(holes: Ints, by_size: Ints, state: Ints, low: int, high: int) -> None:
    """Allocate [low, high), which lies within one hole."""
    i = _after(holes, state[HOLES], low) - 1
    start, stop = holes[2 * i], holes[2 * i + 1]
    _delete(holes, by_size, state, i)
    if high < stop:
        _insert(holes, by_size, state, i, high, stop)
    if start < low:
        _insert(holes, by_size, state, i, start, low)


@compiled
def _free(holes: Ints, by_size: Ints, state: Ints, low: int, high: int) -> None:
    """Free [low, high), merging it with the holes it touches."""
    i = _after(holes, state[HOLES], low)
    if i < state[HOLES] and holes[2 * i] == high:
        high = holes[2 * i + 1]
        _delete(holes, by_size, state, i)
    if i > 0 and holes[2 * i - 1] == low:
        i -= 1
        low = holes[2 * i]
        _delete(holes, by_size, state, i)
    _insert(holes, by_size, state, i, low, high)
    state[_LATEST] = low


@compiled
def _insert(holes: Ints, by_size: Ints, state: Ints, i: int, begin: int, end: int) -> None:
    count = state[HOLES]
    _open(holes, i, count)
    holes[2 * i], holes[2 * i + 1] = begin, end
    rank = _ranked(by_size, count, end - begin, begin)
    _open(by_size, rank, count)
    by_size[2 * rank], by_size[2 * rank + 1] = end - begin, begin
    state[HOLES] = count + 1


@compiled
def _delete(holes: Ints, by_size: Ints, state: Ints, i: int) -> None:
    count = state[HOLES]
    begin, end = holes[2 * i], holes[2 * i + 1]
    _close(by_size, _ranked(by_size, count, end - begin, begin), count)
    _close(holes, i, count)
    state[HOLES] = count - 1


@compiled
def _open(rows: Ints, i: int, count: int) -> None:
    """Make room for a row at `i` of a table of `count` rows of two."""
    at = 2 * count - 1
    while at >= 2 * i:
        rows[at + 2] = rows[at]
        at -= 1


@compiled
def _close(rows: Ints, i: int, count: int) -> None:
    for at in range(2 * i, 2 * count - 2):
        rows[at] = rows[at + 2]


@compiled
def _after(holes: Ints, count: int, address: int) -> int:
    """How many holes begin at or before an address."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if holes[2 * middle] <= address:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _ranked(by_size: Ints, count: int, size: int, begin: int) -> int:
    """How many holes are smaller than a size, or of that size and begin earlier."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if by_size[2 * middle] < size or (by_size[2 * middle] == size and by_size[2 * middle + 1] < begin):
            low = middle + 1
        else:
            high = middle
    return low
