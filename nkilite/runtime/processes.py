"""Ranks that are processes of an MPI job, through mpi4py."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from nkilite.errors import MpiMissing, NotThatManyRanks, RanksDiffer
from nkilite.ir.rank import Group, Rank, launching_for
from nkilite.location import Location

# What Open MPI, MPICH and others tell the processes they start.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")


def count() -> int:
    """The processes that mpiexec started; 1 if it started none."""
    found = next((os.environ[name] for name in _SIZES if name in os.environ), "1")
    return int(found) if found.isdecimal() else 1


def run(wanted: int, main: Callable[[int], Any], ring: int, topology: str | None) -> list[Any]:
    """Call `main` for the rank that this process is; what it returned on all of them.

    A process that fails says so and ends the others, which could only wait for it.

    Raises:
        MpiMissing: mpi4py is not installed.
        NotThatManyRanks: there are more or fewer processes.
    """
    world = _world()
    if wanted != world.size:
        raise NotThatManyRanks(found=wanted, count=world.size)
    try:
        with launching_for(_Process(world, ring, topology)):
            result = main(world.rank)
        return world.allgather(result)
    except BaseException as error:
        traceback.print_exc()
        print(f"nkilite: rank {world.rank} failed with {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        world.Abort(1)
        raise


def _world() -> Any:
    try:
        from mpi4py import MPI
    except ImportError:
        raise MpiMissing from None
    return MPI.COMM_WORLD


class _Process(Rank):
    """A rank that is a process."""

    def __init__(self, world: Any, ring: int, topology: str | None) -> None:
        super().__init__(world.rank, world.size, ring, topology)
        self._world = world
        self._groups: dict[Group, Any] = {}

    def gather(self, group: Group, what: tuple, brought: Any, location: Location) -> dict[int, Any]:
        self.require(group, location)
        if group not in self._groups:
            self._groups[group] = self._world.Create_group(self._world.group.Incl(list(group)))
        found = self._groups[group].allgather((what, str(location), brought))
        for rank, (other, where, _) in zip(group, found, strict=True):
            if other != what:
                raise RanksDiffer(
                    rank=self.number, first=str(what), other=rank, second=f"{other} at {where}", location=location
                )
        return {rank: values for rank, (_, _, values) in zip(group, found, strict=True)}
