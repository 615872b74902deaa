"""Permutations of dimensions, moved in square register blocks where both sides have a dense dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nkilite.codegen import convert, elementwise, matrix, nest
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import DType

_BITS = {1: "i8", 2: "i16", 4: "i32"}
_SIDE = 16  # lanes of the widest vectors of 32-bit words


def blocks(e: Emitter, dims: Sequence[nest.Dim], at: list[Value], size: int) -> bool:
    """Copy elements of `size` bytes in register blocks, if target and source are dense along different loops.

    Args:
        dims: loops whose strides are those of the target and of the source, in any order.
        at: pointers of the target and of the source.

    Returns:
        False, with nothing written, if there are no two such loops.
    """
    across, down = _find(dims, 0, size), _find(dims, 1, size)
    if across is None or down is None or across == down:
        return False
    wide, tall = dims[across], dims[down]
    outer = [d for i, d in enumerate(dims) if i not in (across, down)]

    def descend(level: int, at: list[Value]) -> None:
        if level < len(outer):
            count, strides = outer[level]
            with e.loop(count) as loop:
                descend(level + 1, [e.step(p, loop.index, s) for p, s in zip(at, strides, strict=True)])
            return
        columns(e, size, wide.count, tall.count, lambda i: e.step(at[1], i, wide.strides[1]), at[0], tall.strides[0])

    descend(0, at)
    return True


def columns(
    e: Emitter, size: int, across: int, down: int, row: Callable[[Value], Value], out: Value, out_stride: int
) -> None:
    """out[j, i] = element j of the dense row at address row(i), for i < across and j < down."""
    _tiles(e, size, across, down, row, lambda p, lanes: e.load(_BITS[size], p, lanes), size, out, out_stride)


def float32_columns(
    e: Emitter, dtype: DType, across: int, down: int, row: Callable[[Value], Value], out: Value, out_stride: int
) -> None:
    """As `columns`, from rows of floats to float32."""

    def load(pointer: Value, lanes: int) -> Value:
        return e.bitcast(convert.widen(e, dtype, e.load(convert.raw_scalar(dtype), pointer, lanes)), "i32")

    _tiles(e, 4, across, down, row, load, dtype.itemsize, out, out_stride)


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
    elementwise.chunks(e, source.columns * source.dtype.itemsize, 4 * lanes, lambda i, width: e.store(
        e.const("i8", 0, width), e.offset(zeros, i)))

    def find(index: Value, width: int) -> None:
        column = e.step(selector.pointer, index, selector.column_stride)
        with e.loop(selector.rows, e.i32(-1, width)) as loop:
            row = e.step(column, loop.index, selector.row_stride)
            value = elementwise.load(e, selector.dtype, row, width, selector.column_stride, "f32")
            here = e.splat(e.convert("trunc", loop.index, "i32"), width)
            loop.carry(e.select(e.compare("une", value, e.f32(0, width)), here, loop.values[0]))
        found = loop.results[0]
        for lane in range(width):
            k = e.convert("sext", e.extract(found, lane), "i64")
            pointer = e.select(
                e.compare("slt", k, e.i64(0)), zeros, e.step(source.pointer, k, source.row_stride)
            )
            e.store(pointer, e.step(rows, e.add(index, e.i64(lane)), 8), align=8)

    elementwise.chunks(e, out.columns, lanes, find)
    same = elementwise.bit_exact(out.dtype, source.dtype)

    def load(pointer: Value, lanes: int) -> Value:
        if same:
            return e.load(_BITS[out.dtype.itemsize], pointer, lanes)
        raw = e.load(convert.raw_scalar(source.dtype), pointer, lanes)
        return e.bitcast(convert.widen(e, source.dtype, raw), "i32")

    def row(i: Value) -> Value:
        return e.load("ptr", e.step(rows, i, 8), align=8)

    _tiles(
        e, out.dtype.itemsize, out.columns, source.columns, row, load, source.dtype.itemsize, out.pointer,
        out.row_stride,
    )
    if staged:
        matrix.spread(kernel, out, dst)


def registers(e: Emitter, rows: list[Value]) -> list[Value]:
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


def _block(e: Emitter, size: int) -> int:
    """Side of the register block for elements of `size` bytes.

    Narrow elements stay in 128-bit vectors, whose interleaves are single instructions at every level.
    """
    return e.host.lanes if size == 4 else 16 // size


def _find(dims: Sequence[nest.Dim], operand: int, size: int) -> int | None:
    """The loop along which an operand is dense."""
    return next((i for i, d in enumerate(dims) if d.strides[operand] == size), None)


def _halves(
    e: Emitter,
    across: int,
    down: int,
    row: Callable[[Value], Value],
    load: Callable[[Value, int], Value],
    source_size: int,
    out: Value,
    out_stride: int,
) -> None:
    """Whole blocks of 32 rows by 16 columns of 16-bit elements: pairs of rows are transposed as 32-bit words."""
    with e.loop(down, step=_SIDE) as j, e.loop(across, step=2 * _SIDE) as i:
        words = []
        for n in range(0, 2 * _SIDE, 2):
            at = (e.step(row(e.add(i.index, e.i64(n + half))), j.index, source_size) for half in range(2))
            low, high = (e.convert("zext", load(p, _SIDE), "i32") for p in at)
            words.append(e.or_(low, e.shl(high, e.i32(16, _SIDE))))
        corner = e.step(e.step(out, j.index, out_stride), i.index, 2)
        for n, column in enumerate(registers(e, words)):
            e.store(column, e.offset(corner, n * out_stride))


def _tiles(
    e: Emitter,
    size: int,
    across: int,
    down: int,
    row: Callable[[Value], Value],
    load: Callable[[Value, int], Value],
    source_size: int,
    out: Value,
    out_stride: int,
) -> None:
    """out[j, i] = row(i)[j] for i < across, j < down, where both row(i) and the rows of out are dense."""
    if size == 2 and e.host.lanes == _SIDE:
        wide, tall = across // (2 * _SIDE) * (2 * _SIDE), down // _SIDE * _SIDE
        if wide and tall:
            _halves(e, wide, tall, row, load, source_size, out, out_stride)
            if wide < across:
                right = e.offset(out, wide * size)
                _tiles(e, size, across - wide, tall, lambda i: row(e.add(i, e.i64(wide))), load, source_size, right,
                       out_stride)
            if tall < down:
                _tiles(e, size, across, down - tall, lambda i: e.offset(row(i), tall * source_size), load, source_size,
                       e.offset(out, tall * out_stride), out_stride)
            return
    block = _block(e, size)

    def tile(i: Value, j: Value, side: int) -> None:
        rows = [load(e.step(row(e.add(i, e.i64(n))), j, source_size), side) for n in range(side)]
        corner = e.step(e.step(out, j, out_stride), i, size)
        for n, column in enumerate(registers(e, rows)):
            e.store(column, e.offset(corner, n * out_stride))

    def strip(j: Value, tall: int) -> None:
        def piece(i: Value, wide: int) -> None:
            side = min(wide, tall)
            for a in range(0, wide, side):
                for b in range(0, tall, side):
                    tile(e.add(i, e.i64(a)) if a else i, e.add(j, e.i64(b)) if b else j, side)

        elementwise.chunks(e, across, block, piece)

    elementwise.chunks(e, down, block, strip)
