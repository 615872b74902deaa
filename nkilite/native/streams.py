"""Parts of a program that do not depend on each other, such as the instances of a launch grid, are walked side by side.

Entries that touch a common tile, or the same bytes in HBM of which one writes them, belong to one *stream*, in which
they keep their order. Every thread walks whole streams, in an arena of its own: different tiles may lie at the same
place in it, but those of one stream never depend on what another one left there. So results do not depend on the
number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nkilite.ir.boxes import cells
from nkilite.ir.columns import BufferColumns, Columns, numbered
from nkilite.ir.program import Program
from nkilite.ir.regions import Pattern
from nkilite.isa.custom import custom_operator
from nkilite.machine.rows import unique
from nkilite.native import meetings
from nkilite.native.meetings import Table, atoms
from nkilite.native.threads import cores
from nkilite.native.walker import LEAD, MEET, MOST_OWNERS, SPLIT
from nkilite.schedule.place import ARENA


def streams(
    program: Program, firsts: np.ndarray, table: Table, flags: np.ndarray, threads: int
) -> tuple[np.ndarray, int]:
    """The owner of every entry, from 1, and how many threads owners keep busy; no owners where threads that share
    each entry are as fast.

    Args:
        firsts: index of the first instruction of every entry.
        flags, threads: what `meetings` found.
    """
    ns = table.ns
    none = np.zeros(len(ns), np.int64), 0
    facts = BufferColumns.of(program)
    foreign = any(s.definition is custom_operator.definition for s in program.signatures)  # may keep values of its own
    if ns.sum() < 2 * meetings.WAKE_NS or program.watched >= 0 or (flags & LEAD).any() or foreign:
        return none
    entry, buffer = _tiles(program, firsts)
    special = facts.on_chip & (~facts.internal | facts.fixed)  # outlive launches, or alias each other
    if special[buffer].any():
        return none
    label = _components(len(ns), entry, buffer)
    if not label.any():
        return none
    at, node = _written(table)
    label = _components(len(ns), np.append(entry, at), np.append(buffer, node + len(program.buffers)))
    heads = unique(label)
    loads = np.bincount(np.searchsorted(heads, label), ns)
    most = min(len(heads), int(ns.sum() // max(1, meetings.WAKE_NS)), MOST_OWNERS)
    order = np.argsort(-loads, kind="stable")
    members = max(2, min(most, cores()))
    split = float(ns[flags & SPLIT != 0].sum())
    parts = min(members, threads)
    meeting = meetings.MEETING_NS * np.count_nonzero(flags & MEET) if parts > 1 else 0
    shared = float(ns.sum()) - split + split / parts + meeting
    apart = float(np.bincount(np.arange(len(order)) % members, loads[order]).max())
    if most < 2 or apart >= shared:
        return none
    owner = np.empty(len(heads), np.int64)
    owner[order] = 1 + np.arange(len(order)) % MOST_OWNERS
    return owner[np.searchsorted(heads, label)], most


def _tiles(program: Program, firsts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every entry with every on-chip buffer it touches."""
    columns, on_chip = Columns.of(program), BufferColumns.of(program).on_chip
    rows, buffers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for signature, which, starts in columns.uses():
        for operand in signature.operands:
            if operand.type.region.on_chip:
                rows.append(which)
                buffers.append(columns.code[starts + operand.word])
    row, buffer = np.concatenate(rows), np.concatenate(buffers)
    assert on_chip[buffer].all()
    return np.searchsorted(firsts, row, side="right") - 1, buffer


def _written(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Every entry with every part of HBM it touches that some entry writes."""
    found = table.intervals
    patterns, number = table.patterns
    kept = np.flatnonzero(found.changing & (found.base != ARENA))
    entry = np.searchsorted(found.ends, kept, side="right")
    entries, nodes, total = [], [], 0
    for base in unique(found.base[kept]).tolist():
        here = found.base[kept] == base
        which, node = _parts(patterns, number[kept[here]], found.start[kept[here]], found.end[kept[here]])
        changed = np.zeros(int(node.max()) + 1, bool)
        changed[node[found.writes[kept[here]][which]]] = True
        entries.append(entry[here][which][changed[node]])
        nodes.append(total + node[changed[node]])
        total += len(changed)
    return np.concatenate([np.empty(0, np.int64), *entries]), np.concatenate([np.empty(0, np.int64), *nodes])


def _parts(
    patterns: Sequence[Pattern], number: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Every touch, by index, with every numbered part that it touches of one base."""
    found = cells(patterns, number, start)
    if found is not None:
        return found[0], numbered(found[1])[2]
    first, last, _ = atoms(np.zeros_like(start), start, end)
    which = np.repeat(np.arange(len(first)), last - first)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(last - first) - last, last - first)


def _components(count: int, entry: np.ndarray, node: np.ndarray) -> np.ndarray:
    """For every entry the first one it is connected with, by nodes that both touch."""
    label = np.arange(count)
    nodes = int(node.max(initial=-1)) + 1
    while True:
        least = np.full(nodes, count)
        np.minimum.at(least, node, label[entry])
        lower = label.copy()
        np.minimum.at(lower, entry, least[node])
        lower = lower[lower]
        if (lower == label).all():
            return label
        label = lower
