"""Messages between ranks that are processes: what each brings to a collective, and that it will come to no other.

Every rank sends to each of those it meets, and says to all when its part of a launch has ended, and when its process
has. So whoever waits for one that will not come learns of it, whereas a collective of MPI would wait for ever. Messages
of a sender arrive in the order in which they were sent, and are read in that order.

A rank that waits long asks those it waits for whether they wait, too; who does asks on. A question that comes back has
gone round a circle of ranks none of which can go on.
"""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import Iterable
from typing import Literal, NamedTuple

from nkilite.errors import RankLost, RanksDiffer
from nkilite.ir.meeting import there
from nkilite.ir.rank import Group, said
from nkilite.location import UNKNOWN, Location
from nkilite.runtime.opaque import Foreign, UserValue

_TAG = 77
_PATIENCE_S, _NAP_S = 1e-3, 1e-4  # how long to look for messages without a pause, and how long pauses are then
_LONG_S = 0.5  # between two questions


class _Message(NamedTuple):
    """What one rank tells another.

    Attributes:
        kind: that it comes to a collective, that its part of a launch has ended, or its process; or a question.
        group: of the collective.
        what: what the calls of all of its ranks have in common; of a question, who was the first to ask, in which of
            its collectives, and how often it has asked there.
        where: the sender's line.
        brought: to the collective; when a launch has ended, what `main` returned.
    """

    kind: Literal["comes", "ended", "gone", "asks"]
    group: Group = ()
    what: tuple[object, ...] = ()
    where: str = ""
    brought: object = None


class Mail:
    """The messages of this process.

    Attributes:
        rank, count: of the MPI job.
    """

    def __init__(self, mpi: Foreign) -> None:
        """`mpi` is mpi4py's module of that name."""
        self._world, self._status, self._is_over = mpi.COMM_WORLD, mpi.Status, mpi.Is_finalized
        self.rank, self.count = int(self._world.rank), int(self._world.size)
        self._inbox: list[deque[_Message]] = [deque() for _ in range(self.count)]
        self._sent: list[Foreign] = []  # requests, which have to be kept until they are done
        self._gatherings = 0
        self._missing: list[int] = []  # whom it waits for in a collective
        self._questions: list[tuple[object, ...]] = []
        self._passed: set[tuple[object, ...]] = set()  # questions that it has passed on
        self._circle = False
        atexit.register(self._leave)  # called before what mpi4py has registered

    def gather(self, group: Group, what: tuple[object, ...], brought: object, location: Location) -> dict[int, object]:
        """What every rank of a group brings to a collective, by rank; waits for them all.

        Raises:
            RanksDiffer: another one calls it with something else.
            RankLost: one that is waited for has ended, or waits for somebody else.
        """
        self._tell(group, _Message("comes", group, what, there(location), brought))
        found = {self.rank: brought}
        self._gatherings += 1
        while len(found) < len(group):
            self._missing = [rank for rank in group if rank not in found]
            sender = self._first_of(self._missing, "comes", "ended", "gone")
            if sender is None:
                raise self._lost(self._missing[0], _IN_A_CIRCLE, what, location)
            message = self._inbox[sender][0]
            if message.group != group:
                raise self._lost(sender, _why(message), what, location)
            if message.what != what:
                raise RanksDiffer(
                    rank=sender, first=f"{said(message.what)} at {message.where}", other=self.rank, second=said(what),
                    location=location,
                )
            found[sender] = self._inbox[sender].popleft().brought
        self._missing = []
        return found

    def end(self, result: object) -> list[UserValue]:
        """What all ranks have returned, once the launch has ended on all of them.

        A rank that still waits for this one learns that it has ended, and ends the job.

        Raises:
            RankLost: a process has left before.
        """
        others = [rank for rank in range(self.count) if rank != self.rank]
        self._tell(others, _Message("ended", brought=result))
        found = {self.rank: result}
        while len(found) < self.count:
            sender = self._first_of([rank for rank in others if rank not in found], "ended", "gone")
            assert sender is not None  # it does not wait in a collective
            message = self._inbox[sender][0]
            if message.kind == "gone":
                raise RankLost(
                    rank=self.rank, instruction="nkilite.ranks", lost=sender, why=_why(message), location=UNKNOWN
                )
            found[sender] = self._inbox[sender].popleft().brought
        while self._sent:
            self._look()
        return [found[rank] for rank in range(self.count)]

    def _lost(self, rank: int, why: str, what: tuple[object, ...], location: Location) -> RankLost:
        """The error for a rank that does not come to a collective."""
        return RankLost(
            rank=self.rank, instruction=f"nki.collectives.{what[0]}", lost=rank, why=why, location=location
        )

    def abort(self) -> None:
        """End all processes."""
        self._world.Abort(1)

    def _tell(self, ranks: Iterable[int], message: _Message) -> None:
        self._sent += [self._world.isend(message, dest=rank, tag=_TAG) for rank in ranks if rank != self.rank]

    def _first_of(self, ranks: list[int], *kinds: str) -> int | None:
        """One of these ranks whose next message is of one of these kinds; waits for one. None if there never will be,
        because they wait for this one.
        """
        began, asked = time.monotonic(), 0
        self._circle = False
        while not self._circle:
            for rank in ranks:
                if self._inbox[rank] and self._inbox[rank][0].kind in kinds:
                    return rank
            if self._look():
                continue
            waited = time.monotonic() - began
            if waited > _PATIENCE_S:
                time.sleep(_NAP_S)
            if waited > (asked + 1) * _LONG_S:
                asked += 1
                self._tell(self._missing, _Message("asks", what=(self.rank, self._gatherings, asked)))
        return None

    def _asked(self, question: tuple[object, ...]) -> None:
        """Somebody wants to know whether this rank waits."""
        first, gathering, _ = question
        if not self._missing:
            return
        if first == self.rank:
            self._circle |= gathering == self._gatherings
        elif question not in self._passed:
            self._passed.add(question)
            self._tell(self._missing, _Message("asks", what=question))

    def _look(self) -> bool:
        """Take in what has arrived, and forget what has been sent; whether there was anything."""
        self._sent = [request for request in self._sent if not request.Test()]
        status = self._status()
        found = self._world.improbe(tag=_TAG, status=status)
        if found is None:
            questions, self._questions = self._questions, []
            for question in questions:  # after all that may make this rank go on
                self._asked(question)
            return False
        message = found.recv()
        if message.kind == "asks":
            self._questions.append(message.what)
        else:
            self._inbox[status.source].append(message)
        return True

    def _leave(self) -> None:
        """The process ends."""
        if not self._is_over():
            self._tell(range(self.count), _Message("gone"))


_IN_A_CIRCLE = "waits for others that wait for this one, in a circle"


def _why(message: _Message) -> str:
    """Why a rank does not come, as its next message says."""
    if message.kind == "comes":
        return f"waits in nki.collectives.{message.what[0]} for others of {list(message.group)} at {message.where}"
    return "has ended" if message.kind == "ended" else "has left the job"
