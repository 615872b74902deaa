"""nki.collectives: communication between ranks. `nkilite.ranks` launches on several; a launch alone is rank 0 of 1.

Tensors are lists, because HBM tensors can be sent together. They are in HBM or in SBUF and made in the kernel; every
function returns the instruction. On two cores, each core sends its own SBUF or private HBM tensors, to the same core of
the other ranks; a transfer of shared HBM tensors is issued by both cores and happens once. `priority` has no effect on
results. Source: public page nki.collectives.
"""

from __future__ import annotations

from nkilite.collectives.by_counts import (
    all_gather_v,
    all_gather_v_prepare,
    all_gather_v_trigger,
    all_to_all_v,
    all_to_all_v_prepare,
    all_to_all_v_trigger,
)
from nkilite.collectives.group import ReplicaGroup
from nkilite.collectives.rings import (
    collective_permute,
    collective_permute_implicit,
    collective_permute_implicit_current_processing_rank_id,
    collective_permute_implicit_reduce,
    rank_id,
)
from nkilite.collectives.whole import all_gather, all_reduce, all_to_all, reduce_scatter

__all__ = [
    "ReplicaGroup",
    "all_gather",
    "all_gather_v",
    "all_gather_v_prepare",
    "all_gather_v_trigger",
    "all_reduce",
    "all_to_all",
    "all_to_all_v",
    "all_to_all_v_prepare",
    "all_to_all_v_trigger",
    "collective_permute",
    "collective_permute_implicit",
    "collective_permute_implicit_current_processing_rank_id",
    "collective_permute_implicit_reduce",
    "rank_id",
    "reduce_scatter",
]
