"""One line of the speed table: a kernel of ours against what others do for the same result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Match:
    """A kernel with its peers.

    Attributes:
        ours: runs the kernel as a user would.
        peers: the same work by others, or a limit of the machine.
        goals: by peer, the least ratio of its time to ours that we want.
        tolerance: how much results may differ, of the largest element.
    """

    work: str
    size: str
    ours: Callable[[], object]
    peers: Mapping[str, Callable[[], object]]
    goals: Mapping[str, float] = field(default_factory=dict)
    tolerance: float = 2e-2  # bfloat16 results differ by their rounding
