"""Panels: how tiles that only feed the Tensor Engine lie in the CPU's memory, the order in which a matmul reads them.

A panel holds WIDTH columns (free elements) of all partitions. One 64-byte line of it is a partition's share of the
panel as float32, or a slice of a tile register of the CPU's matrix unit. An instruction says with its `panels` rule
which operands it can read or write in panels; elementwise ones without the rule can write what they make of PSUM. A
buffer gets them if every access to it can.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from nkilite import dtypes
from nkilite.dtypes import DType
from nkilite.host.cpu import Products
from nkilite.host.memory import LINE

WIDTH = 16  # columns of a panel: float32 elements of a cache line, columns of a tile register
TILE_ROWS = 32  # partitions a tile register spans along the contraction
PAIR = 2  # partitions that a dot product spans

# Formats whose every value is a bfloat16 value, which is what tile units and dot products multiply.
TILE_DTYPES = frozenset({dtypes.bfloat16, dtypes.float8_e4m3, dtypes.float8_e4m3fn, dtypes.float8_e5m2})


def means(dtypes: Iterable[DType], products: Products) -> Products:
    """What a host with some means takes for products of operands of some dtypes."""
    return products if all(dtype in TILE_DTYPES for dtype in dtypes) else Products.vectors


class Feed(Enum):
    """What the matmuls that read a buffer in panels make of it."""

    vectors = "vectors"  # float32 operands of multiply-adds
    # Operands that are bfloat16 values:
    stationary = "stationary"  # left ones of whole tiles
    moving = "moving"  # right ones of whole tiles
    pairs = "pairs"  # of whole pairs of partitions, but of tiles that are cut or both left and right
    odd = "odd"  # of others


def step(feed: Feed) -> int:
    """Views of tiles in panels begin and end at multiples of so many partitions."""
    return {Feed.stationary: TILE_ROWS, Feed.moving: TILE_ROWS, Feed.pairs: PAIR}.get(feed, 1)


class Panels(NamedTuple):
    """Where the elements of a buffer are: byte strides along its columns and along its partitions.

    Attributes:
        dtype: what is stored; exact for every value of the buffer's dtype.
        depth: partitions of a group.
        group: bytes between groups.
        row: bytes between partitions of a group.
        column: bytes between columns of a panel.
        panel: bytes between panels.
    """

    dtype: DType
    depth: int
    group: int
    row: int
    column: int
    panel: int

    def offset(self, partition: int, column: int) -> int:
        """Byte position of an element."""
        group, inner = divmod(partition, self.depth)
        panel, within = divmod(column, WIDTH)
        return group * self.group + inner * self.row + panel * self.panel + within * self.column

    def size(self, columns: int) -> int:
        """Bytes of a buffer with so many columns."""
        return -(-columns // WIDTH) * self.panel


def panels(feed: Feed, partitions: int, products: Products) -> Panels | None:
    """The panels of a buffer on a CPU that multiplies bfloat16 in a way; None to leave it in rows.

    A line between panels keeps their equal rows out of one cache set.
    """
    if feed is Feed.vectors or products is Products.vectors:
        return Panels(dtypes.float32, 1, LINE, 0, 4, partitions * LINE + LINE)
    tiles = products is Products.tiles
    if feed is Feed.odd or (feed is Feed.pairs and tiles):
        return None
    size = partitions // PAIR * LINE + LINE
    if feed is Feed.stationary and tiles:
        return Panels(dtypes.bfloat16, TILE_ROWS, LINE * WIDTH, 2, LINE, size)
    return Panels(dtypes.bfloat16, PAIR, LINE, 2, 4, size)
