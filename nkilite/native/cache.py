"""The disk cache: named entries in a directory that many processes share, bounded, each one whole or not there.

An entry is a file `<shelf>/<first two digits of the key>/<label>-<key>`. It is written under another name and renamed,
so that nobody sees half of it, and starts with a digest of its name and content, so that damage is noticed; some are
logs, which are appended to (nkilite/native/log.py). Reading an entry sets its modification time: beyond
NKILITE_CACHE_SIZE, the ones used least recently are removed.

Object code in it is run, so all of it has to be the user's own: directories that belong to somebody else, or that
others may write, are not used, and only regular files are opened, not through links.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from nkilite import forking, knobs

NO_HOME = "the user has no home directory; NKILITE_CACHE_DIR says where the disk cache is to be"
FORMAT = 4  # of entries: a part of their keys, so that versions of nkilite may share a directory
KERNELS, OBJECTS, OPERATORS = "kernels", "objects", "operators"
SHELVES = (KERNELS, OBJECTS, OPERATORS)

_MAGIC = b"nkilite2"
_DIGEST_BYTES = 16
_TRIMMED = 0.9  # of the size is left when entries had to go
_LEFTOVER_SECONDS = 3600  # a temporary file this old belongs to a process that died
_TEMPORARY = ".part"
_ENTRY_BYTES_AT_MOST = 1 << 28
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_LABEL = re.compile(r"\W+")


class CacheWarning(UserWarning):
    """The disk cache is damaged or cannot be used; kernels are compiled instead."""


class Entry(NamedTuple):
    """A file of the cache; `used` in seconds since the epoch."""

    shelf: str
    label: str
    path: str
    bytes: int
    used: float


class Store:
    """The cache in one directory."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._lock = forking.lock()
        self._unchecked: float = float("inf")  # bytes written since the size was looked at
        self._warned = False

    def get(self, shelf: str, label: str, key: str) -> bytes | None:
        """The content of an entry, or None. A damaged one is removed with a CacheWarning."""
        path = self.path(shelf, label, key)
        file = self.open(shelf, label, key)
        if file is None:
            return None
        with file:
            data = self.read(file, 0, _ENTRY_BYTES_AT_MOST + 1)
        content = memoryview(data)[len(_MAGIC) + _DIGEST_BYTES :]
        if not data.startswith(_MAGIC) or data[len(_MAGIC) : len(_MAGIC) + _DIGEST_BYTES] != digest(path, content):
            self.damaged(shelf, label, key)
            return None
        return bytes(content)

    def open(self, shelf: str, label: str, key: str, make: bool = False) -> BinaryIO | None:
        """The file of an entry, whatever it holds; with `make`, to be appended to, too. None if there is none, or it
        cannot be used; what is no file of ours is removed with a CacheWarning."""
        path = self.path(shelf, label, key)
        try:
            self._check(os.path.dirname(path), make)
            file = _opened(path, os.O_RDWR | os.O_APPEND | os.O_CREAT if make else 0)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._cannot("written" if make else "read", error)
            return None
        if file is None:
            self.damaged(shelf, label, key)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return file

    def put(self, shelf: str, label: str, key: str, content: bytes) -> None:
        """Write an entry. A cache that cannot be written is reported once and does no harm."""
        if len(content) > _ENTRY_BYTES_AT_MOST - len(_MAGIC) - _DIGEST_BYTES:
            return
        path = self.path(shelf, label, key)
        self.replace(path, (_MAGIC, digest(path, content), content))

    def replace(self, path: str, parts: Iterable[bytes]) -> None:
        """Write the file of an entry, at once."""
        part = f"{path}.{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY}"
        try:
            self._check(os.path.dirname(path), make=True)
            try:
                with open(part, "xb") as file:
                    file.writelines(parts)
                os.replace(part, path)
            except BaseException:
                _remove(part)
                raise
            written = os.stat(path).st_size
        except OSError as error:
            self._cannot("written", error)
            return
        self._grown(written)

    def read(self, file: BinaryIO, start: int, count: int) -> bytes:
        """At most so many bytes of the file of an entry; none, with a CacheWarning, if the system cannot read them."""
        try:
            file.seek(start)
            return file.read(count)
        except OSError as error:
            self._cannot("read", error)
            return b""

    def append(self, file: BinaryIO, content: bytes) -> None:
        """Append to the file of an entry, in one piece. What is not written whole is found by its digest."""
        try:
            if os.write(file.fileno(), content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._cannot("written", error)
            return
        self._grown(len(content))

    def _grown(self, written: int) -> None:
        """So many bytes have been written: it may be time to look at the size of all."""
        most = knobs.cache_bytes()
        with self._lock:
            self._unchecked += written
            due = self._unchecked > most / 16
            if due:
                self._unchecked = 0
        if due:
            self.trim(most)

    def damaged(self, shelf: str, label: str, key: str) -> None:
        """Remove an entry that cannot be used."""
        path = self.path(shelf, label, key)
        _remove(path)
        self.say_damaged(path)

    def say_damaged(self, path: str) -> None:
        warnings.warn(f"{path} is damaged; it is made anew", CacheWarning, stacklevel=3)

    def entries(self) -> Iterator[Entry]:
        """Everything in the cache."""
        for shelf in SHELVES:
            for file in _files(os.path.join(self.directory, shelf)):
                label, _, key = file.name.rpartition("-")
                if label and not key.endswith(_TEMPORARY):
                    with contextlib.suppress(OSError):
                        found = file.stat()
                        yield Entry(shelf, label, file.path, found.st_size, found.st_mtime)

    def trim(self, limit: int) -> None:
        """Remove what was used least recently until the cache is well below `limit` bytes, if it is above."""
        now = time.time()
        for shelf in SHELVES:
            for file in _files(os.path.join(self.directory, shelf)):
                with contextlib.suppress(OSError):
                    if file.name.endswith(_TEMPORARY) and now - file.stat().st_mtime > _LEFTOVER_SECONDS:
                        os.unlink(file.path)
        entries = sorted(self.entries(), key=lambda e: e.used)
        total = sum(e.bytes for e in entries)
        if total <= limit:
            return
        for entry in entries:
            if total <= limit * _TRIMMED:
                break
            _remove(entry.path)
            total -= entry.bytes

    def clear(self) -> tuple[int, int]:
        """Remove everything; the number of entries removed and their bytes."""
        entries = list(self.entries())
        for entry in entries:
            _remove(entry.path)
        return len(entries), sum(e.bytes for e in entries)

    def _check(self, folder: str, make: bool = False) -> None:
        """
        Raises:
            OSError: the cache, or the folder in it, is not the user's alone, or is not there and cannot be made.
        """
        shelf = os.path.dirname(folder)
        for directory in (self.directory, shelf, folder):
            try:
                found = os.stat(directory)
            except FileNotFoundError:
                if not make:
                    raise
                os.makedirs(os.path.dirname(directory), exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    os.mkdir(directory, 0o700)
                found = os.stat(directory)
            _check_owner(directory, found)

    def path(self, shelf: str, label: str, key: str) -> str:
        return os.path.join(self.directory, shelf, key[:2], f"{_LABEL.sub('_', label)}-{key}")

    def _cannot(self, done: str, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"the cache in {self.directory} cannot be {done}: {error}", CacheWarning, stacklevel=2)


class NotOurs(OSError):
    """A directory or file that somebody else may have written."""


_stores: dict[str | None, Store | None] = {}


def store() -> Store | None:
    """The disk cache the environment asks for, or None where it is switched off."""
    if not knobs.cache_enabled():
        return None
    directory = knobs.cache_directory()
    if directory not in _stores:
        _stores[directory] = None if directory is None else Store(directory)
        if directory is None:
            warnings.warn(f"{NO_HOME}: nothing is kept on disk", CacheWarning, stacklevel=2)
    return _stores[directory]


def digest(path: str, content: bytes | memoryview) -> bytes:
    """Of an entry: its shelf and name, and its content."""
    folder, name = os.path.split(path)
    shelf = os.path.basename(os.path.dirname(folder))
    found = hashlib.blake2b(f"{shelf}/{name}\n".encode(), digest_size=_DIGEST_BYTES)
    found.update(content)
    return found.digest()


def _check_owner(path: str, found: os.stat_result) -> None:
    """
    Raises:
        NotOurs: somebody else than the user may write a directory or file.
    """
    if not hasattr(os, "geteuid"):  # Windows: a user's folders are private
        return
    if found.st_uid != os.geteuid():
        raise NotOurs(f"{path} belongs to user {found.st_uid}, not to {os.geteuid()}")
    if found.st_mode & _OTHERS_WRITE:
        raise NotOurs(f"others may write {path} (mode {stat.S_IMODE(found.st_mode):o}); chmod go-w, or empty it first")


def _opened(path: str, flags: int) -> BinaryIO | None:
    """A file of ours; None of anything else.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, _FLAGS | flags, 0o600)
    except OSError:
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            return None  # a link, a socket
        raise
    found = os.fstat(descriptor)
    try:
        if not stat.S_ISREG(found.st_mode):
            raise NotOurs(f"{path} is no file")
        _check_owner(path, found)
    except NotOurs:
        os.close(descriptor)
        return None
    return open(descriptor, "rb")


def _files(directory: str) -> Iterator[os.DirEntry[str]]:
    """The files two levels below a shelf's directory."""
    with contextlib.suppress(OSError), os.scandir(directory) as folders:
        for folder in folders:
            with contextlib.suppress(OSError), os.scandir(folder.path) as files:
                yield from files


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
