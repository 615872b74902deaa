"""Tensors with block dimensions before the partition dimension: as many tiles, made when they are first used.

Source: the block dimension migration guide of Beta 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod
from sys import getrefcount
from typing import NoReturn, SupportsInt, cast

import numpy as np

from nkilite.beta1 import select
from nkilite.beta1.index import Index, LoopIndex
from nkilite.beta1.tile import IN_SETITEM, Tile, Unplaced, assign, is_held, known_part, part, refuse_array
from nkilite.beta1.zeros import Zeros
from nkilite.dtypes import DType
from nkilite.errors import IndexOutOfBounds, InvalidIndex, TooManyIndices, UnknownName, UnsupportedError, describe
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.suggest import unknown_attribute
from nkilite.trace.builder import Builder
from nkilite.trace.tensor import NkiTensor

_MOST = 1 << 16  # subscripts kept
_POSITIONS = frozenset({int, LoopIndex, Index})


class Tiles(dict[int, Tile]):
    """Tiles of a type by number, made when they are first asked for, at a location id of their builder.

    Args:
        zeros: whether they are of zeros, in PSUM.
    """

    __slots__ = ("_builder", "_kind", "_place", "_zeros")

    def __init__(self, builder: Builder, kind: ViewType, place: int, zeros: bool) -> None:
        self._builder, self._kind, self._place, self._zeros = builder, kind, place, zeros

    def __missing__(self, number: int) -> Tile:
        builder = self._builder
        if self._zeros:
            made: Tile = Zeros(builder.tile(self._kind, "", self._place))
        else:
            made = part(builder.buffer(self._kind, "", self._place), self._kind, 0)
        self[number] = made
        return made


class Parts(dict[int, Tile]):
    """What a subscript selects of tiles, by their number."""

    __slots__ = ("_subscript", "_tiles")

    def __init__(self, tiles: dict[int, Tile], subscript: tuple[object, ...]) -> None:
        self._tiles, self._subscript = tiles, subscript

    def __missing__(self, number: int) -> Tile:
        self[number] = found = self._tiles[number][self._subscript]
        return found


class Blocks:
    """Tiles by their position in the block dimensions.

    Args:
        blocks: sizes of the block dimensions.
        inner: shape of every tile.
        tiles: by number.
        first: number of the first tile.
        steps: what a step along each block dimension adds to the number; by default as in an array.
    """

    __slots__ = ("_dims", "_first", "_selected", "_steps", "_tiles", "blocks", "buffer", "dtype", "inner")

    def __init__(
        self, blocks: tuple[int, ...], inner: tuple[int, ...], dtype: DType, buffer: MemoryRegion,
        tiles: dict[int, Tile], first: int = 0, steps: tuple[int, ...] = (),
    ) -> None:
        self.blocks, self.inner, self.dtype, self.buffer = blocks, inner, dtype, buffer
        self._tiles, self._first = tiles, first
        self._steps = steps or _steps(blocks)
        self._dims = tuple(zip(range(len(blocks)), blocks, self._steps, strict=True))
        self._selected: dict[object, Tile | Blocks] = {}  # by subscript

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

    def __array__(self, *_: object, **__: object) -> NoReturn:
        refuse_array()

    @classmethod
    def unknown_attribute(cls, name: str) -> UnknownName:
        """The error for an attribute it does not have, in the place of Python's."""
        return unknown_attribute(cls, "tensor with block dimensions", name, {})

    def __repr__(self) -> str:
        return f"{prod(self.blocks)} tiles {self.dtype} {self.inner} in {self.buffer}"

    def __getitem__(self, key: object) -> Tile | Blocks:
        """Ints choose a block, slices several; what follows them indexes each of the tiles.

        Raises:
            IndexOutOfBounds, InvalidIndex, TooManyIndices.
        """
        try:
            found = self._selected.get(key)
        except TypeError:  # there are slices in it
            return self._select(key)
        if found is None:
            return self._select(key)
        for k in key if key.__class__ is tuple else (key,):
            if k.__class__ in select.UNEQUAL:
                return self._select(key)
        return found

    def _select(self, key: object) -> Tile | Blocks:
        """What a subscript selects, kept for the next one like it: tiles and parts know nothing else."""
        blocks = self.blocks
        keys = key if key.__class__ is tuple else (key,)
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
            found: Tile | Blocks = self._tiles[number]
            if rest:
                made = known_part(found, rest) if found.__class__ is Tile else None
                if made is not None:  # a subscript that has been here has nothing but ints and index tensors
                    self._keep(key, made)
                    return made
                found = found[rest]
        else:
            found = self._part(number, taken, rest)
        if (isinstance(found, Blocks) or found.settled) and _POSITIONS.issuperset(map(type, keys)):
            self._keep(key, found)
        return found

    def __setitem__(self, key: object, value: object) -> None:
        """Copy into a tile, or into all tiles of a part."""
        if value.__class__ is Unplaced:
            references = getrefcount(value) - 1
            if references > IN_SETITEM and is_held(references, value, sys._getframe(1)):
                value.settle()
                value.made = -1
            elif key.__class__ is tuple and self._placed(key, value):
                return
        elif isinstance(value, Tile) and value.made >= 0:
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

    def _placed(self, key: tuple[object, ...], value: Unplaced) -> bool:
        """Let the instruction of a value write a part of a tile, if it can, and such a part is known."""
        number = self._first
        taken = len(self._dims)
        if len(key) < taken:
            return False
        for dim, size, step in self._dims:
            k = key[dim]
            if (k.__class__ is not LoopIndex and k.__class__ is not int) or not 0 <= k < size:
                return False
            number += k * step
        base = self._tiles[number]
        if base.__class__ is Tile:
            zeros = None
            storage, whole, offset = base.storage, base.kind, base.offset
        elif isinstance(base, Zeros):
            zeros = base
            storage, whole, offset = zeros.part.storage, zeros.part.type, zeros.part.byte_offset
        else:
            return False
        try:
            kind, distance, numbers = select.known[whole][key[taken:]]
        except (KeyError, TypeError):  # new, or with slices in it
            return False
        for position in numbers:
            if key[taken + position].__class__ in select.UNEQUAL:
                return False
        if not value.placed(storage, kind, offset + distance):
            return False
        if zeros is not None:
            zeros.wrote_at(kind, offset + distance)
        else:  # what has been written is read, mostly
            self._keep(key, base if kind is whole and not distance else part(storage, kind, offset + distance))
        return True

    def _keep(self, key: object, found: Tile | Blocks) -> None:
        if len(self._selected) >= _MOST:
            self._selected.clear()
        self._selected[key] = found

    def reshape(self, *shape: SupportsInt | Sequence[SupportsInt]) -> Blocks:
        """The same tiles in other block dimensions.

        Raises:
            UnsupportedError: the shape of the tiles would change.
        """
        wanted = tuple(map(int, cast("Sequence[SupportsInt]", shape[0] if len(shape) == 1 else shape)))
        apart = self._steps != _steps(self.blocks)
        if apart or wanted[-len(self.inner) :] != self.inner or prod(wanted) != self.size:
            raise UnsupportedError(feature=f"reshaping {self!r} to {wanted}, across its block dimensions")
        blocks = wanted[: -len(self.inner)]
        return Blocks(blocks, self.inner, self.dtype, self.buffer, self._tiles, self._first)

    def _part(self, number: int, taken: int, rest: tuple[object, ...]) -> Blocks:
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
        tiles, shape = self._tiles, self.inner
        if inner:
            tiles = Parts(tiles, inner)
            shape = tiles[number].shape
        return Blocks(tuple(blocks), shape, self.dtype, self.buffer, tiles, number, tuple(steps))

    def _range(self, key: slice, dim: int) -> range:
        size = self.blocks[dim]
        if key.stop is not None and int(key.stop) > size:
            raise IndexOutOfBounds(index=int(key.stop) - 1, dim=dim, size=size, of=f" of {self!r}")
        chosen = range(size)[key]
        if not chosen:
            raise InvalidIndex(what=f"{describe(key)} of block dimension {dim} of {self!r}", hint="it selects nothing.")
        return chosen

    def _block(self, key: object, dim: int) -> int:
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
            return self._tiles[self._first].nki
        raise TooManyIndices(found=0, ndim=len(self.blocks), shape=self.shape)


def _steps(blocks: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(blocks[d + 1 :]) for d in range(len(blocks)))


def _is_whole(key: object) -> bool:
    return isinstance(key, slice) and key == slice(None)


def _split(keys: tuple[object, ...], dims: int) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Subscripts of as many block dimensions, and those of the tiles; none if these are whole."""
    spread = next((n for n, k in enumerate(keys[:dims]) if k is Ellipsis), None)
    if spread is None:
        outer, inner = (*keys[:dims], *(slice(None),) * (dims - len(keys))), keys[dims:]
    else:
        outer, inner = (*keys[:spread], *(slice(None),) * (dims - spread)), keys[spread:]
    return outer, () if all(k is Ellipsis or _is_whole(k) for k in inner) else inner
