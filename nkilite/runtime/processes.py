"""Ranks that are processes of an MPI job, through mpi4py."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, cast

from nkilite.errors import MpiMissing, NotThatManyRanks
from nkilite.ir.rank import Group, Item, Rank, launching_for
from nkilite.later import later
from nkilite.location import Location
from nkilite.runtime.mail import Mail

if TYPE_CHECKING:  # an extra
    from mpi4py import MPI
else:
    MPI = later("mpi4py.MPI")

# What Open MPI, MPICH and others tell the processes they start.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")

Result = TypeVar("Result")
_mail: Mail | None = None


def count() -> int:
    """The processes that mpiexec started; 1 if it started none."""
    found = next((os.environ[name] for name in _SIZES if name in os.environ), "1")
    return int(found) if found.isdecimal() else 1


def attend() -> None:
    """Let the others know when this process ends, so that they do not wait for it, if mpi4py is there to tell them."""
    if count() > 1:
        with suppress(MpiMissing):
            _post()


def run(wanted: int, main: Callable[[int], Result], ring: int, topology: str | None) -> list[Result]:
    """Call `main` for the rank that this process is; what it returned on all of them.

    A process that fails says so and ends the others, which could only wait for it.

    Raises:
        MpiMissing: mpi4py is not installed.
        NotThatManyRanks: there are more or fewer processes.
    """
    mail = _post()
    if wanted != mail.count:
        raise NotThatManyRanks(found=wanted, count=mail.count)
    try:
        with launching_for(_Process(mail, ring, topology)):
            result = main(mail.rank)
        return mail.end(result)
    except BaseException as error:
        traceback.print_exc()
        print(f"nkilite: rank {mail.rank} failed with {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        mail.abort()
        raise


def _post() -> Mail:
    global _mail
    if _mail is None:
        try:
            MPI.COMM_WORLD  # noqa: B018  asked for, so that it is imported
        except ImportError:
            raise MpiMissing from None
        _mail = Mail(MPI)
    return _mail


class _Process(Rank):
    """A rank that is a process."""

    def __init__(self, mail: Mail, ring: int, topology: str | None) -> None:
        super().__init__(mail.rank, mail.count, ring, topology)
        self._mail = mail

    def gather(self, group: Group, what: tuple[object, ...], brought: Item, location: Location) -> dict[int, Item]:
        self.require(group, location)
        return cast("dict[int, Item]", self._mail.gather(group, what, brought, location))
