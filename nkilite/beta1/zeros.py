"""PSUM tiles of zeros, which matmuls accumulate into."""

from __future__ import annotations

from typing import Any

from nkilite import isa as nisa
from nkilite.beta1 import select
from nkilite.beta1.tile import Tile
from nkilite.dtypes import DType
from nkilite.ir.types import MemoryRegion
from nkilite.trace.tensor import NkiTensor


class Zeros(Tile):
    """A PSUM tile of zeros, set to zero when it is used, unless a matmul that covers it comes first.

    Attributes:
        pending: nothing has been written yet.
        whole: the view of all of it, as it is.
    """

    __slots__ = ("pending", "whole")

    def __getitem__(self, key: Any) -> Tile:
        if self.pending and _covers(self.whole, key):
            return self
        return super().__getitem__(key)

    def __init__(self, view: NkiTensor) -> None:
        self.whole, self.pending = view, True
        self.made, self.mask = -1, None

    @property
    def nki(self) -> NkiTensor:  # type: ignore[override]
        if self.pending:
            self.pending = False
            nisa.memset(self.whole, 0)
        return self.whole

    @property
    def shape(self) -> tuple[int, ...]:
        return self.whole.type.shape

    @property
    def dtype(self) -> DType:
        return self.whole.type.dtype

    @property
    def buffer(self) -> MemoryRegion:
        return self.whole.type.region




def _covers(view: NkiTensor, key: Any) -> bool:
    """Whether a subscript selects all of a tile as it is."""
    if key is Ellipsis:
        return True
    keys = key if isinstance(key, tuple) else (key,)
    if len(keys) != view.ndim or not all(isinstance(k, (slice, select.Index)) for k in keys):
        return False
    try:
        items = select.normalize(view, keys)
        if all(isinstance(i, range) for i in items):
            return all(i == range(n) for i, n in zip(items, view.shape, strict=True))
        found = select.select(view, items)
    except (select.Outside, LookupError, TypeError):
        return False
    return found.type is view.type and found.byte_offset == view.byte_offset
