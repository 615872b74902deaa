"""The loop of the timing model: queues look at what is ready, issue, wait and wake, event by event.

A queue keeps two heaps of instructions: those whose operands are ready, by what it takes first, and those whose
operands will be, by when. Tables have a row of named columns for every instruction or queue.
"""

from __future__ import annotations

from nkilite.compiled import Floats, Ints, compiled
from nkilite.machine.hazard_walk import DATA, ORDER

__all__ = ["BEGUN", "BUSY", "DATA", "FREE", "ISSUE", "arrange", "run"]

FREE, BUSY = -1, -2  # what held an instruction back: nothing; its engine (or a shared port) was busy
ISSUE = 2  # an edge beside DATA and ORDER: the next instruction of a queue issues after this one
BEGUN = 3  # another one: a part of what an instruction does begins with it

# Instructions: what they take, what is known of them, when they do what, and what that shows.
HELD, LATENCY, TRANSFER, TURNAROUND, MEMORY = range(5)
DURATIONS = 5
QUEUE, KEY, FIRST_ENGINE, ENGINES, PORTS, MEETING, CONSUMERS, WAITING, FAIR = range(9)
FACTS = 9
START, END, MOVING, FINISH, ARRIVAL, READY, SINCE = range(7)
TIMES = 7
CAUSE, BEFORE, PARTNER, COMPANION = range(4)
FINDINGS = 4

# Queues: where their heaps begin and how many are in them, the instruction before, whether their clock slows down, its
# window and whether it is warm in it; when they are free, look again, and how much they worked in this window.
HEAP, COMING, ELIGIBLE, LAST, SLOWS, WINDOW, WARM = range(7)
QUEUE_FACTS = 7
FREE_AT, ALARM, WORKED = range(3)
QUEUE_TIMES = 3

# Meetings: how many are expected and have come, the first and the last of those.
EXPECTED, ARRIVED, FIRST, LATEST = range(4)
MEETINGS = 4

# What is the same for all, and when the shared memory is free.
N_QUEUES, N_PORTS, FIFO = range(3)
WINDOW_NS, MEMORY_FREE = range(2)

_WARMS, _COOLS = 0.75, 0.35  # share of a window in work from which an engine is warm, and stays so
_NEVER = 1e300


@compiled
def run(
    facts: Ints, durations: Floats, edges: Ints, times: Floats, findings: Ints, queues: Ints, queue_times: Floats,
    heaps: Ints, engine_free: Floats, port_free: Floats, port_holder: Ints, meetings: Ints, options: Ints,
    shared: Floats, count: int,
) -> None:
    """Run `count` instructions; fills in `times` and `findings`.

    Args:
        edges: rows of (consumer, kind), those of instruction i from its CONSUMERS to those of the next one.
        heaps: room for two heaps of all instructions of each queue.
        engine_free: when each DMA engine is free.
        port_free, port_holder: when each memory port is free, and who held it last.
    """
    for i in range(count):
        if facts[FACTS * i + WAITING] == 0:
            _will_be_ready(facts, times, queues, heaps, i)
    q = _earliest(queue_times, options[N_QUEUES])
    while q >= 0:
        now = queue_times[QUEUE_TIMES * q + ALARM]
        queue_times[QUEUE_TIMES * q + ALARM] = _NEVER
        i = _chosen(facts, times, findings, queues, queue_times, heaps, port_free, port_holder, options, q, now)
        if i >= 0:
            if now > times[TIMES * i + READY]:
                findings[FINDINGS * i + CAUSE] = BUSY
            findings[FINDINGS * i + BEFORE] = queues[QUEUE_FACTS * q + LAST]
            queues[QUEUE_FACTS * q + LAST] = i
            meeting = facts[FACTS * i + MEETING]
            together = i
            if meeting >= 0:
                together = _met(times, findings, queues, queue_times, meetings, meeting, q, i, now)
            while together >= 0:
                _issue(
                    facts, durations, edges, times, findings, queues, queue_times, heaps, engine_free, port_free,
                    port_holder, options, shared, together, now,
                )
                together = findings[FINDINGS * together + COMPANION]
        q = _earliest(queue_times, options[N_QUEUES])


@compiled
def arrange(producer: Ints, consumer: Ints, kind: Ints, begins: Ints, arranged: Ints, count: int) -> None:
    """Put the (consumer, kind) of `count` edges where those of their producer begin; moves `begins` along."""
    for k in range(count):
        at = begins[producer[k]]
        arranged[2 * at], arranged[2 * at + 1] = consumer[k], kind[k]
        begins[producer[k]] = at + 1


@compiled
def _earliest(queue_times: Floats, n_queues: int) -> int:
    """The queue that looks next, -1 if none does."""
    found, first = -1, _NEVER
    for q in range(n_queues):
        at = queue_times[QUEUE_TIMES * q + ALARM]
        if at < first:
            found, first = q, at
    return found


@compiled
def _chosen(
    facts: Ints, times: Floats, findings: Ints, queues: Ints, queue_times: Floats, heaps: Ints, port_free: Floats,
    port_holder: Ints, options: Ints, q: int, now: float,
) -> int:
    """The instruction a queue issues now, taken from its heaps; -1, with its alarm set, if there is none yet."""
    own = QUEUE_FACTS * q
    base = queues[own + HEAP]
    room = queues[own + QUEUE_FACTS + HEAP] - base
    eligible = base + room // 2
    while queues[own + COMING] and times[TIMES * heaps[base] + READY] <= now:
        i = _pop(facts, times, heaps, base, queues[own + COMING], READY)
        queues[own + COMING] -= 1
        times[TIMES * i + SINCE] = times[TIMES * i + READY] if options[FIFO] else 0.0
        _push(facts, times, heaps, eligible, queues[own + ELIGIBLE], SINCE, i)
        queues[own + ELIGIBLE] += 1
    if queues[own + ELIGIBLE] == 0:
        if queues[own + COMING]:
            queue_times[QUEUE_TIMES * q + ALARM] = times[TIMES * heaps[base] + READY]
        return -1
    i = heaps[eligible]
    if facts[FACTS * i + PORTS]:
        last = -1
        for b in range(options[N_PORTS]):
            if facts[FACTS * i + PORTS] >> b & 1 and (
                last < 0 or port_free[b] > port_free[last]
                or (port_free[b] == port_free[last] and port_holder[b] > port_holder[last])
            ):
                last = b
        if port_free[last] > now:
            times[TIMES * i + READY] = port_free[last]
            findings[FINDINGS * i + CAUSE] = port_holder[last]
            queue_times[QUEUE_TIMES * q + ALARM] = port_free[last]
            return -1
    _pop(facts, times, heaps, eligible, queues[own + ELIGIBLE], SINCE)
    queues[own + ELIGIBLE] -= 1
    return i


@compiled
def _met(
    times: Floats, findings: Ints, queues: Ints, queue_times: Floats, meetings: Ints, meeting: int, q: int, i: int,
    now: float,
) -> int:
    """Have an instruction arrive at its meeting; returns the first of those that begin now, linked, or -1."""
    own = MEETINGS * meeting
    times[TIMES * i + ARRIVAL] = now
    if meetings[own + ARRIVED] == 0:
        meetings[own + FIRST] = i
    else:
        findings[FINDINGS * meetings[own + LATEST] + COMPANION] = i
    meetings[own + LATEST] = i
    meetings[own + ARRIVED] += 1
    if meetings[own + ARRIVED] < meetings[own + EXPECTED]:
        queue_times[QUEUE_TIMES * q + FREE_AT] = _NEVER
        return -1
    other = meetings[own + FIRST]
    while other != i:
        findings[FINDINGS * other + PARTNER] = i
        other = findings[FINDINGS * other + COMPANION]
    return meetings[own + FIRST]


@compiled
def _issue(
    facts: Ints, durations: Floats, edges: Ints, times: Floats, findings: Ints, queues: Ints, queue_times: Floats,
    heaps: Ints, engine_free: Floats, port_free: Floats, port_holder: Ints, options: Ints, shared: Floats, i: int,
    now: float,
) -> None:
    """Let an instruction hold its queue, its transfer its engines, and its consumers know when they can begin."""
    at, own, takes = TIMES * i, FACTS * i, DURATIONS * i
    q = facts[own + QUEUE]
    times[at + START] = now
    held = durations[takes + HELD]
    if queues[QUEUE_FACTS * q + SLOWS]:
        held = _at_its_clock(queues, queue_times, shared[WINDOW_NS], q, now, held)
    done = now + held
    times[at + END] = done
    again = done + durations[takes + TURNAROUND]
    queue_times[QUEUE_TIMES * q + FREE_AT] = again
    times[at + MOVING], left, landed = now, done, done + durations[takes + LATENCY]
    if facts[own + ENGINES]:
        left = max(_moved(facts, durations, times, engine_free, shared, i, now + durations[takes + LATENCY]), done)
        landed = left
    times[at + FINISH] = landed
    if facts[own + PORTS]:
        for b in range(options[N_PORTS]):
            if facts[own + PORTS] >> b & 1:
                port_free[b], port_holder[b] = done, i
    for k in range(facts[own + CONSUMERS], facts[own + FACTS + CONSUMERS]):
        j, kind = edges[2 * k], edges[2 * k + 1]
        allowed = landed if kind == DATA else left if kind == ORDER else now if kind == BEGUN else done
        if allowed > times[TIMES * j + READY]:
            times[TIMES * j + READY] = allowed
            findings[FINDINGS * j + CAUSE] = i if kind != ISSUE else BUSY
        facts[FACTS * j + WAITING] -= 1
        if facts[FACTS * j + WAITING] == 0:
            _will_be_ready(facts, times, queues, heaps, j)
            other = QUEUE_TIMES * facts[FACTS * j + QUEUE]
            wakes = max(times[TIMES * j + READY], queue_times[other + FREE_AT])
            queue_times[other + ALARM] = min(queue_times[other + ALARM], wakes)
    queue_times[QUEUE_TIMES * q + ALARM] = min(queue_times[QUEUE_TIMES * q + ALARM], again)


@compiled
def _moved(
    facts: Ints, durations: Floats, times: Floats, engine_free: Floats, shared: Floats, i: int, begin: float
) -> float:
    """When the last byte of a transfer has arrived; its engines and the shared memory serve it first come, first
    served. One that is FAIR has half of what is busy until it is done."""
    occupied, bytes_ns = durations[DURATIONS * i + TRANSFER], durations[DURATIONS * i + MEMORY]
    arrived, started = 0.0, _NEVER
    lead, fair = facts[FACTS * i + FIRST_ENGINE], facts[FACTS * i + FAIR]
    for e in range(lead, lead + facts[FACTS * i + ENGINES]):
        at = max(begin, engine_free[e])
        engine_free[e] = at + occupied
        arrived = max(arrived, min(at, begin + occupied) + occupied if fair else at + occupied)
        started = min(started, begin if fair else at)
    if bytes_ns:
        at = max(shared[MEMORY_FREE], begin)
        shared[MEMORY_FREE] = at + bytes_ns
        arrived = max(arrived, min(at, begin + bytes_ns) + bytes_ns if fair else at + bytes_ns)
    times[TIMES * i + MOVING] = started
    return arrived


@compiled
def _at_its_clock(
    queues: Ints, queue_times: Floats, window_ns: float, q: int, now: float, busy: float
) -> float:
    """Time that an instruction of `busy` nanoseconds at the full clock takes of an engine that slows down when it
    idles: windows of one length, each at the pace that the work in the one before it earned."""
    own = QUEUE_FACTS * q
    window = int(now / window_ns)
    if window != queues[own + WINDOW]:
        worked = queue_times[QUEUE_TIMES * q + WORKED] if window == queues[own + WINDOW] + 1 else 0.0
        queues[own + WARM] = worked >= window_ns * (_COOLS if queues[own + WARM] else _WARMS)
        queues[own + WINDOW] = window
        queue_times[QUEUE_TIMES * q + WORKED] = 0.0
    taken = busy if queues[own + WARM] else 2 * busy
    queue_times[QUEUE_TIMES * q + WORKED] += taken
    return taken


# --- heaps ------------------------------------------------------------------------------------------------------------


@compiled
def _will_be_ready(facts: Ints, times: Floats, queues: Ints, heaps: Ints, i: int) -> None:
    own = QUEUE_FACTS * facts[FACTS * i + QUEUE]
    _push(facts, times, heaps, queues[own + HEAP], queues[own + COMING], READY, i)
    queues[own + COMING] += 1


@compiled
def _push(facts: Ints, times: Floats, heaps: Ints, base: int, count: int, by: int, i: int) -> None:
    """Add an instruction to a heap of `count`, ordered by a column of the times and then by KEY."""
    at = count
    while at > 0 and _earlier(facts, times, by, i, heaps[base + (at - 1) // 2]):
        heaps[base + at] = heaps[base + (at - 1) // 2]
        at = (at - 1) // 2
    heaps[base + at] = i


@compiled
def _pop(facts: Ints, times: Floats, heaps: Ints, base: int, count: int, by: int) -> int:
    """Take the first instruction from a heap of `count`."""
    found, moved = heaps[base], heaps[base + count - 1]
    at, child = 0, 1
    while child < count - 1:
        if child + 1 < count - 1 and _earlier(facts, times, by, heaps[base + child + 1], heaps[base + child]):
            child += 1
        if _earlier(facts, times, by, moved, heaps[base + child]):
            break
        heaps[base + at] = heaps[base + child]
        at, child = child, 2 * child + 1
    heaps[base + at] = moved
    return found


@compiled
def _earlier(facts: Ints, times: Floats, by: int, one: int, other: int) -> bool:
    a, b = times[TIMES * one + by], times[TIMES * other + by]
    return a < b or (a == b and facts[FACTS * one + KEY] < facts[FACTS * other + KEY])
