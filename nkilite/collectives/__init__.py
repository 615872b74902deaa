"""nki.collectives: communication between NeuronCores. The names exist; nkilite runs one core, so using them
is an error that says so. Source: public page nki.collectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from nkilite.errors import UnsupportedError
from nkilite.trace.objects import NKIObject

__all__ = [
    "ReplicaGroup",
    "all_gather",
    "all_gather_v",
    "all_reduce",
    "all_to_all",
    "all_to_all_v",
    "collective_permute",
    "collective_permute_implicit",
    "collective_permute_implicit_current_processing_rank_id",
    "collective_permute_implicit_reduce",
    "rank_id",
    "reduce_scatter",
]


@dataclass
class ReplicaGroup(NKIObject):
    """Groups of ranks that communicate; no rank is in two groups."""

    groups: list[list[int]]


def _collective(name: str) -> Callable[..., NoReturn]:
    def call(*_: Any, **__: Any) -> NoReturn:
        raise UnsupportedError(feature=f"nki.collectives.{name} (communication between cores)")

    call.__name__ = call.__qualname__ = name
    call.__doc__ = (
        f"`{name}` of nki.collectives.\n\nRaises:\n    UnsupportedError: always; a launch has one core."
    )
    return call


all_gather = _collective("all_gather")
all_gather_v = _collective("all_gather_v")
all_reduce = _collective("all_reduce")
all_to_all = _collective("all_to_all")
all_to_all_v = _collective("all_to_all_v")
collective_permute = _collective("collective_permute")
collective_permute_implicit = _collective("collective_permute_implicit")
collective_permute_implicit_current_processing_rank_id = _collective(
    "collective_permute_implicit_current_processing_rank_id"
)
collective_permute_implicit_reduce = _collective("collective_permute_implicit_reduce")
rank_id = _collective("rank_id")
reduce_scatter = _collective("reduce_scatter")
