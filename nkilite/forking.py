"""What a process that forks owes its child, which has one thread: the one that forked.

A lock that another thread has at that moment is never released in the child, and what it guards is half done. So the
thread that forks waits until it has all the locks that are made here, and the child finds what they guard whole.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol


class Lock(AbstractContextManager[bool], Protocol):
    """A `threading.RLock`."""

    def acquire(self, blocking: bool = True) -> bool: ...

    def release(self) -> None: ...


_making: Lock = threading.RLock()
_locks: weakref.WeakSet[Lock] = weakref.WeakSet()
_others: list[Callable[[], Iterable[Lock]]] = []
_held: list[ExitStack] = []  # by forks: a signal handler may fork while its thread is about to


def lock() -> Lock:
    """A lock that is no other thread's when the process forks. It is reentrant, as signal handlers launch kernels."""
    made: Lock = threading.RLock()
    with _making:
        _locks.add(made)
    return made


def hold(locks: Callable[[], Iterable[Lock]]) -> None:
    """Have a fork wait for reentrant locks that others have made."""
    _others.append(locks)


def in_child(function: Callable[[], object]) -> None:
    """Call a function in every process that this one forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def _take_all() -> None:
    """Take all locks. Who waits for one of them has no other, so that it does not matter in which order others go."""
    first = _making
    while True:
        with ExitStack() as held:
            for one in _all(first):
                if not one.acquire(blocking=one is first):
                    first = one
                    break
                held.callback(one.release)
            else:
                _held.append(held.pop_all())
                return


def _all(first: Lock) -> Iterator[Lock]:
    """All locks, from the first on that is waited for; nobody makes more once the second has been taken."""
    yield first
    yield _making
    for locks in _others:
        yield from locks()
    yield from list(_locks)


def _release_all() -> None:
    if _held:  # there are none where a signal handler has ended the wait for them
        _held.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_take_all, after_in_parent=_release_all, after_in_child=_release_all)
