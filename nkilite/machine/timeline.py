"""When every instruction runs: in-order engine queues, DMA engines and hazards, simulated event by event.

A `Workload` says for each instruction which queue issues it, how long it holds the queue, when its result lands and
whom it waits for; `simulate` returns when it starts and ends and what held it back. Two orders:

    program    every queue issues in program order: the instruction at its head blocks those behind it
    compiler   a free queue issues the earliest instruction (in program order) whose operands are ready: list
               scheduling within each engine, as the vendor's compiler may do between independent instructions

A DMA instruction holds its queue while descriptors are made and triggered; after the start-up latency, its share of
the transfer occupies each of its DMA engines, first come, first served. All times are modelled nanoseconds.

Cores have queues of their own. Where they meet, each holds its queue from when it arrives, and all go on when the last
one has come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Literal

import numpy as np

from nkilite.machine.dependencies import DATA, ORDER, Edges

__all__ = ["BUSY", "FREE", "ORDERS", "Order", "Timeline", "Workload", "simulate"]

Order = Literal["program", "compiler"]
ORDERS: tuple[Order, ...] = ("compiler", "program")

FREE, BUSY = -1, -2  # what held an instruction back: nothing; its engine (or a shared port) was busy


@dataclass
class Workload:
    """Instructions as the model sees them, one entry per instruction and list.

    Attributes:
        queues: which queue issues it; any small integers.
        busy_ns: time it holds its queue.
        latency_ns: compute: from leaving the engine until the result can be used. DMA: from issue to the first byte.
        transfer_ns: time each of its DMA engines is occupied; 0 for compute.
        dma_engines: (first engine, engines) of a transfer; (0, 0) for compute.
        ports: bit mask of memory ports that only one instruction can hold at a time.
        turnaround_ns: time from leaving its queue until the next instruction can start there.
        priorities: DMA service class, 0 first; matters in ``compiler`` order.
        warmup: (queues, nanoseconds) of engines that run at half their clock until they worked for most of such a
            time, and again after one that they idled; 0 where none does.
        fifo: whether, in ``compiler`` order, a queue takes what was ready first instead of what the source has first.
        edges: hazards and explicit dependencies.
        meetings: the meeting of every instruction, -1 for none: those of one meeting begin together. In every queue
            meetings keep their order, and each waits for what comes before it there.
        memory_ns: time that the bytes of every transfer take of a memory that all share, in the order of issue.
    """

    queues: Sequence[int]
    busy_ns: Sequence[float]
    latency_ns: Sequence[float]
    transfer_ns: Sequence[float]
    dma_engines: Sequence[tuple[int, int]]
    edges: Edges
    ports: Sequence[int] = ()
    priorities: Sequence[int] = ()
    turnaround_ns: Sequence[float] = ()
    warmup: tuple[Sequence[int], float] = ((), 0.0)
    fifo: bool = False
    meetings: Sequence[int] = ()
    memory_ns: Sequence[float] = ()

    def __len__(self) -> int:
        return len(self.queues)


@dataclass
class Timeline:
    """The result of a simulation, arrays indexed by instruction, nanoseconds from the first issue.

    Attributes:
        start, end: when the instruction held its queue.
        moving: when the first byte of a DMA moved; `start` for compute.
        finish: when its result was usable, or all its bytes had arrived.
        cause: the instruction whose completion it waited for, `BUSY` if its engine was not free, or `FREE`.
        before: the instruction that held the queue before it, or -1.
        arrival: when it took its queue: before `start` for one that waited at a meeting.
        partner: the instruction that came last to its meeting, if that was another one; else -1.
    """

    start: np.ndarray
    end: np.ndarray
    moving: np.ndarray
    finish: np.ndarray
    cause: np.ndarray
    before: np.ndarray
    arrival: np.ndarray
    partner: np.ndarray
    order: Order = "compiler"
    span_ns: float = field(init=False)

    def __post_init__(self) -> None:
        self.span_ns = float(self.finish.max()) if len(self.finish) else 0.0

    def critical_path(self) -> list[int]:
        """Instructions, first to last, each of which began when the one before it allowed."""
        if not len(self.finish):
            return []
        path = []
        at = int(self.finish.argmax())
        while at >= 0:
            path.append(at)
            at = self.allowed(at)
        return path[::-1]

    def allowed(self, instruction: int) -> int:
        """The instruction that decided when this one began; negative if it could begin at once."""
        partner, cause = int(self.partner[instruction]), int(self.cause[instruction])
        return partner if partner >= 0 else int(self.before[instruction]) if cause == BUSY else cause


def simulate(work: Workload, order: Order = "compiler") -> Timeline:
    """Run a workload; the cost is O(n log n) in instructions and linear in edges."""
    n = len(work)
    producer, consumer, kind = work.edges.producer, work.edges.consumer, work.edges.kind
    chain = _queue_chains(work.queues) if order == "program" else _meeting_chains(work.queues, work.meetings)
    if len(chain):
        producer = np.concatenate([producer, chain[:, 0]])
        consumer = np.concatenate([consumer, chain[:, 1]])
        kind = np.concatenate([kind, np.full(len(chain), _ISSUE, np.int8)])
    by_producer = np.argsort(producer, kind="stable")
    consumers, kinds = consumer[by_producer].tolist(), kind[by_producer].tolist()
    first = np.searchsorted(producer[by_producer], np.arange(n + 1)).tolist()
    waiting = np.bincount(consumer, minlength=n).tolist() if len(consumer) else [0] * n

    queues, busy_ns = list(work.queues), list(work.busy_ns)
    latency_ns, transfer_ns, dma_engines = list(work.latency_ns), list(work.transfer_ns), list(work.dma_engines)
    ports, turnaround_ns = list(work.ports) or [0] * n, list(work.turnaround_ns) or [0.0] * n
    keys = _keys(n, work.priorities)
    names = sorted(set(queues))
    slot = {q: i for i, q in enumerate(names)}
    queues = [slot[q] for q in queues]
    n_engines = max((e + c for e, c in set(dma_engines)), default=0)

    start, end, moving, finish = [0.0] * n, [0.0] * n, [0.0] * n, [0.0] * n
    cause, before, arrival, partner = [FREE] * n, [-1] * n, [-1.0] * n, [-1] * n
    meetings = list(work.meetings) or [-1] * n
    expected = np.bincount(np.array(meetings, np.int64) + 1, minlength=1).tolist()  # who meets, by meeting + 1
    arrived_at: dict[int, list[int]] = {}
    memory_ns, memory_free = list(work.memory_ns) or [0.0] * n, 0.0
    ready = [0.0] * n  # earliest start its producers allow
    engine_free = [0.0] * n_engines
    port_free = [0.0] * (max(ports, default=0).bit_length())
    port_holder = [-1] * len(port_free)
    last = [-1] * len(names)
    free = [0.0] * len(names)
    eligible: list[list] = [[] for _ in names]  # (key, instruction) whose operands are ready
    future: list[list] = [[] for _ in names]  # (time, key, instruction) whose operands will be
    wake = [(0.0, q) for q in range(len(names))]
    alarm = [0.0] * len(names)  # the earliest wake of each queue; later ones in the heap are void

    window = work.warmup[1]
    clocks = {slot[q]: _Clock(window) for q in work.warmup[0] if window and q in slot}

    for i in range(n):
        if not waiting[i]:
            heappush(future[queues[i]], (0.0, keys[i], i))

    while wake:
        now, q = heappop(wake)
        if now != alarm[q]:
            continue
        alarm[q] = _NEVER
        coming, ready_now = future[q], eligible[q]
        while coming and coming[0][0] <= now:
            at, key, i = heappop(coming)
            heappush(ready_now, ((at, key) if work.fifo else key, i))
        if not ready_now:
            if coming:
                alarm[q] = at = coming[0][0]
                heappush(wake, (at, q))
            continue
        i = ready_now[0][1]
        held = ports[i]
        if held:
            blocked, holder = max((port_free[b], port_holder[b]) for b in range(len(port_free)) if held >> b & 1)
            if blocked > now:
                ready[i], cause[i], alarm[q] = blocked, holder, blocked
                heappush(wake, (blocked, q))
                continue
        heappop(ready_now)
        if now > ready[i]:
            cause[i] = BUSY
        before[i], last[q] = last[q], i
        together: Sequence[int] = (i,)
        if meetings[i] >= 0:
            together = arrived_at.setdefault(meetings[i], [])
            together.append(i)
            arrival[i] = now
            if len(together) < expected[meetings[i] + 1]:
                free[q] = _NEVER
                continue
            for other in together[:-1]:
                partner[other] = i
        for i in together:
            q, held = queues[i], ports[i]
            start[i] = now
            done = now + (busy_ns[i] if q not in clocks else clocks[q].taken(now, busy_ns[i]))
            end[i] = done
            free[q] = again = done + turnaround_ns[i]
            count = dma_engines[i][1]
            if count:
                begin, occupied = now + latency_ns[i], transfer_ns[i]
                arrived, started = 0.0, _NEVER
                lead = dma_engines[i][0]
                for e in range(lead, lead + count):
                    at = engine_free[e] if engine_free[e] > begin else begin
                    started = at if at < started else started
                    engine_free[e] = at = at + occupied
                    arrived = at if at > arrived else arrived
                if memory_ns[i]:
                    memory_free = max(memory_free, begin) + memory_ns[i]
                    arrived = max(arrived, memory_free)
                moving[i] = started
                landed = left = max(arrived, done)
            else:
                moving[i] = now
                left, landed = done, done + latency_ns[i]
            finish[i] = landed
            if held:
                for b in range(len(port_free)):
                    if held >> b & 1:
                        port_free[b], port_holder[b] = done, i
            for k in range(first[i], first[i + 1]):
                j, edge = consumers[k], kinds[k]
                at = landed if edge == DATA else left if edge == ORDER else done
                if at > ready[j]:
                    ready[j] = at
                    cause[j] = i if edge != _ISSUE else BUSY
                pending = waiting[j] - 1
                waiting[j] = pending
                if not pending:
                    other, at = queues[j], ready[j]
                    heappush(future[other], (at, keys[j], j))
                    if at < free[other]:
                        at = free[other]
                    if at < alarm[other]:
                        alarm[other] = at
                        heappush(wake, (at, other))
            if again < alarm[q]:
                alarm[q] = again
                heappush(wake, (again, q))

    begun = np.array(start)
    came = np.array(arrival)
    return Timeline(
        begun, np.array(end), np.array(moving), np.array(finish), np.array(cause, np.int64),
        np.array(before, np.int64), np.where(came >= 0, came, begun), np.array(partner, np.int64), order,
    )


class _Clock:
    """The clock of an engine that slows down when it idles: windows of one length, each at the pace that the work in
    the one before it earned."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._number, self._busy, self._warm = 0, 0.0, False

    def taken(self, now: float, busy: float) -> float:
        """Time that an instruction of `busy` nanoseconds at the full clock takes from `now` on."""
        number = int(now / self._window)
        if number != self._number:
            worked = self._busy if number == self._number + 1 else 0.0
            self._warm = worked >= self._window * (_COOLS if self._warm else _WARMS)
            self._number, self._busy = number, 0.0
        taken = busy if self._warm else 2 * busy
        self._busy += taken
        return taken


_WARMS, _COOLS = 0.5, 0.05  # share of a window in work that makes an engine warm, or keeps it so

_NEVER = float("inf")
_ISSUE = 2  # an edge kind of program order: the next instruction of a queue issues after this one


def _queue_chains(queues: Sequence[int]) -> np.ndarray:
    """(instruction, next instruction of its queue) pairs."""
    table = np.asarray(queues)
    pairs = [np.column_stack([at[:-1], at[1:]]) for q in np.unique(table) for at in [np.flatnonzero(table == q)]]
    return np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)


def _meeting_chains(queues: Sequence[int], meetings: Sequence[int]) -> np.ndarray:
    """(instruction, meeting) pairs: a meeting waits for what comes before it in its queue.

    So what holds it up always comes before it in the program, and cores never wait for each other in a circle.
    """
    met = np.asarray(meetings, np.int64)
    if not (met >= 0).any():
        return np.empty((0, 2), np.int64)
    table = np.asarray(queues)
    pairs = []
    for q in np.unique(table[met >= 0]):
        at = np.flatnonzero(table == q)
        following = np.searchsorted(at, at[met[at] >= 0])
        place = np.searchsorted(following, np.arange(len(at)), "right")  # the next meeting after each of them
        some = place < len(following)
        pairs.append(np.column_stack([at[some], at[following[place[some]]]]))
    return np.concatenate(pairs)


def _keys(n: int, priorities: Sequence[int]) -> list[int]:
    """What orders the ready instructions of a queue: service class, then program order."""
    if not len(priorities):
        return list(range(n))
    return [p * n + i for i, p in enumerate(priorities)]
