"""Between all tuners of a user on a host: many may compile at once, but who measures is alone.

Two files are locked by the system's own locks, which end with their holder. Whoever measures waits at the gate with it
shut, so that those who compile finish and no others begin.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def many() -> Iterator[None]:
    """Held while compiling and checking."""
    with _locked("gate", fcntl.LOCK_SH):
        room = _lock("room", fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(room)


@contextmanager
def alone() -> Iterator[None]:
    """Held while measuring."""
    with _locked("gate", fcntl.LOCK_EX), _locked("room", fcntl.LOCK_EX):
        yield


@contextmanager
def _locked(name: str, how: int) -> Iterator[None]:
    descriptor = _lock(name, how)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(name: str, how: int) -> int:
    path = os.path.join(tempfile.gettempdir(), f"autotune-{os.getuid()}-{name}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
