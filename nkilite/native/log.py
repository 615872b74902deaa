"""An entry of the disk cache that processes append to: records, each of which is found by any of its keys.

A record begins with a digest of the entry's name, its keys and its content, and is appended by one call. So one that is
not whole, because a process died or two machines wrote at once, or that comes from another entry, is noticed. The file
is written anew then, with what is whole, and also when it is too long: the oldest records go. What another process
appends to the old file meanwhile is lost, and made again when it is missed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

from nkilite import forking, knobs
from nkilite.native.cache import Store, digest

_KEY_BYTES = 20
_MAGIC = b"nkrecord"
_HEAD = struct.Struct("<8s16sIII")  # magic, digest, number of keys, bytes of the content, checksum of these two
_OF_THE_CACHE = 4  # a log takes at most one of so many parts of it


class Record(NamedTuple):
    """Keys are hexadecimal."""

    keys: tuple[str, ...]
    content: bytes


class _Head(NamedTuple):
    digest: bytes
    keys: int
    bytes: int  # of all of the record


class _Place(NamedTuple):
    """A record: its first key, and bytes [start, end) of the file."""

    key: str
    start: int
    end: int


def key_of(*parts: str) -> str:
    """The key that stands for texts."""
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=_KEY_BYTES).hexdigest()


class Log:
    """The records of one entry."""

    _places: dict[str, list[_Place]]  # by key, the newest last
    _seen: int  # bytes of the file that are known
    _inode: int
    _broken: bool  # what follows these bytes is no record

    def __init__(self, store: Store, shelf: str, label: str, key: str) -> None:
        self.store, self._entry, self._path = store, (shelf, label, key), store.path(shelf, label, key)
        self._lock = forking.lock()
        self._forget()

    def find(self, keys: Iterable[str]) -> dict[str, str]:
        """The first key of the newest record with each of those keys by which there is one."""
        with self._lock, self._file():
            return {key: self._places[key][-1].key for key in keys if key in self._places}

    def newest(self, keys: Sequence[str], most: int) -> dict[str, list[Record]]:
        """At most so many records with each of those keys, the newest first."""
        with self._lock, self._file() as file:
            places = {key: self._places.get(key, [])[-most:] for key in keys}
            if file is None:
                return {key: [] for key in keys}
            found = {key: [self._read(file, place, key) for place in reversed(places[key])] for key in keys}
            if any(None in records for records in found.values()):
                self._mend(file)
            return {key: [record for record in records if record is not None] for key, records in found.items()}

    def add(self, records: Sequence[Record]) -> None:
        """Append records."""
        content = b"".join(map(self._packed, records))
        with self._lock, self._file(make=True) as file:
            if file is not None:
                most = knobs.cache_bytes() // _OF_THE_CACHE
                if self._broken:
                    self._mend(file, content)
                elif os.fstat(file.fileno()).st_size + len(content) > most:
                    self._rewrite(file, most // 2, content)
                else:
                    self.store.append(file, content)

    @contextlib.contextmanager
    def _file(self, make: bool = False) -> Iterator[BinaryIO | None]:
        """The file, when all that is in it now is known; None if there is none."""
        file = self.store.open(*self._entry, make=make)
        if file is None:
            self._forget()
            yield None
            return
        with file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._inode or found.st_size < self._seen:
                self._forget()
                self._inode = found.st_ino
            self._survey(file, found.st_size)
            yield file

    def _forget(self) -> None:
        self._places, self._seen, self._inode, self._broken = {}, 0, 0, False

    def _survey(self, file: BinaryIO, size: int) -> None:
        """Take note of what there is behind what was seen. The last record may not be there to its end: if nobody is
        writing it, it hides others that are appended until one of them does not begin where it says it ends."""
        while (start := self._seen) + _HEAD.size <= size:
            head = _head(self.store.read(file, start, _HEAD.size))
            self._broken = head is None
            if head is None or start + head.bytes > size:
                return
            keys = _keys(self.store.read(file, start + _HEAD.size, head.keys * _KEY_BYTES))
            for key in keys:
                self._places.setdefault(key, []).append(_Place(keys[0], start, start + head.bytes))
            self._seen = start + head.bytes

    def _read(self, file: BinaryIO, place: _Place, key: str) -> Record | None:
        """The record with a key that is at a place, unless another file has come there, whose inode is the same."""
        found = self._unpacked(self.store.read(file, place.start, place.end - place.start))
        return found if found is not None and key in found.keys else None

    def _packed(self, record: Record) -> bytes:
        content = b"".join((*map(bytes.fromhex, record.keys), record.content))
        counts = len(record.keys), len(record.content)
        return _HEAD.pack(_MAGIC, digest(self._path, content), *counts, _checksum(*counts)) + content

    def _unpacked(self, data: bytes) -> Record | None:
        """The record that data begin with, if it is whole."""
        head = _head(data)
        content = b"" if head is None else data[_HEAD.size : head.bytes]
        if head is None or digest(self._path, content) != head.digest:
            return None
        return Record(_keys(content[: head.keys * _KEY_BYTES]), content[head.keys * _KEY_BYTES :])

    def _mend(self, file: BinaryIO, added: bytes = b"") -> None:
        """Write the file anew, with a warning."""
        self.store.say_damaged(self._path)
        self._rewrite(file, knobs.cache_bytes(), added)

    def _rewrite(self, file: BinaryIO, most: int, added: bytes) -> None:
        """Write the file anew: at most so many bytes of what is whole, the newest, and something more."""
        kept = list(self._whole(self.store.read(file, 0, os.fstat(file.fileno()).st_size)))
        file.close()  # Windows replaces no file that is open
        left = sum(map(len, kept))
        while kept and left > most:
            left -= len(kept.pop(0))
        self.store.replace(self._path, (*kept, added))
        self._forget()

    def _whole(self, data: bytes) -> Iterator[bytes]:
        """The whole records somewhere in data."""
        at = data.find(_MAGIC)
        while at >= 0:
            head = _head(data[at : at + _HEAD.size])
            record = data[at : at + head.bytes] if head is not None else b""
            whole = self._unpacked(record) is not None
            if whole:
                yield record
            at = data.find(_MAGIC, at + (len(record) if whole else 1))


def _head(data: bytes) -> _Head | None:
    """The head that data begin with, if it is one."""
    if len(data) < _HEAD.size:
        return None
    magic, found, count, length, checksum = _HEAD.unpack_from(data)
    if magic != _MAGIC or checksum != _checksum(count, length):
        return None
    return _Head(found, count, _HEAD.size + count * _KEY_BYTES + length)


def _checksum(count: int, length: int) -> int:
    return zlib.crc32(struct.pack("<II", count, length))


def _keys(content: bytes) -> tuple[str, ...]:
    text = content.hex()
    return tuple(text[i : i + 2 * _KEY_BYTES] for i in range(0, len(text), 2 * _KEY_BYTES))
