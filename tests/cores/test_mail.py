"""What ranks that are processes tell each other, over queues instead of MPI: nobody waits for who does not come."""

from __future__ import annotations

import pickle
import re
import threading
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from nkilite.errors import RankLost, RanksDiffer
from nkilite.ir.rank import Group
from nkilite.location import Location
from nkilite.runtime import mail
from nkilite.runtime.mail import Mail

LINE = Location("kernel.py", 7, "nki.collectives.all_reduce(...)")
REDUCE, GATHER = (("all_reduce", 0), ("all_gather", 0))


class Aborted(Exception):
    """Another rank has ended the job."""


class World:
    """As much of a communicator as Mail uses."""

    def __init__(self, rank: int, boxes: list[deque], aborted: threading.Event) -> None:
        self.rank, self.size, self._boxes, self._aborted = rank, len(boxes), boxes, aborted

    def isend(self, message: Any, dest: int, tag: int) -> Any:
        self._boxes[dest].append((self.rank, pickle.dumps(message)))
        return SimpleNamespace(Test=lambda: True)

    def improbe(self, tag: int, status: Any) -> Any:
        if not self._boxes[self.rank]:
            if self._aborted.is_set():
                raise Aborted
            return None
        status.source, text = self._boxes[self.rank].popleft()
        return SimpleNamespace(recv=lambda: pickle.loads(text))


def launched(count: int, main: Callable[[Mail], Any]) -> list[Any]:
    """What `main` returns on every rank, or the error that it raises, which ends the others as soon as they wait."""
    boxes: list[deque] = [deque() for _ in range(count)]
    aborted = threading.Event()
    found: list[Any] = [None] * count

    def run(rank: int) -> None:
        mpi = SimpleNamespace(
            COMM_WORLD=World(rank, boxes, aborted), Status=SimpleNamespace, Is_finalized=lambda: True
        )
        try:
            found[rank] = main(Mail(mpi))
        except Exception as error:
            found[rank] = error
            aborted.set()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(mail, "_LONG_S", 0.02)


def met(post: Mail, group: Group, what: tuple = REDUCE) -> dict:
    return post.gather(group, what, f"of {post.rank}", LINE)


def test_what_all_bring_and_return():
    def main(post: Mail) -> Any:
        first = met(post, (2, 0, 1))
        half = met(post, (0, 1)) if post.rank < 2 else met(post, (2,))
        again = met(post, (2, 0, 1), GATHER)
        return first, half, again, post.end(post.rank * 10)

    every = {rank: f"of {rank}" for rank in range(3)}
    for rank, (first, half, again, returned) in enumerate(launched(3, main)):
        assert first == again == every
        assert sorted(half) == ([0, 1] if rank < 2 else [2])
        assert returned == [0, 10, 20]


def test_launches_follow_each_other():
    def main(post: Mail) -> Any:
        return [post.end(met(post, (0, 1))[1 - post.rank] + str(turn)) for turn in range(20)]

    one, other = launched(2, main)
    assert one == other
    assert one[19] == ["of 119", "of 019"]


def test_one_that_has_ended():
    def main(post: Mail) -> Any:
        return post.end(None) if post.rank == 1 else met(post, (0, 1))

    waiting = launched(2, main)[0]
    assert isinstance(waiting, RankLost)
    assert "rank 0 waits in nki.collectives.all_reduce for rank 1, which has ended" in str(waiting)
    assert waiting.location is LINE or waiting.location == LINE


def test_one_that_has_left():
    def main(post: Mail) -> Any:
        if post.rank == 1:
            post._is_over = lambda: False
            return post._leave()
        return post.end(None) if post.rank == 2 else met(post, (0, 1))

    lost = [error for error in launched(3, main) if isinstance(error, RankLost)]
    assert lost
    assert all("for rank 1, which has left the job" in str(error) for error in lost)


def test_others_that_do_something_else():
    found = launched(2, lambda post: met(post, (0, 1), REDUCE if post.rank else GATHER))
    assert any(isinstance(error, RanksDiffer) for error in found)
    crossed = launched(2, lambda post: met(post, (0, 1) if post.rank else (1, 0)))
    lost = [error for error in crossed if isinstance(error, RankLost)]
    assert re.search(r"waits in nki.collectives.all_reduce for others of \[., .\] at kernel.py:7", str(lost[0]))


@pytest.mark.parametrize("count", [3, 5])
def test_a_circle(count):
    """Each waits for the one after it, in groups of two of which no two are the same."""
    found = launched(count, lambda post: met(post, (post.rank, (post.rank + 1) % count)))
    assert any(isinstance(error, RankLost) and "in a circle" in str(error) for error in found)


def test_one_that_comes_late_is_waited_for():
    """Questions go round meanwhile, and nobody takes that for a circle."""
    late = threading.Event()

    def main(post: Mail) -> Any:
        if post.rank == 2:
            late.wait(0.3)
        pair = met(post, (0, 1)) if post.rank < 2 else {}
        return len(pair), len(met(post, (0, 1, 2))), post.end(None)

    assert [found[:2] for found in launched(3, main)] == [(2, 3), (2, 3), (0, 3)]
