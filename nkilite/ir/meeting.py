"""Meetings: instructions at which the cores of a launch wait for each other, and exchange what they bring.

A launch is a list of programs, one per core. Each runs on its own between two meetings; at a meeting the exchange rule
of the instruction is given everybody's arrival and says what each core writes. Simulated and native launches differ in
how cores run, and meet in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count, takewhile
from typing import Any, NamedTuple

import numpy as np

from nkilite.dtypes import DType, Elements
from nkilite.errors import CoresDiffer, Deadlock
from nkilite.ir.definition import REGISTRY, Meets, public_name, public_operand
from nkilite.ir.rank import Rank
from nkilite.ir.rules import ReadArguments
from nkilite.location import Location

Written = Mapping[str, np.ndarray | Elements]


class Core(NamedTuple):
    """Which of the cores of a launch.

    Attributes:
        number: from 0 on.
        cores: of the launch.
        axes: dimensions of the launch grid, 0 without one.
    """

    number: int = 0
    cores: int = 1
    axes: int = 0


ALONE = Core()


class Arrival:
    """A core at a meeting: the arguments of its call, with arrays in the place of tensors; read as attributes.

    Attributes:
        dtypes: of the tensors.
        shared: the operands in shared HBM.
    """

    __slots__ = ("arguments", "core", "dtypes", "location", "name", "shared")

    def __init__(
        self, name: str, arguments: ReadArguments, dtypes: Mapping[str, DType], shared: frozenset[str],
        location: Location, core: int,
    ) -> None:
        self.name, self.arguments, self.dtypes, self.shared = name, arguments, dtypes, shared
        self.location, self.core = location, core

    def __getattr__(self, name: str) -> Any:
        try:
            return self.arguments[name]
        except KeyError:
            raise AttributeError(name) from None

    def items(self, name: str) -> list[np.ndarray]:
        """The items of a list of tensors."""
        keys = takewhile(lambda key: self.arguments.get(key) is not None, (f"{name}_{i}" for i in count()))
        return [self.arguments[key] for key in keys]

    @property
    def waits(self) -> bool:
        """Whether it is for others."""
        return REGISTRY[self.name].meets is not Meets.nobody

    def __repr__(self) -> str:
        return f"Arrival({self.name} of core {self.core} at {self.location})"


def exchange(arrivals: Iterable[Arrival], rank: Rank) -> list[Written]:
    """What each of the cores of a rank that meet writes, by operand; other ranks are waited for."""
    ordered = list(arrivals)
    written: list[Written] = REGISTRY[ordered[0].name].rule("exchange")(ordered, rank)
    return written


def complete(waiting: Mapping[int, Arrival], done: Mapping[int, Location], cores: int) -> list[list[Arrival]]:
    """The meetings at which everybody has arrived.

    Args:
        waiting: by core, those who can only go on after a meeting.
        done: by core, those whose program has ended, and where.
        cores: of the launch.

    Raises:
        CoresDiffer: two cores wait for each other at different instructions.
        Deadlock: a core waits for one that has ended.
    """
    if not waiting:
        return []
    first = next(iter(waiting.values()))
    for core, end in done.items():
        name = public_name(first.name, first.arguments)
        raise Deadlock(instruction=name, core=first.core, other=core, there=there(end), location=first.location)
    if len(waiting) < cores:
        return []
    arrived = [waiting[core] for core in sorted(waiting)]
    for other in arrived[1:]:
        same = meeting_key(arrived[0].name, arrived[0].arguments) == meeting_key(other.name, other.arguments)
        if not same or arrived[0].shared != other.shared:
            raise CoresDiffer(
                what="meet at different instructions", core=arrived[0].core,
                first=said(arrived[0].name, arrived[0].arguments), other=other.core,
                second=said(other.name, other.arguments), there=there(other.location), location=arrived[0].location,
            )
    return [arrived]


def meeting_key(name: str, arguments: ReadArguments) -> tuple[object, ...]:
    """What the calls of cores that meet have in common."""
    shapes = [
        (n, tuple(a.shape), str(a.dtype)) for n, a in arguments.items() if hasattr(a, "shape") and n != "data"
    ]
    return (name, *shapes, *((n, str(arguments[n])) for n in _AGREED if n in arguments))


def said(name: str, arguments: ReadArguments) -> str:
    """A call in a message."""
    given = {n: arguments[n] for n in _AGREED if n != "kind" and arguments.get(n) is not None}
    shown = [f"{n}={getattr(value, 'name', value)}" for n, value in given.items()]
    for sent in ("src", "srcs_0"):
        if sent in arguments:
            what = public_operand(name, arguments, sent)
            shown.insert(0, f"{what} {arguments[sent].dtype} {list(arguments[sent].shape)}")
    return f"{public_name(name, arguments)}({', '.join(shown)})"


# Arguments of which all cores give the same.
_AGREED = (
    "pipe_id", "dma_engine", "reduce_op", "kind", "replica_group", "op", "collective_dim", "channel_ids", "has_rdispls",
)


def there(location: Location) -> str:
    """A second line of the user's in a message: where, and its text."""
    return f"{location}: {location.source}" if location.source else str(location)
