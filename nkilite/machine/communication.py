"""How long a collective takes on a topology: pure functions to a `Transfer`. All of it modelled.

A collective takes the latency of its steps and, at the same time for all of them, the longest of what links and memory
need. Which algorithm the runtime picks is what is fastest for the size; the ranges that are published follow from
steps and traffic. Over several levels a collective is one after the other within each: gathers from the outermost
inwards, reductions the other way round.

    mesh        everybody to everybody at once: one step, on links that several share
    rdh         recursive doubling or halving: log2 n steps, each with another neighbour
    kangaring   a ring through every other rank of a chip, which saves memory accesses
    ring        through all ranks

Sources (tags as in `topology.py`): steps and accesses to memory of the algorithms are those of intra, levels those of
inter. With N ranks, `size` is what a rank has in all: N chunks. Rank lists of one call communicate at the same time,
and share the links of the chips that their ranks are on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nkilite.machine.target import Target
from nkilite.machine.topology import Level, Span, Topology

__all__ = ["Transfer", "World", "all_gather", "all_reduce", "all_to_all", "around", "permute", "reduce_scatter"]

# Accesses to memory for every byte that a rank has in the end: with a ring, each chunk is read and written once, and
# reduced ones are read twice. Source: intra, KangaRing.
_TOUCHES = {
    ("gather", "ring"): 2.0, ("gather", "kangaring"): 1.5, ("reduce", "ring"): 3.0, ("reduce", "kangaring"): 2.0,
}


Lists = Sequence[Sequence[int]]


class Transfer(NamedTuple):
    """A collective: by which algorithms, innermost level first, how long, and bytes that it reads and writes in the
    memory of a rank."""

    algorithm: str
    ns: float
    touched: float


@dataclass(frozen=True)
class World:
    """The ranks of a launch, on their chips.

    Attributes:
        ranks: how many.
        per_chip: ranks of a chip; those with numbers that follow each other are on one chip.
        memory_bytes_per_ns: of a rank.
    """

    topology: Topology
    ranks: int
    per_chip: int
    memory_bytes_per_ns: float

    @classmethod
    def of(cls, topology: Topology, ranks: int, target: Target, cores: int) -> World:
        """Ranks of so many cores each."""
        return cls(topology, ranks, target.cores_per_device // cores, target.hbm_bytes_per_ns * cores)

    @property
    def room(self) -> int:
        """Ranks that the topology has chips for; 0 for any number."""
        return self.topology.chips * self.per_chip

    @property
    def onchip_hop_ns(self) -> float:
        """A step between ranks of one chip: as between chips, for want of a figure."""
        return self.topology.levels[0].hop_ns


class _Group(NamedTuple):
    """Ranks that communicate.

    Attributes:
        on_chip: how many are on the chip that has most of them.
        levels: those at which they are apart, with their units, innermost first.
        sharing: how much more the links of a chip carry than what these ranks send: that of other lists, too.
    """

    size: int
    on_chip: int
    levels: list[tuple[Level, Span]]
    sharing: float


def _grouped(world: World, ranks: Sequence[int], lists: Sequence[Sequence[int]]) -> _Group:
    chips = Counter(rank // world.per_chip for rank in ranks)
    levels = [(level, level.span(units)) for level, units in world.topology.places(chips)]
    sending: Counter[int] = Counter()  # ranks of a chip that communicate with other chips
    for other in lists or [ranks]:
        places = Counter(rank // world.per_chip for rank in other)
        if len(places) > 1:
            sending.update(places)
    on_chip = max(chips.values())
    return _Group(len(ranks), on_chip, levels, max([1.0, *(sending[chip] / on_chip for chip in chips)]))


def all_gather(world: World, group: Sequence[int], size: float, lists: Lists = ()) -> Transfer:
    """Every rank receives the chunks of all; `size` bytes in the end. `lists` are all that do so at the same time, the
    group among them: the ranks of a chip share its links."""
    return _staged(world, _grouped(world, group, lists), size, "gather")


def reduce_scatter(world: World, group: Sequence[int], size: float, lists: Lists = ()) -> Transfer:
    """Every rank receives its chunk of the reduced `size` bytes; `lists` as in all_gather."""
    return _staged(world, _grouped(world, group, lists), size, "reduce")


def all_reduce(world: World, group: Sequence[int], size: float, lists: Lists = ()) -> Transfer:
    """A reduction and a gather, or, for few bytes, everything to everybody at once, whom it leaves to reduce it.
    `lists` as in all_gather."""
    within = _grouped(world, group, lists)
    reduced, gathered = (_staged(world, within, size, operation) for operation in ("reduce", "gather"))
    both = Transfer(reduced.algorithm, reduced.ns + gathered.ns, reduced.touched + gathered.touched)
    if len(within.levels) > 1:
        return both
    touched = (2 * within.size + 1) * size
    hop, linked = world.onchip_hop_ns, 0.0
    if within.levels:
        (level, span), = within.levels
        sent = within.sharing * within.on_chip * (span.units - 1) * size
        hop, linked = level.hop_ns, _scattered(level, span, sent)
    ns = hop + max(linked, touched / world.memory_bytes_per_ns)
    return min(both, Transfer("single-step mesh", ns, touched), key=lambda t: t.ns)


def all_to_all(world: World, group: Sequence[int], size: float, lists: Lists = ()) -> Transfer:
    """Every rank sends a chunk of `size` bytes to each; those for other chips go straight there. `lists` as in
    all_gather."""
    within = _grouped(world, group, lists)
    hops, linked = world.onchip_hop_ns * (within.on_chip > 1), 0.0
    inside = within.on_chip
    for level, span in within.levels:
        outside = inside * (span.units - 1)  # ranks in other units of the level
        hops += level.hop_ns
        linked += _scattered(level, span, within.sharing * within.on_chip * outside * size / within.size)
        inside *= span.units
    return Transfer("mesh", hops + max(linked, 2 * size / world.memory_bytes_per_ns), 2 * size)


def permute(world: World, pairs: Sequence[tuple[int, int]], size: float) -> Transfer:
    """Every source sends `size` bytes to its target, all at the same time."""
    loads: Counter[tuple[int, int]] = Counter((s // world.per_chip, t // world.per_chip) for s, t in pairs)
    slowest = 0.0
    for (source, target), count in loads.items():
        ns = world.onchip_hop_ns + 2 * size / world.memory_bytes_per_ns
        apart = world.topology.places((source, target)) if source != target else []
        for level, units in apart[-1:]:  # the outermost is the slowest
            link = level.span(units).link_bytes_per_ns
            ns = level.hop_ns + max(count * size / link, 2 * size / world.memory_bytes_per_ns)
        slowest = max(slowest, ns)
    return Transfer("permute", slowest, 2 * size)


def around(world: World, group: Sequence[int], sizes: Sequence[float], lists: Lists = ()) -> Transfer:
    """One step of the rings that the runtime has chosen, each for so many bytes on links of its own: the slowest link
    decides. `lists` as in all_gather."""
    within = _grouped(world, group, lists)
    touched = 2 * sum(sizes)
    hop, linked = world.onchip_hop_ns, 0.0
    for level, span in within.levels:
        link = level.bytes_per_ns  # rings go from neighbour to neighbour
        rings = max(1, round(span.bytes_per_ns / link))
        sent = within.sharing * max(sum(sizes) / rings, max(sizes))
        hop, linked = max(hop, level.hop_ns), max(linked, sent / link)
    return Transfer("ring", hop + max(linked, touched / world.memory_bytes_per_ns), touched)


def _staged(world: World, group: _Group, size: float, operation: str) -> Transfer:
    """A gather or a reduction level by level; the innermost one together with the ranks of a chip."""
    first = world.topology.levels[0]
    inner = [entry for entry in group.levels if entry[0] is first]
    outer = [entry for entry in group.levels if entry[0] is not first]
    found = []
    inside = group.on_chip * (inner[0][1].units if inner else 1)
    if inside > 1:
        found.append(min(_within(world, group, inner, size, operation), key=lambda t: t.ns))
    for level, span in outer:
        part = size / inside  # of a rank list, one rank of each unit; all those of a chip share its links
        inside *= span.units
        lists = group.on_chip * group.sharing
        found.append(min(_between(world, lists, level, span, part, operation), key=lambda t: t.ns))
    algorithms = "+".join(t.algorithm for t in found)
    return Transfer(algorithms or "copy", sum(t.ns for t in found), sum(t.touched for t in found))


def _within(
    world: World, group: _Group, level: Sequence[tuple[Level, Span]], size: float, operation: str
) -> Iterator[Transfer]:
    """Ranks of chips that the first level joins, or of one chip; `size` bytes of a rank in the end."""
    bytes, on_chip = _TOUCHES[operation, "ring"] * size, group.on_chip
    touched = bytes / world.memory_bytes_per_ns
    if not level:
        yield Transfer("mesh", world.onchip_hop_ns + touched, bytes)
        return
    (joined, span), = level
    ranks = on_chip * span.units
    sent = group.sharing * size * (span.units - 1) / span.units  # by a chip: what its ranks bring, to all others
    linked = sent / span.bytes_per_ns
    last = world.onchip_hop_ns * (on_chip > 1)
    yield Transfer("mesh", joined.hop_ns + last + max(_scattered(joined, span, sent), touched), bytes)
    steps = _doublings(joined, span)
    if steps is not None:
        yield Transfer("rdh", joined.hop_ns * steps + last + max(linked, touched), bytes)
    if on_chip == world.per_chip and on_chip % 2 == 0:
        bytes = _TOUCHES[operation, "kangaring"] * size
        ns = joined.hop_ns * ranks / 2 + max(linked, bytes / world.memory_bytes_per_ns)
        yield Transfer("kangaring", ns, bytes)
    else:
        yield Transfer("ring", joined.hop_ns * (ranks - 1) + max(linked, touched), bytes)


def _between(
    world: World, lists: float, level: Level, span: Span, size: float, operation: str
) -> Iterator[Transfer]:
    """One rank of every unit of a level, in so many lists on the same links; `size` bytes of a rank in the end."""
    bytes = _TOUCHES[operation, "ring"] * size
    touched = bytes / world.memory_bytes_per_ns
    sent = lists * size * (span.units - 1) / span.units
    linked = sent / span.bytes_per_ns
    yield Transfer("mesh", level.hop_ns + max(_scattered(level, span, sent), touched), bytes)
    steps = _doublings(level, span)
    if steps is not None:
        yield Transfer("rdh", level.hop_ns * steps + max(linked, touched), bytes)
    yield Transfer("ring", level.hop_ns * (span.units - 1) + max(linked, touched), bytes)


def _doublings(level: Level, span: Span) -> int | None:
    """Steps of recursive doubling; None where not every unit has a neighbour for each of them."""
    steps = span.units.bit_length() - 1
    links = span.units if level.kind == "switch" else round(span.bytes_per_ns / span.link_bytes_per_ns)
    return steps if span.units == 1 << steps and steps <= links else None


def _scattered(level: Level, span: Span, sent: float) -> float:
    """Time that a chip's links need to send bytes to all others at once, over those that lie between."""
    return sent * span.distance * (level.congestion if span.units > 2 else 1.0) / span.bytes_per_ns
