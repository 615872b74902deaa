"""Fill tiles that lie in panels (nkilite/schedule/panels.py) from tensors in rows."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from nkilite import dtypes
from nkilite.codegen import convert, copy, elementwise, loops, transpose
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.codegen.matrix import Matrix
from nkilite.dtypes import DType
from nkilite.host.memory import LINE
from nkilite.ir import nest
from nkilite.ir.types import contiguous_strides
from nkilite.schedule.panels import TILE_ROWS, WIDTH, Panels

_RUN = 1024  # bytes of a row read at once, and then of the next row: lines enough for the hardware to fetch ahead
_SIDE_BY_SIDE = 4  # panels filled by one step


class _Rows(NamedTuple):
    """A matrix to pack: dense rows `stride` bytes apart, whose values are rounded to the dtype `rounds`."""

    pointer: Value
    dtype: DType
    stride: int
    rounds: DType

    def load(self, e: Emitter, row: int, lanes: int, at: Value) -> Value:
        """Elements of a row as float32, rounded to what the tile holds."""
        pointer = e.offset(at, row * self.stride)
        value = convert.widen(e, self.dtype, e.load(convert.raw_scalar(self.dtype), pointer, lanes))
        if self.rounds not in (self.dtype, dtypes.float32):
            value = convert.widen(e, self.rounds, convert.narrow(e, self.rounds, value))
        return value


def pack(kernel: MicroKernel, dst: str, src: str) -> None:
    """dst = src, where dst lies in panels; elements in row-major order of both shapes, by value."""
    e = kernel.e
    target, source = kernel.operands[dst], kernel.operands[src]
    panels = target.panels
    assert panels is not None
    source, at = _dense(kernel, target, source, kernel.pointer(src))
    dims = _free_dims(target, source)
    assert dims is not None
    *outer, run = dims
    size = target.dtype.itemsize
    groups = target.shape[0] // panels.depth
    # Of a copy in scratch every thread would need all, so one does it.
    alone = groups == 1 or at.ref != kernel.pointer(src).ref
    part = (e.i64(0), e.i64(groups)) if alone else kernel.share(groups, rows=panels.depth, of=(src,))
    by_panel = [nest.Dim(n, (step // (WIDTH * size) * panels.panel, other)) for n, (step, other) in outer]
    with loops.nested(e, by_panel, [kernel.pointer(dst), at]) as (to, here):
        _run(e, panels, to, _Rows(here, source.dtype, source.strides[0], target.dtype), part, run.count)


def strip(e: Emitter, panels: Panels, to: Value, source: Matrix) -> None:
    """Some whole panels, or the last of a view, from dense rows of the same columns."""
    rows = _Rows(source.pointer, source.dtype, source.row_stride, source.dtype)
    _run(e, panels, to, rows, (e.i64(0), e.i64(source.rows // panels.depth)), source.columns)


def _dense(
    kernel: MicroKernel, target: CpuOperand, source: CpuOperand, pointer: Value
) -> tuple[CpuOperand, Value]:
    """The source, or a copy of it, with the target's partitions and neighbouring elements where the target's are."""
    e = kernel.e
    if source.shape[0] == target.shape[0] and source.dtype.is_float and _free_dims(target, source) is not None:
        return source, pointer
    kind = source.dtype if source.dtype.is_float else dtypes.float32
    strides = tuple(s * kind.itemsize for s in contiguous_strides(target.shape))
    dense = source._replace(dtype=kind, shape=target.shape, strides=strides)
    scratch = e.scratch(prod(target.shape) * kind.itemsize)
    dims = nest.unify([dense.layout, source.layout])
    if dims is not None:
        copy.nested(kernel, dense, source, dims, [scratch, pointer])
    else:
        elementwise.copy(kernel, dense, source, [scratch, pointer])
    return dense, scratch


def _free_dims(target: CpuOperand, source: CpuOperand) -> list[nest.Dim] | None:
    """Loops over the free elements, the last along neighbours on both sides, the others along whole panels.

    None if there are none like that.
    """
    sizes = target.dtype.itemsize, source.dtype.itemsize
    dims = nest.unify([target.free, source.free])
    if dims is None:
        return None
    if not dims or dims[-1].strides[0] != sizes[0]:
        dims = [*dims, nest.Dim(1, sizes)]
    *outer, run = dims
    whole = all(dim.strides[0] % (WIDTH * sizes[0]) == 0 for dim in outer)
    return dims if whole and run.strides == sizes else None


def _run(
    e: Emitter, panels: Panels, to: Value, rows: _Rows, part: tuple[Value, Value], columns: int
) -> None:
    """Groups of partitions between the two of `part`, of neighbouring columns from the beginning of a panel on."""
    size = rows.dtype.itemsize
    step = _RUN // size
    full = columns // step * step
    if full:
        with e.loop(full, step=step) as loop:
            first = e.step(rows.pointer, loop.index, size)
            _block(e, panels, e.step(to, loop.index, panels.panel // WIDTH), first, rows, part, step)
    if full < columns:
        _block(e, panels, e.offset(to, full // WIDTH * panels.panel), e.offset(rows.pointer, full * size), rows, part,
               columns - full)


def _block(
    e: Emitter, panels: Panels, to: Value, at: Value, rows: _Rows, part: tuple[Value, Value], columns: int
) -> None:
    """Columns that are read in one go, group of partitions by group."""
    fill = {1: _line, 2: _pair_line, TILE_ROWS: _tile}[panels.depth]
    step = WIDTH * _SIDE_BY_SIDE
    full = columns // step * step

    def piece(to: Value, at: Value, count: int) -> None:
        column, lanes = 0, WIDTH
        while column < count:
            while lanes > count - column:
                lanes //= 2
            target = e.offset(to, column // WIDTH * panels.panel + column % WIDTH * panels.column)
            fill(e, target, e.offset(at, column * rows.dtype.itemsize), rows, lanes)
            column += lanes

    with e.loop(part[1], start=part[0]) as group:
        source = e.step(at, group.index, panels.depth * rows.stride)
        target = e.step(to, group.index, panels.group)
        if full:
            with e.loop(full, step=step) as loop:
                first = e.step(source, loop.index, rows.dtype.itemsize)
                piece(e.step(target, loop.index, panels.panel // WIDTH), first, step)
        if full < columns:
            piece(e.offset(target, full // WIDTH * panels.panel), e.offset(source, full * rows.dtype.itemsize),
                  columns - full)


def _line(e: Emitter, to: Value, at: Value, rows: _Rows, lanes: int) -> None:
    """Columns of one partition as float32."""
    e.store(rows.load(e, 0, lanes, at), to)


def _pair_line(e: Emitter, to: Value, at: Value, rows: _Rows, lanes: int) -> None:
    """Columns of two partitions, their bfloat16 interleaved."""
    e.store(_pair(e, rows, at, 0, lanes), to)


def _tile(e: Emitter, to: Value, at: Value, rows: _Rows, lanes: int) -> None:
    """Lines of one column each, the bfloat16 of 32 partitions."""
    words = [_pair(e, rows, at, i, lanes) for i in range(0, TILE_ROWS, 2)]
    for first in range(0, len(words), lanes):
        for i, line in enumerate(transpose.registers(e, words[first:first + lanes])):
            e.store(line, e.offset(to, i * LINE + first * 4))


def _pair(e: Emitter, rows: _Rows, at: Value, row: int, lanes: int) -> Value:
    """The bfloat16 of two neighbouring rows as 32-bit words, the first in the lower half."""
    low, high = (e.bitcast(rows.load(e, i, lanes, at), "i32") for i in (row, row + 1))
    return e.or_(e.lshr(low, 16), e.and_(high, -1 << 16))
