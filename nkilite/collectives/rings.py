"""Collectives in which ranks send to one other rank: along given pairs, or around a ring."""

from __future__ import annotations

from collections.abc import Sequence

from nkilite.collectives.checks import as_op, as_tensors, require_places, require_priority, require_shapes
from nkilite.collectives.group import ReplicaGroup, as_channels, as_groups, as_pairs
from nkilite.collectives.transfer import CURRENT_RANK, collective, invalid, rank_number
from nkilite.errors import describe
from nkilite.isa.scalars import NkiScalar, new_scalar
from nkilite.trace import active
from nkilite.trace.builder import NkiInstruction
from nkilite.trace.register import VirtualRegister
from nkilite.trace.tensor import NkiTensor

_FIRST_CHANNEL = (0,)


def collective_permute(
    srcs: Sequence[NkiTensor], dsts: Sequence[NkiTensor], source_target_pairs: Sequence[tuple[int, int]],
    priority: int | None = None, name: str | None = None,
) -> NkiInstruction:
    """Every pair's source sends srcs[0] to its target's dsts[0]. Ranks in no pair do nothing.

    Args:
        srcs: one tensor in HBM.
        dsts: one like it.
        source_target_pairs: pairs of ranks that form circles.
        priority: as in all_reduce.

    Raises:
        as all_reduce.
    """
    kind = "collective_permute"
    sent, received = as_tensors(srcs, "srcs", kind, 1), as_tensors(dsts, "dsts", kind, 1)
    require_places(kind, sent, received, False)
    require_priority(kind, priority, active.builder(f"nki.collectives.{kind}").target)
    require_shapes(kind, sent, received, lambda shape: shape, "they are equal")
    return collective(kind, sent, received, as_pairs(source_target_pairs, f"nki.collectives.{kind}"), name=name)


def collective_permute_implicit(
    srcs_by_channel: Sequence[Sequence[NkiTensor]], dsts_by_channel: Sequence[Sequence[NkiTensor]],
    replica_group: ReplicaGroup, channel_ids: Sequence[int] = _FIRST_CHANNEL, priority: int | None = None,
    name: str | None = None,
) -> NkiInstruction:
    """Every rank sends to the next one of a ring and receives from the one before. Only the chip knows the ring.

    Args:
        srcs_by_channel: a list of one tensor for each channel, in HBM or in SBUF.
        dsts_by_channel: like them.
        replica_group: the rank lists.
        channel_ids: 0, 1, ...
        priority: as in all_reduce.

    Raises:
        as all_reduce.
    """
    kind = "collective_permute_implicit"
    srcs, dsts = _by_channel(srcs_by_channel, "srcs_by_channel", kind), _by_channel(dsts_by_channel, "dsts", kind)
    return _around(kind, [srcs], dsts, replica_group, channel_ids, priority, None, name)


def collective_permute_implicit_reduce(
    srcs0_by_channel: Sequence[Sequence[NkiTensor]], srcs1_by_channel: Sequence[Sequence[NkiTensor]],
    dsts_by_channel: Sequence[Sequence[NkiTensor]], replica_group: ReplicaGroup, op: object,
    channel_ids: Sequence[int] = _FIRST_CHANNEL, priority: int | None = None, name: str | None = None,
) -> NkiInstruction:
    """As collective_permute_implicit, but what is sent is op(srcs0, srcs1).

    Args:
        srcs0_by_channel: a list of one tensor for each channel, in HBM or in SBUF.
        srcs1_by_channel: like them.
        dsts_by_channel: like them.
        replica_group: the rank lists.
        op: nl.add, nl.minimum or nl.maximum.
        channel_ids: 0, 1, ...
        priority: as in all_reduce.

    Raises:
        as all_reduce.
    """
    kind = "collective_permute_implicit_reduce"
    srcs = [_by_channel(srcs0_by_channel, "srcs0_by_channel", kind),
            _by_channel(srcs1_by_channel, "srcs1_by_channel", kind)]
    dsts = _by_channel(dsts_by_channel, "dsts_by_channel", kind)
    return _around(kind, srcs, dsts, replica_group, channel_ids, priority, as_op(op, kind), name)


def collective_permute_implicit_current_processing_rank_id(
    iteration_id: int | VirtualRegister, replica_group: ReplicaGroup, channel_id: int = 0, name: str | None = None
) -> NkiScalar:
    """The rank whose data a ring has brought after so many steps: at 0 this one, at 1 the one before it, ...

    Args:
        iteration_id: an int or a register.
        replica_group: the rank lists.
        channel_id: the ring's.

    Raises:
        InvalidOperand: one of them is of the wrong kind.
        RankInNoGroup: (when the kernel runs) the rank is in no list.
    """
    kind = CURRENT_RANK
    groups = as_groups(replica_group, f"nki.collectives.{kind}")
    if isinstance(channel_id, bool) or channel_id not in range(4):
        raise invalid(kind, "channel_id", describe(channel_id), "an int from 0 to 3")
    scalar = new_scalar()
    rank_number(scalar, iteration_id, groups, channel_id, name=name)
    return scalar


def rank_id(name: str | None = None) -> NkiScalar:
    """The number of the rank, as a scalar that only the device knows."""
    scalar = new_scalar()
    rank_number(scalar, 0, None, name=name)
    return scalar


def _around(
    kind: str, srcs: list[list[NkiTensor]], dsts: list[NkiTensor], replica_group: object, channel_ids: object,
    priority: object,
    op: str | None, name: str | None,
) -> NkiInstruction:
    require_priority(kind, priority, active.builder(f"nki.collectives.{kind}").target)
    for sent in srcs:
        for one, other in zip(sent, dsts, strict=False):
            require_places(kind, [one], [other], True)
        require_shapes(kind, sent, _as_many(kind, sent, dsts), lambda shape: shape, "they are equal")
    channels = as_channels(channel_ids, len(dsts), f"nki.collectives.{kind}")
    groups = as_groups(replica_group, f"nki.collectives.{kind}")
    together = [tensor for sent in srcs for tensor in sent]
    return collective(kind, together, dsts, groups, op=op, channel_ids=channels, name=name)


def _as_many(kind: str, srcs: list[NkiTensor], dsts: list[NkiTensor]) -> list[NkiTensor]:
    if len(srcs) != len(dsts):
        raise invalid(kind, "dsts_by_channel", f"{len(dsts)} lists", f"{len(srcs)}, one for each channel")
    return dsts


def _by_channel(found: object, operand: str, kind: str) -> list[NkiTensor]:
    """The tensor of every channel."""
    if not isinstance(found, (list, tuple)) or not found:
        raise invalid(kind, operand, describe(found), "a list with a list of one tensor for each channel")
    return [as_tensors(item, f"{operand}[{i}]", kind, 1)[0] for i, item in enumerate(found)]
