"""Making grids of tiles and blocks: over tensors, over other grids, and over storage of their own.

Source: public pages nki.language.tiles, blocks, alloc_tiles, alloc_blocks and empty_like.
"""

from __future__ import annotations

from math import prod
from typing import Any

from nkilite.dtypes import DTypeLike
from nkilite.errors import InvalidOperand, InvalidView, PartitionLimitExceeded, describe
from nkilite.ir.types import MemoryRegion
from nkilite.language.creation import as_shape, ndarray, require_tensor
from nkilite.language.grids import Axis, NkiBlockGrid, NkiGrid, NkiTileGrid, Shape
from nkilite.language.regions import as_region
from nkilite.trace import active
from nkilite.trace.tensor import NkiTensor

__all__ = ["alloc_blocks", "alloc_tiles", "blocks", "empty_like", "tiles"]

_ORDERS = {2: (1, 0), 3: (2, 1, 0), 4: (3, 1, 2, 0)}  # of the dimensions of a tile, by dma_transpose


def tiles(source: NkiTensor | NkiGrid, *, tile_shape: tuple[int, ...] | None = None) -> NkiTileGrid:
    """A tensor as a grid of tiles; of a grid, the tiles in what it selects.

    Tiles at the end of a dimension are as long as the tensor is there. Nothing is allocated or moved.

    Args:
        source: a tensor or a grid.
        tile_shape: elements of a tile, at least two sizes, for the last dimensions of the source. Dimensions before
            them, which only tensors in HBM have, are indexed by element. A grid has its own tile shape already.

    Raises:
        InvalidOperand: a shape that does not fit, or a source that is neither.
        InvalidView: cells of the source have gaps between them.
    """
    return NkiTileGrid(*_view(source, tile_shape, None, "tiles"))


def blocks(
    source: NkiTensor | NkiGrid, *, tile_shape: tuple[int, ...] | None = None, block_shape: tuple[int, ...]
) -> NkiBlockGrid:
    """A tensor as a grid of blocks of tiles; of a grid, blocks of the tiles in what it selects.

    Args:
        source, tile_shape: as in `tiles`.
        block_shape: tiles of a block, one number for each size in tile_shape.

    Raises:
        InvalidOperand, InvalidView: as in `tiles`.
    """
    return NkiBlockGrid(*_view(source, tile_shape, block_shape, "blocks"))


def alloc_tiles(
    *,
    tile_shape: tuple[int, ...],
    element_shape: tuple[int, ...],
    buffer: MemoryRegion,
    dtype: DTypeLike,
    address: tuple[int, int] | None = None,
    name: str = "",
) -> NkiTileGrid:
    """New, uninitialized storage as a grid of tiles.

    In HBM it is a tensor of the shape element_shape. On chip all tiles begin at the same partition; rows of tiles lie
    behind each other in the partitions.

    Args:
        tile_shape: elements of a tile, at least two sizes, for the last dimensions of element_shape.
        element_shape: the size of the whole.
        buffer, dtype, address, name: as in `ndarray`.

    Raises:
        InvalidOperand: a shape that does not fit; and what `ndarray` raises.
    """
    return NkiTileGrid(*_storage(tile_shape, None, element_shape, buffer, dtype, address, name, "alloc_tiles"))


def alloc_blocks(
    *,
    tile_shape: tuple[int, ...],
    block_shape: tuple[int, ...],
    element_shape: tuple[int, ...],
    buffer: MemoryRegion,
    dtype: DTypeLike,
    address: tuple[int, int] | None = None,
    name: str = "",
) -> NkiBlockGrid:
    """New, uninitialized storage as a grid of blocks of tiles, which lie as those of `alloc_tiles` do.

    Args:
        block_shape: tiles of a block, one number for each size in tile_shape.
        tile_shape, element_shape, buffer, dtype, address, name: as in `alloc_tiles`.

    Raises:
        InvalidOperand: a shape that does not fit; and what `ndarray` raises.
    """
    return NkiBlockGrid(*_storage(tile_shape, block_shape, element_shape, buffer, dtype, address, name, "alloc_blocks"))


def empty_like(
    x: NkiTensor | float,
    dtype: DTypeLike | None = None,
    buffer: MemoryRegion | None = None,
    name: str = "",
    *,
    transpose_axes: tuple[int, ...] | None = None,
    address: tuple[int, int] | None = None,
) -> Any:
    """New, uninitialized storage like a tensor or a grid, with its dtype and memory unless given.

    A grid keeps its kind, coordinates, tiles and blocks; cells with gaps between them follow each other in the new one.

    Args:
        x: a tensor or a grid.
        dtype, buffer, name, address: as in `ndarray`.
        transpose_axes: the order of dimensions of an SBUF destination for nisa.dma_transpose of x: (1, 0), (2, 1, 0)
            or (3, 1, 2, 0).

    Raises:
        InvalidOperand: an order that dma_transpose has not, or a transposed destination that is not in SBUF.
        PartitionLimitExceeded: the dimension that becomes the first one is longer than the partitions.
    """
    grid = x if isinstance(x, NkiGrid) else None
    if grid is None:
        x = require_tensor(x, "x", "empty_like")
    dtype = x.dtype if dtype is None else dtype
    region = as_region(x.buffer if buffer is None else buffer, "empty_like")
    if grid is None:
        shape = x.shape if transpose_axes is None else _transposed(x.shape, x.shape, transpose_axes, region)
        return ndarray(shape, dtype, region, name, address)
    kept = [axis for axis in grid.axes if axis.tiled or axis.navigable]
    if transpose_axes is not None:
        tiled = [axis for axis in kept if axis.tiled]
        order = _transposed(tuple(range(len(tiled))), grid.tile_shape, transpose_axes, region)
        kept = kept[:len(kept) - len(tiled)] + [tiled[i] for i in order]
    axes = tuple(
        axis._replace(start=0, stop=axis.extent, step=1, tiles=-(-axis.extent // axis.tile)) for axis in kept
    )
    return type(grid)(_backing(axes, region, dtype, address, name), axes, region.on_chip)


# --- geometry -------------------------------------------------------------------------------------------------------


def _view(
    source: Any, tile_shape: Any, block_shape: object, function: str
) -> tuple[NkiTensor, tuple[Axis, ...], bool]:
    """What a grid over a tensor or over another grid is made of."""
    if isinstance(source, NkiGrid):
        if tile_shape is None or tuple(tile_shape) == source.tile_shape:
            groups = _groups(block_shape, source.tile_shape, function)
            return source.source, _regrouped(source, groups), source.packed
        source = source.data
    if not isinstance(source, NkiTensor):
        raise _invalid(function, "source", describe(source), "a tensor or a grid")
    if tile_shape is None:
        raise _invalid(function, "tile_shape", "None", "a tuple of ints for a source that is a tensor")
    axes = _axes(source.shape, tile_shape, block_shape, function)
    if source.buffer.on_chip and not axes[0].tiled:
        found = f"{tuple(tile_shape)} for a tile in {str(source.buffer).upper()} of shape {source.shape}"
        raise _invalid(function, "tile_shape", found, f"{source.ndim} sizes, for on chip every dimension is tiled")
    return source, axes, False


def _regrouped(grid: NkiGrid, groups: Shape) -> tuple[Axis, ...]:
    """The axes of a grid over what another one selects, in cells of other groups of its tiles."""
    rest = iter(groups)
    axes = []
    for axis in grid.axes:
        if not axis.tiled:
            axes.append(axis)
            continue
        if not axis.dense:
            raise InvalidView(
                operation=f"tiles of a grid of shape {grid.shape}", reason="its cells have gaps between them",
                hint="select cells without a step, or take the tiles first.",
            )
        inside = Axis.over(axis.start, axis.start + axis.extent, axis.tile, next(rest))
        axes.append(inside._replace(tiles=axis.tiles))
    return tuple(axes)


def _storage(
    tile_shape: object, block_shape: object, element_shape: object, buffer: object, dtype: DTypeLike,
    address: object, name: str,
    function: str,
) -> tuple[NkiTensor, tuple[Axis, ...], bool]:
    """What a grid over new storage is made of."""
    region = as_region(buffer, function)
    axes = _axes(_sizes(element_shape, "element_shape", function), tile_shape, block_shape, function)
    return _backing(axes, region, dtype, address, name), axes, region.on_chip


def _backing(axes: tuple[Axis, ...], region: MemoryRegion, dtype: DTypeLike, address: Any, name: str) -> NkiTensor:
    """New storage for a grid that covers all of it; on chip (partitions of a tile, rows of tiles, columns)."""
    if not region.on_chip:
        return ndarray(tuple(axis.stop for axis in axes), dtype, region, name, address)
    first = next(i for i, axis in enumerate(axes) if axis.tiled)
    rows = prod(axis.tiles for axis in axes[:first + 1])
    columns = [axis.tiles * axis.tile for axis in axes[first + 1:]]
    flat = ndarray((axes[first].tile, rows * prod(columns)), dtype, region, name, address)
    return flat.reshape((axes[first].tile, rows, *columns))


def _axes(sizes: Shape, tile_shape: object, block_shape: object, function: str) -> tuple[Axis, ...]:
    """An axis for each dimension; the last ones are tiled."""
    tile = _sizes(tile_shape, "tile_shape", function)
    if not 2 <= len(tile) <= len(sizes):
        expected = f"2 to {len(sizes)} sizes, for the last dimensions of shape {sizes}"
        raise _invalid(function, "tile_shape", tile, expected if len(sizes) > 1 else "for two dimensions or more")
    groups = _groups(block_shape, tile, function)
    before = len(sizes) - len(tile)
    return (
        *(Axis.over(0, size, 1, 1, tiled=False) for size in sizes[:before]),
        *(Axis.over(0, size, t, group) for size, t, group in zip(sizes[before:], tile, groups, strict=True)),
    )


def _groups(block_shape: object, tile: Shape, function: str) -> Shape:
    """The tiles of a cell in each tiled dimension."""
    if block_shape is None and function in ("tiles", "alloc_tiles"):
        return (1,) * len(tile)
    groups = _sizes(block_shape, "block_shape", function)
    if len(groups) != len(tile):
        raise _invalid(function, "block_shape", groups, f"{len(tile)} numbers, as tile_shape {tile} has")
    return groups


def _sizes(shape: object, operand: str, function: str) -> Shape:
    if not isinstance(shape, tuple):
        raise _invalid(function, operand, describe(shape), "a tuple of positive ints")
    return as_shape(shape, function, operand)


def _transposed(items: Shape, sizes: Shape, order: Any, region: MemoryRegion) -> Shape:
    """Items, one for each dimension of a tile, in the order of a transposed destination."""
    expected = _ORDERS.get(len(sizes))
    if order is None or tuple(order) != expected:
        text = f"{expected} for {len(sizes)} dimensions" if expected else "None, for dma_transpose takes 2 to 4"
        raise _invalid("empty_like", "transpose_axes", order, text)
    if region is not MemoryRegion.sbuf:
        raise _invalid("empty_like", "buffer", str(region).upper(), "nl.sbuf for a transposed destination")
    limit = active.builder("nl.empty_like").target.num_partitions
    if sizes[order[0]] > limit:
        raise PartitionLimitExceeded(
            what=f"nl.empty_like with transpose_axes={tuple(order)}", found=sizes[order[0]], limit=limit
        )
    return tuple(items[i] for i in order)


def _invalid(function: str, operand: str, found: object, expected: str) -> InvalidOperand:
    return InvalidOperand(instruction=f"nl.{function}", operand=operand, found=str(found), expected=expected)
