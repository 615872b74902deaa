"""The innermost matrix product with multiply-adds: a block of sums in registers over the whole contraction.

One operand is broadcast element by element (the rows of the block), the other is read in vectors (its columns). Sums
live in registers over all of k and touch the result once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from nkilite import dtypes
from nkilite.codegen import convert, elementwise, loops
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.matrix import Matrix, Packed
from nkilite.dtypes import DType
from nkilite.host.memory import LINE
from nkilite.schedule.panels import WIDTH

Parts = tuple[Matrix, ...]  # matrices whose rows follow each other along the contraction

_WIDTH_BITS = WIDTH.bit_length() - 1
_UNROLLED = 4  # steps along the contraction: what is not a multiply-add takes the place of one
_ROW_PAD = 64  # bytes between widened rows, so that rows of 2 ** n bytes do not share cache sets


class Block(NamedTuple):
    """The register block: rows by vectors of sums, leaving registers for the vectors and one broadcast."""

    rows: int
    vectors: int


def register_block(e: Emitter, packed: bool = False) -> Block:
    """The block for a broadcast side in rows or in panels, of which half a panel makes a block where it can."""
    host = e.host
    if e.brief:
        return Block(2, 2) if packed else Block(1, 4)
    if host.registers >= 32:
        return Block(8, 3) if packed and 3 * host.lanes % WIDTH == 0 else Block(6, 4)
    return Block(6, 2) if host.fma else Block(4, 2)


class Broadcast(NamedTuple):
    """The side read element by element: one of 4 bytes at pointer + k * row_stride + m * column_stride.

    Attributes:
        panel: bytes between panels, in which m counts; None where all columns are in one.
    """

    pointer: Value
    row_stride: int
    columns: int
    column_stride: int
    panel: int | None = None

    @classmethod
    def of(cls, e: Emitter, parts: Parts | Packed) -> Broadcast:
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

    def blocks(
        self, e: Emitter, tall: int, body: Callable[[Value, Value, int], None],
        part: tuple[Value, Value] | None = None,
    ) -> None:
        """body(first column, its address, count) for all columns, at most `tall` at once.

        Args:
            part: first and end of the panels to visit, if not all; only whole ones.
        """
        width = tall if self.panel is None else WIDTH
        distance = width * self.column_stride if self.panel is None else self.panel
        full = self.columns // width
        if full:
            first, end = part or (0, full)
            with e.loop(end, start=first) as loop:
                at = e.step(self.pointer, loop.index, distance)
                self._pieces(e, e.mul(loop.index, width), at, width, tall, body)
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
            body(e.add(column, whole), e.offset(pointer, whole * self.column_stride), count - whole)


def _widen(e: Emitter, part: Matrix, source: Value, target: Value) -> None:
    """One row to dense float32."""

    def piece(index: Value, lanes: int) -> None:
        pointer = e.step(source, index, part.column_stride)
        value = elementwise.load(e, part.dtype, pointer, lanes, part.column_stride, "f32")
        e.store(value, e.step(target, index, 4))

    loops.chunks(e, part.columns, 4 * e.host.lanes, piece)


class Vectors(NamedTuple):
    """A panel ready to be read: vector i of row k at pointer + k * stride + offsets[i], `widths[i]` lanes.

    Attributes:
        valid: columns among the lanes; packed panels are padded with zeros to whole vectors.
        pairs: rows are pairs of rows of bfloat16, and elements words that have one of each.
    """

    pointer: Value
    stride: int
    offsets: list[int]
    widths: list[int]
    dtype: DType
    column_stride: int
    valid: int
    pairs: bool = False

    def load(self, e: Emitter, row: Value, number: int) -> Value:
        pointer = e.offset(row, self.offsets[number])
        if self.pairs:
            return e.load("i32", pointer, self.widths[number])
        return elementwise.load(e, self.dtype, pointer, self.widths[number], self.column_stride, "f32")


def lines(e: Emitter, part: Packed, column: Value, count: int) -> Vectors:
    """Vectors of a tile in panels; a column that begins none lies in the panel of the last one before it that does."""
    lanes = e.host.lanes
    offsets = [
        lane // WIDTH * part.panels.panel + lane % WIDTH * 4 for lane in range(0, count, lanes)
    ]
    panel = e.step(part.pointer, e.lshr(column, _WIDTH_BITS), part.panels.panel)
    first = e.step(panel, e.and_(column, WIDTH - 1), 4)
    return Vectors(first, LINE, offsets, [lanes] * len(offsets), dtypes.float32, 4, count, part.pairs)


def narrowing(count: int, lanes: int) -> list[int]:
    """Powers of two, at most `lanes`, that add up to `count`, largest first."""
    found = []
    while count:
        lanes = loops.filled(lanes, count)
        found.append(lanes)
        count -= lanes
    return found


class Ahead(NamedTuple):
    """What to fetch while a block is multiplied.

    Attributes:
        turns: in so many turns the contraction is made.
        fetch: called in every one of them with its number.
    """

    turns: int
    fetch: Callable[[Value], None]


def multiply(
    e: Emitter, left: Broadcast, right: Vectors, depth: int, rows: int, out: Matrix, accumulate: bool | Value,
    ahead: Ahead | None = None,
) -> None:
    """One block of sums over the whole contraction, added to `out` if wanted, rounded and stored.

    `depth` is in rows of `right`, and the elements of `left` are of its kind.
    """

    def step(column: Value, row: Value, sums: Sequence[Value]) -> list[Value]:
        """One step along the contraction, at addresses of both sides."""
        vectors = [right.load(e, row, i) for i in range(len(right.widths))]
        kind, combine = ("i32", e.dot_pairs) if right.pairs else ("float", e.fma)
        ones = (e.load(kind, e.offset(column, m * left.column_stride)) for m in range(rows))
        products = [(one, vector) for one in ones for vector in vectors]
        return [combine(e.splat(one, v.lanes), v, total) for (one, v), total in zip(products, sums, strict=True)]

    totals = tuple(e.f32(0, width) for _ in range(rows) for width in right.widths)
    done = 0
    if ahead is not None:
        # One index serves both sides, for they advance alike.
        assert left.row_stride == right.stride
        steps = depth // ahead.turns // _UNROLLED * _UNROLLED
        done = ahead.turns * steps
        with e.loop(ahead.turns if steps else 0, *totals) as turn:
            ahead.fetch(turn.index)
            column, row = (e.step(p, turn.index, steps * right.stride) for p in (left.pointer, right.pointer))
            with e.loop(steps * right.stride, *turn.values, step=_UNROLLED * right.stride) as loop:
                sums: Sequence[Value] = loop.values
                here, there = e.offset(column, loop.index), e.offset(row, loop.index)
                for i in range(_UNROLLED):
                    sums = step(e.offset(here, i * right.stride), e.offset(there, i * right.stride), sums)
                loop.carry(*sums)
            turn.carry(*loop.results)
        totals = turn.results
    if done < depth:
        with e.loop(depth, *totals, start=done) as loop:
            column = e.step(left.pointer, loop.index, left.row_stride)
            loop.carry(*step(column, e.step(right.pointer, loop.index, right.stride), loop.values))
        totals = loop.results
    if isinstance(accumulate, bool):
        _deposit(e, totals, right, rows, out, accumulate)
    else:
        for adds, condition in ((True, accumulate), (False, e.not_(accumulate))):
            with e.when(condition):
                _deposit(e, totals, right, rows, out, adds)


def _deposit(
    e: Emitter, totals: Sequence[Value], right: Vectors, rows: int, out: Matrix, accumulate: bool
) -> None:
    """Add the old content if wanted, round and store."""
    for m in range(rows):
        start = e.offset(out.pointer, m * out.row_stride)
        at = 0
        for i, width in enumerate(right.widths):
            total = totals[m * len(right.widths) + i]
            for piece in narrowing(min(width, right.valid - at), width):
                inner = at - sum(right.widths[:i])
                value = total if piece == width else e.shuffle(total, None, range(inner, inner + piece))
                pointer = e.offset(start, at * out.column_stride)
                if accumulate:
                    old = elementwise.load(e, out.dtype, pointer, piece, out.column_stride, "f32")
                    value = e.add(old, value)
                elementwise.store(e, out.dtype, value, pointer, out.column_stride, "f32")
                at += piece
