"""Permutations of dimensions, moved in square register blocks where both sides have a dense dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from nkilite.codegen import convert, elementwise, loops, matrix
from nkilite.codegen.columns import transpose_segments
from nkilite.codegen.emitter import BITS, INTEGERS, Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import DType
from nkilite.host.memory import LINE
from nkilite.ir import nest
from nkilite.ir.sizes import Size

_WORD = 4  # bytes of what blocks are made of
_SHORT_VECTOR = 16  # bytes


class _Rows(NamedTuple):
    """Dense rows that become columns.

    Attributes:
        address: of a row by its number.
        load: so many elements at an address.
        size: bytes of an element in memory.
    """

    address: Callable[[Value], Value]
    load: Callable[[Value, int], Value]
    size: int

    def moved(self, e: Emitter, rows: int, columns: int) -> _Rows:
        """The same without so many first rows and columns."""
        return self._replace(
            address=lambda i: e.offset(self.address(e.add(i, rows) if rows else i), columns * self.size)
        )


class _Target(NamedTuple):
    """Where columns go: rows of elements of `size` bytes, `stride` bytes apart."""

    pointer: Value
    stride: int
    size: int

    def at(self, e: Emitter, row: Value, column: Value) -> Value:
        return e.step(e.step(self.pointer, row, self.stride), column, self.size)


def blocks(
    e: Emitter, dims: Sequence[nest.Dim], sides: tuple[int, int], at: Sequence[Value], size: int, streams: bool = False
) -> None:
    """Copy elements of `size` bytes in register blocks.

    Args:
        dims: loops whose strides are those of the target and of the source, in any order.
        sides: those along which the target is dense, and the source.
        at: pointers of the target and of the source.
        streams: store whole lines past the caches.
    """
    wide, tall = (dims[level] for level in sides)
    outer = [d for i, d in enumerate(dims) if i not in sides]
    with loops.nested(e, outer, at) as (to, origin):
        rows = _bits(e, size, lambda i: e.step(origin, i, wide.strides[1]))
        _transpose(e, rows, _Target(to, tall.strides[0], size), wide.count, tall.count, streams)


def columns(
    e: Emitter, size: int, across: int, down: int, row: Callable[[Value], Value], out: Value, out_stride: int
) -> None:
    """out[j, i] = element j of the dense row at address row(i), for i < across and j < down."""
    _transpose(e, _bits(e, size, row), _Target(out, out_stride, size), across, down)


def float32_columns(
    e: Emitter, dtype: DType, across: int, down: int, row: Callable[[Value], Value], out: Value, out_stride: int
) -> None:
    """As `columns`, from rows of floats to float32."""

    def load(pointer: Value, lanes: int) -> Value:
        return e.bitcast(convert.widen(e, dtype, e.load(convert.raw_scalar(dtype), pointer, lanes)), "i32")

    _transpose(e, _Rows(row, load, dtype.itemsize), _Target(out, out_stride, 4), across, down)


def _bits(e: Emitter, size: int, address: Callable[[Value], Value]) -> _Rows:
    return _Rows(address, lambda p, lanes: e.load(INTEGERS[size], p, lanes), size)


def select_columns(kernel: MicroKernel, dst: str, src: str, select: str) -> None:
    """dst[:, n] = src[k], bit by bit, for the row k in which column n of `select` holds its one.

    With an identity to select by, this is the transpose of `src`. The last nonzero of a column decides; a
    column of zeros gives zeros. A float32 dst takes narrower floats by value.
    """
    e = kernel.e
    lanes = e.host.lanes
    source, selector = matrix.dense_source(kernel, src), matrix.source(kernel, select)
    out = matrix.direct(kernel, dst)
    staged = out is None or not out.dense
    if out is None or staged:
        out = matrix.dense_scratch(kernel, kernel.operands[dst].dtype, source.columns, selector.columns)
    rows = e.scratch(8 * out.columns)
    zeros = e.scratch(source.columns * source.dtype.itemsize)
    loops.chunks(e, source.columns * source.dtype.itemsize, 4 * lanes, lambda i, width: e.store(
        e.const("i8", 0, width), e.offset(zeros, i)))

    def find(index: Value, width: int) -> None:
        column = e.step(selector.pointer, index, selector.column_stride)
        with e.loop(selector.rows, e.i32(-1, width)) as loop:
            row = e.step(column, loop.index, selector.row_stride)
            value = elementwise.load(e, selector.dtype, row, width, selector.column_stride, "f32")
            here = e.splat(e.convert("trunc", loop.index, "i32"), width)
            loop.carry(e.select(e.compare("une", value, 0), here, loop.values[0]))
        found = loop.results[0]
        for lane in range(width):
            k = e.convert("sext", e.extract(found, lane), "i64")
            pointer = e.select(e.compare("slt", k, 0), zeros, e.step(source.pointer, k, source.row_stride))
            e.store(pointer, e.step(rows, e.add(index, lane), 8), align=8)

    loops.chunks(e, out.columns, lanes, find)
    same = elementwise.bit_exact(out.dtype, source.dtype)

    def load(pointer: Value, lanes: int) -> Value:
        if same:
            return e.load(INTEGERS[out.dtype.itemsize], pointer, lanes)
        raw = e.load(convert.raw_scalar(source.dtype), pointer, lanes)
        return e.bitcast(convert.widen(e, source.dtype, raw), "i32")

    def row(i: Value) -> Value:
        return e.load("ptr", e.step(rows, i, 8), align=8)

    to = _Target(out.pointer, out.row_stride, out.dtype.itemsize)
    _transpose(e, _Rows(row, load, source.dtype.itemsize), to, out.columns, source.columns)
    if staged:
        matrix.spread(kernel, out, dst)


def registers(e: Emitter, rows: list[Value]) -> list[Value]:
    """Transpose n vectors of n lanes.

    Vectors of more than 128 bits are first transposed four by four inside their 128-bit segments, then the segments:
    these shuffles are the cheapest there are, for the CPU and for LLVM.
    """
    n = len(rows)
    if n * BITS[rows[0].scalar] <= 128:
        return _interleaved(e, rows)
    blocks = [transpose_segments(e, four) for four in zip(*(rows[i::4] for i in range(4)), strict=True)]
    turned = [_segments(e, column) for column in zip(*blocks, strict=True)]
    return [turned[i % 4][i // 4] for i in range(n)]


def _segments(e: Emitter, vectors: Sequence[Value]) -> list[Value]:
    """Transpose k vectors of k segments, four lanes each: k is 2 or 4."""
    def choose(a: Value, b: Value, segments: Sequence[int]) -> Value:
        return e.shuffle(a, b, [4 * s + lane for s in segments for lane in range(4)])

    if len(vectors) == 2:
        return [choose(vectors[0], vectors[1], segments) for segments in ((0, 2), (1, 3))]
    a, b, c, d = vectors
    result = []
    for half in ((0, 1, 4, 5), (2, 3, 6, 7)):
        ab, cd = choose(a, b, half), choose(c, d, half)
        result += [choose(ab, cd, (0, 2, 4, 6)), choose(ab, cd, (1, 3, 5, 7))]
    return result


def _interleaved(e: Emitter, rows: list[Value]) -> list[Value]:
    """Transpose n vectors of n lanes: interleaving the two halves log2(n) times swaps both indices."""
    n = len(rows)
    low = [lane for i in range(n // 2) for lane in (i, n + i)]
    high = [lane for i in range(n // 2, n) for lane in (i, n + i)]
    step = 1
    while step < n:
        pairs = zip(rows[: n // 2], rows[n // 2:], strict=True)
        rows = [e.shuffle(a, b, order) for a, b in pairs for order in (low, high)]
        step *= 2
    return rows


def _transpose(e: Emitter, rows: _Rows, to: _Target, across: int, down: int, streams: bool = False) -> None:
    """to[j, i] = rows[i, j] for i < across and j < down: whole register blocks, then what is left of either side.

    A block is a square of 32-bit words; wider elements are moved in smaller ones. Bands of a few rows are gone through
    one after the other: the lines read next to each other are in few pages, and those written are whole.
    """
    if Size in (type(across), type(down)):
        _any(e, rows, to, across, down)
        return
    block = e.host.vector_bits // 8 // to.size
    wide, tall = across // block * block, down // block * block
    band = max(block, loops.BAND // to.size)
    if wide and tall and to.size <= _WORD:
        whole = wide // band * band
        if whole and streams and to.stride % LINE == 0:
            aligned = e.compare("eq", e.and_(e.convert("ptrtoint", to.pointer, "i64"), LINE - 1), 0)
            for condition, past in ((aligned, True), (e.not_(aligned), False)):
                with e.when(condition):
                    _bands(e, rows, to, 0, whole, band, tall, past)
        elif whole:
            _bands(e, rows, to, 0, whole, band, tall)
        if whole < wide:
            _bands(e, rows, to, whole, wide, wide - whole, tall)
    else:
        wide, tall = 0, down
    if wide < across:
        right = to._replace(pointer=e.offset(to.pointer, wide * to.size))
        _edge(e, rows.moved(e, wide, 0), right, across - wide, tall)
    if tall < down:
        below = to._replace(pointer=e.offset(to.pointer, tall * to.stride))
        _edge(e, rows.moved(e, 0, tall), below, across, down - tall)


def _bands(
    e: Emitter, rows: _Rows, to: _Target, first: int, end: int, band: int, down: int, streams: bool = False
) -> None:
    """Rows from the first to before the end, a band of them at a time, in register blocks."""
    lanes, words = e.host.lanes, 4 // to.size
    block = lanes * words
    with (
        e.loop(end, start=first, step=band) as top,
        e.loop(down, step=block) as j,
        e.loop(band, step=block) as within,
    ):
        i = e.add(top.index, within.index)
        corner = to.at(e, j.index, i)
        loaded = [rows.load(e.step(rows.address(e.add(i, n)), j.index, rows.size), block) for n in range(block)]
        packed = [_words(e, loaded[n : n + words], 8 * to.size) for n in range(0, block, words)]
        for quarter, vectors in enumerate(zip(*packed, strict=True)):
            for n, line in enumerate(registers(e, list(vectors))):
                group, within_group = divmod(n, 4)
                column = (group * words + quarter) * 4 + within_group
                e.store(
                    line, e.offset(corner, column * to.stride), align=4 * lanes if streams else 1, streaming=streams
                )


def _words(e: Emitter, rows: Sequence[Value], bits: int) -> list[Value]:
    """Elements of 1, 2 or 4 rows side by side in 32-bit words, the first row's in the lowest bits.

    Vector q has, of the columns that 128 bits of a word each make, four from 4 * q on: unpacking instructions stay
    within 128 bits.
    """
    if len(rows) == 1:
        return list(rows)
    half = len(rows) // 2
    result = []
    for low, high in zip(_words(e, rows[:half], bits), _words(e, rows[half:], bits), strict=True):
        n = 128 // (bits * half)
        for first in (0, n // 2):
            order = [lane + i + side for lane in range(0, low.lanes, n) for i in range(first, first + n // 2)
                     for side in (0, low.lanes)]
            result.append(e.recast(e.shuffle(low, high, order), f"i{2 * half * bits}", low.lanes // 2))
    return result


def _edge(e: Emitter, rows: _Rows, to: _Target, across: int, down: int) -> None:
    """Less than a register block on one side at least: smaller blocks.

    Narrow elements stay in 128-bit vectors, whose interleaves are single instructions at every level.
    """
    block = e.host.lanes if to.size == 4 else _SHORT_VECTOR // to.size

    def strip(j: Value, tall: int) -> None:
        def piece(i: Value, wide: int) -> None:
            side = min(wide, tall)
            for a in range(0, wide, side):
                for b in range(0, tall, side):
                    _tile(e, rows, to, e.add(i, a) if a else i, e.add(j, b) if b else j, side)

        loops.chunks(e, across, block, piece)

    loops.chunks(e, down, block, strip)


def _any(e: Emitter, rows: _Rows, to: _Target, across: int, down: int) -> None:
    """As many rows and columns as there are, in small blocks: the last one of a side may overlap that before it."""
    side = _SHORT_VECTOR // to.size
    if across < side or down < side:
        side = 1
    with e.loop(across, step=side) as i, e.loop(down, step=side) as j:
        corner = e.minimum(i.index, across - side), e.minimum(j.index, down - side)
        _tile(e, rows, to, *corner, side)


def _tile(e: Emitter, rows: _Rows, to: _Target, i: Value, j: Value, side: int) -> None:
    """A small block: so many rows from the i-th one on, and columns from the j-th."""
    loaded = [rows.load(e.step(rows.address(e.add(i, n)), j, rows.size), side) for n in range(side)]
    corner = to.at(e, j, i)
    for n, column in enumerate(registers(e, loaded)):
        e.store(column, e.offset(corner, n * to.stride))
