"""Products of a compressed stationary operand: four elements of every group along the contraction, at positions given.

Every element of the stationary operand is a multiplier of its own row of the moving one. As many moving rows as the
nearest cache holds are widened into scratch, and the positions become byte offsets of such rows: one multiply-add per
vector of a row and stored element, where the dense product has `ratio` of them. Meanwhile sums stay in registers.
"""

from __future__ import annotations

from typing import NamedTuple

from nkilite import dtypes
from nkilite.codegen import bits, elementwise, loops, matrix
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.matrix import Matrix
from nkilite.codegen.register_block import Broadcast

KEPT = 4  # elements of a group that are stored, and partitions they lie on
_TAG_BITS = 4
_PER_WORD = 16 // _TAG_BITS
_VECTORS = 8  # of sums in registers: enough to hide the latency of a multiply-add
_NEAR = 32 * 1024  # bytes of moving rows that stay in the nearest cache


class _Strip(NamedTuple):
    """Scratch for moving rows as float32, in the order of the contraction: some columns of some partitions.

    Attributes:
        parts: the moving operand, a matrix for each row that its partitions hold.
        row: bytes of a row.
        partitions: that stay in the nearest cache.
    """

    pointer: Value
    parts: tuple[Matrix, ...]
    row: int
    partitions: int

    @classmethod
    def of(cls, e: Emitter, parts: tuple[Matrix, ...], columns: int) -> _Strip:
        row = columns * 4
        near = max(KEPT, _NEAR // (len(parts) * row) // KEPT * KEPT)
        partitions = min(parts[0].rows, near)
        return cls(e.scratch(partitions * len(parts) * row), parts, row, partitions)

    def fill(self, e: Emitter, partition: Value, partitions: int, column: Value, count: int) -> None:
        """Widen `count` columns; what is left of the last vector is zeros."""
        lanes = e.host.lanes
        for number, part in enumerate(self.parts):
            start = e.step(e.step(part.pointer, column, part.column_stride), partition, part.row_stride)
            with e.loop(partitions) as k:
                source = e.step(start, k.index, part.row_stride)
                target = e.step(e.offset(self.pointer, number * self.row), k.index, len(self.parts) * self.row)
                if count % lanes:
                    e.store(e.f32(0, lanes), e.offset(target, count // lanes * lanes * 4))

                def piece(
                    index: Value, width: int, part: Matrix = part, source: Value = source, target: Value = target
                ) -> None:
                    at = e.step(source, index, part.column_stride)
                    value = elementwise.load(e, part.dtype, at, width, part.column_stride, "f32")
                    e.store(value, e.step(target, index, 4))

                loops.chunks(e, count, _VECTORS * lanes, piece)


def matmul(kernel: MicroKernel, dst: str, stationary: str, moving: str, tag: str, accumulate: bool) -> None:
    """dst (+)= expanded stationary.T @ moving, in float32, rounded to dst's dtype once.

    Args:
        moving: [partitions, ratio, columns...]; row ``partition * ratio + i`` of the contraction is [partition, i].
        tag: 16-bit words of four positions; see `nkilite.isa.sparse`.
    """
    e = kernel.e
    left = Broadcast.of(e, (matrix.source(kernel, stationary),))
    parts = matrix.paired_source(kernel, moving)
    columns, lanes = parts[0].columns, e.host.lanes
    width = min(_VECTORS, -(-columns // lanes)) * lanes
    strip = _Strip.of(e, parts, width)
    offsets = _offsets(kernel, tag, strip)
    out = matrix.direct(kernel, dst)
    staged = out is None or not out.dense or out.dtype is not dtypes.float32 or columns % lanes != 0
    if out is None or staged:
        pitch = -(-columns // lanes) * lanes * 4
        out = Matrix(e.scratch(left.columns * pitch), dtypes.float32, left.columns, pitch, columns, 4)

    def piece(first: Value, count: int) -> None:
        sums = out._replace(pointer=e.step(out.pointer, first, 4), columns=-(-count // lanes) * lanes)
        _multiply(e, left, offsets, strip, first, count, sums, accumulate and not staged)

    matrix.in_pieces(kernel, dst, columns, width, staged, piece)
    if staged:
        matrix.spread(kernel, out, dst, accumulate)


def _offsets(kernel: MicroKernel, tag: str, strip: _Strip) -> Value:
    """Of every stored element the byte offset of its row in the strip: 32-bit words, dense, by partition."""
    e = kernel.e
    words = matrix.dense_source(kernel, tag)
    limit = KEPT * len(strip.parts)  # elements of a group
    columns = words.columns * _PER_WORD
    offsets = e.scratch(words.rows * columns * 4)
    with e.loop(words.rows) as partition:
        inside = e.binary("urem", partition.index, strip.partitions)
        group = e.binary("udiv", inside, KEPT)
        base = e.convert("trunc", e.mul(group, limit * strip.row), "i32")
        source = e.step(words.pointer, partition.index, words.row_stride)
        target = e.step(offsets, partition.index, columns * 4)

        def piece(index: Value, count: int) -> None:
            lanes = count * _PER_WORD
            word = e.load("i16", e.step(source, index, 2), count)
            word = e.shuffle(word, None, [i // _PER_WORD for i in range(lanes)])
            shifts = e.vector("i16", [i % _PER_WORD * _TAG_BITS for i in range(lanes)])
            found = e.and_(e.lshr(word, shifts), (1 << _TAG_BITS) - 1)
            position, to = e.convert("zext", found, "i32"), e.step(target, index, 4 * _PER_WORD)
            if limit < 1 << _TAG_BITS:
                _require(kernel, position, to, limit)
            e.store(e.add(e.mul(position, strip.row), e.splat(base, lanes)), to)

        loops.chunks(e, words.columns, max(1, e.host.lanes // _PER_WORD), piece)
    return offsets


def _require(kernel: MicroKernel, position: Value, memory: Value, limit: int) -> None:
    """End the micro-kernel unless all positions are in their group."""
    e = kernel.e
    e.store(position, memory)
    outside = e.bits(e.compare("uge", position, limit))

    def first() -> Value:
        return e.convert("zext", e.load("i32", e.step(memory, bits.lowest(e, outside), 4)), "i64")

    kernel.fail_unless(e.compare("eq", outside, 0), limit, first)


def _multiply(
    e: Emitter, left: Broadcast, offsets: Value, strip: _Strip, column: Value, count: int, out: Matrix, accumulate: bool
) -> None:
    """out (+)= what `count` columns make, as many partitions at a time as the strip has."""
    whole, rest = divmod(strip.parts[0].rows, strip.partitions)
    with e.loop(whole) as block:
        row = e.mul(block.index, strip.partitions)
        strip.fill(e, row, strip.partitions, column, count)
        begins = None if accumulate else e.compare("eq", block.index, 0)
        _block(e, left, row, strip.partitions, offsets, strip, out, begins)
    if rest:
        row = e.i64(whole * strip.partitions)
        strip.fill(e, row, rest, column, count)
        _block(e, left, row, rest, offsets, strip, out, None)


def _block(
    e: Emitter, left: Broadcast, row: Value, count: int, offsets: Value, strip: _Strip, out: Matrix,
    begins: Value | None,
) -> None:
    """Add what `count` rows of the stationary operand make of the strip; where it begins, to nothing."""
    lanes = e.host.lanes
    vectors = [v * lanes * 4 for v in range(out.columns // lanes)]
    weights, places = e.step(left.pointer, row, left.row_stride), e.step(offsets, row, left.columns * 4)
    with e.loop(left.columns) as column:
        target = e.step(out.pointer, column.index, out.row_stride)
        weight = e.step(weights, column.index, left.column_stride)
        place = e.step(places, column.index, 4)
        sums = [e.load("float", e.offset(target, v), lanes) for v in vectors]
        if begins is not None:
            sums = [e.select(begins, 0, total) for total in sums]
        with e.loop(count, *sums, step=KEPT) as loop:
            totals = list(loop.values)
            for i in range(KEPT):
                k = e.add(loop.index, i)
                offset = e.convert("zext", e.load("i32", e.step(place, k, left.columns * 4)), "i64")
                at = e.offset(strip.pointer, offset)
                one = e.splat(e.load("float", e.step(weight, k, left.row_stride)), lanes)
                totals = [
                    e.fma(one, e.load("float", e.offset(at, v), lanes), total)
                    for v, total in zip(vectors, totals, strict=True)
                ]
            loop.carry(*totals)
        for v, total in zip(vectors, loop.results, strict=True):
            e.store(total, e.offset(target, v))
