"""Matrix products over partitions: a register-blocked float32 micro-kernel behind packing that widens.

`dst[m, n] (+)= sum over k of stationary[k, m] * moving[k, n]`, with k along the partitions of both operands.
One operand is broadcast element by element (the rows of a register block), the other is read in vectors (its
columns). A panel of the vector side, all of k by one block width, stays in the L1 cache while all of the broadcast
side streams past it. Operands that lie in panels (nkilite/schedule/panels.py) are read where they are; of others a
panel is packed into scratch.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

from nkilite import dtypes
from nkilite.codegen import accumulation, convert, elementwise, matrix, pack_pairs, tiles
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.matrix import Matrix, Packed
from nkilite.codegen.register_block import Broadcast, Parts, Vectors, lines, multiply, narrowing, register_block
from nkilite.host.cpu import Products

_PACK_FROM_BLOCKS = 3  # row blocks that read a panel before packing it pays


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
    rows, columns = (matrix.packed(kernel, o) or split(kernel, o) for o in (stationary, moving))
    out, staged = matrix.target(kernel, dst, accumulate)
    how = matrix.products(kernel, stationary, moving)
    if how is Products.pairs:
        rows, columns = (o if isinstance(o, Packed) else pack_pairs.packed(e, o) for o in (rows, columns))

    # Few moving columns fill no vector: then the stationary columns are the vectors, stored transposed. Tiles in
    # panels are made for one side.
    transposed = out.columns <= e.host.lanes // 2 and out.columns < out.rows
    if how is Products.tiles and (isinstance(rows, Packed) or isinstance(columns, Packed)):
        transposed = False
    target = out
    if transposed:
        rows, columns, target = columns, rows, out.transposed
    sharing = None if staged else kernel  # what is staged is copied whole
    if how is Products.tiles:
        tiles.contract(e, [(rows, columns)], target, accumulate, sharing, transposed=transposed)
    elif isinstance(rows, Packed) and isinstance(columns, Packed):
        accumulation.multiply_add(e, [(rows, columns)], target, accumulate, sharing, transposed)
    else:
        left = Broadcast.of(e, rows)
        right = _Panels.of(e, columns, left)
        part = None if staged else _share(kernel, dst, right, transposed)
        _contract(e, left, right, target, accumulate, part)
    if staged:
        matrix.spread(kernel, out, dst)


def _share(kernel: MicroKernel, dst: str, right: _Panels, transposed: bool = False) -> tuple[Value, Value] | None:
    """The panels of columns that this call computes, if there are several."""
    if right.pieces == 1:
        return None
    return kernel.share(right.pieces, of=(dst,), **{"rows" if transposed else "columns": right.width})


class _Panels(NamedTuple):
    """The side read in vectors, in panels as wide as a register block.

    Attributes:
        width: columns of a panel.
        tall: rows of the register block.
        scratch: where a panel is packed as float32; None when vectors are loaded where they lie.
    """

    parts: Parts | Packed
    rows: int
    columns: int
    width: int
    tall: int
    scratch: Value | None

    @property
    def pieces(self) -> int:
        return -(-self.columns // self.width)

    @classmethod
    def of(cls, e: Emitter, parts: Parts | Packed, left: Broadcast) -> _Panels:
        block = register_block(e, left.panel is not None)
        width = block.vectors * e.host.lanes
        if isinstance(parts, Packed):
            return cls(parts, parts.rows, parts.columns, width, block.rows, None)
        first = parts[0]
        rows = first.rows * len(parts)
        uses = -(-left.columns // block.rows)
        convertible = convert.raw_scalar(first.dtype) != "float" or not first.dense
        pack = len(parts) > 1 or uses >= (2 if convertible else _PACK_FROM_BLOCKS)
        padded = min(width, -(-first.columns // e.host.lanes) * e.host.lanes)
        return cls(parts, rows, first.columns, width, block.rows, e.scratch(rows * padded * 4) if pack else None)


def _contract(
    e: Emitter, left: Broadcast, right: _Panels, out: Matrix, accumulate: bool, part: tuple[Value, Value] | None
) -> None:
    """Panel by panel of the vector side: those between the two of `part`, or all."""
    width, whole = right.width, right.columns // right.width
    if whole:
        first, end = (part[0], e.minimum(part[1], whole)) if part else (e.i64(0), e.i64(whole))
        with e.loop(end, start=first) as loop:
            _panel(e, left, right, e.mul(loop.index, width), width, out, accumulate)
    if whole < right.pieces:
        with e.when(e.compare("eq", part[1], right.pieces)) if part else nullcontext():
            at = whole * width
            while at < right.columns:
                count = right.columns - at
                if right.scratch is None and not isinstance(right.parts, Packed):
                    count = _unpacked_width(e, right, count)
                _panel(e, left, right, e.i64(at), count, out, accumulate)
                at += count


def _unpacked_width(e: Emitter, right: _Panels, count: int) -> int:
    """Columns of the next unpacked panel: as many as the block's number of (ever narrower) vectors covers."""
    return sum(narrowing(count, e.host.lanes)[: right.width // e.host.lanes])


def _panel(
    e: Emitter, left: Broadcast, right: _Panels, column: Value, count: int, out: Matrix, accumulate: bool
) -> None:
    """All rows of `count` result columns."""
    if isinstance(right.parts, Packed):
        vectors = lines(e, right.parts, column, count)
    else:
        vectors = (_in_place if right.scratch is None else _pack)(e, right, column, count)
    corner = e.step(out.pointer, column, out.column_stride)

    def block(row: Value, first: Value, rows: int) -> None:
        target = out._replace(pointer=e.step(corner, row, out.row_stride))
        multiply(e, left._replace(pointer=first), vectors, right.rows, rows, target, accumulate)

    left.blocks(e, right.tall, block)


def _in_place(e: Emitter, right: _Panels, column: Value, count: int) -> Vectors:
    """A panel read where it lies, in vectors that narrow towards the edge."""
    assert not isinstance(right.parts, Packed)
    (part,) = right.parts
    widths = narrowing(count, e.host.lanes)
    offsets = [sum(widths[:i]) * part.column_stride for i in range(len(widths))]
    first = e.step(part.pointer, column, part.column_stride)
    return Vectors(first, part.row_stride, offsets, widths, part.dtype, part.column_stride, count)


def _pack(e: Emitter, right: _Panels, column: Value, count: int) -> Vectors:
    """Copy a panel into the scratch as dense float32 rows of whole vectors."""
    assert right.scratch is not None
    assert not isinstance(right.parts, Packed)
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
            for width in narrowing(count, lanes):
                value = elementwise.load(
                    e, part.dtype, e.offset(source, at * part.column_stride), width, part.column_stride, "f32"
                )
                e.store(value, e.offset(target, at * 4))
                at += width
    offsets = [i * lanes * 4 for i in range(vectors)]
    return Vectors(right.scratch, stride, offsets, [lanes] * vectors, dtypes.float32, 4, count)
