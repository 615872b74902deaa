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
from nkilite.machine.rows import ranked

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


def _placed(regions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The regions as the walk takes them; by slot, whether a memory begins there, and the slot at which it ends."""
    fields = np.zeros((len(regions), hazard_walk.FIELDS), np.int64)
    fields[:, hazard_walk.LEFT:] = regions[:, 3:]
    fields[:, hazard_walk.DENSE] = regions[:, 5] == 0
    begins: list[int] = []
    slots = 0
    order = np.argsort(regions[:, 0], kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(regions[order, 0])) + 1):
        rows, columns = regions[members, 1:3], regions[members, 3:5]
        along, across = columns, rows
        if len(ranked(rows[:, 0])[1]) > len(ranked(columns[:, 0])[1]):
            along, across = rows, columns
        ranks, edges = ranked(along.reshape(-1))
        begins.append(slots)
        fields[members, hazard_walk.BEGIN:hazard_walk.END + 1] = slots + 1 + ranks.reshape(-1, 2)
        fields[members, hazard_walk.LOW:hazard_walk.HIGH + 1] = across
        low, high = across.T
        whole = (low == low.min()) & (high == high.max())
        fields[members, hazard_walk.FULL] = fields[members, hazard_walk.DENSE] & whole
        slots += len(edges) + 2  # one before the first edge, and one beyond the last
    first, end = np.zeros(slots, bool), np.full(slots, -1)
    if len(regions):
        first[begins] = True
        end[begins] = [*(begin - 1 for begin in begins[1:]), slots - 1]
    return fields, first, end
