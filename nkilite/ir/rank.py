"""Ranks: which of those that communicate a launch belongs to. The launching thread says; alone, it is rank 0 of 1."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import numpy as np

from nkilite.errors import RankMissing
from nkilite.location import Location

Item = TypeVar("Item")  # what ranks bring to a collective

Group = tuple[int, ...]


class Rank:
    """A rank, as its launches see it: this class is one that is alone.

    Attributes:
        number: from 0 on.
        count: of all ranks.
        ring: the seed of the orders in which rings go; 0 for those of the rank lists.
        topology: how profiles take the ranks to be joined; None for the smallest that holds them.
        compiling: held while a kernel is compiled, which ranks of one process then do once.
    """

    def __init__(self, number: int = 0, count: int = 1, ring: int = 0, topology: str | None = None) -> None:
        self.number, self.count, self.ring, self.topology = number, count, ring, topology
        self.compiling: AbstractContextManager[object] = nullcontext()

    def gather(self, group: Group, what: tuple[object, ...], brought: Item, location: Location) -> dict[int, Item]:
        """What every rank of a group brings to a collective, by rank; waits for them all.

        Args:
            what: what the calls of all of them have in common.
            brought: what this one brings; nobody changes it any more.

        Raises:
            RankMissing: there is no such rank.
            RanksDiffer, RankLost: the others do not come.
        """
        self.require(group, location)
        return {self.number: brought}

    def require(self, group: Group, location: Location) -> None:
        """Raise RankMissing unless all ranks of a group exist."""
        for rank in group:
            if not 0 <= rank < self.count:
                raise RankMissing(rank=rank, count=self.count, group=list(group), location=location)

    def around(self, group: Group, channel: int = 0) -> Group:
        """The ranks of a group in the order of its ring: each sends to the next one, the last to the first.

        The runtime of a chip chooses that order, so that a kernel has to be right for any.
        """
        if not self.ring or len(group) < 3:
            return group
        first, *others = group
        random = np.random.default_rng([self.ring, channel, *group])
        order = others
        while order == others:
            order = random.permutation(others).tolist()
        return (first, *order)


_ALONE = Rank()


def said(what: tuple[object, ...]) -> str:
    """A collective in a message, from what the calls of all ranks have in common."""
    kind, core, *rest = what
    shapes = ", ".join(f"{dtype} {list(shape)}" for shape, dtype in (r for r in rest if isinstance(r, tuple)))
    options = "".join(f", {option}" for option in rest if isinstance(option, (str, int)))
    return f"nki.collectives.{kind}({shapes}{options}) of core {core}"


class _Local(threading.local):
    rank: Rank = _ALONE


_local = _Local()


def current() -> Rank:
    """The rank that this thread launches for."""
    return _local.rank


@contextmanager
def launching_for(rank: Rank) -> Iterator[None]:
    """Let launches of this thread in a `with` block be those of a rank."""
    before, _local.rank = _local.rank, rank
    try:
        yield
    finally:
        _local.rank = before
