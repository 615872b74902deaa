"""Object code of functions in the disk cache: all that are compiled at once are one entry, a *pack*.

A *unit* is what is always compiled together, mostly one function; its key stands for its LLVM text and what compiles
it. An entry of its own, the index, says in which pack units are, so that programs find what others compiled. Two
processes that change the index at once may lose what one of them adds: that is compiled again.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nkilite.native.cache import OBJECTS, Store

_LABEL, _INDEX = "pack", "index"
_KEY_BYTES = 20
_UNITS_AT_MOST = 1 << 14  # in the index; those added first go
_COUNT = struct.Struct("<I")


class Pack(NamedTuple):
    """An entry.

    Attributes:
        units: keys of what is in it.
        code: an object file.
    """

    units: tuple[str, ...]
    code: bytes


class Packs:
    """Those of a cache that were made by one version of everything."""

    def __init__(self, store: Store, made_by: str) -> None:
        self.store = store
        self._index = _digest(made_by)
        self._lock = threading.Lock()
        self._content = b""  # of the index, as it was last read
        self._places: dict[str, str] = {}  # pack by unit

    def find(self, units: Iterable[str]) -> dict[str, str]:
        """The keys of the packs with units, by unit, of those that are known."""
        wanted = list(units)
        with self._lock:
            if any(unit not in self._places for unit in wanted):
                self._refresh()
            return {unit: self._places[unit] for unit in wanted if unit in self._places}

    def get(self, pack: str) -> Pack | None:
        """A pack, if it is there and whole."""
        content = self.store.get(OBJECTS, _LABEL, pack)
        if content is None:
            return None
        (count,) = _COUNT.unpack_from(content)
        units = _keys(content[_COUNT.size : _COUNT.size + count * _KEY_BYTES])
        return Pack(units, content[_COUNT.size + count * _KEY_BYTES :])

    def has(self, pack: str) -> bool:
        return self.store.has(OBJECTS, _LABEL, pack)

    def put(self, units: Sequence[str], code: bytes) -> str:
        """Make a pack; its key."""
        pack = _digest(*units)
        content = b"".join((_COUNT.pack(len(units)), *map(bytes.fromhex, units), code))
        self.store.put(OBJECTS, _LABEL, pack, content)
        with self._lock:
            self._refresh()
            self._add(dict.fromkeys(units, pack))
        return pack

    def _add(self, places: dict[str, str]) -> None:
        """Say in the index where units are."""
        for unit, pack in places.items():
            self._places.pop(unit, None)  # the last ones are the newest
            self._places[unit] = pack
        for unit in list(self._places)[: max(0, len(self._places) - _UNITS_AT_MOST)]:
            del self._places[unit]
        self._content = b"".join(map(bytes.fromhex, (*self._places, *self._places.values())))
        self.store.put(OBJECTS, _INDEX, self._index, self._content)

    def _refresh(self) -> None:
        """Learn what other processes have added to the index."""
        there = self.store.has(OBJECTS, _INDEX, self._index)
        content = self.store.get(OBJECTS, _INDEX, self._index)
        if content is None and there:  # damaged: what is in the packs, they say themselves
            self._add(self._surveyed())
            return
        content = content or b""
        if content != self._content:
            keys = _keys(content)
            known = dict(zip(keys[: len(keys) // 2], keys[len(keys) // 2 :], strict=True))
            self._content, self._places = content, {**self._places, **known}

    def _surveyed(self) -> dict[str, str]:
        """The pack of every unit that is in one."""
        packs = [entry.path.rpartition("-")[2] for entry in self.store.entries() if entry.label == _LABEL]
        found = {pack: self.get(pack) for pack in packs}
        return {unit: pack for pack, content in found.items() if content is not None for unit in content.units}


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=_KEY_BYTES).hexdigest()


def _keys(content: bytes) -> tuple[str, ...]:
    text = content.hex()
    return tuple(text[i : i + 2 * _KEY_BYTES] for i in range(0, len(text), 2 * _KEY_BYTES))
