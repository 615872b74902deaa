"""Columns of a tile as vectors whose lanes are partitions, for dense rows of memory.

Rows are read in runs of four elements, a run of several rows to a vector, and transposed four by four inside its
128-bit segments: the shuffles every vector unit is fastest at.
"""

from __future__ import annotations

from collections.abc import Sequence

from nkilite.codegen import convert
from nkilite.codegen.emitter import INTEGERS, Emitter, Value
from nkilite.dtypes import DType

RUN = 4  # neighbouring columns read or written at once; rows come in multiples of it


def load(e: Emitter, dtype: DType, pointer: Value, pitch: int, rows: int) -> list[Value]:
    """RUN columns, each a float32 vector of `rows` lanes; rows are `pitch` bytes apart."""
    runs = _read(e, convert.raw_scalar(dtype), pointer, pitch, rows)
    return transpose_segments(e, [convert.widen(e, dtype, run) for run in runs])


def load_bits(e: Emitter, dtype: DType, pointer: Value, pitch: int, rows: int) -> list[Value]:
    """RUN columns as they lie in memory, in integers of the element's size."""
    return transpose_segments(e, _read(e, INTEGERS[dtype.itemsize], pointer, pitch, rows))


def store(e: Emitter, dtype: DType, columns: list[Value], pointer: Value, pitch: int) -> None:
    """Round RUN columns and write them to rows `pitch` bytes apart."""
    _write(e, [convert.narrow(e, dtype, run) for run in transpose_segments(e, columns)], pointer, pitch)


def store_bits(e: Emitter, columns: list[Value], pointer: Value, pitch: int) -> None:
    """Write RUN columns of elements as they are."""
    _write(e, transpose_segments(e, columns), pointer, pitch)


def _read(e: Emitter, scalar: str, pointer: Value, pitch: int, rows: int) -> list[Value]:
    """Vector j holds rows j, j + 4, j + 8, ...: transposed, lanes are in the order of rows."""
    runs = [e.load(scalar, e.offset(pointer, row * pitch), RUN) for row in range(rows)]
    return [e.join(runs[j::RUN]) for j in range(RUN)]


def _write(e: Emitter, runs: list[Value], pointer: Value, pitch: int) -> None:
    """The reverse of `_read`."""
    for j, vector in enumerate(runs):
        for first in range(0, vector.lanes, RUN):
            run = e.shuffle(vector, None, range(first, first + RUN))
            e.store(run, e.offset(pointer, (first + j) * pitch))


def transpose_segments(e: Emitter, vectors: Sequence[Value]) -> list[Value]:
    """Transpose four vectors as 4 by 4 matrices, one in each group of four lanes."""
    a, b, c, d = vectors
    n = a.lanes
    low = [lane for s in range(0, n, RUN) for lane in (s, n + s, s + 1, n + s + 1)]
    even = [lane for s in range(0, n, RUN) for lane in (s, s + 1, n + s, n + s + 1)]
    high, odd = [lane + 2 for lane in low], [lane + 2 for lane in even]
    columns = []
    for half in (low, high):
        ab, cd = e.shuffle(a, b, half), e.shuffle(c, d, half)
        columns += [e.shuffle(ab, cd, even), e.shuffle(ab, cd, odd)]
    return columns
