"""Collectives whose amounts only the device knows: all_to_all_v and all_gather_v, at once or prepared and triggered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from nkilite.collectives.checks import as_tensors, require_places, require_priority
from nkilite.collectives.group import ReplicaGroup, as_groups
from nkilite.collectives.transfer import collective, invalid
from nkilite.dtypes import uint32
from nkilite.errors import CollectiveNotTriggered, DtypeMismatch, describe
from nkilite.ir.types import MemoryRegion
from nkilite.isa.dma import dma_copy
from nkilite.trace import active
from nkilite.trace.builder import NkiInstruction
from nkilite.trace.tensor import NkiTensor

_SENT_ROWS = 3  # of the metadata, without displacements of what is received


class Prepared(NkiInstruction):
    """What *_v_prepare returns, for *_v_trigger: the handle of what reads the metadata.

    Attributes:
        loop: the loop in whose body it is, which is that of the trigger, too.
        missing: the error if no trigger follows.
    """

    __slots__ = ("call", "kind", "loop", "missing")

    def __init__(self, kind: str, call: _Call, reads: NkiInstruction, loop: int | None) -> None:
        self.builder, self.index = reads.builder, reads.index
        self.kind, self.call, self.loop = kind, call, loop
        self.missing = CollectiveNotTriggered(instruction=f"nki.collectives.{kind}_prepare")


class _Call(NamedTuple):
    """Checked arguments."""

    srcs: list[NkiTensor]
    dsts: list[NkiTensor]
    groups: Sequence[Sequence[int]]
    metadata: NkiTensor
    received: NkiTensor | None
    has_rdispls: bool


def all_to_all_v(
    srcs: Sequence[NkiTensor], dsts: Sequence[NkiTensor], replica_group: ReplicaGroup, metadata_tensor: NkiTensor,
    recv_counts_known: bool = False, has_rdispls: bool = False, priority: int | None = None, name: str | None = None,
) -> NkiInstruction:
    """Every rank sends its own number of elements to each rank of the list, as the metadata say on the device.

    Metadata have a column for each rank of the list, and rows: how many elements go there, from which one of the source
    on; how many came from there, an output; with `has_rdispls`, to which one of the destination on they are put. By
    default they are put at the beginning of equal slots.

    Args:
        srcs: one tensor in HBM, taken as a row of elements.
        dsts: one tensor in HBM; elements that nothing is sent to stay.
        replica_group: the rank lists.
        metadata_tensor: uint32 (rows, ranks) in HBM, or (1, rows, ranks) in SBUF.
        recv_counts_known: leave the third row as it is.
        has_rdispls: there is a fourth row.
        priority: as in all_reduce.

    Raises:
        as all_reduce.
        InvalidCounts: (when the kernel runs) they go beyond a tensor or a slot.
    """
    call = _checked(
        "all_to_all_v", srcs, dsts, replica_group, metadata_tensor, recv_counts_known, has_rdispls, priority
    )
    return _emit("all_to_all_v", call, call.metadata, name)


def all_gather_v(
    srcs: Sequence[NkiTensor], dsts: Sequence[NkiTensor], replica_group: ReplicaGroup, metadata_tensor: NkiTensor,
    recv_counts_known: bool = False, has_rdispls: bool = False, priority: int | None = None, name: str | None = None,
) -> NkiInstruction:
    """Every rank sends the same elements to all ranks of the list: as all_to_all_v, of whose first two rows the first
    column counts.

    Args and errors: as all_to_all_v.
    """
    call = _checked(
        "all_gather_v", srcs, dsts, replica_group, metadata_tensor, recv_counts_known, has_rdispls, priority
    )
    return _emit("all_gather_v", call, call.metadata, name)


def all_to_all_v_prepare(
    srcs: Sequence[NkiTensor], dsts: Sequence[NkiTensor], replica_group: ReplicaGroup, metadata_tensor: NkiTensor,
    recv_counts_known: bool = False, has_rdispls: bool = False, priority: int | None = None, name: str | None = None,
) -> Prepared:
    """Read the metadata of an all_to_all_v; exactly one all_to_all_v_trigger follows in the same
    body of a loop, and no other prepare before it.

    Args and errors: as all_to_all_v.

    Raises:
        CollectiveNotTriggered: it is not triggered, or another one was prepared before.
    """
    return _prepare(
        "all_to_all_v", srcs, dsts, replica_group, metadata_tensor, recv_counts_known, has_rdispls, priority, name
    )


def all_gather_v_prepare(
    srcs: Sequence[NkiTensor], dsts: Sequence[NkiTensor], replica_group: ReplicaGroup, metadata_tensor: NkiTensor,
    recv_counts_known: bool = False, has_rdispls: bool = False, priority: int | None = None, name: str | None = None,
) -> Prepared:
    """Read the metadata of an all_gather_v; as all_to_all_v_prepare."""
    return _prepare(
        "all_gather_v", srcs, dsts, replica_group, metadata_tensor, recv_counts_known, has_rdispls, priority, name
    )


def all_to_all_v_trigger(prepare_instr: NkiInstruction, name: str | None = None) -> NkiInstruction:
    """Send what was prepared.

    Args:
        prepare_instr: what all_to_all_v_prepare returned.

    Raises:
        InvalidOperand: it is something else, was triggered before, or prepared outside of the loop around the trigger.
    """
    return _trigger("all_to_all_v", prepare_instr, name)


def all_gather_v_trigger(prepare_instr: NkiInstruction, name: str | None = None) -> NkiInstruction:
    """Send what was prepared, by all_gather_v_prepare; as all_to_all_v_trigger."""
    return _trigger("all_gather_v", prepare_instr, name)


def _checked(
    kind: str, srcs: object, dsts: object, replica_group: object, metadata: object, known: object, has_rdispls: Any,
    priority: object
) -> _Call:
    builder = active.builder(f"nki.collectives.{kind}")
    sent, to = as_tensors(srcs, "srcs", kind, 1), as_tensors(dsts, "dsts", kind, 1)
    require_places(kind, sent, to, False)
    require_priority(kind, priority, builder.target)
    if sent[0].dtype != to[0].dtype:
        raise DtypeMismatch(
            instruction=f"nki.collectives.{kind}", detail=f"srcs[0] is {sent[0].dtype} and dsts[0] {to[0].dtype}",
            hint="use tensors of one dtype, and convert with nisa.tensor_copy before or after.",
        )
    for operand, flag in (("recv_counts_known", known), ("has_rdispls", has_rdispls)):
        if not isinstance(flag, bool):
            raise invalid(kind, operand, describe(flag), "True or False")
    groups = as_groups(replica_group, f"nki.collectives.{kind}")
    (table,) = as_tensors([metadata], "metadata_tensor", kind, 1)
    rows = _SENT_ROWS + has_rdispls
    shape = (rows, len(groups[0]))
    on_chip = table.type.region is MemoryRegion.sbuf
    if table.dtype != uint32 or table.shape != ((1, *shape) if on_chip else shape):
        expected = f"uint32 {shape} in HBM, or uint32 {(1, *shape)} in SBUF"
        raise invalid(kind, "metadata_tensor", describe(table), expected)
    if to[0].type.size % len(groups[0]) and not has_rdispls:
        raise invalid(kind, "dsts", describe(to[0]), f"elements for {len(groups[0])} equal slots")
    received = None if known else table[:, 2, :] if on_chip else table[2, :]
    return _Call(sent, to, groups, table, received, has_rdispls)


def _emit(kind: str, call: _Call, metadata: NkiTensor, name: str | None) -> NkiInstruction:
    return collective(
        kind, call.srcs, call.dsts, call.groups, metadata, call.received, has_rdispls=call.has_rdispls, name=name
    )


def _prepare(
    kind: str, srcs: object, dsts: object, replica_group: object, metadata: object, known: object,
    has_rdispls: object, priority: object,
    name: str | None,
) -> Prepared:
    call = _checked(kind, srcs, dsts, replica_group, metadata, known, has_rdispls, priority)
    builder = active.builder(f"nki.collectives.{kind}_prepare")
    if isinstance(builder.prepared, Prepared):
        raise builder.prepared.missing
    region = call.metadata.type.region
    read = builder.allocate(
        region if region.on_chip else MemoryRegion.private_hbm, call.metadata.shape, uint32, name=""
    )
    rows = [slice(0, 2), slice(3, 4)] if has_rdispls else [slice(0, 2)]  # nobody needs to have written the others
    for row in rows:
        at = (slice(None), row) if region.on_chip else row
        instruction = dma_copy(read[at], call.metadata[at], name=name)
    prepared = Prepared(kind, call._replace(metadata=read), instruction, builder.nesting.innermost)
    builder.left.append(prepared.missing)
    builder.prepared = prepared
    return prepared


def _trigger(kind: str, prepare: object, name: str | None) -> NkiInstruction:
    builder = active.builder(f"nki.collectives.{kind}_trigger")
    if not isinstance(prepare, Prepared) or prepare.kind != kind or builder.prepared is not prepare:
        found = describe(prepare)
        if isinstance(prepare, Prepared):
            found = "triggered before" if prepare.kind == kind else f"what {prepare.kind}_prepare returned"
        raise invalid(f"{kind}_trigger", "prepare_instr", found, f"what {kind}_prepare returned, triggered once")
    if prepare.loop != builder.nesting.innermost:
        expected = "one of the same turn of a loop"
        raise invalid(f"{kind}_trigger", "prepare_instr", "prepared outside of this loop", expected)
    builder.left.remove(prepare.missing)
    builder.prepared = None
    return _emit(kind, prepare.call, prepare.call.metadata, name)
