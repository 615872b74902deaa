"""Tensors with block dimensions before the partition dimension: as many tiles, made when they are first used.

Source: the block dimension migration guide of Beta 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import prod
from sys import getrefcount
from typing import Any

import numpy as np

from nkilite.beta1.index import Index, LoopIndex
from nkilite.beta1.select import UNEQUAL
from nkilite.beta1.tile import Tile, assign, is_held
from nkilite.dtypes import DType
from nkilite.errors import IndexOutOfBounds, InvalidIndex, TooManyIndices, UnsupportedError, describe
from nkilite.ir.types import MemoryRegion
from nkilite.trace.tensor import NkiTensor

_MOST = 1 << 16  # subscripts kept
_POSITIONS = frozenset({int, LoopIndex, Index})


class Blocks:
    """Tiles by their position in the block dimensions.

    Args:
        blocks: sizes of the block dimensions.
        inner: shape of every tile.
        make: makes a tile by its number.
        made: tiles that there are.
        first: number of the first tile.
        steps: what a step along each block dimension adds to the number; by default as in an array.
    """

    __slots__ = ("_first", "_made", "_make", "_selected", "_steps", "blocks", "buffer", "dtype", "inner")

    def __init__(
        self, blocks: tuple[int, ...], inner: tuple[int, ...], dtype: DType, buffer: MemoryRegion,
        make: Callable[[int], Tile], made: dict[int, Tile] | None = None, first: int = 0,
        steps: tuple[int, ...] = (),
    ) -> None:
        self.blocks, self.inner, self.dtype, self.buffer = blocks, inner, dtype, buffer
        self._make, self._first = make, first
        self._made: dict[int, Tile] = {} if made is None else made
        self._steps = steps or _steps(blocks)
        self._selected: dict[Any, Any] = {}  # by subscript

    @property
    def shape(self) -> tuple[int, ...]:
        return self.blocks + self.inner

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    def __len__(self) -> int:
        return self.blocks[0]

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"{prod(self.blocks)} tiles {self.dtype} {self.inner} in {self.buffer}"

    def __getitem__(self, key: Any) -> Any:
        """Ints choose a block, slices several; what follows them indexes each of the tiles.

        Raises:
            IndexOutOfBounds, InvalidIndex, TooManyIndices.
        """
        try:
            found = self._selected[key]
        except (KeyError, TypeError):  # new, or with slices in it
            return self._select(key)
        for k in key if key.__class__ is tuple else (key,):
            if k.__class__ in UNEQUAL:
                return self._select(key)
        return found

    def _select(self, key: Any) -> Any:
        """What a subscript selects, kept for the next one like it: tiles and parts know nothing else."""
        keys = key if key.__class__ is tuple else (key,)
        blocks = self.blocks
        number = self._first
        taken = 0
        for k, size, step in zip(keys, blocks, self._steps, strict=False):
            if k.__class__ is not int and k.__class__ is not LoopIndex:
                if k is Ellipsis or isinstance(k, slice):
                    break
                k = self._block(k, taken)
            if not 0 <= k < size:
                k = self._inside(k, taken)
            number += k * step
            taken += 1
        rest = keys[taken:]
        if taken == len(blocks):
            found = self._tile(number)
            found = found[rest] if rest else found
        else:
            found = self._part(number, taken, rest)
        if (taken < len(blocks) or type(found).settled) and _POSITIONS.issuperset(map(type, keys)):
            if len(self._selected) >= _MOST:
                self._selected.clear()
            self._selected[key] = found
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        """Copy into a tile, or into all tiles of a part."""
        if isinstance(value, Tile) and value.made >= 0:
            if is_held(getrefcount(value), value, sys._getframe(1)):
                value.made = -1
        elif self[key] is value:
            return  # what `t[i] += x` assigns has been added in place
        found = self[key]
        if isinstance(found, Tile):
            assign[0](found, value)
            return
        for block in range(found.blocks[0]):
            found[block] = value[block] if isinstance(value, Blocks) else value

    def reshape(self, *shape: Any) -> Any:
        """The same tiles in other block dimensions.

        Raises:
            UnsupportedError: the shape of the tiles would change.
        """
        wanted = tuple(map(int, shape[0] if len(shape) == 1 else shape))
        apart = self._steps != _steps(self.blocks)
        if apart or wanted[-len(self.inner) :] != self.inner or prod(wanted) != self.size:
            raise UnsupportedError(feature=f"reshaping {self!r} to {wanted}, across its block dimensions")
        blocks = wanted[: -len(self.inner)]
        return Blocks(blocks, self.inner, self.dtype, self.buffer, self._make, self._made, self._first)

    def _tile(self, number: int) -> Tile:
        found = self._made.get(number)
        if found is None:
            found = self._made[number] = self._make(number)
        return found

    def _part(self, number: int, taken: int, rest: tuple[Any, ...]) -> Any:
        """Several tiles, and of each what follows the subscripts of blocks."""
        outer, inner = _split(rest, len(self.blocks) - taken)
        if not taken and not inner and all(_is_whole(k) for k in outer):
            return self
        blocks, steps = [], []
        for dim, key in enumerate(outer, taken):
            step = self._steps[dim]
            if isinstance(key, slice):
                chosen = self._range(key, dim)
                blocks.append(len(chosen))
                steps.append(chosen.step * step)
                number += chosen.start * step
            else:
                number += self._inside(self._block(key, dim), dim) * step
        make, made, shape = self._make, self._made, self.inner
        if inner:
            make, made, shape = lambda n: self._tile(n)[inner], {}, self._tile(number)[inner].shape
        return Blocks(tuple(blocks), shape, self.dtype, self.buffer, make, made, number, tuple(steps))

    def _range(self, key: slice, dim: int) -> range:
        size = self.blocks[dim]
        if key.stop is not None and int(key.stop) > size:
            raise IndexOutOfBounds(index=int(key.stop) - 1, dim=dim, size=size, of=f" of {self!r}")
        chosen = range(size)[key]
        if not chosen:
            raise InvalidIndex(what=f"{describe(key)} of block dimension {dim} of {self!r}", hint="it selects nothing.")
        return chosen

    def _block(self, key: Any, dim: int) -> int:
        if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
            return int(key)
        if isinstance(key, Index) and not any(key.grid.strides):
            return int(key.offset)
        raise InvalidIndex(
            what=f"{describe(key)} of block dimension {dim} of {self!r}",
            hint="choose one block with an int (a loop variable), then index its tile.",
        )

    def _inside(self, key: int, dim: int) -> int:
        size = self.blocks[dim]
        if not -size <= key < size:
            raise IndexOutOfBounds(index=key, dim=dim, size=size, of=f" of {self!r}")
        return key % size

    @property
    def nki(self) -> NkiTensor:
        """The view of its only tile. Raises TooManyIndices if there are more."""
        if prod(self.blocks) == 1:
            return self._tile(self._first).nki
        raise TooManyIndices(found=0, ndim=len(self.blocks), shape=self.shape)


def _steps(blocks: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(blocks[d + 1 :]) for d in range(len(blocks)))


def _is_whole(key: object) -> bool:
    return isinstance(key, slice) and key == slice(None)


def _split(keys: tuple[Any, ...], dims: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Subscripts of as many block dimensions, and those of the tiles; none if these are whole."""
    spread = next((n for n, k in enumerate(keys[:dims]) if k is Ellipsis), None)
    if spread is None:
        outer, inner = (*keys[:dims], *(slice(None),) * (dims - len(keys))), keys[dims:]
    else:
        outer, inner = (*keys[:spread], *(slice(None),) * (dims - spread)), keys[spread:]
    return outer, () if all(k is Ellipsis or _is_whole(k) for k in inner) else inner
