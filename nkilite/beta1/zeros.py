"""PSUM tiles of zeros, which matmuls accumulate into.

Setting them to zero first would be another engine's write, which matmuls do not add to. What no matmul has written is
set to zero when something else uses the tile.
"""

from __future__ import annotations

import numpy as np

from nkilite import isa as nisa
from nkilite.beta1 import select
from nkilite.beta1.index import Index, LoopIndex
from nkilite.beta1.mask import boxes
from nkilite.beta1.tile import Tile, foreign
from nkilite.dtypes import DType
from nkilite.errors import IndexOutOfBounds
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.trace import active
from nkilite.trace.tensor import NkiTensor


class Zeros(Tile):
    """A part of a PSUM tile of zeros.

    Attributes:
        part: its view, as it is.
    """

    __slots__ = ("_written", "part")

    def __init__(self, part: NkiTensor, written: Written | None = None) -> None:
        self.part = part
        self._written = Written(part) if written is None else written
        self.made, self.mask = -1, None

    def __getitem__(self, key: object) -> Tile:
        if self._written.all:
            return super().__getitem__(key)
        if key is Ellipsis:
            return self
        known = select.find(self.part, key) if key.__class__ is tuple else None
        if known is not None:
            return Zeros(known, self._written)
        try:
            items = select.normalize(self.part, key)
            advanced = any(isinstance(i, Index) for i in items)
            view = select.select(self.part, items) if advanced else self.part[key]
            if advanced and key.__class__ is tuple and all(i.__class__ in (int, LoopIndex, Index) for i in key):
                select.keep(self.part, key, view)
        except (select.Outside, IndexOutOfBounds, TypeError):
            return super().__getitem__(key)
        return Zeros(view, self._written)

    def pending(self) -> bool:
        """Whether something of the tile may not have been written."""
        return not self._written.all

    def wrote(self) -> None:
        """An instruction has written all of the part."""
        self._written.mark(self.part.type, self.part.byte_offset)

    def wrote_at(self, kind: ViewType, offset: int) -> None:
        """An instruction has written all of a part of the part."""
        self._written.mark(kind, offset)

    @property
    def nki(self) -> NkiTensor:
        self._written.complete()
        return self.part

    @property
    def shape(self) -> tuple[int, ...]:
        return self.part.type.shape

    @property
    def dtype(self) -> DType:
        return self.part.type.dtype

    @property
    def buffer(self) -> MemoryRegion:
        return self.part.type.region


class Written:
    """What of a tile has been written.

    Attributes:
        all: everything.
    """

    __slots__ = ("_seen", "_whole", "all")

    def __init__(self, whole: NkiTensor) -> None:
        self._whole, self.all = whole, False
        self._seen: set[tuple[ViewType, int]] | None = None

    def mark(self, kind: ViewType, offset: int) -> None:
        """A part has been written."""
        if kind is self._whole.type:
            self.all = True
        elif self._seen is None:
            self._seen = {(kind, offset)}
        else:
            self._seen.add((kind, offset))

    def complete(self) -> None:
        """Set to zero what has not been written."""
        if self.all:
            return
        self.all = True
        whole = self._whole.type
        written = np.zeros(whole.size, bool)
        for kind, offset in self._seen or ():
            start = (offset - self._whole.byte_offset) // kind.dtype.itemsize
            np.ndarray(kind.shape, bool, written, start, kind.strides)[...] = True
        if not written.all():
            foreign(active.builder()).add(self._whole.storage.id)
        for box in boxes(~written.reshape(whole.shape)):
            nisa.memset(self._whole[tuple(slice(r.start, r.stop) for r in box)], 0)
