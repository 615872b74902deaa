"""Meetings: instructions at which the cores of a launch wait for each other, and exchange what they bring.

A launch is a list of programs, one per core. Each runs on its own between two meetings; at a meeting the exchange rule
of the instruction is given everybody's arrival and says what each core writes. Simulated and native launches differ in
how cores run, and meet in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from nkilite.dtypes import DType, Elements
from nkilite.errors import CoresDiffer, Deadlock
from nkilite.ir.definition import REGISTRY, Meets
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
    """

    __slots__ = ("arguments", "core", "dtypes", "location", "name")

    def __init__(
        self, name: str, arguments: Mapping[str, Any], dtypes: Mapping[str, DType], location: Location, core: int
    ) -> None:
        self.name, self.arguments, self.dtypes = name, arguments, dtypes
        self.location, self.core = location, core

    def __getattr__(self, name: str) -> Any:
        try:
            return self.arguments[name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        return f"Arrival({self.name} of core {self.core} at {self.location})"


def exchange(arrivals: Iterable[Arrival]) -> list[Written]:
    """What each of those who meet writes, by operand."""
    ordered = list(arrivals)
    return REGISTRY[ordered[0].name].rule("exchange")(ordered)


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
        raise Deadlock(
            instruction=public_name(first.name), core=first.core, other=core, there=there(end), location=first.location
        )
    if len(waiting) < cores:
        return []
    arrived = [waiting[core] for core in sorted(waiting)]
    for other in arrived[1:]:
        if meeting_key(arrived[0].name, arrived[0].arguments) != meeting_key(other.name, other.arguments):
            raise CoresDiffer(
                what="meet at different instructions", core=arrived[0].core,
                first=said(arrived[0].name, arrived[0].arguments), other=other.core,
                second=said(other.name, other.arguments), there=there(other.location), location=arrived[0].location,
            )
    return [arrived]


def meeting_key(name: str, arguments: Mapping[str, Any]) -> tuple:
    """What the calls of cores that meet have in common."""
    shapes = [(n, tuple(arguments[n].shape), str(arguments[n].dtype)) for n in ("src", "dst") if n in arguments]
    return (name, *shapes, *((n, str(arguments[n])) for n in _AGREED if n in arguments))


def said(name: str, arguments: Mapping[str, Any]) -> str:
    """A call in a message."""
    shown = [f"{n}={getattr(arguments[n], 'name', arguments[n])}" for n in _AGREED if n in arguments]
    if "src" in arguments:
        shown.insert(0, f"src {arguments['src'].dtype} {list(arguments['src'].shape)}")
    return f"{public_name(name)}({', '.join(shown)})"


_AGREED = ("pipe_id", "dma_engine", "reduce_op")


def there(location: Location) -> str:
    """A second line of the user's in a message: where, and its text."""
    return f"{location}: {location.source}" if location.source else str(location)


def public_name(name: str) -> str:
    """How messages name an instruction at which cores meet."""
    return f"nisa.{name}" if REGISTRY[name].meets is Meets.cores else f"nki.collectives.{name}"
