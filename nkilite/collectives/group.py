"""Groups of ranks, and the other arguments that say who communicates with whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    if isinstance(groups, (list, tuple)) and groups and all(isinstance(g, (list, tuple)) and g for g in groups):
        ranks = [rank for group in groups for rank in group]
        whole = all(isinstance(r, int) and not isinstance(r, bool) and r >= 0 for r in ranks)
        if whole and len(set(ranks)) == len(ranks) and len({len(g) for g in groups}) == 1:
            return tuple(tuple(group) for group in groups)
    raise InvalidOperand(
        instruction=instruction, operand="replica_group", found=describe(found if groups is None else groups),
        expected="ReplicaGroup(lists of ranks), equally long, with no rank in two of them",
    )


def as_pairs(found: object, instruction: str) -> tuple[tuple[int, int], ...]:
    """Pairs (source, target) that form circles.

    Raises:
        InvalidOperand: they do not.
    """
    if isinstance(found, (list, tuple)) and found and all(isinstance(p, (list, tuple)) and len(p) == 2 for p in found):
        sources, targets = ([p[i] for p in found] for i in (0, 1))
        whole = all(isinstance(r, int) and not isinstance(r, bool) and r >= 0 for r in (*sources, *targets))
        if whole and len(set(sources)) == len(found) and sorted(sources) == sorted(targets):
            return tuple((source, target) for source, target in found)
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
    channels = tuple(found) if isinstance(found, (list, tuple)) else ()
    if channels != tuple(range(count)):
        raise InvalidOperand(
            instruction=instruction, operand="channel_ids", found=describe(found),
            expected=f"{list(range(count))}, one for each list of tensors",
        )
    return channels


def own_group(groups: tuple[Group, ...], rank: Rank) -> Group | None:
    """The rank list that a rank is in."""
    return next((group for group in groups if rank.number in group), None)
