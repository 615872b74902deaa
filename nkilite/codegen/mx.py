"""Microscaling (MX) formats: groups of elements quantized with a common power of two, and their matrix products.

A product dequantizes its operands, which is exact in float32, into panels (nkilite/schedule/panels.py): all stationary
columns, then some moving columns at a time, which stay in the cache until the micro-kernel of all matrix products has
read them. Row 4 p + i of the contraction is element i of partition p. For the CPU's tile unit values become bfloat16,
which is exact too unless it is a subnormal one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nkilite import dtypes
from nkilite.codegen import accumulation, convert, elementwise, loops, matrix, tiles, transpose
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.matrix import Matrix, Packed
from nkilite.dtypes import DType
from nkilite.host.cpu import Products
from nkilite.host.memory import LINE
from nkilite.schedule.panels import TILE_ROWS, WIDTH, Feed, Panels, panels

SHARED = 8  # partitions that share a scale
QUADRANT = 32  # partitions whose scales lie together
GROUPS = QUADRANT // SHARED  # rows of scales in a quadrant
PACKED = 4  # elements of a word

_COLUMNS = 128  # moving columns dequantized at a time: 256 KiB of float32 for 128 partitions


def largest(dtype: DType) -> float:
    """The largest finite element of a packed dtype."""
    return float(dtypes.float_limits(dtypes.ELEMENTS[dtype]).max)


def headroom(dtype: DType, spare: int) -> int:
    """By how much the exponent of a group's scale is below that of its largest value, with `spare` to round up."""
    return int(np.log2(largest(dtype))) - spare


# --- products -----------------------------------------------------------------------------------------------


def matmul(kernel: MicroKernel, dst: str, stationary: str, moving: str, accumulate: bool) -> None:
    """dst (+)= stationary.T @ moving of packed operands; their scales are the operands `{name}_scale`."""
    e = kernel.e
    left, right = (_Quantized.of(kernel, name) for name in (stationary, moving))
    out, staged = matrix.target(kernel, dst, accumulate)
    width = min(_COLUMNS, right.columns)
    rows, columns = left.buffer(e, Feed.stationary, left.columns), right.buffer(e, Feed.moving, width)
    left.fill(e, rows, e.i64(0))

    def piece(first: Value, count: int) -> None:
        some = columns._replace(columns=count)
        right.fill(e, some, first)
        sums = out._replace(pointer=e.step(out.pointer, first, out.column_stride), columns=count)
        _multiply(e, rows, some, sums, accumulate)

    matrix.in_pieces(kernel, dst, right.columns, width, staged, piece)
    if staged:
        matrix.spread(kernel, out, dst)


def _multiply(e: Emitter, left: Packed, right: Packed, out: Matrix, accumulate: bool) -> None:
    """out (+)= left.T @ right."""
    if e.host.products is Products.tiles:
        tiles.contract(e, [(left, right)], out, accumulate, None)
        return
    if right.columns <= e.host.lanes // 2 and right.columns < left.columns:
        left, right, out = right, left, out.transposed  # so few columns fill no vector
    accumulation.multiply_add(e, [(left, right)], out, accumulate, None)


class _Quantized(NamedTuple):
    """An operand: words, and in rows of their own the scales of every eight rows of them."""

    words: Matrix
    scales: Matrix

    @classmethod
    def of(cls, kernel: MicroKernel, name: str) -> _Quantized:
        return cls(matrix.source(kernel, name), matrix.source(kernel, f"{name}_scale"))

    @property
    def columns(self) -> int:
        return self.words.columns

    def buffer(self, e: Emitter, feed: Feed, columns: int) -> Packed:
        """Scratch for the values of some columns, in panels."""
        rows = PACKED * self.words.rows
        layout = panels(feed, rows, e.host.products)
        assert layout is not None
        return Packed(e.scratch(layout.size(columns)), layout, rows, columns)

    def fill(self, e: Emitter, to: Packed, first: Value) -> None:
        """Dequantize columns from `first` on, as many as `to` has."""
        words = e.step(self.words.pointer, first, self.words.column_stride)
        scales = e.step(self.scales.pointer, first, self.scales.column_stride)

        with e.loop(self.words.rows // SHARED) as group:
            source = e.step(words, group.index, SHARED * self.words.row_stride)
            powers = e.step(scales, _scale_row(e, group.index), self.scales.row_stride)
            target = e.step(to.pointer, group.index, SHARED * PACKED // to.panels.depth * to.panels.group)

            def piece(column: Value, at: int, lanes: int) -> None:
                """Columns at + column, of which `column` begins a panel."""
                here, power = (
                    e.step(e.offset(p, at * m.column_stride), column, m.column_stride)
                    for p, m in ((source, self.words), (powers, self.scales))
                )
                scale = elementwise.load(e, dtypes.float8_e8m0fnu, power, lanes, self.scales.column_stride, "f32")
                panel = e.step(e.offset(target, at // WIDTH * to.panels.panel), column, to.panels.panel // WIDTH)
                self._group(e, to.panels, e.offset(panel, at % WIDTH * to.panels.column), here, scale)

            count, lanes = to.columns, WIDTH
            full = count // WIDTH * WIDTH
            if full:
                with e.loop(full, step=WIDTH) as loop:
                    piece(loop.index, 0, WIDTH)
            while full < count:
                while lanes > count - full:
                    lanes //= 2
                piece(e.i64(0), full, lanes)
                full += lanes

    def _group(self, e: Emitter, layout: Panels, to: Value, source: Value, scale: Value) -> None:
        """One scale per lane and the words of its eight partitions."""
        if layout.depth == TILE_ROWS:
            pairs = [
                pair for row in range(SHARED)
                for pair in self._pairs(e, e.offset(source, row * self.words.row_stride), scale)
            ]
            for first in range(0, len(pairs), scale.lanes):
                for column, line in enumerate(transpose.registers(e, pairs[first:first + scale.lanes])):
                    e.store(line, e.offset(to, column * LINE + first * 4))
            return
        lines = PACKED // layout.depth
        with e.loop(SHARED) as row:
            here, target = e.step(source, row.index, self.words.row_stride), e.step(to, row.index, lines * LINE)
            values = self._values(e, here, scale) if layout.depth == 1 else self._pairs(e, here, scale)
            for number, value in enumerate(values):
                e.store(value, e.offset(target, number * LINE))

    def _values(self, e: Emitter, pointer: Value, scale: Value) -> list[Value]:
        """The four elements of words, as float32."""
        tile = self.words
        words = elementwise.load(e, tile.dtype, pointer, scale.lanes, tile.column_stride, "i32")
        return [e.mul(convert.widen_element(e, tile.dtype, words, i), scale) for i in range(PACKED)]

    def _pairs(self, e: Emitter, pointer: Value, scale: Value) -> list[Value]:
        """The four elements of words, as two words of two bfloat16."""
        bits = [e.bitcast(value, "i32") for value in self._values(e, pointer, scale)]
        sixteen, upper = e.i32(16, scale.lanes), e.i32(-1 << 16, scale.lanes)
        return [e.or_(e.lshr(low, sixteen), e.and_(high, upper)) for low, high in (bits[:2], bits[2:])]


def _scale_row(e: Emitter, group: Value) -> Value:
    """The row of a scale tile for a group of eight partitions."""
    quadrant = e.binary("udiv", group, GROUPS)
    return e.add(e.mul(quadrant, QUADRANT - GROUPS), group)


# --- quantization -------------------------------------------------------------------------------------------


def quantize(kernel: MicroKernel, dst: str, src: str, scale: str, spare: int) -> None:
    """dst = src divided by the scale of its group (see `headroom`), four elements to a word."""
    e = kernel.e
    pointers = {name: kernel.pointer(name) for name in (dst, src, scale)}
    groups = kernel.operands[src].shape[0] // SHARED
    first, end = (e.i64(0), e.i64(1)) if groups == 1 else kernel.share(groups, rows=SHARED, of=(dst, src))
    with e.loop(end, start=first) as group:
        row = e.mul(group.index, SHARED)
        starts = {dst: row, src: row, scale: _scale_row(e, group.index)}
        at = {name: e.step(pointers[name], start, kernel.operands[name].strides[0]) for name, start in starts.items()}
        _quantize_rows(_rows(kernel, at, {dst: SHARED, src: SHARED, scale: 1}), dst, src, scale, spare)


def _rows(kernel: MicroKernel, pointers: dict[str, Value], counts: dict[str, int]) -> MicroKernel:
    """The kernel of a few rows of its operands, which begin at these addresses."""
    operands = {
        name: kernel.operands[name]._replace(shape=(count, *kernel.operands[name].shape[1:]))
        for name, count in counts.items()
    }
    return kernel.part(kernel.call, operands, pointers)


def _quantize_rows(kernel: MicroKernel, dst: str, src: str, scale: str, spare: int) -> None:
    """Eight rows, and one of scales; rows that are not dense pass through scratch."""
    e = kernel.e
    source = matrix.dense_source(kernel, src)
    columns = source.columns // PACKED
    words, scales = matrix.direct(kernel, dst), matrix.direct(kernel, scale)
    target, row = words, scales
    if target is None or not target.dense:
        target = matrix.dense_scratch(kernel, kernel.operands[dst].dtype, SHARED, columns)
    if row is None:
        row = matrix.dense_scratch(kernel, kernel.operands[scale].dtype, 1, columns)

    def piece(index: Value, lanes: int) -> None:
        values = source._replace(pointer=e.step(source.pointer, index, PACKED * source.dtype.itemsize))
        exponent = _exponent(e, values, lanes, headroom(target.dtype, spare))
        bits = e.convert("trunc", exponent, "i8")
        elementwise.store(e, row.dtype, bits, e.step(row.pointer, index, row.column_stride), row.column_stride, "bits")
        _divide(e, values, exponent, target._replace(pointer=e.step(target.pointer, index, target.dtype.itemsize)))

    loops.chunks(e, columns, e.host.lanes, piece)
    if target is not words:
        matrix.spread(kernel, target, dst)
    if row is not scales:
        matrix.spread(kernel, row, scale)


def _exponent(e: Emitter, values: Matrix, lanes: int, below: int) -> Value:
    """The biased exponents of the scales of `lanes` groups."""
    most = e.const("i16", 0, PACKED * lanes)
    for row in range(SHARED):
        bits = e.load("i16", e.offset(values.pointer, row * values.row_stride), PACKED * lanes)
        # Magnitudes of floats are in the order of their bits.
        most = e.maximum(most, e.and_(bits, 0x7FFF))
    while most.lanes > lanes:
        even, odd = (e.shuffle(most, None, range(half, most.lanes, 2)) for half in (0, 1))
        most = e.maximum(even, odd)
    exponent = e.lshr(e.bitcast(convert.widen(e, values.dtype, most), "i32"), 23)
    return e.maximum(e.sub(exponent, below), 0)


def _divide(e: Emitter, values: Matrix, exponent: Value, out: Matrix) -> None:
    """Eight rows of `out`: values over 2 ** (exponent - 127), rounded."""
    lanes = exponent.lanes
    power = e.bitcast(e.shl(e.sub(254, exponent), 23), "float")
    power = e.shuffle(power, None, [i // PACKED for i in range(PACKED * lanes)])
    top = largest(out.dtype)
    high, low = e.f32(top, power.lanes), e.f32(-top, power.lanes)
    element = dtypes.from_numpy(dtypes.ELEMENTS[out.dtype])
    for row in range(SHARED):
        bits = e.load("i16", e.offset(values.pointer, row * values.row_stride), power.lanes)
        value = e.mul(convert.widen(e, values.dtype, bits), power)
        # In this order the comparisons are single instructions that let a NaN through.
        value = e.select(e.compare("olt", high, value), high, value)
        value = e.select(e.compare("ogt", low, value), low, value)
        e.store(convert.narrow(e, element, value), e.offset(out.pointer, row * out.row_stride))
