"""What `nki.simulate(kernel, watch=...)` is told of every instruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FrameType
from typing import NamedTuple

from nkilite.location import Location
from nkilite.trace.tensor import NkiTensor


class Stop(NamedTuple):
    """An instruction that has just run.

    Attributes:
        core: the core of the launch that ran it.
        number: how many that core has run, this one included.
        instruction, name: its name, and the one the user gave it, or "".
        location: the user's line.
        operands: its tensors by parameter; `.numpy()` has their values as they are now.
        written: which of them it wrote.
        numbers: its other arguments.
        frame: the user's function that called it, with its variables.
    """

    core: int
    number: int
    instruction: str
    name: str
    location: Location
    operands: Mapping[str, NkiTensor]
    written: tuple[str, ...]
    numbers: Mapping[str, object]
    frame: FrameType | None


Watch = Callable[[Stop], None]
