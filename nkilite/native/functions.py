"""Machine code of compiled Python functions (nkilite/compiled) in the disk cache, for other processes."""

from __future__ import annotations

from nkilite.compiled.function import keeper
from nkilite.native.cache import OBJECTS, store
from nkilite.native.versions import versions


class _Kept:
    @property
    def made_by(self) -> str | None:
        return None if store() is None else versions()

    def get(self, name: str, key: str) -> bytes | None:
        disk = store()
        return None if disk is None else disk.get(OBJECTS, name, key)

    def put(self, name: str, key: str, content: bytes) -> None:
        disk = store()
        if disk is not None:
            disk.put(OBJECTS, name, key, content)


keeper[:] = [_Kept()]
