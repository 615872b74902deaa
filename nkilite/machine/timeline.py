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
from typing import Literal

import numpy as np

from nkilite.machine import events
from nkilite.machine.dependencies import Edges
from nkilite.machine.events import BUSY, FREE
from nkilite.machine.traffic import Traffic, with_pieces

__all__ = ["BUSY", "FREE", "ORDERS", "Order", "Timeline", "Workload", "simulate"]

Ints = Sequence[int] | np.ndarray
Floats = Sequence[float] | np.ndarray
Order = Literal["program", "compiler"]
ORDERS: tuple[Order, ...] = ("compiler", "program")


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
        traffic: what instructions move while they hold their queues (nkilite/machine/traffic.py).
        fair: transfers that take turns with others on their engines instead of waiting for them.
    """

    queues: Ints
    busy_ns: Floats
    latency_ns: Floats
    transfer_ns: Floats
    dma_engines: Sequence[tuple[int, int]] | np.ndarray
    edges: Edges
    ports: Ints = ()
    priorities: Ints = ()
    turnaround_ns: Floats = ()
    warmup: tuple[Sequence[int], float] = ((), 0.0)
    fifo: bool = False
    meetings: Ints = ()
    memory_ns: Floats = ()
    traffic: Sequence[Traffic] = ()
    fair: Ints = ()

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
    if not len(work.traffic):
        return _run(work, order)
    whole, owner = with_pieces(work)
    return _without_pieces(_run(whole, order), owner)


def _without_pieces(line: Timeline, owner: np.ndarray) -> Timeline:
    """The timeline of a workload alone: an instruction has finished with the last of its pieces."""
    n = len(line.start) - len(owner)
    np.maximum.at(line.finish, owner, line.finish[n:])
    cause = np.where(line.cause >= n, owner[np.clip(line.cause - n, 0, len(owner) - 1)], line.cause)
    columns = {name: getattr(line, name)[:n] for name in ("start", "end", "moving", "finish", "before", "arrival")}
    return Timeline(**columns, cause=cause[:n], partner=line.partner[:n], order=line.order)


def _run(work: Workload, order: Order) -> Timeline:
    n = len(work)
    names, numbers, sizes = np.unique(np.array(work.queues, np.int64), return_inverse=True, return_counts=True)
    facts, findings = np.zeros((n + 1, events.FACTS), np.int64), np.full((n, events.FINDINGS), -1, np.int64)
    durations, times = np.zeros((n, events.DURATIONS)), np.zeros((n, events.TIMES))
    facts[:n, events.QUEUE] = numbers
    facts[:n, events.KEY] = np.arange(n) + (n * np.array(work.priorities, np.int64) if len(work.priorities) else 0)
    facts[:n, events.FIRST_ENGINE:events.ENGINES + 1] = np.array(work.dma_engines, np.int64).reshape(-1, 2)
    for column, given, otherwise in (
        (events.PORTS, work.ports, 0), (events.MEETING, work.meetings, -1), (events.FAIR, work.fair, 0),
    ):
        facts[:n, column] = np.array(given, np.int64) if len(given) else otherwise
    for column, taken in (
        (events.HELD, work.busy_ns), (events.LATENCY, work.latency_ns), (events.TRANSFER, work.transfer_ns),
        (events.TURNAROUND, work.turnaround_ns), (events.MEMORY, work.memory_ns),
    ):
        durations[:, column] = taken if len(taken) else 0.0
    edges = _allowances(work, order, facts)
    queues = np.zeros((len(names) + 1, events.QUEUE_FACTS), np.int64)
    queues[1:, events.HEAP] = 2 * np.cumsum(sizes)
    queues[:, events.LAST] = -1
    window = work.warmup[1]
    queues[:-1, events.SLOWS] = np.isin(names, np.array(work.warmup[0], np.int64)) & (window > 0)
    meetings = np.zeros((facts[:n, events.MEETING].max(initial=-1) + 1, events.MEETINGS), np.int64)
    meetings[:, events.EXPECTED] = np.bincount(facts[:n, events.MEETING] + 1, minlength=1)[1:]
    engines = facts[:, events.FIRST_ENGINE:events.ENGINES + 1].sum(axis=1).max()
    n_ports = int(facts[:, events.PORTS].max()).bit_length()
    times[:, events.ARRIVAL] = -1
    events.run.run(
        5 * n, facts.reshape(-1), durations.reshape(-1), edges, times.reshape(-1), findings.reshape(-1),
        queues.reshape(-1), np.zeros(events.QUEUE_TIMES * len(names)), np.zeros(2 * n, np.int64), np.zeros(engines),
        np.zeros(n_ports), np.full(n_ports, -1), meetings.reshape(-1), np.array([len(names), n_ports, work.fifo]),
        np.array([window, 0.0]), n,
    )
    start, end, moving, finish, arrival = times.T[:events.ARRIVAL + 1].copy()
    cause, before, partner = findings.T[:events.PARTNER + 1].copy()
    return Timeline(
        start, end, moving, finish, cause, before, np.where(arrival >= 0, arrival, start), partner, order
    )


def _allowances(work: Workload, order: Order, facts: np.ndarray) -> np.ndarray:
    """The (consumer, kind) of all edges by producer; fills in where those of each begin, and how many it waits for."""
    producer, consumer, kind = work.edges.producer, work.edges.consumer, work.edges.kind
    chain = _queue_chains(work.queues) if order == "program" else _meeting_chains(work.queues, work.meetings)
    if len(chain):
        producer = np.concatenate([producer, chain[:, 0]])
        consumer = np.concatenate([consumer, chain[:, 1]])
        kind = np.concatenate([kind, np.full(len(chain), events.ISSUE, np.int8)])
    n = len(work)
    facts[1:, events.CONSUMERS] = np.cumsum(np.bincount(producer, minlength=n))
    facts[:n, events.WAITING] = np.bincount(consumer, minlength=n)
    arranged = np.empty(2 * len(producer), np.int64)
    events.arrange.run(
        len(producer) // 8, np.ascontiguousarray(producer, np.int64), np.ascontiguousarray(consumer, np.int64),
        np.array(kind, np.int64), facts[:, events.CONSUMERS].copy(), arranged, len(producer),
    )
    return arranged


def _queue_chains(queues: Ints) -> np.ndarray:
    """(instruction, next instruction of its queue) pairs."""
    table = np.asarray(queues)
    pairs = [np.column_stack([at[:-1], at[1:]]) for q in np.unique(table) for at in [np.flatnonzero(table == q)]]
    return np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)


def _meeting_chains(queues: Ints, meetings: Ints) -> np.ndarray:
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
