"""Collectives in which all ranks of a group take the same part: all_reduce, all_gather, reduce_scatter, all_to_all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nkilite.collectives.checks import (
    Shape,
    as_op,
    as_tensors,
    require_dim,
    require_places,
    require_priority,
    require_shapes,
)
from nkilite.collectives.group import ReplicaGroup, as_groups
from nkilite.collectives.transfer import collective
from nkilite.ir.types import MemoryRegion
from nkilite.trace import active
from nkilite.trace.builder import NkiInstruction
from nkilite.trace.tensor import NkiTensor


def all_reduce(
    srcs: Sequence[NkiTensor], dsts: Sequence[NkiTensor], replica_group: ReplicaGroup, op: object,
    priority: int | None = None, name: str | None = None,
) -> NkiInstruction:
    """dsts[i] = the sources i of all ranks of the group, reduced element by element.

    Floats are reduced in float32, from the first rank of the list to the last, and rounded once.

    Args:
        srcs: tensors in HBM, or one in SBUF.
        dsts: like them.
        replica_group: the rank lists.
        op: nl.add, nl.minimum or nl.maximum.
        priority: 0 to 3, the lower the higher; trn3 and newer.

    Raises:
        InvalidOperand, DtypeMismatch, ShapeMismatch, UnknownOperator, UnsupportedOnTarget: a rule above is broken.
        RankMissing, RankInNoGroup, RanksDiffer, RankLost: (when the kernel runs) the ranks of the group do not come.
    """
    groups = _checked("all_reduce", srcs, dsts, replica_group, priority, True)
    require_shapes("all_reduce", srcs, dsts, lambda shape: shape, "they are equal")
    return collective("all_reduce", list(srcs), list(dsts), groups, op=as_op(op, "all_reduce"), name=name)


def all_gather(
    srcs: Sequence[NkiTensor], dsts: Sequence[NkiTensor], replica_group: ReplicaGroup, collective_dim: int,
    priority: int | None = None, name: str | None = None,
) -> NkiInstruction:
    """dsts[i] = the sources i of all ranks, joined along a dimension in the order of the rank list.

    Args:
        srcs: tensors in HBM, or one of two dimensions in SBUF.
        dsts: as many times larger in that dimension as the group has ranks.
        replica_group: the rank lists.
        collective_dim: 0; in SBUF 0 or 1.
        priority: as in all_reduce.

    Raises:
        as all_reduce.
    """
    groups = _checked("all_gather", srcs, dsts, replica_group, priority, True)
    on_chip = srcs[0].type.region is MemoryRegion.sbuf
    require_dim("all_gather", collective_dim, (0, 1) if on_chip else (0,))
    count = len(groups[0])
    require_shapes(
        "all_gather", srcs, dsts, lambda shape: _times(shape, collective_dim, count),
        f"dimension {collective_dim} of dsts is that of srcs times {count}, the ranks of a list",
    )
    return collective("all_gather", list(srcs), list(dsts), groups, collective_dim=collective_dim, name=name)


def reduce_scatter(
    srcs: Sequence[NkiTensor], dsts: Sequence[NkiTensor], replica_group: ReplicaGroup, collective_dim: int, op: object,
    priority: int | None = None, name: str | None = None,
) -> NkiInstruction:
    """Sources are reduced as by all_reduce, and the i-th rank of the list receives the i-th part along dimension 0.

    Args:
        srcs: tensors in HBM, or one in SBUF.
        dsts: parts of them.
        replica_group: the rank lists.
        collective_dim: 0.
        op: nl.add, nl.minimum or nl.maximum.
        priority: as in all_reduce.

    Raises:
        as all_reduce.
    """
    groups = _checked("reduce_scatter", srcs, dsts, replica_group, priority, True)
    require_dim("reduce_scatter", collective_dim, (0,))
    count = len(groups[0])
    require_shapes(
        "reduce_scatter", srcs, dsts,
        lambda shape: None if shape[0] % count else (shape[0] // count, *shape[1:]),
        f"dimension 0 of dsts is that of srcs over {count}, the ranks of a list",
    )
    return collective(
        "reduce_scatter", list(srcs), list(dsts), groups, op=as_op(op, "reduce_scatter"), collective_dim=0, name=name
    )


def all_to_all(
    srcs: Sequence[NkiTensor], dsts: Sequence[NkiTensor], replica_group: ReplicaGroup, collective_dim: int,
    priority: int | None = None, name: str | None = None,
) -> NkiInstruction:
    """Sources are cut along dimension 0 into a part for each rank of the list, and received parts are joined likewise.

    Args:
        srcs: tensors in HBM.
        dsts: like them.
        replica_group: the rank lists.
        collective_dim: 0.
        priority: as in all_reduce.

    Raises:
        as all_reduce.
    """
    groups = _checked("all_to_all", srcs, dsts, replica_group, priority, False)
    require_dim("all_to_all", collective_dim, (0,))
    count = len(groups[0])
    require_shapes(
        "all_to_all", srcs, dsts, lambda shape: None if shape[0] % count else shape,
        f"they are equal, and dimension 0 is a multiple of {count}, the ranks of a list",
    )
    return collective("all_to_all", list(srcs), list(dsts), groups, collective_dim=0, name=name)


def _checked(kind: str, srcs: object, dsts: object, replica_group: object, priority: object, sbuf: bool) -> Any:
    """The rank lists of a call whose tensors are where they may be."""
    builder = active.builder(f"nki.collectives.{kind}")
    require_places(kind, as_tensors(srcs, "srcs", kind), as_tensors(dsts, "dsts", kind), sbuf)
    require_priority(kind, priority, builder.target)
    return as_groups(replica_group, f"nki.collectives.{kind}")


def _times(shape: Shape, dim: int, count: int) -> Shape | None:
    if dim >= len(shape):
        return None
    return tuple(n * count if d == dim else n for d, n in enumerate(shape))
