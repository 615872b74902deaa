"""Where threads must meet, found in one walk over what the entries of a table touch, in order.

Memory is numbered *atoms*, stretches that no operand begins or ends in. Of every atom the walk keeps who has touched it
since the last meeting: *owners*, each of which leaves every thread bytes of its own, and whether they wrote. A touch
needs a meeting if it or the earlier one writes, and they do not leave the same bytes to the same thread.
"""

from __future__ import annotations

import numpy as np

from nkilite.compiled import Ints, compiled
from nkilite.native.walker import LEAD

# Owners that are no stripes, as (pieces, step, period, width).
ALONE = (0, 0, 0, 0)  # part 0 does all of the entry
ANYBODY = (-1, -1, 0, 0)  # any thread may touch any of the bytes: not even two of these belong together

_MOST = 8  # owners kept of an atom
_PIECES, _STEP, _PERIOD, _LOW, _HIGH, _WROTE, _SLOT = range(7)  # words of one that is kept
_WIDTH, _OWNER = 3, 4  # words of an owner as it is given: the first three, and from its low to its high
_FIRST, _LAST, _WHAT, _BEGINS, _TOUCH = range(5)  # words of a touch


def scan(flags: np.ndarray, ends: np.ndarray, touches: np.ndarray, owners: np.ndarray, atoms: int) -> np.ndarray:
    """The entries before which threads meet. Arrays are int64, in C order.

    Args:
        flags: of every entry.
        ends: for every entry, the number of touches by it and the entries before it.
        touches: rows of first atom, the one after the last, twice the number of the owner and 1 if it is written, and
            where the owner's first piece begins.
        owners: rows of pieces, step, period and width.
        atoms: how many there are.
    """
    met = np.empty(len(flags), np.int64)
    count = _walk.run(
        int((touches[:, _LAST] - touches[:, _FIRST]).sum()), flags, ends, touches.reshape(-1), owners.reshape(-1),
        np.full(atoms, -1, np.int64), np.zeros(atoms, np.int64), np.zeros(_MOST * atoms * _SLOT, np.int64), met,
        len(flags), atoms,
    )
    return met[:count]


@compiled
def _walk(
    flags: Ints, ends: Ints, touches: Ints, owners: Ints, since: Ints, kept: Ints, slots: Ints, met: Ints,
    entries: int, atoms: int,
) -> int:
    """Write down the entries before which threads meet; how many there are.

    Args:
        since: of every atom, the meeting since which its owners are those kept; -1 at first.
        kept: how many.
        slots: theirs, those of all atoms that came first in front.
    """
    meetings, begin = 0, 0
    for entry in range(entries):
        end = ends[entry]
        if flags[entry] & LEAD:
            met[meetings] = entry
            meetings += 1
        else:
            for touch in range(begin, end):
                if _conflicts(touches, owners, since, kept, slots, touch, atoms, meetings):
                    met[meetings] = entry
                    meetings += 1
                    break
            for touch in range(begin, end):
                _note(touches, owners, since, kept, slots, touch, atoms, meetings)
        begin = end
    return meetings


@compiled
def _conflicts(
    touches: Ints, owners: Ints, since: Ints, kept: Ints, slots: Ints, touch: int, atoms: int, now: int,
) -> bool:
    """Whether a touch needs what another thread may have touched since a meeting."""
    at = _TOUCH * touch
    writes, owner = touches[at + _WHAT] & 1, _OWNER * (touches[at + _WHAT] >> 1)
    for atom in range(touches[at + _FIRST], touches[at + _LAST]):
        if since[atom] == now:
            for k in range(kept[atom]):
                slot = _SLOT * (k * atoms + atom)
                if writes or slots[slot + _WROTE]:
                    low = touches[at + _BEGINS]
                    if not _joined(owners, slots, owner, low, slot) and not _apart(owners, slots, owner, low, slot):
                        return True
    return False


@compiled
def _joined(owners: Ints, slots: Ints, owner: int, low: int, slot: int) -> bool:
    """Whether two owners are pieces of one: every thread has the same bytes, from the lower beginning to the higher
    end."""
    if owners[owner + _PIECES] != slots[slot + _PIECES] or owners[owner + _STEP] != slots[slot + _STEP]:
        return False
    high = max(low + owners[owner + _WIDTH], slots[slot + _HIGH])
    span = high - min(low, slots[slot + _LOW])
    return owners[owner + _PERIOD] == slots[slot + _PERIOD] and span <= owners[owner + _STEP]


@compiled
def _apart(owners: Ints, slots: Ints, owner: int, low: int, slot: int) -> bool:
    """Whether two owners are different columns of the same rows."""
    period = owners[owner + _PERIOD]
    if period == 0 or slots[slot + _PERIOD] != period:
        return False
    width = (owners[owner + _PIECES] - 1) * owners[owner + _STEP] + owners[owner + _WIDTH]
    other = (slots[slot + _PIECES] - 1) * slots[slot + _STEP] + slots[slot + _HIGH] - slots[slot + _LOW]
    return (slots[slot + _LOW] - low) % period >= width and (low - slots[slot + _LOW]) % period >= other


@compiled
def _note(
    touches: Ints, owners: Ints, since: Ints, kept: Ints, slots: Ints, touch: int, atoms: int, now: int,
) -> None:
    """Keep the owner of what is touched. An atom that has too many of them is anybody's."""
    at = _TOUCH * touch
    writes, owner, low = touches[at + _WHAT] & 1, _OWNER * (touches[at + _WHAT] >> 1), touches[at + _BEGINS]
    high = low + owners[owner + _WIDTH]
    for atom in range(touches[at + _FIRST], touches[at + _LAST]):
        count = kept[atom] if since[atom] == now else 0
        since[atom] = now
        k, wrote = 0, writes
        while k < count and not _joined(owners, slots, owner, low, _SLOT * (k * atoms + atom)):
            wrote |= slots[_SLOT * (k * atoms + atom) + _WROTE]
            k += 1
        slot = _SLOT * (k * atoms + atom)
        if k < count:
            slots[slot + _LOW], slots[slot + _HIGH] = min(low, slots[slot + _LOW]), max(high, slots[slot + _HIGH])
            slots[slot + _WROTE] |= writes
        elif k == _MOST:
            slot, count = _SLOT * atom, 1
            slots[slot + _PIECES], slots[slot + _STEP], slots[slot + _PERIOD] = -1, -1, 0
            slots[slot + _LOW], slots[slot + _HIGH], slots[slot + _WROTE] = 0, 0, wrote
        else:
            for word in range(_WIDTH):
                slots[slot + word] = owners[owner + word]
            slots[slot + _LOW], slots[slot + _HIGH], slots[slot + _WROTE] = low, high, writes
            count += 1
        kept[atom] = count
