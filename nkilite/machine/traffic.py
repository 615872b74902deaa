"""What collectives move, beside what kernels move: pieces of traffic on the same DMA engines and the same memory.

Collectives are carried out by cores of their own, whose DMA rings are served by the engines that the kernel's are
served by, in turn, a packet of each at a time. So a transfer that goes on for long is cut into pieces, spread over the
time it takes where nothing else moves. A piece that finds an engine busy has half of it until it is done, and whatever
is issued after it waits for its engine time. Source: neuron-runtime/explore/compute-comm-overlap, which gives the
packet size; shares that packet sizes of another setting would make, and the strict priorities of trn3, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nkilite.machine.dependencies import Edges
from nkilite.machine.events import BEGUN, DATA

if TYPE_CHECKING:
    from nkilite.machine.timeline import Workload

__all__ = ["Traffic", "pieces_of", "with_pieces"]

PACKET_BYTES = 1 << 16  # of a collective's rings, by default
_MOST_PIECES = 32


class Traffic(NamedTuple):
    """What an instruction moves while it holds its queue.

    Attributes:
        engines: (first DMA engine, how many).
        engine_ns: time of each of them.
        memory_ns: time of the memory that all share.
        pieces: as how many transfers, one after the other.
    """

    instruction: int
    engines: tuple[int, int]
    engine_ns: float
    memory_ns: float
    pieces: int


def pieces_of(engine_bytes: float) -> int:
    """How many transfers stand for bytes of one engine: packets, but not more than tell when they are moved."""
    return int(min(max(-(-engine_bytes // PACKET_BYTES), 1), _MOST_PIECES))


def with_pieces(work: Workload) -> tuple[Workload, np.ndarray]:
    """A workload with the pieces as instructions behind its own; and, for each of these, the instruction it is of.

    The first piece begins with its instruction, each of the others after the one before it, and what needs the result
    of the instruction waits for the last one.
    """
    n, traffic = len(work), work.traffic
    counts = np.array([t.pieces for t in traffic], np.int64)
    which = np.repeat(np.arange(len(traffic)), counts)
    owner = np.array([t.instruction for t in traffic], np.int64)[which]
    added = len(owner)
    each = 1.0 / counts[which]
    last = np.full(n, -1)
    last[owner] = n + np.arange(added)  # the last assignment stays
    queue = int(np.max(np.asarray(work.queues), initial=0)) + 1 + np.array([t.engines[0] for t in traffic])[which]
    extended = replace(
        work, traffic=(), fair=np.concatenate([np.zeros(n, bool), np.ones(added, bool)]),
        queues=_extended(work.queues, queue), busy_ns=_extended(work.busy_ns, np.asarray(work.busy_ns)[owner] * each),
        latency_ns=_extended(work.latency_ns, np.zeros(added)),
        transfer_ns=_extended(work.transfer_ns, np.array([t.engine_ns for t in traffic])[which] * each),
        dma_engines=np.concatenate([
            np.asarray(work.dma_engines, np.int64).reshape(-1, 2), np.array([t.engines for t in traffic])[which]
        ]),
        memory_ns=np.concatenate([
            work.memory_ns if len(work.memory_ns) else np.zeros(n),
            np.array([t.memory_ns for t in traffic])[which] * each,
        ]),
        edges=_edges(work.edges, owner, last), ports=_extended(work.ports, np.zeros(added, np.int64)),
        priorities=_extended(work.priorities, np.zeros(added, np.int64)),
        turnaround_ns=_extended(work.turnaround_ns, np.zeros(added)),
        meetings=_extended(work.meetings, np.full(added, -1)),
    )
    return extended, owner


def _edges(edges: Edges, owner: np.ndarray, last: np.ndarray) -> Edges:
    """With those from an instruction to its pieces, and from the last of these to what waits for the instruction."""
    pieces = len(last) + np.arange(len(owner))
    waits = np.flatnonzero(last[edges.producer] >= 0) if len(edges) else np.empty(0, np.int64)
    follow = pieces[1:][owner[1:] == owner[:-1]]
    return Edges(
        np.concatenate([edges.producer, owner, follow - 1, last[edges.producer[waits]]]).astype(np.int64),
        np.concatenate([edges.consumer, pieces, follow, edges.consumer[waits]]).astype(np.int64),
        np.concatenate([edges.kind, np.repeat([BEGUN, DATA], [len(owner), len(follow) + len(waits)])]).astype(np.int8),
    )


def _extended(column: Sequence[float] | np.ndarray, more: np.ndarray) -> np.ndarray:
    """A column with entries of the pieces; one that is left out stays so."""
    return np.concatenate([np.asarray(column), more]) if len(column) else np.empty(0)
