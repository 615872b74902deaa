"""What a rank receives in each kind of collective, from what all ranks of its group bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from nkilite.errors import InvalidCounts
from nkilite.ir.meeting import Arrival
from nkilite.ir.rank import Group, Rank
from nkilite.isa import alu

Values = np.ndarray


class Brought(NamedTuple):
    """What a rank brings: copies, so that nobody sees what becomes of them.

    Attributes:
        metadata: of the collectives whose counts only the device knows.
        elements: of its destination.
    """

    sources: list[Values]
    metadata: Values | None
    elements: int


class Round(NamedTuple):
    """One collective as a rank sees it.

    Attributes:
        group: the ranks in the order of their list.
        brought: by rank.
    """

    call: Arrival
    rank: Rank
    group: Group
    brought: Mapping[int, Brought]

    @property
    def position(self) -> int:
        """Of the rank in its list."""
        return self.group.index(self.rank.number)

    def sources(self, item: int) -> list[Values]:
        """A source of every rank, in the order of the list."""
        return [self.brought[r].sources[item] for r in self.group]

    def before(self, channel: int) -> int:
        """The rank that sends to this one on the ring of a channel."""
        ring = self.rank.around(self.group, channel)
        return ring[ring.index(self.rank.number) - 1]


Receive = Callable[[Round, int], Values]  # the values of a destination, by its number


def reduced(op: str, values: Sequence[Values]) -> Values:
    """One value for each element, taken from first to last: floats in float32, integers exactly, then saturated."""
    dtype = values[0].dtype
    integer = dtype.kind in "iu"
    with np.errstate(all="ignore"):
        total = reduce(alu.TABLE[op].numpy, (v.astype(np.int64 if integer else np.float32) for v in values))
    if integer:
        limits = np.iinfo(dtype)
        result: np.ndarray = np.clip(total, limits.min, limits.max).astype(dtype)
        return result
    return total


def _all_reduce(round: Round, item: int) -> Values:
    return reduced(round.call.op, round.sources(item))


def _all_gather(round: Round, item: int) -> Values:
    return np.concatenate(round.sources(item), axis=round.call.collective_dim)


def _reduce_scatter(round: Round, item: int) -> Values:
    chunks = [np.split(values, len(round.group))[round.position] for values in round.sources(item)]
    return reduced(round.call.op, chunks)


def _all_to_all(round: Round, item: int) -> Values:
    return np.concatenate([np.split(v, len(round.group))[round.position] for v in round.sources(item)])


def _permute(round: Round, item: int) -> Values:
    source = next(s for s, target in round.call.replica_group if target == round.rank.number)
    return round.brought[source].sources[item]


def _permute_implicit(round: Round, item: int) -> Values:
    return round.brought[round.before(item)].sources[item]


def _permute_implicit_reduce(round: Round, item: int) -> Values:
    sources = round.brought[round.before(item)].sources
    return reduced(round.call.op, [sources[item], sources[len(sources) // 2 + item]])


def _all_to_all_v(round: Round, item: int) -> Values:
    return _by_counts(round, lambda metadata: metadata[:2, round.position])


def _all_gather_v(round: Round, item: int) -> Values:
    return _by_counts(round, lambda metadata: metadata[:2, 0])


def _by_counts(round: Round, sent: Callable[[Values], Values]) -> Values:
    """The destination with what every rank sends, at the displacement that this one states, or in equal slots."""
    call, ranks = round.call, len(round.group)
    result = call.items("dsts")[0].reshape(-1).copy()
    own = round.brought[round.rank.number].metadata
    assert own is not None
    for position, number in enumerate(round.group):
        brought = round.brought[number]
        assert brought.metadata is not None
        count, first = (int(n) for n in sent(brought.metadata))
        source = brought.sources[0].reshape(-1)
        to = int(own[3, position]) if call.has_rdispls else len(result) // ranks * position
        room = len(result) if call.has_rdispls else min(len(result), to + len(result) // ranks)
        for rank, begin, limit, what in ((number, first, len(source), "sends"), (round.rank.number, to, room, "takes")):
            if begin + count > limit:
                raise InvalidCounts(
                    instruction=f"nki.collectives.{call.kind}", rank=rank, location=call.location,
                    problem=f"that it {what} elements {begin} to {begin + count} of {limit}",
                )
        result[to : to + count] = source[first : first + count]
    found: np.ndarray = result
    return found


def received_counts(round: Round) -> Values:
    """The third row of the metadata: how many elements came from every rank."""
    column = 0 if round.call.kind.startswith("all_gather_v") else round.position
    metadata = [round.brought[r].metadata for r in round.group]
    return np.array([m[0, column] for m in metadata if m is not None], np.uint32)


KINDS: dict[str, Receive] = {
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "all_to_all": _all_to_all,
    "all_to_all_v": _all_to_all_v,
    "all_gather_v": _all_gather_v,
    "collective_permute": _permute,
    "collective_permute_implicit": _permute_implicit,
    "collective_permute_implicit_reduce": _permute_implicit_reduce,
}
