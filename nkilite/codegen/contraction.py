"""Matrix products over partitions: a register-blocked float32 micro-kernel behind packing that widens.

`dst[m, n] (+)= sum over k of stationary[k, m] * moving[k, n]`, with k along the partitions of both operands.
One operand is broadcast element by element (the rows of a register block), the other is read in vectors (its
columns). A panel of the vector side, all of k by one block width, stays in the L1 cache while all of the broadcast
side streams past it; sums live in registers over the whole of k and touch dst once. Operands that lie in panels
(nkilite/ir/panels.py) are read where they are; of others a panel is packed into scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

from nkilite import dtypes
from nkilite.codegen import convert, elementwise, matrix, tiles
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.host import Host
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.matrix import Matrix, Packed
from nkilite.dtypes import DType
from nkilite.ir.group import Accumulation
from nkilite.ir.panels import LINE, WIDTH

_Parts = tuple[Matrix, ...]  # matrices whose rows follow each other along the contraction

_PACK_FROM_BLOCKS = 3  # row blocks that read a panel before packing it pays
_TILES_FROM = 8  # rows and columns from which the tile unit pays for its packing
_ROUND = 4  # steps along the contraction for which one line of the next panel is fetched
_WIDTH_BITS = WIDTH.bit_length() - 1
_ROW_PAD = 64  # bytes between widened rows, so that rows of 2 ** n bytes do not share cache sets


class _Block(NamedTuple):
    """The register block: rows by vectors of sums, leaving registers for the vectors and one broadcast."""

    rows: int
    vectors: int


def _register_block(host: Host, packed: bool = False) -> _Block:
    """The block for a broadcast side in rows or in panels, of which half a panel makes a block where it can."""
    if host.registers >= 32:
        return _Block(8, 3) if packed and 3 * host.lanes % WIDTH == 0 else _Block(6, 4)
    return _Block(6, 2) if host.fma else _Block(4, 2)


def matmul(
    kernel: MicroKernel, dst: str, stationary: str, moving: str, accumulate: bool, paired: bool = False,
    splits: bool = True,
) -> None:
    """dst (+)= stationary.T @ moving in float32, rounded to dst's dtype once.

    Args:
        accumulate: add to dst instead of overwriting it.
        paired: the contraction also runs over the first free dimension of both operands (double-row mode).
        splits: threads may share the work.
    """
    e = kernel.e
    split = matrix.paired_source if paired else (lambda k, name: (matrix.source(k, name),))
    rows, columns = (matrix.packed(kernel, o) or split(kernel, o) for o in (stationary, moving))
    m, n = (o.columns if isinstance(o, Packed) else o[0].columns for o in (rows, columns))
    out = matrix.direct(kernel, dst)
    staged = out is None
    if out is None:
        out = matrix.dense_scratch(kernel, dtypes.float32, m, n)
    add = accumulate and not staged
    packed = isinstance(rows, Packed) or isinstance(columns, Packed)
    if tiles.takes(kernel, stationary, moving) and (packed or min(m, n) >= _TILES_FROM):
        tiles.contract(e, [(rows, columns)], out, add, kernel if splits and not staged else None)
        if staged:
            matrix.spread(kernel, out, dst, accumulate)
        return

    # Few moving columns fill no vector: then the stationary columns are the vectors, stored transposed.
    transposed = n <= e.host.lanes // 2 and n < m
    if transposed:
        rows, columns, target = columns, rows, out.transposed
    else:
        target = out
    left = _Broadcast.of(e, rows)
    right = _Panels.of(e, columns, left)
    # A staged result is copied whole.
    part = None if staged or not splits else _share(kernel, dst, right, transposed)
    _contract(e, left, right, target, add, part)
    if staged:
        matrix.spread(kernel, out, dst, accumulate)


def write(members: Sequence[MicroKernel], plan: Accumulation) -> None:
    """The code of a group: matmuls of equal shapes that add up in one dst.

    On the tile unit the sums stay in registers over all of them. With multiply-adds every matmul adds to dst, which
    is in the cache, and the last panel of one asks for the operands of the next.
    """
    first = members[0]
    e = first.e
    out = matrix.direct(first, "dst")
    pairs = [(matrix.packed(k, "stationary"), matrix.packed(k, "moving")) for k in members]
    operands = [(left, right) for left, right in pairs if left is not None and right is not None]
    if out is None or len(operands) < len(members):
        for kernel in members:
            matmul(kernel, "dst", "stationary", "moving", bool(kernel.call.accumulate), splits=False)
    elif tiles.takes(first, "stationary", "moving"):
        tiles.contract(e, operands, out, bool(first.call.accumulate), first)
    else:
        _accumulate(first, operands, out, bool(first.call.accumulate))


def _accumulate(
    kernel: MicroKernel, operands: list[tuple[Packed, Packed]], out: Matrix, accumulate: bool
) -> None:
    """One product after the other, in a loop over the addresses of their operands."""
    e = kernel.e
    addresses = e.scratch(16 * (len(operands) + 1))
    for number, pair in enumerate([*operands, operands[-1]]):
        for side, operand in enumerate(pair):
            e.store(operand.pointer, e.offset(addresses, 16 * number + 8 * side), align=8)
    left = _Broadcast.of(e, operands[0][0])
    right = _Panels.of(e, operands[0][1], left)
    part = _share(kernel, "dst", right)

    def product(number: Value, accumulate: bool) -> None:
        at = e.step(addresses, number, 16)
        here, then = ([e.load("ptr", e.offset(at, i), align=8) for i in (i, i + 8)] for i in (0, 16))
        columns = operands[0][1]._replace(pointer=here[1])
        _contract(e, left._replace(pointer=here[0]), right._replace(parts=columns), out, accumulate, part, then)

    if not accumulate:
        product(e.i64(0), False)
    start = int(not accumulate)
    if start < len(operands):
        with e.loop(len(operands), start=start) as loop:
            product(loop.index, True)


def _share(kernel: MicroKernel, dst: str, right: _Panels, transposed: bool = False) -> tuple[Value, Value] | None:
    """The panels of columns that this call computes, if there are several."""
    if right.pieces == 1:
        return None
    return kernel.share(right.pieces, of=(dst,), **{"rows" if transposed else "columns": right.width})


class _Broadcast(NamedTuple):
    """The side read element by element: float32 at pointer + k * row_stride + m * column_stride.

    Attributes:
        panel: bytes between panels, in which m counts; None where all columns are in one.
    """

    pointer: Value
    row_stride: int
    columns: int
    column_stride: int
    panel: int | None = None

    @classmethod
    def of(cls, e: Emitter, parts: _Parts | Packed) -> _Broadcast:
        """As it lies in memory where that is float32; otherwise widened into scratch."""
        if isinstance(parts, Packed):
            return cls(parts.pointer, LINE, parts.columns, 4, parts.panels.panel)
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

    def blocks(self, e: Emitter, tall: int, body: Callable[[Value, Value, int], None]) -> None:
        """body(first column, its address, count) for all columns, at most `tall` at once."""
        width = tall if self.panel is None else WIDTH
        distance = width * self.column_stride if self.panel is None else self.panel
        full = self.columns // width
        if full:
            with e.loop(full) as loop:
                at = e.step(self.pointer, loop.index, distance)
                self._pieces(e, e.mul(loop.index, e.i64(width)), at, width, tall, body)
        if full * width < self.columns:
            self._pieces(e, e.i64(full * width), e.offset(self.pointer, full * distance), self.columns - full * width,
                         tall, body)

    def _pieces(
        self, e: Emitter, column: Value, pointer: Value, count: int, tall: int,
        body: Callable[[Value, Value, int], None],
    ) -> None:
        whole = count // tall * tall
        if whole:
            with e.loop(whole, step=tall) as loop:
                body(e.add(column, loop.index), e.step(pointer, loop.index, self.column_stride), tall)
        if whole < count:
            body(e.add(column, e.i64(whole)), e.offset(pointer, whole * self.column_stride), count - whole)


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
        width: columns of a panel.
        tall: rows of the register block.
        scratch: where a panel is packed as float32; None when vectors are loaded where they lie.
    """

    parts: _Parts | Packed
    rows: int
    columns: int
    width: int
    tall: int
    scratch: Value | None

    @property
    def pieces(self) -> int:
        return -(-self.columns // self.width)

    @classmethod
    def of(cls, e: Emitter, parts: _Parts | Packed, left: _Broadcast) -> _Panels:
        block = _register_block(e.host, left.panel is not None)
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
    e: Emitter, left: _Broadcast, right: _Panels, out: Matrix, accumulate: bool, part: tuple[Value, Value] | None,
    then: Sequence[Value] | None = None,
) -> None:
    """Panel by panel of the vector side: those between the two of `part`, or all.

    Args:
        then: addresses of the operands of the next product, of the same kind.
    """
    width, whole = right.width, right.columns // right.width
    if whole:
        first, end = (part[0], e.minimum(part[1], e.i64(whole))) if part else (e.i64(0), e.i64(whole))
        with e.loop(end, start=first) as loop:
            ahead = _ahead(e, left, right, loop.index, end if whole == right.pieces else None, then)
            _panel(e, left, right, e.mul(loop.index, e.i64(width)), width, out, accumulate, ahead)
    if whole < right.pieces:
        with e.when(e.compare("eq", part[1], e.i64(right.pieces))) if part else nullcontext():
            at = whole * width
            while at < right.columns:
                count = right.columns - at
                if right.scratch is None and not isinstance(right.parts, Packed):
                    count = _unpacked_width(e, right, count)
                ahead = _ahead(e, left, right, e.i64(whole), e.i64(right.pieces), then)
                _panel(e, left, right, e.i64(at), count, out, accumulate, ahead)
                at += count


class _Ahead(NamedTuple):
    """What to fetch while a panel is multiplied.

    Attributes:
        left: so many bytes after what is read of the left side.
        right: address of the next panel of columns.
    """

    left: Value
    right: Value


def _ahead(
    e: Emitter, left: _Broadcast, right: _Panels, panel: Value, end: Value | None, then: Sequence[Value] | None
) -> _Ahead | None:
    """The row panel after the one that is read, and the next panel of columns; in the last, those of the next product.

    Only for operands in panels, whose rows follow each other in memory.
    """
    if left.panel is None or not isinstance(right.parts, Packed):
        return None
    distance = right.width * right.parts.panels.panel // WIDTH
    rows, columns = e.i64(left.panel), e.step(right.parts.pointer, e.add(panel, e.i64(1)), distance)
    if then is not None and end is not None:
        last = e.compare("eq", e.add(panel, e.i64(1)), end)
        next_rows = e.sub(*(e.convert("ptrtoint", p, "i64") for p in (then[0], left.pointer)))
        rows, columns = e.select(last, next_rows, rows), e.select(last, then[1], columns)
    return _Ahead(rows, columns)


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
    dtype: DType
    column_stride: int
    valid: int

    def load(self, e: Emitter, row: Value, number: int) -> Value:
        pointer = e.offset(row, self.offsets[number])
        return elementwise.load(e, self.dtype, pointer, self.widths[number], self.column_stride, "f32")


def _panel(
    e: Emitter, left: _Broadcast, right: _Panels, column: Value, count: int, out: Matrix, accumulate: bool,
    ahead: _Ahead | None,
) -> None:
    """All rows of `count` result columns."""
    if isinstance(right.parts, Packed):
        vectors = _lines(e, right.parts, column, count)
    else:
        vectors = (_in_place if right.scratch is None else _pack)(e, right, column, count)
    corner = e.step(out.pointer, column, out.column_stride)

    def block(row: Value, first: Value, rows: int) -> None:
        target = out._replace(pointer=e.step(corner, row, out.row_stride))
        share = ahead
        if ahead is not None:
            # Every row block fetches some of the next panel of columns: a line per round of the contraction.
            lines = right.rows // _ROUND * LINE
            share = ahead._replace(right=e.step(ahead.right, row, lines // right.tall))
        _register_kernel(e, left._replace(pointer=first), vectors, right.rows, rows, target, accumulate, share)

    left.blocks(e, right.tall, block)


def _lines(e: Emitter, part: Packed, column: Value, count: int) -> _Vectors:
    """Vectors of a tile in panels; a column that begins none lies in the panel of the last one before it that does."""
    lanes = e.host.lanes
    offsets = [
        lane // WIDTH * part.panels.panel + lane % WIDTH * 4 for lane in range(0, count, lanes)
    ]
    panel = e.step(part.pointer, e.lshr(column, e.i64(_WIDTH_BITS)), part.panels.panel)
    first = e.step(panel, e.and_(column, e.i64(WIDTH - 1)), 4)
    return _Vectors(first, LINE, offsets, [lanes] * len(offsets), dtypes.float32, 4, count)


def _in_place(e: Emitter, right: _Panels, column: Value, count: int) -> _Vectors:
    """A panel read where it lies, in vectors that narrow towards the edge."""
    assert not isinstance(right.parts, Packed)
    (part,) = right.parts
    widths = _widths(count, e.host.lanes)
    offsets = [sum(widths[:i]) * part.column_stride for i in range(len(widths))]
    first = e.step(part.pointer, column, part.column_stride)
    return _Vectors(first, part.row_stride, offsets, widths, part.dtype, part.column_stride, count)


def _pack(e: Emitter, right: _Panels, column: Value, count: int) -> _Vectors:
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
            for width in _widths(count, lanes):
                value = elementwise.load(
                    e, part.dtype, e.offset(source, at * part.column_stride), width, part.column_stride, "f32"
                )
                e.store(value, e.offset(target, at * 4))
                at += width
    offsets = [i * lanes * 4 for i in range(vectors)]
    return _Vectors(right.scratch, stride, offsets, [lanes] * vectors, dtypes.float32, 4, count)


def _register_kernel(
    e: Emitter, left: _Broadcast, right: _Vectors, depth: int, rows: int, out: Matrix, accumulate: bool,
    ahead: _Ahead | None,
) -> None:
    """One register block of sums over the whole contraction."""

    def step(k: Value, sums: Sequence[Value]) -> list[Value]:
        row = e.step(right.pointer, k, right.stride)
        vectors = [right.load(e, row, i) for i in range(len(right.widths))]
        column = e.step(left.pointer, k, left.row_stride)
        if ahead is not None:
            e.prefetch(e.offset(column, ahead.left))
        ones = (e.load("float", e.offset(column, m * left.column_stride)) for m in range(rows))
        products = [(one, vector) for one in ones for vector in vectors]
        return [e.fma(e.splat(one, v.lanes), v, total) for (one, v), total in zip(products, sums, strict=True)]

    totals = tuple(e.f32(0, width) for _ in range(rows) for width in right.widths)
    rounds = depth // _ROUND if ahead is not None else 0
    if ahead is not None and rounds:
        with e.loop(rounds, *totals) as turn:
            e.prefetch(e.step(ahead.right, turn.index, LINE), locality=2)
            with e.loop(_ROUND, *turn.values) as loop:
                loop.carry(*step(e.add(e.mul(turn.index, e.i64(_ROUND)), loop.index), loop.values))
            turn.carry(*loop.results)
        totals = turn.results
    if rounds * _ROUND < depth:
        with e.loop(depth, *totals, start=rounds * _ROUND) as loop:
            loop.carry(*step(loop.index, loop.values))
        totals = loop.results
    for m in range(rows):
        start = e.offset(out.pointer, m * out.row_stride)
        at = 0
        for i, width in enumerate(right.widths):
            total = totals[m * len(right.widths) + i]
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
