"""What decides, beside a program, which native code is made of it: nkilite itself and the libraries it uses."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import ml_dtypes
import numpy as np

from nkilite.host import llvm
from nkilite.native.cache import OBJECTS, store

_IMPORTED = time.time_ns()
_LABEL = "sources"
_MARGIN = 10**9  # nanoseconds that importing nkilite takes at most


@functools.cache
def versions() -> str | None:
    """The same text for two processes that make the same code of a program.

    None where nkilite's sources may have changed since this process imported them.
    """
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    files = sorted(_sources(root))
    if max(file.modified for file in files) > _IMPORTED - _MARGIN:
        return None
    libraries = np.__version__, ml_dtypes.__version__, llvm.versions()
    return " ".join((_digest(root, files), str(sys.implementation.cache_tag), *libraries))


class _File(NamedTuple):
    """A source file: nobody changes one without changing this."""

    path: str
    bytes: int
    modified: int
    changed: int
    inode: int


def _sources(folder: str) -> Iterator[_File]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                found = entry.stat()
                yield _File(entry.path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
            elif entry.is_dir():
                yield from _sources(entry.path)


def _digest(root: str, files: Sequence[_File]) -> str:
    """Of the content of all files, which the disk cache remembers: reading them takes longer than a small kernel."""
    disk = store() if os.name == "posix" else None  # elsewhere a file's times do not tell that it was replaced
    key = hashlib.blake2b(repr(files).encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
    known = None if disk is None else disk.get(OBJECTS, _LABEL, key)
    if known is not None:
        return known.decode()
    found = hashlib.sha256()
    for file in files:
        with open(file.path, "rb", buffering=0) as source:
            content = source.read()
        found.update(f"{file.path[len(root) + 1:]} {len(content)}\n".encode())
        found.update(content)
    if disk is not None:
        disk.put(OBJECTS, _LABEL, key, found.hexdigest().encode())
    return found.hexdigest()
