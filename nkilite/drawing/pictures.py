"""A buffer as a picture: means of blocks of elements, and which blocks a view of it covers."""

from __future__ import annotations

import base64
from typing import NamedTuple

import numpy as np

from nkilite.dtypes import elements
from nkilite.ir.types import Buffer
from nkilite.trace import storage
from nkilite.trace.tensor import NkiTensor

ROWS, COLUMNS = 64, 96  # blocks of a picture at most
UNWRITTEN = 255  # a block without numbers: nothing was written there


class Grid(NamedTuple):
    """How a buffer is cut into blocks.

    Attributes:
        rows, columns: elements of the buffer: partitions and elements per partition, in HBM the last dimension is one
            row.
        down, across: the first element of every block.
    """

    rows: int
    columns: int
    down: np.ndarray
    across: np.ndarray

    @classmethod
    def of(cls, buffer: Buffer) -> Grid:
        size = max(1, int(np.prod(buffer.shape, dtype=np.int64)))
        rows = buffer.shape[0] if buffer.region.on_chip else size // buffer.shape[-1]
        columns = size // rows
        return cls(rows, columns, _cuts(rows, ROWS), _cuts(columns, COLUMNS))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """The sum of every block."""
        return np.add.reduceat(np.add.reduceat(values, self.down, axis=0), self.across, axis=1)


def _cuts(count: int, most: int) -> np.ndarray:
    blocks = min(count, most)
    return np.arange(blocks) * count // blocks


class Picture(NamedTuple):
    """Numbers of a buffer: `low` and `high` are what the levels 0 and 254 of `levels` (base64, by row) stand for."""

    low: float
    high: float
    levels: str


def picture(buffer: Buffer, grid: Grid) -> Picture:
    """What a buffer of a simulated kernel holds now."""
    place = buffer.data
    assert isinstance(place, storage.Placement)
    size = buffer.dtype.itemsize
    pitch = place.pitch if buffer.region.on_chip and buffer.address is not None else grid.columns * size
    raw = np.ndarray((grid.rows, grid.columns), buffer.dtype.numpy, place.memory, place.base, (pitch, size))
    values = elements(raw, buffer.dtype).astype(np.float64)
    known = np.isfinite(values)
    counts = grid.sums(known.astype(np.int64))
    means = grid.sums(np.where(known, values, 0)) / np.maximum(counts, 1)
    shown = means[counts > 0]
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 0.0)
    levels = np.rint((means - low) / ((high - low) or 1.0) * (UNWRITTEN - 1))
    return Picture(low, high, _text(np.where(counts > 0, levels, UNWRITTEN).astype(np.uint8)))


def covered(tensor: NkiTensor, grid: Grid) -> str:
    """Which blocks of its buffer a view covers, a bit each (base64); of rows chosen at run time, all they may be."""
    buffer, kind = tensor.storage, tensor.type
    if tensor.index is not None:
        return _text(np.packbits(np.ones((len(grid.down), len(grid.across)), bool)))
    size, own = kind.dtype.itemsize, buffer.dtype.itemsize
    touched = np.zeros(grid.rows * grid.columns * own, np.uint8)
    for byte in range(0, size, min(size, own)):
        strides = [s * size for s in kind.strides]
        np.ndarray(kind.shape, np.uint8, touched, tensor.byte_offset + byte, strides)[...] = 1
    inside = touched.reshape(grid.rows, grid.columns, own).max(axis=2)
    return _text(np.packbits(grid.sums(np.asarray(inside, np.int64)) > 0))


def _text(data: np.ndarray) -> str:
    return base64.b64encode(data.tobytes()).decode()
