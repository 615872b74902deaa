"""Which instruction has to wait for which: read-after-write, write-after-read and write-after-write hazards.

An access is a rectangle of a memory (rows are partitions, or rows of an HBM tensor; columns are bytes) of which a
strided pattern may leave gaps. `hazard_walk` goes through them in program order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nkilite.machine import hazard_walk
from nkilite.machine.hazard_walk import ACCUMULATE, DATA, ORDER, READ, WRITE

__all__ = ["ACCUMULATE", "DATA", "ORDER", "READ", "WRITE", "Accesses", "Edges", "Region", "hazards"]


class Region(NamedTuple):
    """Bytes [left, right) of rows [top, bottom) of a memory.

    `step` is 0 when every byte is touched; otherwise only runs of `width` bytes are, each beginning a multiple of
    `step` bytes after `left`.
    """

    space: int
    top: int
    bottom: int
    left: int
    right: int
    step: int = 0
    width: int = 0


class Accesses(NamedTuple):
    """What instructions do to regions: equally long arrays in program order, the reads of an instruction first.

    `flags` adds READ, WRITE and ACCUMULATE; the last says that the engine adds in place, in order, at full rate.
    """

    instruction: np.ndarray
    region: np.ndarray
    flags: np.ndarray


@dataclass(frozen=True)
class Edges:
    """`consumer[k]` waits for `producer[k]`; `kind[k]` is DATA or ORDER."""

    producer: np.ndarray
    consumer: np.ndarray
    kind: np.ndarray

    def __len__(self) -> int:
        return len(self.producer)


def hazards(regions: np.ndarray, accesses: Accesses, queues: Sequence[int] | np.ndarray) -> Edges:
    """The hazards between instructions, at most one edge between two of them.

    Args:
        regions: int64, a row of the fields of a `Region` for every number in `accesses.region`.
        accesses: in program order.
        queues: the engine queue of every instruction: a queue keeps the order of its own writes.
    """
    count, instructions = len(accesses.instruction), len(queues)
    fields, first, end = _placed(regions)
    table = np.column_stack(accesses).reshape(-1)
    flat_queues = np.array(queues, np.int64)
    room = 4 * count + 64
    found = -1
    while found < 0:  # until there is room enough
        segments = np.full((len(first), 4), -1, np.int64)
        segments[:, hazard_walk.NEXT], segments[:, hazard_walk.N_READERS] = end, 0
        bits, levels = hazard_walk.bit_tree(len(first))
        hazard_walk.mark(bits, levels, np.flatnonzero(first))
        edges = np.empty(3 * room, np.int64)
        found = hazard_walk.walk.run(
            count, table, flat_queues, fields.reshape(-1), segments.reshape(-1), bits, levels,
            np.empty(3 * room, np.int64), edges, np.full(2 * instructions, -1, np.int64), hazard_walk.state(room),
            count,
        )
        room *= 4
    producer, consumer, kind = edges[:3 * found].reshape(-1, 3).T.copy()
    return Edges(producer, consumer, kind.astype(np.int8))


_BITS = 43  # of a coordinate in the key of a slot; those of all memories are sorted together
_FAR = 1 << _BITS - 1


def _placed(regions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The regions as the walk takes them; by slot, whether a memory begins there, and the slot at which it ends."""
    along, across = regions[:, 3:5].copy(), regions[:, 1:3].copy()
    dense = regions[:, 5] == 0
    full = dense.copy()
    spaces, number = np.unique(regions[:, 0], return_inverse=True)
    order = np.argsort(number, kind="stable")
    for members in np.split(order, np.searchsorted(number[order], np.arange(1, len(spaces)))):
        rows, columns = regions[members, 1], regions[members, 3]
        if len(np.unique(rows)) > len(np.unique(columns)):
            along[members], across[members] = regions[members, 1:3], regions[members, 3:5]
        low, high = across[members].T
        full[members] &= (low == low.min(initial=_FAR)) & (high == high.max(initial=-_FAR))
    memories = np.arange(len(spaces)) << _BITS
    keys = np.concatenate([memories, (number << _BITS) + along[:, 0] + _FAR, (number << _BITS) + along[:, 1] + _FAR,
                           memories + 2 * _FAR - 1])
    slots, place = np.unique(keys, return_inverse=True)
    begin, stop = place[len(spaces):len(spaces) + 2 * len(regions)].reshape(2, -1)
    first, end = np.zeros(len(slots), bool), np.full(len(slots), -1)
    first[place[:len(spaces)]] = True
    end[place[:len(spaces)]] = place[len(place) - len(spaces):]
    fields = np.column_stack([begin, stop, across, dense, full, regions[:, 3:]])
    return np.ascontiguousarray(fields, np.int64), first, end
