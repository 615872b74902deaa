"""Compiled kernels in the disk cache: what a launch needs is there, so that a fresh process runs it without tracing.

An entry is found by what a trace depends on (nkilite/runtime/identity.py). It holds plain data: the image, what the
kernel returns, and the warnings tracing gave; the object code of micro-kernels lies beside it, shared by programs.
Kernels without an identity are traced in every process. So is one whose trace changes what it reads, and with
NKILITE_VERIFY=1 every kernel.
"""

from __future__ import annotations

import os
import pickle
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from nkilite import knobs
from nkilite.codegen.host import Host
from nkilite.machine.target import Target
from nkilite.native.cache import KERNELS, store
from nkilite.native.image import Image
from nkilite.native.library import library
from nkilite.notices import Notice
from nkilite.runtime import identity
from nkilite.runtime.binding import Arguments
from nkilite.runtime.grid import cores_of

if TYPE_CHECKING:
    from nkilite.runtime.kernel import Kernel

_COMPRESSION = 1  # zlib's fastest: tables are repetitive, and reading must be quick
# Settings that do not change what is compiled; all others of ours are part of the key.
_IRRELEVANT = {
    "NKILITE_CACHE", "NKILITE_CACHE_DIR", "NKILITE_CACHE_SIZE", "NKILITE_CPU", "NKILITE_NUM_THREADS", "NKILITE_RECYCLE",
    "NKILITE_TUNED", "NKILITE_VERIFY",
}


class Stored(NamedTuple):
    """A compiled kernel.

    Attributes:
        images: by core.
        returned: what it returns, with a Result in the place of every tensor.
        notices: warnings about it.
    """

    images: tuple[Image, ...]
    returned: Any
    notices: tuple[Notice, ...]


class Place:
    """Where a specialization is, or would be, in the disk cache."""

    def __init__(self, kernel: Kernel, arguments: Arguments, host: Host, target: Target) -> None:
        self._kernel, self._arguments, self._host, self._target = kernel, arguments, host, target.digest
        self._cores = tuple(cores_of(kernel, target))
        self._store = None if knobs.verify_passes() else store()
        self._key = self._identity()

    def recall(self) -> Stored | None:
        """The compiled kernel, with its micro-kernels loaded; None if it has to be compiled."""
        if self._key is None or self._store is None:
            return None
        content = self._store.get(KERNELS, self._kernel.__name__, self._key)
        if content is None:
            return None
        try:
            found, objects = pickle.loads(zlib.decompress(content))
        except Exception:  # whole, but of no use here: a class it returns may have moved
            self._store.damaged(KERNELS, self._kernel.__name__, self._key)
            return None
        return found if library(self._host).recall(objects, self._store) else None

    def remember(self, found: Stored) -> None:
        """Put a kernel just compiled into the cache, if its identity has survived the trace."""
        if self._key is None or self._store is None or self._identity() != self._key:
            return
        sources = list({s.name: s for image in found.images for s in image.lowered.sources}.values())
        objects = library(self._host).keep(sources, self._store)
        bare = found._replace(images=tuple(map(_without_text, found.images)))
        try:
            content = pickle.dumps((bare, objects), pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, AttributeError, TypeError):  # it returns a class no other process can find
            return
        self._store.put(KERNELS, self._kernel.__name__, self._key, zlib.compress(content, _COMPRESSION))

    def _identity(self) -> str | None:
        if self._store is None:
            return None
        kernel, host = self._kernel, self._host
        settings = sorted((k, v) for k, v in os.environ.items() if k.startswith("NKILITE_") and k not in _IRRELEVANT)
        try:
            return identity.digest(
                (
                    identity.versions(), identity.sources(), self._target, host.level, host.cpu, host.features,
                    settings, self._cores, kernel.schedule, kernel.grid, kernel.function, self._arguments.values,
                    self._arguments.same,
                )
            )
        except identity.NoIdentity:
            return None


def _without_text(image: Image) -> Image:
    """An image whose micro-kernels are known by name alone."""
    lowered = image.lowered
    names = [s._replace(text="", declarations=()) for s in lowered.sources]
    return image._replace(lowered=lowered._replace(sources=names))
