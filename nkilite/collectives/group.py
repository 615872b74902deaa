"""Groups of ranks, and the other arguments that say who communicates with whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nkilite.errors import InvalidOperand, describe
from nkilite.ir.rank import Group, Rank
from nkilite.trace.objects import NKIObject

_MOST_CHANNELS = 4  # of a group with all devices of a node; source: nki.collectives.collective_permute_implicit


@dataclass
class ReplicaGroup(NKIObject):
    """Lists of ranks; those of one list communicate with each other. No rank is in two lists."""

    groups: Sequence[Sequence[int]]


def as_groups(found: object, instruction: str) -> tuple[Group, ...]:
    """The rank lists of a ReplicaGroup.

    Raises:
        InvalidOperand: it is none, or its lists overlap, are empty, or differ in length.
    """
    groups = found.groups if isinstance(found, ReplicaGroup) else None
    lists = _lists_of_ranks(groups)
    if lists is not None:
        ranks = [rank for group in lists for rank in group]
        if len(set(ranks)) == len(ranks) and len({len(g) for g in lists}) == 1:
            return lists
    raise InvalidOperand(
        instruction=instruction, operand="replica_group", found=describe(found if groups is None else groups),
        expected="ReplicaGroup(lists of ranks), equally long, with no rank in two of them",
    )


def as_pairs(found: object, instruction: str) -> tuple[tuple[int, int], ...]:
    """Pairs (source, target) that form circles.

    Raises:
        InvalidOperand: they do not.
    """
    pairs = _lists_of_ranks(found)
    if pairs is not None and all(len(pair) == 2 for pair in pairs):
        sources, targets = ([pair[i] for pair in pairs] for i in (0, 1))
        if len(set(sources)) == len(pairs) and sorted(sources) == sorted(targets):
            return tuple((source, target) for source, target in pairs)
    raise InvalidOperand(
        instruction=instruction, operand="source_target_pairs", found=describe(found),
        expected="pairs (source, target) that form circles: every rank that sends also receives, once",
    )


def as_channels(found: object, count: int, instruction: str) -> tuple[int, ...]:
    """Channel ids of so many lists of tensors.

    Raises:
        InvalidOperand: they are not 0, 1, ..., one for each.
    """
    if not 1 <= count <= _MOST_CHANNELS:
        raise InvalidOperand(
            instruction=instruction, operand="dsts_by_channel", found=f"a list for each of {count} channels",
            expected=f"lists for 1 to {_MOST_CHANNELS} channels",
        )
    channels = _numbers(found)
    if channels != tuple(range(count)):
        raise InvalidOperand(
            instruction=instruction, operand="channel_ids", found=describe(found),
            expected=f"{list(range(count))}, one for each list of tensors",
        )
    return channels


def _lists_of_ranks(found: object) -> tuple[Group, ...] | None:
    """Lists of ranks as tuples of Python's ints, None for what is none; a row of an array or a range will do."""
    if not isinstance(found, _LISTS) or not len(found):
        return None
    lists = [_numbers(one) for one in found]
    return tuple(group for group in lists if group) if all(lists) else None


def _numbers(found: object) -> tuple[int, ...] | None:
    """A list of numbers from 0 on, None for what is none."""
    if not isinstance(found, _LISTS):
        return None
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 0 for n in found)
    return tuple(int(n) for n in found) if whole else None


_LISTS = (list, tuple, range, np.ndarray)


def own_group(groups: tuple[Group, ...], rank: Rank) -> Group | None:
    """The rank list that a rank is in."""
    return next((group for group in groups if rank.number in group), None)
