"""Processes that a search starts: they end with the one that started them, and start no search of their own.

A child's standard input is a pipe of which only the parent has the other end. It is never written to; a thread of the
child waits for it to close, which it does however the parent ends, and looks now and then whether the parent is still
its parent, because a process that the parent forked may hold the pipe open.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from autotune.errors import NestedSearch
from nkilite.location import here

LOOK = 1.0  # seconds
PATIENCE = 5.0  # seconds that a child has to let go of what it is doing

_is_child = False


class _Local(threading.local):
    loads = False


_local = _Local()


def start(program: str, *arguments: str, environment: Mapping[str, str], **options: Any) -> subprocess.Popen[bytes]:
    """Start Python with a program that calls `begin`, this process's module path, and a session of its own.

    Ctrl-C is the parent's to handle.
    """
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, start_new_session=True,
        env={**os.environ, **environment, "PYTHONPATH": path}, **options,
    )


def begin() -> None:
    """Become a child: what a process that `start` has started does first."""
    global _is_child
    _is_child = True
    life = os.dup(0)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_follow, args=(life, os.getppid()), daemon=True).start()


@contextmanager
def loading() -> Iterator[None]:
    """While a search loads its kernel, whose file may be a program."""
    before, _local.loads = _local.loads, True
    try:
        yield
    finally:
        _local.loads = before


def require_none() -> None:
    """What starts a search calls this first.

    Raises:
        NestedSearch: this process is a child, or is loading a kernel, and has come across the search on the way.
    """
    if _is_child or _local.loads:
        raise NestedSearch(location=here())


def _follow(life: int, parent: int) -> None:
    """Wait for the parent to end, then end this process, by force if it must be."""
    while os.getppid() == parent:
        if select.select([life], [], [], LOOK)[0]:
            break
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)
