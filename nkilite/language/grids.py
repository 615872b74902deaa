"""Tensors seen as grids of tiles, or of blocks of tiles: what a selection of cells covers, and its operand.

A grid is a view: it moves nothing. Source: public pages nki.language.NkiGrid, NkiTileGrid and NkiBlockGrid; where they
are silent, docs/compatibility.md says what is done.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple, NoReturn

import numpy as np

from nkilite.dtypes import DType
from nkilite.errors import (
    EmptySlice,
    IndexOutOfBounds,
    InvalidIndex,
    InvalidView,
    TooManyIndices,
    UnknownName,
    describe,
)
from nkilite.ir.types import MemoryRegion
from nkilite.suggest import unknown_attribute
from nkilite.trace.indirection import is_runtime_index
from nkilite.trace.refusals import Refusals
from nkilite.trace.tensor import NkiTensor

__all__ = ["NkiBlockGrid", "NkiGrid", "NkiTileGrid"]

Shape = tuple[int, ...]


class Axis(NamedTuple):
    """The cells that a grid selects along one dimension of its source.

    Attributes:
        tile: elements of a tile; 1 in a dimension that is not tiled.
        group: tiles of a cell.
        start: the first element.
        stop: where the source, or the block that the grid is the inside of, ends.
        cells: how many.
        tiles: in the whole dimension of the source.
        step: from one cell to the next.
        tiled: whether tile_shape is about it.
        navigable: whether there is a coordinate of it; an integer index takes it away.
    """

    tile: int
    group: int
    start: int
    stop: int
    cells: int
    tiles: int
    step: int = 1
    tiled: bool = True
    navigable: bool = True

    @classmethod
    def over(cls, start: int, stop: int, tile: int, group: int, tiled: bool = True) -> Axis:
        """All cells of the elements from start to stop."""
        return cls(tile, group, start, stop, _ceil(stop - start, tile * group), _ceil(stop, tile), 1, tiled)

    @property
    def cell(self) -> int:
        return self.tile * self.group

    @property
    def stride(self) -> int:
        """Elements from one cell to the next."""
        return self.cell * self.step

    @property
    def last(self) -> int:
        """Elements of the last cell, which the end of the source may cut."""
        return min(self.cell, self.stop - self.start - (self.cells - 1) * self.stride)

    @property
    def extent(self) -> int:
        return (self.cells - 1) * self.cell + self.last

    @property
    def dense(self) -> bool:
        """Whether the cells follow each other."""
        return self.step == 1 or self.cells == 1

    def at(self, first: int, count: int, step: int, navigable: bool = True) -> Axis:
        return self._replace(
            start=self.start + first * self.stride, cells=count, step=self.step * step, navigable=navigable
        )


def _ceil(elements: int, size: int) -> int:
    return -(-elements // size)


class NkiGrid(Refusals):
    """A tensor, or storage of its own, by coordinates of cells; indexing gives a grid, `data` what instructions take.

    An integer index takes a coordinate away, the cell's elements stay; in a dimension that is not tiled, which lies
    before those that are, it takes the dimension away. A slice with a positive step keeps the coordinate.

    Made by nl.tiles, nl.blocks, nl.alloc_tiles and nl.alloc_blocks.
    """

    __slots__ = ("axes", "packed", "source")

    def __init__(self, source: NkiTensor, axes: tuple[Axis, ...], packed: bool) -> None:
        """
        Args:
            source: the tensor; of a packed grid (partitions of a tile, rows of tiles, columns of all tiles).
            axes: one for each dimension of the tensor that the grid is about.
            packed: whether the rows of tiles lie behind each other in the partitions of one tile.
        """
        self.source = source
        self.axes = axes
        self.packed = packed

    # --- attributes -----------------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """The number of cells for each coordinate that is left."""
        return tuple(axis.cells for axis in self.axes if axis.navigable)

    @property
    def tile_shape(self) -> Shape:
        """The elements of a whole tile."""
        return tuple(axis.tile for axis in self.axes if axis.tiled)

    @property
    def element_shape(self) -> Shape:
        """The elements selected in each dimension."""
        return tuple(axis.extent for axis in self.axes if axis.tiled or axis.navigable)

    @property
    def index_step_elements(self) -> Shape:
        """The elements from one cell to the next for each coordinate that is left."""
        return tuple(axis.stride for axis in self.axes if axis.navigable)

    @property
    def is_remainder(self) -> bool:
        """Whether a cell of the selection is cut by the end of the tensor."""
        return any(axis.last < axis.cell for axis in self.axes)

    @property
    def dtype(self) -> DType:
        return self.source.dtype

    @property
    def buffer(self) -> MemoryRegion:
        """The memory the tensor is in."""
        return self.source.buffer

    @property
    def is_data_representable(self) -> bool:
        """Whether the selection is one operand."""
        return self._obstacle() is None

    @property
    def data(self) -> NkiTensor:
        """The selection as a tensor of the shape element_shape.

        Raises:
            InvalidView: its cells have gaps, or are rows of tiles behind each other in the same partitions.
        """
        obstacle = self._obstacle()
        if obstacle is not None:
            reason, hint = obstacle
            raise InvalidView(operation=f"data of a grid of shape {self.shape}", reason=reason, hint=hint)
        if not self.packed:
            return self.source[tuple(
                slice(a.start, a.start + a.extent) if a.tiled or a.navigable else a.start for a in self.axes
            )]
        rows, columns = self._split()
        key = slice(0, rows[-1].extent), self._row(), *(slice(a.start, a.start + a.extent) for a in columns)
        return self.source[key]

    def _obstacle(self) -> tuple[str, str] | None:
        """Why the selection is not one operand, and what to do instead."""
        if not all(axis.dense for axis in self.axes):
            return "the selected cells have gaps between them", "select cells without a step, or one at a time."
        if self.packed:
            rows, _ = self._split()
            found = prod(_ceil(a.extent, a.tile) for a in rows)
            if found > 1:
                return (
                    f"its {found} rows of tiles lie in the same partitions of {str(self.buffer).upper()}",
                    "index a row of tiles at a time, grid[i].data or nl.tiles(grid)[i].data.",
                )
        return None

    def _split(self) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
        """The axes whose cells lie behind each other in a packed grid, up to that of the partitions; and the others."""
        first = len(self.axes) - len(self.tile_shape)
        return self.axes[:first + 1], self.axes[first + 1:]

    def _row(self) -> int:
        """The row of tiles, of a packed grid, that the selection begins in."""
        row = 0
        for axis in self._split()[0]:
            row = row * axis.tiles + axis.start // axis.tile
        return row

    # --- indexing -------------------------------------------------------------------------------------------------

    def __getitem__(self, key: object) -> Any:
        """Select cells by integers, slices and an ellipsis; one coordinate may be known to the device alone.

        A scalar, a register or a (1, 1) tile of integers is a coordinate, counted in whole cells. A (K, 1) tile has the
        numbers of K rows instead, and the cell has these.

        Raises:
            IndexOutOfBounds, TooManyIndices, InvalidIndex, InvalidView, EmptySlice.
        """
        given = self._keys(key)
        at = [dim for dim, k in enumerate(given) if is_runtime_index(k)]
        if at:
            return self._at_runtime(given, at)
        keys = iter(given)
        axes = []
        dim = 0
        for axis in self.axes:
            if axis.navigable:
                axis = self._select(axis, next(keys), dim)
                dim += 1
            axes.append(axis)
        return type(self)(self.source, tuple(axes), self.packed)

    def _at_runtime(self, keys: list[object], at: list[int]) -> NkiGrid:
        """Select by coordinates of which those `at` some positions are known to the device alone."""
        if len(at) > 1 or self.packed:
            what = "storage of its own" if self.packed else f"{len(at)} runtime indices"
            raise InvalidIndex(
                what=f"{what} when it is a grid", hint="one coordinate of a tensor in HBM may be a runtime index."
            )
        index: Any = keys[at[0]]
        grid = self[tuple([slice(None) if position in at else k for position, k in enumerate(keys)])]
        dim = [d for d, axis in enumerate(self.axes) if axis.navigable][at[0]]
        axis = grid.axes[dim]
        if axis.step != 1:
            raise InvalidIndex(what="a runtime index when it is a grid with a step", hint="select without a step.")
        vector = isinstance(index, NkiTensor) and index.shape != (1, 1)
        source, axes = grid._rows(index, dim) if vector else grid._cell(index, dim)
        return type(self)(source, axes, False)

    def _cell(self, index: object, dim: int) -> tuple[NkiTensor, tuple[Axis, ...]]:
        """The tensor and the axes of one cell of a dimension, which the device chooses among those that are whole."""
        axis = self.axes[dim]
        size = min(axis.cell, axis.extent)
        whole = axis.extent // size
        cells = self.source.slice(dim, axis.start, axis.start + whole * size).reshape_dim(dim, (whole, size))
        chosen = Axis.over(0, size, axis.tile, axis.group, axis.tiled)._replace(navigable=False)
        return cells.select(dim, index), (*self.axes[:dim], chosen, *self.axes[dim + 1:])

    def _rows(self, index: NkiTensor, dim: int) -> tuple[NkiTensor, tuple[Axis, ...]]:
        """The tensor and the axes of rows that the device chooses; a view has them in its first dimension."""
        axis, leading = self.axes[dim], self.axes[:dim]
        count = index.shape[0]
        if index.shape != (count, 1) or count > axis.cell or any(a.tiled or a.navigable for a in leading):
            raise InvalidIndex(
                what=f"indices of shape {index.shape} when it is a grid whose cells have {axis.cell} rows",
                hint="pass up to so many as a (K, 1) tile, for the first dimension that ints have not chosen from.",
            )
        source = self.source[tuple(a.start for a in leading)] if leading else self.source
        rows = source.slice(0, axis.start, axis.start + axis.extent).vector_select(0, index)
        chosen = Axis.over(0, count, axis.tile, axis.group, axis.tiled)._replace(navigable=False)
        return rows, (chosen, *self.axes[dim + 1:])

    def _keys(self, key: object) -> list[object]:
        """A key for each coordinate."""
        keys = list(key) if type(key) is tuple else [key]
        dots = [i for i, k in enumerate(keys) if k is Ellipsis]
        if len(dots) > 1:
            raise InvalidIndex(what="two ellipses", hint="use ... once.")
        shape = self.shape
        if len(keys) - len(dots) > len(shape):
            raise TooManyIndices(found=len(keys) - len(dots), ndim=len(shape), shape=shape)
        at = dots[0] if dots else len(keys)
        rest = [slice(None)] * (len(shape) - len(keys) + len(dots))
        return keys[:at] + rest + keys[at + len(dots):]

    def _select(self, axis: Axis, key: object, dim: int) -> Axis:
        of = f" of a grid of shape {self.shape}"
        if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
            if not -axis.cells <= key < axis.cells:
                raise IndexOutOfBounds(index=key, dim=dim, size=axis.cells, of=of)
            return axis.at(int(key) % axis.cells, 1, 1, navigable=False)
        if isinstance(key, range):
            key = slice(key.start, key.stop, key.step)
        bounds = (key.start, key.stop, key.step) if isinstance(key, slice) else (key,)
        if not isinstance(key, slice) or any(b is not None and not isinstance(b, (int, np.integer)) for b in bounds):
            raise InvalidIndex(
                what=f"{describe(key)} when it is a grid",
                hint="use integers, slices, scalars and tiles of integers; data has the elements.",
            )
        if key.step is not None and key.step < 1:
            raise InvalidIndex(what=f"a step of {key.step} when it is a grid", hint="use a positive step.")
        text = f"{'' if key.start is None else key.start}:{'' if key.stop is None else key.stop}"
        for bound in (key.start, key.stop):
            if bound is not None and not -axis.cells <= bound <= axis.cells:
                raise IndexOutOfBounds(index=text, dim=dim, size=axis.cells, of=of)
        cells = range(axis.cells)[key]
        if not cells:
            raise EmptySlice(index=text, dim=dim, size=axis.cells)
        return axis.at(cells.start, len(cells), cells.step)

    def __setitem__(self, key: object, _: object) -> NoReturn:
        raise InvalidView(
            operation="grid[...] = ...", reason="cells are places in memory",
            hint="write to what instructions take: nisa.dma_copy(dst=grid[i, j].data, src=...).",
        )

    @classmethod
    def unknown_attribute(cls, name: str) -> UnknownName:
        """The error for an attribute it does not have, in the place of Python's."""
        of_tensors = {n: f"grid.data is a tensor, which has {n}." for n in dir(NkiTensor)}
        return unknown_attribute(cls, "grid", name, of_tensors)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, tile_shape={self.tile_shape}, of {self.source.dtype} " \
               f"{self.element_shape} in {self.buffer})"


class NkiTileGrid(NkiGrid):
    """A grid whose cells are tiles."""

    __slots__ = ()


class NkiBlockGrid(NkiGrid):
    """A grid whose cells are blocks of tiles; nl.tiles gives the tiles of a block."""

    __slots__ = ()

    @property
    def block_shape(self) -> Shape:
        """The tiles of a whole block."""
        return tuple(axis.group for axis in self.axes if axis.tiled)
