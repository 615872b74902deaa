"""Matrix products over partitions: a register-blocked float32 micro-kernel behind packing that widens.

`dst[m, n] (+)= sum over k of stationary[k, m] * moving[k, n]`, with k along the partitions of both operands.
One operand is broadcast element by element (the rows of a register block), the other is read in vectors (its
columns). A panel of the vector side, all of k by one block width, is packed into scratch that stays in the L1
cache while all of the broadcast side streams past it; sums live in registers over the whole of k and touch
dst once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

from nkilite import dtypes
from nkilite.codegen import convert, elementwise, matrix, tiles
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.host import Host
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.matrix import Matrix

_Parts = tuple[Matrix, ...]  # matrices whose rows follow each other along the contraction

_PACK_FROM_BLOCKS = 3  # row blocks that read a panel before packing it pays
_TILES_FROM = 8  # rows and columns from which the tile unit pays for its packing
_ROW_PAD = 64  # bytes between widened rows, so that rows of 2 ** n bytes do not share cache sets


class _Block(NamedTuple):
    """The register block: rows by vectors of sums, leaving registers for the vectors and one broadcast."""

    rows: int
    vectors: int


def _register_block(host: Host) -> _Block:
    if host.registers >= 32:
        return _Block(6, 4)
    return _Block(6, 2) if host.fma else _Block(4, 2)


def matmul(
    kernel: MicroKernel, dst: str, stationary: str, moving: str, accumulate: bool, paired: bool = False
) -> None:
    """dst (+)= stationary.T @ moving in float32, rounded to dst's dtype once.

    Args:
        accumulate: add to dst instead of overwriting it.
        paired: the contraction also runs over the first free dimension of both operands (double-row mode).
    """
    e = kernel.e
    split = matrix.paired_source if paired else (lambda k, name: (matrix.source(k, name),))
    rows, columns = split(kernel, stationary), split(kernel, moving)
    out = matrix.direct(kernel, dst)
    staged = out is None
    if out is None:
        out = matrix.dense_scratch(kernel, dtypes.float32, rows[0].columns, columns[0].columns)
    m, n = rows[0].columns, columns[0].columns
    add = accumulate and not staged
    if tiles.takes(e, rows[0], columns[0]) and min(m, n) >= _TILES_FROM:
        tiles.contract(e, rows, columns, out, add)
        if staged:
            matrix.spread(kernel, out, dst, accumulate)
        return

    def share(pieces: int, width: int) -> tuple[Value, Value] | None:
        """The panels this call computes, if not all: a staged result is copied whole."""
        if staged or pieces == 1:
            return None
        return kernel.share(pieces, of=(dst,), **{"rows" if transposed else "columns": width})

    # Few moving columns fill no vector: then the stationary columns are the vectors, stored transposed.
    transposed = n <= e.host.lanes // 2 and n < m
    if transposed:
        _contract(e, columns, rows, out.transposed, add, share)
    else:
        _contract(e, rows, columns, out, add, share)
    if staged:
        matrix.spread(kernel, out, dst, accumulate)


class _Broadcast(NamedTuple):
    """The side read element by element: float32 at pointer + k * row_stride + m * column_stride."""

    pointer: Value
    row_stride: int
    columns: int
    column_stride: int

    @classmethod
    def of(cls, e: Emitter, parts: _Parts) -> _Broadcast:
        """As it lies in memory where that is float32; otherwise widened into scratch."""
        first = parts[0]
        if len(parts) == 1 and convert.raw_scalar(first.dtype) == "float":
            return cls(first.pointer, first.row_stride, first.columns, first.column_stride)
        pitch = first.columns * 4 + _ROW_PAD
        scratch = e.scratch(len(parts) * first.rows * pitch)
        for number, part in enumerate(parts):
            base = e.offset(scratch, number * part.rows * pitch)
            with e.loop(part.rows) as k:
                _widen(e, part, e.step(part.pointer, k.index, part.row_stride), e.step(base, k.index, pitch))
        return cls(scratch, pitch, first.columns, 4)


def _widen(e: Emitter, part: Matrix, source: Value, target: Value) -> None:
    """One row to dense float32."""

    def piece(index: Value, lanes: int) -> None:
        pointer = e.step(source, index, part.column_stride)
        value = elementwise.load(e, part.dtype, pointer, lanes, part.column_stride, "f32")
        e.store(value, e.step(target, index, 4))

    elementwise.chunks(e, part.columns, 4 * e.host.lanes, piece)


class _Panels(NamedTuple):
    """The side read in vectors, in panels as wide as a register block.

    Attributes:
        scratch: where a panel is packed as float32; None when vectors are loaded where they lie.
    """

    parts: _Parts
    rows: int
    columns: int
    width: int
    scratch: Value | None

    @classmethod
    def of(cls, e: Emitter, parts: _Parts, broadcast_columns: int) -> _Panels:
        block = _register_block(e.host)
        width = block.vectors * e.host.lanes
        first = parts[0]
        rows = first.rows * len(parts)
        uses = -(-broadcast_columns // block.rows)
        convertible = convert.raw_scalar(first.dtype) != "float" or not first.dense
        pack = len(parts) > 1 or uses >= (2 if convertible else _PACK_FROM_BLOCKS)
        padded = min(width, -(-first.columns // e.host.lanes) * e.host.lanes)
        return cls(parts, rows, first.columns, width, e.scratch(rows * padded * 4) if pack else None)


def _contract(
    e: Emitter, rows: _Parts, columns: _Parts, out: Matrix, accumulate: bool,
    share: Callable[[int, int], tuple[Value, Value] | None],
) -> None:
    """Panel by panel of the vector side: those that `share(panels, width)` says, or all."""
    left, right = _Broadcast.of(e, rows), _Panels.of(e, columns, rows[0].columns)
    width, whole = right.width, right.columns // right.width
    panels = -(-right.columns // width)
    part = share(panels, width)
    if whole:
        first, end = (part[0], e.minimum(part[1], e.i64(whole))) if part else (0, whole)
        with e.loop(end, start=first) as loop:
            _panel(e, left, right, e.mul(loop.index, e.i64(width)), width, out, accumulate)
    if whole < panels:
        with e.when(e.compare("eq", part[1], e.i64(panels))) if part else nullcontext():
            at = whole * width
            while at < right.columns:
                count = right.columns - at
                if right.scratch is None:
                    count = _unpacked_width(e, right, count)
                _panel(e, left, right, e.i64(at), count, out, accumulate)
                at += count


def _unpacked_width(e: Emitter, right: _Panels, count: int) -> int:
    """Columns of the next unpacked panel: as many as the block's number of (ever narrower) vectors covers."""
    return sum(_widths(count, e.host.lanes)[: right.width // e.host.lanes])


def _widths(count: int, lanes: int) -> list[int]:
    """Powers of two, at most `lanes`, that add up to `count`, largest first."""
    widths = []
    while count:
        while lanes > count:
            lanes //= 2
        widths.append(lanes)
        count -= lanes
    return widths


class _Vectors(NamedTuple):
    """A panel ready to be read: vector i of row k at pointer + k * stride + offsets[i], `widths[i]` lanes.

    Attributes:
        valid: columns among the lanes; packed panels are padded with zeros to whole vectors.
    """

    pointer: Value
    stride: int
    offsets: list[int]
    widths: list[int]
    matrix: Matrix
    valid: int

    def load(self, e: Emitter, row: Value, number: int) -> Value:
        pointer = e.offset(row, self.offsets[number])
        lanes, stride = self.widths[number], self.matrix.column_stride
        return elementwise.load(e, self.matrix.dtype, pointer, lanes, stride, "f32")


def _panel(
    e: Emitter, left: _Broadcast, right: _Panels, column: Value, count: int, out: Matrix, accumulate: bool
) -> None:
    """All rows of `count` result columns."""
    prepare = _in_place if right.scratch is None else _pack
    vectors = prepare(e, right, column, count)
    corner = e.step(out.pointer, column, out.column_stride)
    tall = _register_block(e.host).rows

    def block(row: Value, rows: int) -> None:
        target = out._replace(pointer=e.step(corner, row, out.row_stride))
        first = e.step(left.pointer, row, left.column_stride)
        _register_kernel(e, left._replace(pointer=first), vectors, right.rows, rows, target, accumulate)

    full = left.columns // tall * tall
    if full:
        with e.loop(full, step=tall) as loop:
            block(loop.index, tall)
    if full < left.columns:
        block(e.i64(full), left.columns - full)


def _in_place(e: Emitter, right: _Panels, column: Value, count: int) -> _Vectors:
    """A panel read where it lies, in vectors that narrow towards the edge."""
    (part,) = right.parts
    widths = _widths(count, e.host.lanes)
    offsets = [sum(widths[:i]) * part.column_stride for i in range(len(widths))]
    first = e.step(part.pointer, column, part.column_stride)
    return _Vectors(first, part.row_stride, offsets, widths, part, count)


def _pack(e: Emitter, right: _Panels, column: Value, count: int) -> _Vectors:
    """Copy a panel into the scratch as dense float32 rows of whole vectors."""
    assert right.scratch is not None
    lanes = e.host.lanes
    vectors = -(-count // lanes)
    stride = vectors * lanes * 4
    for number, part in enumerate(right.parts):
        base = e.offset(right.scratch, number * part.rows * stride)
        first = e.step(part.pointer, column, part.column_stride)
        with e.loop(part.rows) as k:
            source, target = e.step(first, k.index, part.row_stride), e.step(base, k.index, stride)
            if count % lanes:
                e.store(e.f32(0, lanes), e.offset(target, stride - lanes * 4))
            at = 0
            for width in _widths(count, lanes):
                value = elementwise.load(
                    e, part.dtype, e.offset(source, at * part.column_stride), width, part.column_stride, "f32"
                )
                e.store(value, e.offset(target, at * 4))
                at += width
    packed = Matrix(right.scratch, dtypes.float32, right.rows, stride, vectors * lanes, 4)
    offsets = [i * lanes * 4 for i in range(vectors)]
    return _Vectors(right.scratch, stride, offsets, [lanes] * vectors, packed, count)


def _register_kernel(
    e: Emitter, left: _Broadcast, right: _Vectors, depth: int, rows: int, out: Matrix, accumulate: bool
) -> None:
    """One register block of sums over the whole contraction."""
    zeros = [e.f32(0, width) for _ in range(rows) for width in right.widths]
    with e.loop(depth, *zeros) as loop:
        row = e.step(right.pointer, loop.index, right.stride)
        vectors = [right.load(e, row, i) for i in range(len(right.widths))]
        column = e.step(left.pointer, loop.index, left.row_stride)
        sums = []
        for m in range(rows):
            one = e.load("float", e.offset(column, m * left.column_stride))
            for i, vector in enumerate(vectors):
                sums.append(e.fma(e.splat(one, vector.lanes), vector, loop.values[m * len(vectors) + i]))
        loop.carry(*sums)
    for m in range(rows):
        start = e.offset(out.pointer, m * out.row_stride)
        at = 0
        for i, width in enumerate(right.widths):
            total = loop.results[m * len(right.widths) + i]
            for piece in _widths(min(width, right.valid - at), width):
                inner = at - sum(right.widths[:i])
                part = total if piece == width else e.shuffle(total, None, range(inner, inner + piece))
                _finish(e, part, e.offset(start, at * out.column_stride), out, accumulate)
                at += piece


def _finish(e: Emitter, value: Value, pointer: Value, out: Matrix, accumulate: bool) -> None:
    """Add the old content if wanted, round and store."""
    if accumulate:
        old = elementwise.load(e, out.dtype, pointer, value.lanes, out.column_stride, "f32")
        value = e.add(old, value)
    elementwise.store(e, out.dtype, value, pointer, out.column_stride, "f32")
