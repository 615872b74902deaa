"""`nkilite.ranks(count, main)`: a function on every rank, whose kernels meet those of the other ranks.

In one process, each rank is a thread. Under `mpiexec -n count python -m nkilite run script.py`, each is a process, and
the script is the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar, cast

from nkilite import forking
from nkilite.errors import InvalidOperand, RankLost, RanksDiffer, describe
from nkilite.ir.meeting import there
from nkilite.ir.rank import Group, Item, Rank, launching_for, said
from nkilite.location import Location
from nkilite.machine.topology_files import get_topology
from nkilite.runtime import processes

Result = TypeVar("Result")

_MOST = 1024


def ranks(
    count: int, main: Callable[[int], Result], *, ring: int = 0, topology: str | None = None
) -> list[Result]:
    """Call `main(rank)` for every rank from 0 to count - 1, at the same time; what it returns, by rank.

    Kernels that `main` launches communicate through nki.collectives with those that it launches for other ranks. Every
    rank has to launch the same kernels in the same order.

    Args:
        count: ranks. In processes that mpiexec started it is their number, each is one rank, and all get all results.
        main: called with the number of a rank.
        ring: the order of the rings of implicit collectives, which a kernel does not know: 0 for that of the rank
            lists, any other number for another one. A kernel has to be right for all.
        topology: what `nkilite.profile` within `main` times collectives on: a name that ``nkilite topologies`` lists,
            or the path of a file; by default the smallest that holds the ranks.

    Raises:
        UnknownTopology, InvalidTopology: there is no such topology.
        InvalidOperand: count or ring is no such number, or main no function.
        RanksDiffer, RankLost: ranks wait for others that do not come.
        Exception: what `main` raised on the rank that failed first.
    """
    for operand, value, least, most in (("count", count, 1, _MOST), ("ring", ring, 0, 2**31)):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InvalidOperand(
                instruction="nkilite.ranks", operand=operand, found=describe(value),
                expected=f"an int from {least} to {most}",
            )
    if not callable(main):
        raise InvalidOperand(
            instruction="nkilite.ranks", operand="main", found=describe(main), expected="a function of a rank's number"
        )
    if topology is not None:
        get_topology(topology)
    if processes.count() > 1:
        return processes.run(count, main, ring, topology)
    return _Hall(count, ring, topology).run(main)


class _Hall:
    """Where the ranks of a process meet."""

    def __init__(self, count: int, ring: int, topology: str | None) -> None:
        self._count, self._ring, self._topology = count, ring, topology
        self._changed = threading.Condition()
        self._rounds: dict[tuple[Group, int], _Gathering] = {}
        self._waiting: dict[int, tuple[Group, str, Location]] = {}
        self._done: set[int] = set()
        self._failed: tuple[int, BaseException] | None = None

    def run(self, main: Callable[[int], Result]) -> list[Result]:
        """What `main` returns, by rank; the first is called on this thread."""
        results = cast("list[Result]", [None] * self._count)
        compiling = forking.lock()

        def body(number: int) -> None:
            rank = _Thread(number, self._count, self._ring, self._topology, self)
            rank.compiling = compiling
            try:
                with launching_for(rank):
                    results[number] = main(number)
            except BaseException as error:
                self._fail(number, error)
            else:
                with self._changed:
                    self._done.add(number)
                    self._changed.notify_all()

        threads = [
            threading.Thread(target=body, args=(number,), name=f"nkilite rank {number}")
            for number in range(1, self._count)
        ]
        for thread in threads:
            thread.start()
        try:
            body(0)
            for thread in threads:
                thread.join()
        except BaseException as error:  # an interrupt
            self._fail(0, error)
            for thread in threads:
                thread.join()
        if self._failed is not None:
            raise self._failed[1]
        return results

    def gather(
        self, rank: int, group: Group, number: int, what: tuple[object, ...], brought: object, where: Location
    ) -> dict[int, object]:
        """Bring something to the `number`-th gathering of a group, and wait for it to be complete.

        Raises:
            RanksDiffer: another rank is at something else.
            RankLost: one that is waited for has ended, failed, or waits for somebody else.
        """
        instruction = f"nki.collectives.{what[0]}"
        with self._changed:
            found = self._rounds.setdefault((group, number), _Gathering(rank, what, where))
            if found.what != what:
                raise RanksDiffer(
                    rank=found.first, first=f"{said(found.what)} at {there(found.where)}", other=rank,
                    second=f"{said(what)}", location=where,
                )
            found.brought[rank] = brought
            self._waiting[rank] = group, instruction, where
            self._changed.notify_all()
            while len(found.brought) < len(group):
                self._require_hope(rank, found, group, instruction, where)
                self._changed.wait()
            self._waiting.pop(rank, None)
            found.taken += 1
            if found.taken == len(group):
                del self._rounds[group, number]
            return found.brought

    def _require_hope(
        self, rank: int, found: _Gathering, group: Group, instruction: str, where: Location
    ) -> None:
        """Raise RankLost if a rank that a gathering waits for cannot come any more."""
        missing = [r for r in group if r not in found.brought]
        lost, why = None, ""
        if self._failed is not None:
            lost, error = self._failed
            why = f"failed with {type(error).__name__}"
        elif any(r in self._done for r in missing):
            lost = next(r for r in missing if r in self._done)
            why = "has ended"
        elif len(self._waiting) + len(self._done) == self._count and not self._anybody_goes():
            lost = missing[0]
            other = self._waiting[lost]
            why = f"waits in {other[1]} for others of {list(other[0])} at {there(other[2])}"
        if lost is not None:
            raise RankLost(rank=rank, instruction=instruction, lost=lost, why=why, location=where)

    def _anybody_goes(self) -> bool:
        """Whether one of those who wait only has not woken up yet."""
        return any(len(g.brought) == len(group) for (group, _), g in self._rounds.items())

    def _fail(self, number: int, error: BaseException) -> None:
        with self._changed:
            if self._failed is None:
                self._failed = number, error
                if hasattr(error, "add_note"):  # from Python 3.11 on
                    error.add_note(f"on rank {number} of nkilite.ranks({self._count}, ...)")
            self._changed.notify_all()


class _Gathering:
    """One collective of one group, while ranks arrive.

    Attributes:
        taken: ranks that have come, and gone on.
    """

    def __init__(self, first: int, what: tuple[object, ...], where: Location) -> None:
        self.first, self.what, self.where = first, what, where
        self.brought: dict[int, object] = {}
        self.taken = 0


class _Thread(Rank):
    """A rank that is a thread of this process."""

    def __init__(self, number: int, count: int, ring: int, topology: str | None, hall: _Hall) -> None:
        super().__init__(number, count, ring, topology)
        self._hall = hall
        self._gathered: dict[Group, int] = {}

    def gather(self, group: Group, what: tuple[object, ...], brought: Item, location: Location) -> dict[int, Item]:
        self.require(group, location)
        number = self._gathered[group] = self._gathered.get(group, 0) + 1
        return cast("dict[int, Item]", self._hall.gather(self.number, group, number, what, brought, location))
