"""The walk that finds hazards: who wrote and who read each part of every memory, access by access.

A memory is cut into segments, by the edges of what is written to it. A segment keeps the writers that no later write
covers, and the readers since, in lists of (instruction, region). Edges are numbered along all memories ("slots"), so
that a segment is known by the slot it begins at; a tree of bits finds the segment that a slot lies in.
"""

from __future__ import annotations

import numpy as np

from nkilite.compiled import Ints, compiled

__all__ = ["ACCUMULATE", "DATA", "ORDER", "READ", "WRITE", "bit_tree", "mark", "state", "walk"]

#: Edge kinds: the consumer waits until the producer's result has landed, or only until it leaves its engine.
DATA, ORDER = 0, 1

#: What an access does.
READ, WRITE, ACCUMULATE = 1, 2, 4

# Fields of a region: slots along the axis that tells most regions of a memory apart, extent across it, whether every
# byte is touched, and whether it is dense and reaches as far across as any; columns, and their step and width.
BEGIN, END, LOW, HIGH, DENSE, FULL, LEFT, RIGHT, STEP, WIDTH = range(10)
FIELDS = 10

# Fields of a segment, and of a list's entry.
NEXT, WRITERS, READERS, N_READERS = range(4)
INSTRUCTION, REGION, FOLLOWING = range(3)

# What the walk has used, and what it may use.
_FREE, _NODES, _EDGES, _FAILED, _MOST_NODES, _MOST_EDGES = range(6)

_CROWD = 32  # readers of a segment that are better kept apart, if they read different parts of it


@compiled
def walk(
    accesses: Ints, queues: Ints, regions: Ints, segments: Ints, bits: Ints, levels: Ints, nodes: Ints, edges: Ints,
    latest: Ints, state: Ints, count: int,
) -> int:
    """Find the hazards of `count` accesses; returns how many, or -1 if there are too few nodes or edges.

    Args:
        accesses: rows of (instruction, region, flags), in program order.
        queues: of every instruction: a queue keeps its own writes in order, and the Tensor Engine its own sums.
        regions: rows of FIELDS.
        segments: rows of four, by slot; the first segment of every memory begins, and its end is marked.
        bits, levels: the tree of the slots where segments begin.
        nodes: rows of three, for lists.
        edges: rows of (producer, consumer, kind): the result.
        latest: rows of two by instruction, -1: the consumer that last waited for it, and where that edge is.
        state: as `state` makes it.
    """
    for k in range(count):
        instruction, region, flags = accesses[3 * k], accesses[3 * k + 1], accesses[3 * k + 2]
        begin, end = regions[FIELDS * region + BEGIN], regions[FIELDS * region + END]
        first = _segment_of(bits, levels, begin)
        if flags & WRITE == 0:
            _read(regions, segments, bits, levels, nodes, edges, latest, state, instruction, region, first, end)
        else:
            in_order = -1 if flags & READ and flags & ACCUMULATE == 0 else queues[instruction]
            if segments[4 * first + NEXT] != end or first != begin:
                first = _cut(regions, segments, bits, levels, nodes, state, begin)
                _cut(regions, segments, bits, levels, nodes, state, end)
            if regions[FIELDS * region + FULL]:
                _overwrite(
                    regions, segments, nodes, edges, latest, state, queues, in_order, instruction, region, first, end
                )
                alone = True
            else:
                alone = _write(
                    regions, segments, nodes, edges, latest, state, queues, in_order, instruction, region, first, end
                )
            if alone:
                _join(segments, bits, levels, nodes, state, instruction, region, first, end)
        if state[_FAILED]:
            return -1
    return state[_EDGES]


@compiled
def _read(
    regions: Ints, segments: Ints, bits: Ints, levels: Ints, nodes: Ints, edges: Ints, latest: Ints, state: Ints,
    instruction: int, region: int, first: int, end: int,
) -> None:
    """Add a reader, which waits for the writers it meets."""
    dense = regions[FIELDS * region + DENSE]
    segment = first
    while segment < end:
        node = segments[4 * segment + WRITERS]
        while node >= 0:
            r = nodes[3 * node + REGION]
            # A writer covers all of a segment: a dense one that goes all across meets every dense reader.
            if r == region or (dense and regions[FIELDS * r + FULL]) or _overlap(regions, r, region):
                _wait(edges, latest, state, nodes[3 * node + INSTRUCTION], instruction, DATA)
            node = nodes[3 * node + FOLLOWING]
        segments[4 * segment + READERS] = _entry(nodes, state, instruction, region, segments[4 * segment + READERS])
        readers = segments[4 * segment + N_READERS] + 1
        segments[4 * segment + N_READERS] = readers
        following = segments[4 * segment + NEXT]
        if readers >= _CROWD and readers & (readers - 1) == 0:
            _disperse(regions, segments, bits, levels, nodes, state, segment)
        segment = following


@compiled
def _overwrite(
    regions: Ints, segments: Ints, nodes: Ints, edges: Ints, latest: Ints, state: Ints, queues: Ints, in_order: int,
    instruction: int, region: int, first: int, end: int,
) -> None:
    """What a write waits for that leaves nothing of what was before it."""
    begin = regions[FIELDS * region + BEGIN]
    segment = first
    while segment < end:
        node = segments[4 * segment + READERS]
        while node >= 0:
            r = nodes[3 * node + REGION]
            if regions[FIELDS * r + DENSE]:
                meets = regions[FIELDS * r + BEGIN] < end and begin < regions[FIELDS * r + END]
            else:
                meets = _overlap(regions, r, region)
            if meets:
                _wait(edges, latest, state, nodes[3 * node + INSTRUCTION], instruction, ORDER)
            node = nodes[3 * node + FOLLOWING]
        node = segments[4 * segment + WRITERS]
        while node >= 0:
            r = nodes[3 * node + REGION]
            if regions[FIELDS * r + DENSE] or _overlap(regions, r, region):
                _wait_for_writer(edges, latest, state, queues, in_order, nodes[3 * node + INSTRUCTION], instruction)
            node = nodes[3 * node + FOLLOWING]
        segment = segments[4 * segment + NEXT]


@compiled
def _write(
    regions: Ints, segments: Ints, nodes: Ints, edges: Ints, latest: Ints, state: Ints, queues: Ints, in_order: int,
    instruction: int, region: int, first: int, end: int,
) -> bool:
    """Add a writer and remove whom it hides; returns whether nobody else is left."""
    alone = True
    segment = first
    while segment < end:
        left = -1
        readers = 0
        node = segments[4 * segment + READERS]
        while node >= 0:
            r, following = nodes[3 * node + REGION], nodes[3 * node + FOLLOWING]
            if r == region or _overlap(regions, r, region):
                _wait(edges, latest, state, nodes[3 * node + INSTRUCTION], instruction, ORDER)
            if r == region or _hides(regions, region, r):
                _release(nodes, state, node)
            else:
                nodes[3 * node + FOLLOWING], left = left, node
                readers += 1
            node = following
        segments[4 * segment + READERS], segments[4 * segment + N_READERS] = left, readers
        kept = -1
        node = segments[4 * segment + WRITERS]
        while node >= 0:
            r, following = nodes[3 * node + REGION], nodes[3 * node + FOLLOWING]
            if r == region or _overlap(regions, r, region):
                _wait_for_writer(edges, latest, state, queues, in_order, nodes[3 * node + INSTRUCTION], instruction)
            if r == region or _hides(regions, region, r):
                _release(nodes, state, node)
            else:
                nodes[3 * node + FOLLOWING], kept = kept, node
            node = following
        alone = alone and left < 0 and kept < 0
        segments[4 * segment + WRITERS] = _entry(nodes, state, instruction, region, kept)
        segment = segments[4 * segment + NEXT]
    return alone


@compiled
def _join(
    segments: Ints, bits: Ints, levels: Ints, nodes: Ints, state: Ints, instruction: int, region: int, first: int,
    end: int,
) -> None:
    """Make one segment of those from `first` to `end`, with one writer and no reader."""
    segment = first
    while segment < end:
        following = segments[4 * segment + NEXT]
        _release_list(nodes, state, segments[4 * segment + WRITERS])
        _release_list(nodes, state, segments[4 * segment + READERS])
        if segment != first:
            _unmark(bits, levels, segment)
        segment = following
    segments[4 * first + NEXT] = end
    segments[4 * first + WRITERS] = _entry(nodes, state, instruction, region, -1)
    segments[4 * first + READERS] = -1
    segments[4 * first + N_READERS] = 0


@compiled
def _disperse(
    regions: Ints, segments: Ints, bits: Ints, levels: Ints, nodes: Ints, state: Ints, segment: int
) -> None:
    """Cut a segment with many readers of parts of it, so that a write to a part only looks at its own.

    Without it, a large tile that is read in small pieces costs all of them at each of the writes that reuse it.
    """
    inside, total = 0, 0
    node = segments[4 * segment + READERS]
    while node >= 0:
        edge = regions[FIELDS * nodes[3 * node + REGION] + BEGIN]
        if edge > segment:
            inside += 1
            total += edge
        node = nodes[3 * node + FOLLOWING]
    if inside >= _CROWD // 2:
        _cut(regions, segments, bits, levels, nodes, state, (total + inside - 1) // inside)


@compiled
def _cut(regions: Ints, segments: Ints, bits: Ints, levels: Ints, nodes: Ints, state: Ints, at: int) -> int:
    """The segment that begins at a slot, made by cutting one in two if need be."""
    segment = _segment_of(bits, levels, at)
    if segment == at:
        return at
    segments[4 * at + NEXT], segments[4 * segment + NEXT] = segments[4 * segment + NEXT], at
    _mark(bits, levels, at)
    copy = -1
    node = segments[4 * segment + WRITERS]
    while node >= 0:
        copy = _entry(nodes, state, nodes[3 * node + INSTRUCTION], nodes[3 * node + REGION], copy)
        node = nodes[3 * node + FOLLOWING]
    segments[4 * at + WRITERS] = copy
    before, after = -1, -1
    n_before, n_after = 0, 0
    node = segments[4 * segment + READERS]
    while node >= 0:
        r, following = nodes[3 * node + REGION], nodes[3 * node + FOLLOWING]
        if regions[FIELDS * r + END] <= at:
            nodes[3 * node + FOLLOWING], before = before, node
            n_before += 1
        else:
            if regions[FIELDS * r + BEGIN] < at:
                before = _entry(nodes, state, nodes[3 * node + INSTRUCTION], r, before)
                n_before += 1
            nodes[3 * node + FOLLOWING], after = after, node
            n_after += 1
        node = following
    segments[4 * segment + READERS], segments[4 * segment + N_READERS] = before, n_before
    segments[4 * at + READERS], segments[4 * at + N_READERS] = after, n_after
    return at


# --- regions ----------------------------------------------------------------------------------------------------------


@compiled
def _overlap(regions: Ints, one: int, other: int) -> bool:
    """Whether a byte may belong to both; exact for dense regions and equal steps, else conservative."""
    a, b = FIELDS * one, FIELDS * other
    if regions[a + BEGIN] >= regions[b + END] or regions[b + BEGIN] >= regions[a + END]:
        return False
    if regions[a + LOW] >= regions[b + HIGH] or regions[b + LOW] >= regions[a + HIGH]:
        return False
    if regions[a + DENSE] and regions[b + DENSE]:
        return True
    step = _common(regions[a + STEP], regions[b + STEP])
    mine = regions[a + WIDTH] if regions[a + STEP] else regions[a + RIGHT] - regions[a + LEFT]
    theirs = regions[b + WIDTH] if regions[b + STEP] else regions[b + RIGHT] - regions[b + LEFT]
    if mine >= step or theirs >= step:
        return True
    apart = (regions[b + LEFT] - regions[a + LEFT]) % step
    return apart < mine or apart + theirs > step


@compiled
def _common(one: int, other: int) -> int:
    """The greatest common divisor."""
    while other:
        one, other = other, one % other
    return one


@compiled
def _hides(regions: Ints, later: int, earlier: int) -> bool:
    """Whether, within a segment it covers, a write to one region leaves nothing of another one."""
    a, b = FIELDS * later, FIELDS * earlier
    return (
        regions[a + DENSE] != 0
        and regions[a + LOW] <= regions[b + LOW]
        and regions[b + LOW] <= regions[b + HIGH]
        and regions[b + HIGH] <= regions[a + HIGH]
    )


# --- edges ------------------------------------------------------------------------------------------------------------


@compiled
def _wait_for_writer(
    edges: Ints, latest: Ints, state: Ints, queues: Ints, in_order: int, producer: int, consumer: int
) -> None:
    kind = ORDER if queues[producer] == in_order else DATA
    _wait(edges, latest, state, producer, consumer, kind)


@compiled
def _wait(edges: Ints, latest: Ints, state: Ints, producer: int, consumer: int, kind: int) -> None:
    """Add an edge; of several between two instructions, one is left, for the result if any of them was."""
    if producer == consumer:
        return
    if latest[2 * producer] == consumer:
        if kind == DATA:
            edges[3 * latest[2 * producer + 1] + 2] = DATA
        return
    at = state[_EDGES]
    if at >= state[_MOST_EDGES]:
        state[_FAILED] = 1
        return
    state[_EDGES] = at + 1
    latest[2 * producer], latest[2 * producer + 1] = consumer, at
    edges[3 * at], edges[3 * at + 1], edges[3 * at + 2] = producer, consumer, kind


# --- lists ------------------------------------------------------------------------------------------------------------


@compiled
def _entry(nodes: Ints, state: Ints, instruction: int, region: int, following: int) -> int:
    """A list with another entry before it."""
    node = state[_FREE]
    if node >= 0:
        state[_FREE] = nodes[3 * node + FOLLOWING]
    else:
        node = state[_NODES]
        if node >= state[_MOST_NODES]:
            state[_FAILED] = 1
            return following
        state[_NODES] = node + 1
    nodes[3 * node + INSTRUCTION], nodes[3 * node + REGION] = instruction, region
    nodes[3 * node + FOLLOWING] = following
    return node


@compiled
def _release(nodes: Ints, state: Ints, node: int) -> None:
    nodes[3 * node + FOLLOWING] = state[_FREE]
    state[_FREE] = node


@compiled
def _release_list(nodes: Ints, state: Ints, first: int) -> None:
    node = first
    while node >= 0:
        following = nodes[3 * node + FOLLOWING]
        _release(nodes, state, node)
        node = following


# --- the tree of bits -------------------------------------------------------------------------------------------------
# Level 0 has a bit for every slot, each further one a bit for every word of 32 bits of the level below.


def bit_tree(slots: int) -> tuple[np.ndarray, np.ndarray]:
    """The words of a tree for so many slots, none marked, and where each level begins."""
    sizes = [slots // 32 + 1]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 32 + 1)
    bits = np.zeros(sum(sizes) + 1, np.int64)
    bits[-1] = 1  # a level that is marked from the beginning ends the way up
    return bits, np.cumsum([0, *sizes])


def mark(bits: np.ndarray, levels: np.ndarray, slots: np.ndarray) -> None:
    """Mark slots of a tree."""
    for level in levels[:-1]:
        np.bitwise_or.at(bits, level + (slots >> 5), 1 << (slots & 31))
        slots = slots >> 5


def state(most: int) -> np.ndarray:
    """The numbers that the walk keeps, before it begins, with room for so many nodes and edges."""
    numbers = np.zeros(6, np.int64)
    numbers[_FREE], numbers[_MOST_NODES], numbers[_MOST_EDGES] = -1, most, most
    return numbers


@compiled
def _segment_of(bits: Ints, levels: Ints, at: int) -> int:
    """The last marked slot up to one; there is one."""
    level, index = 0, at
    word = bits[index >> 5] & ((2 << (index & 31)) - 1)
    while word == 0:
        index = (index >> 5) - 1
        level += 1
        word = bits[levels[level] + (index >> 5)] & ((2 << (index & 31)) - 1)
    index = (index >> 5 << 5) + word.bit_length() - 1
    while level > 0:
        level -= 1
        index = (index << 5) + bits[levels[level] + index].bit_length() - 1
    return index


@compiled
def _mark(bits: Ints, levels: Ints, slot: int) -> None:
    index, level, before = slot, 0, 0
    while before == 0:
        word = levels[level] + (index >> 5)
        before = bits[word]
        bits[word] = before | (1 << (index & 31))
        index >>= 5
        level += 1


@compiled
def _unmark(bits: Ints, levels: Ints, slot: int) -> None:
    index, level, after = slot, 0, 0
    while after == 0:
        word = levels[level] + (index >> 5)
        after = bits[word] & ~(1 << (index & 31))
        bits[word] = after
        index >>= 5
        level += 1
