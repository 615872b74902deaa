"""How the chips of a launch over ranks are joined: topologies are data, as the chips are.

Sources, named in nkilite/machine/topologies by these short tags (public Neuron documentation):

  trn1-arch to trn3-arch   about-neuron/arch/neuron-hardware/trn1-arch, ...
  intra      neuron-runtime/explore/intranode-collective-comm
  inter      neuron-runtime/explore/internode-collective-comm
  about-cc   neuron-runtime/about/collectives

What a figure stands for where a page leaves it open, and what is carried over for want of a figure, is said there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

__all__ = ["KINDS", "Level", "Span", "Topology"]

KINDS = ("torus", "full", "switch")


class Span(NamedTuple):
    """Those units of a level that communicate.

    Attributes:
        units: how many.
        bytes_per_ns: what every chip sends to the others at once, on all of its links to one of them.
        link_bytes_per_ns: on one of its links.
        distance: links from one to another, on average.
    """

    units: int
    bytes_per_ns: float
    link_bytes_per_ns: float
    distance: float


@dataclass(frozen=True)
class Level:
    """How units, chips or groups of chips, are joined to a larger one. trn2-48xlarge.toml describes every field."""

    name: str
    kind: str
    shape: tuple[int, ...]
    bytes_per_ns: float
    hop_ns: float
    congestion: float

    @property
    def size(self) -> int:
        """Units that it joins; 0 for any number."""
        return math.prod(self.shape)

    def distance(self, one: int, other: int) -> int:
        """Links between two units."""
        if self.kind != "torus":
            return int(one != other)
        total = 0
        for n in reversed(self.shape):
            apart = abs(one % n - other % n)
            total += min(apart, n - apart)
            one, other = one // n, other // n
        return total

    def span(self, units: Iterable[int]) -> Span:
        """Some of its units, by number: row by row of a torus."""
        return _span(self, frozenset(units))


@cache
def _span(level: Level, units: frozenset[int]) -> Span:
    count = len(units)
    if count == 1 or level.kind == "switch":
        return Span(count, level.bytes_per_ns, level.bytes_per_ns, 1.0)
    apart = {unit: [level.distance(unit, other) for other in units if other != unit] for unit in units}
    links = min(distances.count(1) for distances in apart.values())
    nearest = max(min(distances) for distances in apart.values())  # 1 where everybody has a neighbour
    mean = sum(map(sum, apart.values())) / (count * (count - 1))
    return Span(count, level.bytes_per_ns * max(links, 1) / nearest, level.bytes_per_ns / nearest, mean)


@dataclass(frozen=True)
class Topology:
    """Levels of units, from the chips outwards.

    Attributes:
        device: the product that it joins.
    """

    name: str
    device: str
    levels: tuple[Level, ...]

    @property
    def chips(self) -> int:
        """How many it joins; 0 for any number."""
        return math.prod(level.size for level in self.levels)

    def places(self, chips: Iterable[int]) -> list[tuple[Level, set[int]]]:
        """The levels at which chips are apart, innermost first, with their units in the unit that has most of them.

        Chips are numbered unit by unit.
        """
        found = []
        here = set(chips)
        for level in self.levels:
            units: dict[int, set[int]] = {}
            for number in here:
                parent, unit = divmod(number, level.size) if level.size else (0, number)
                units.setdefault(parent, set()).add(unit)
            most = max(units.values(), key=len)
            if len(most) > 1:
                found.append((level, most))
            here = set(units)
        return found
