"""Compiled programs in the disk cache: what is compiled once need not be compiled by another process.

An entry is found by the program that was traced (nkilite/ir/digest.py) and by what decides the code that is made of
it: the CPU, settings, and versions. It holds plain data: the image, and the warnings compiling gave; the object code of
micro-kernels lies beside it, shared by programs. With NKILITE_VERIFY=1 every program is compiled.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from typing import NamedTuple

from nkilite import knobs
from nkilite.host.cpu import Host
from nkilite.native import effort
from nkilite.native.cache import KERNELS, store
from nkilite.native.encoding import NotData, decode, encode
from nkilite.native.image import Image
from nkilite.native.library import Kept, library
from nkilite.native.versions import versions
from nkilite.notices import Notice

# Settings that do not change what is compiled; all others of ours are part of the key.
_IRRELEVANT = {
    "NKILITE_CACHE", "NKILITE_CACHE_DIR", "NKILITE_CACHE_SIZE", "NKILITE_CPU", "NKILITE_NUM_THREADS",
    "NKILITE_OPTIMIZE", "NKILITE_RECYCLE", "NKILITE_SPECIALIZATIONS", "NKILITE_TUNED", "NKILITE_VERIFY",
}


class Stored(NamedTuple):
    """A compiled kernel.

    Attributes:
        images: by core.
        notices: warnings about it.
    """

    images: tuple[Image, ...]
    notices: tuple[Notice, ...]


class Place:
    """Where a compiled program is, or would be, in the disk cache."""

    def __init__(self, name: str, program: str, host: Host) -> None:
        """
        Args:
            name: of the kernel, for people.
            program: digest of the traced programs, one per core.
        """
        self._name, self._host = name, host
        self._store = None if knobs.verify_passes() else store()
        self._key = None if self._store is None else _key(program, host)

    def recall(self) -> Stored | None:
        """The compiled programs, with their micro-kernels loaded; None if they have to be compiled."""
        if self._key is None or self._store is None:
            return None
        content = self._store.get(KERNELS, self._name, self._key)
        if content is None:
            return None
        found, objects = _decoded(content)
        if found is None:
            self._store.damaged(KERNELS, self._name, self._key)
            return None
        return found if library(self._host).recall(objects, self._store) else None

    def remember(self, found: Stored) -> None:
        """Put programs just compiled into the cache."""
        if self._key is None or self._store is None:
            return
        sources = list({s.name: s for image in found.images for s in image.lowered.sources}.values())
        quickly = [effort.quick(image.lowered) for image in found.images]
        objects = library(self._host).keep(sources, self._store, frozenset().union(*quickly))
        if objects is None:
            return
        try:
            content = encode((tuple(map(_without_text, found.images, quickly)), found.notices, objects))
        except NotData:  # too large
            return
        self._store.put(KERNELS, self._name, self._key, content)


def _decoded(content: bytes) -> tuple[Stored | None, list[Kept]]:
    """What an entry holds, and where its micro-kernels are; None of one that holds something else."""
    try:
        images, notices, objects = decode(content)
        found = ((images, Image), (notices, Notice), (objects, Kept))
        known = all(type(item) is kind for items, kind in found for item in items)
    except (NotData, TypeError, ValueError):
        return None, []
    return (Stored(images, notices), objects) if known and images else (None, [])


def _without_text(image: Image, quickly: Collection[str]) -> Image:
    """An image whose micro-kernels are known by name alone, but for those that may have to be compiled again."""
    lowered = image.lowered
    names = [s if s.name in quickly else s._replace(text="", declarations=()) for s in lowered.sources]
    return image._replace(lowered=lowered._replace(sources=names))


def _key(program: str, host: Host) -> str | None:
    made_by = versions()
    if made_by is None:
        return None
    settings = sorted((k, v) for k, v in os.environ.items() if k.startswith("NKILITE_") and k not in _IRRELEVANT)
    text = repr((program, host.level, host.cpu, host.features, settings, made_by))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
