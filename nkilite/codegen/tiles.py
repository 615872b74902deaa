"""Matrix products on the CPU's tile unit (AMX): bfloat16 pairs in, float32 sums out, 16 by 16 by 32 at once.

A tile register holds 16 rows of 64 bytes. The unit multiplies a tile of 16 rows by 32 bfloat16 along the
contraction with one of 16 pairs along the contraction by 16 columns. Operands that lie in panels
(nkilite/schedule/panels.py) consist of such tiles; others are packed into them first, zero-padded: pairs of rows are
interleaved, which is the layout of the second kind and, transposed as 32-bit words, of the first. Subnormal operands,
products and sums count as zero, as the unit has it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from typing import NamedTuple

from nkilite import dtypes
from nkilite.codegen import elementwise, loops, pack_pairs, transpose
from nkilite.codegen.body import Body
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.matrix import Matrix, Packed
from nkilite.schedule.panels import TILE_ROWS

SIDE = 16  # rows of a tile register, and columns of sums in one
STRIP = 2 * SIDE  # columns of sums that are made before anything takes them
_ROW = 64  # bytes
_TILE = SIDE * _ROW

_LINES_AHEAD = 8  # most lines to fetch along with a block's four products

_SUMS = ((0, 1), (2, 3))  # registers of a two by two block of sums, of its left and its right operands
_LEFT = (4, 5)
_RIGHT = (6, 7)


Operand = Packed | Sequence[Matrix]  # one that lies in panels, or parts in rows that follow each other


class _Tiles(NamedTuple):
    """An operand as tiles: those of 16 columns follow each other along the contraction."""

    pointer: Value
    strip: int  # bytes between the tiles of 16 columns and those of the next
    steps: int  # tiles along the contraction
    columns: int

    @classmethod
    def of(cls, e: Emitter, operand: Operand, left: bool) -> _Tiles:
        if isinstance(operand, Packed):
            return cls(operand.pointer, operand.panels.panel, operand.rows // TILE_ROWS, operand.columns)
        columns = operand[0].columns
        packed = pack_pairs.packed(e, operand, SIDE)
        steps = packed.lines // SIDE
        if left:
            _transpose_tiles(e, packed.pointer, -(-columns // SIDE) * steps)
        return cls(packed.pointer, packed.panels.panel, steps, columns)

    def at(self, e: Emitter, column: Value) -> Value:
        return e.step(self.pointer, column, self.strip // SIDE)


def contract(
    e: Emitter, operands: Sequence[tuple[Operand, Operand]], out: Matrix | None, accumulate: bool,
    kernel: MicroKernel | None, body: Body | None = None, transposed: bool = False,
    rows: tuple[Value, Value] | None = None,
) -> None:
    """out (+)= sum over pairs of operands, and over their rows k, of left[k, m] * right[k, n].

    Args:
        out: None if only the body needs the sums.
        kernel: whose dst `out` is, for threads to share the work.
        transposed: columns of `out` are rows of dst.
        rows: the tiles of rows that this call is to do, if threads share those.
    """
    _Contraction(e, operands, accumulate, body, rows).run(out, kernel, transposed)


class _Contraction:
    """The sums of pairs of operands, by blocks of one or two by one or two tiles."""

    def __init__(
        self, e: Emitter, operands: Sequence[tuple[Operand, Operand]], accumulate: bool, body: Body | None,
        share: tuple[Value, Value] | None,
    ) -> None:
        self._e, self._accumulate, self._body, self._share = e, accumulate, body, share
        self._pairs = [(_Tiles.of(e, left, True), _Tiles.of(e, right, False)) for left, right in operands]
        self._rows, self._columns = self._pairs[0][0].columns, self._pairs[0][1].columns
        self._packed = isinstance(operands[0][1], Packed)

    def run(self, out: Matrix | None, kernel: MicroKernel | None, transposed: bool) -> None:
        e, body = self._e, self._body
        configure(e)
        spill = e.scratch(_TILE)

        def strip(j: Value, widths: list[int]) -> None:
            sums = body.sums if body is not None else None
            if out is not None:
                sums = out._replace(pointer=e.step(out.pointer, j, out.column_stride))
            assert sums is not None

            def block(i: Value, heights: list[int]) -> None:
                self._block(i, heights, j, widths, sums, spill)

            if self._share is None:
                _in_pairs(e, self._rows, block)
            else:
                _whole_tiles(e, *self._share, block)
            if body is not None:
                body.strip(self._rows, j, sum(widths), self._share)

        pieces = -(-self._columns // (2 * SIDE))
        part = None
        if kernel is not None and pieces > 1 and self._share is None:
            of = ("dst", *(body.names if body is not None else ()))
            part = kernel.share(pieces, of=of, **{"rows" if transposed else "columns": 2 * SIDE})
        _in_pairs(e, self._columns, strip, part)
        e.call("llvm.x86.tilerelease", "void", 0)

    def _block(
        self, i: Value, heights: list[int], j: Value, widths: list[int], sums: Matrix, spill: Value
    ) -> None:
        """Sums of one or two by one or two tiles that begin at row i, column j."""
        e = self._e
        in_place = sums.dense and sums.dtype is dtypes.float32
        corner = e.step(sums.pointer, i, sums.row_stride)
        edge = Matrix(spill, dtypes.float32, SIDE, _ROW, SIDE, 4)
        parts = {}  # of every tile: where it belongs, and whence and whereto registers move it
        for y, height in enumerate(heights):
            for x, width in enumerate(widths):
                pointer = e.offset(corner, y * SIDE * sums.row_stride + x * SIDE * sums.column_stride)
                part = sums._replace(pointer=pointer, rows=height, columns=width)
                parts[y, x] = part, part if in_place and height == width == SIDE else edge
        for (y, x), (part, tile) in parts.items():
            if not self._accumulate:
                e.call("llvm.x86.tilezero", "void", 0, e.const("i8", _SUMS[y][x]))
                continue
            if tile is edge:
                _copy_sums(e, part, tile)
            _move(e, "tileloadd64", _SUMS[y][x], tile.pointer, tile.row_stride)
        self._multiply(i, heights, j, widths, parts)
        for (y, x), (part, tile) in parts.items():
            _move(e, "tilestored64", _SUMS[y][x], tile.pointer, tile.row_stride)
            if tile is edge:
                _copy_sums(e, tile, part)

    def _multiply(
        self, i: Value, heights: list[int], j: Value, widths: list[int], at: Collection[tuple[int, int]]
    ) -> None:
        """Add the products of all pairs to a block's tiles; operands and the body's rows are fetched beside."""
        e, body, pairs = self._e, self._body, self._pairs
        each = -(-sum(heights) // (len(pairs) * pairs[0][0].steps))
        for number, (left, right) in enumerate(pairs):
            columns_at = right.at(e, j)
            ahead = None
            if self._packed:
                # Every block of rows fetches some of each tile of the columns that come next.
                lines = min(_LINES_AHEAD, -(-(2 * SIDE) ** 2 // self._rows))
                first = e.step(e.offset(columns_at, 2 * right.strip), i, lines * _ROW // (2 * SIDE))
                ahead = _Ahead(first, lines)

            def touch(k: Value, done: int = number * left.steps) -> None:
                """The body's rows that are as far along in the block as the contraction is."""
                if body is not None:
                    first = e.add(i, e.mul(e.add(k, done), each))
                    for row in range(each):
                        body.prefetch(e.add(first, row), j, sum(widths))

            _multiply(e, left, left.at(e, i), right, columns_at, at, ahead, touch)


def _in_pairs(
    e: Emitter, count: int, body: Callable[[Value, list[int]], None], part: tuple[Value, Value] | None = None
) -> None:
    """body(start, sizes of one or two tiles) for tiles of 16 that cover `count`; the last may be cut.

    Args:
        part: first and end of the pairs to visit, if not all.
    """
    pair = 2 * SIDE
    whole, pieces = count // pair, -(-count // pair)
    if whole:
        first, end = (part[0], e.minimum(part[1], whole)) if part else (0, whole)
        with e.loop(end, start=first) as loop:
            body(e.mul(loop.index, pair), [SIDE, SIDE])
    if whole < pieces:
        with e.when(e.compare("eq", part[1], pieces)) if part else nullcontext():
            body(e.i64(whole * pair), [min(SIDE, count - at) for at in range(whole * pair, count, SIDE)])


def _whole_tiles(e: Emitter, first: Value, end: Value, body: Callable[[Value, list[int]], None]) -> None:
    """body(start, sizes of one or two tiles) for the whole tiles between two: pairs, and what is left of them."""
    with e.loop(e.sub(end, 1), start=first, step=2) as loop:
        body(e.mul(loop.index, SIDE), [SIDE, SIDE])
    with e.when(e.compare("eq", e.and_(e.sub(end, first), 1), 1)):
        body(e.mul(e.sub(end, 1), SIDE), [SIDE])


class _Ahead(NamedTuple):
    """Lines to fetch at every step along the contraction, from two tiles further on at each."""

    pointer: Value
    lines: int


def _multiply(
    e: Emitter, left: _Tiles, rows: Value, right: _Tiles, columns: Value, at: Collection[tuple[int, int]],
    ahead: _Ahead | None, touch: Callable[[Value], None],
) -> None:
    """Add one or two strips of tiles times one or two strips to the sums."""
    ys, xs = sorted({y for y, _ in at}), sorted({x for _, x in at})
    with e.loop(left.steps) as k:
        first, second = e.step(rows, k.index, _TILE), e.step(columns, k.index, _TILE)
        if ahead is not None:
            fetched = e.step(ahead.pointer, k.index, 2 * _TILE)
            for line in range(ahead.lines):
                e.prefetch(e.offset(fetched, line * _ROW), locality=2)
        touch(k.index)
        for y in ys:
            _move(e, "tileloadd64", _LEFT[y], e.offset(first, y * left.strip), _ROW)
            for x in xs:
                if y == ys[0]:  # loads go beside products
                    _move(e, "tileloadd64", _RIGHT[x], e.offset(second, x * right.strip), _ROW)
                registers = (_SUMS[y][x], _LEFT[y], _RIGHT[x])
                e.call("llvm.x86.tdpbf16ps", "void", 0, *(e.const("i8", r) for r in registers))


def _move(e: Emitter, how: str, register: int, pointer: Value, stride: int) -> None:
    e.call(f"llvm.x86.{how}", "void", 0, e.const("i8", register), pointer, e.i64(stride))


def configure(e: Emitter) -> None:
    """All eight tile registers full size (palette 1)."""
    layout = [0] * 64
    layout[0] = 1
    layout[16:32] = [_ROW, 0] * 8
    layout[48:56] = [SIDE] * 8
    memory = e.scratch(64)
    e.store(e.vector("i8", layout), memory, align=64)
    e.call("llvm.x86.ldtilecfg", "void", 0, memory)


def _transpose_tiles(e: Emitter, tiles: Value, count: int) -> None:
    """Turn tiles of pairs by columns into tiles of columns by pairs, in place."""
    with e.loop(count) as loop:
        tile = e.step(tiles, loop.index, _TILE)
        if e.brief:
            with e.loop(SIDE) as i, e.loop(i.index) as j:
                above = e.step(e.step(tile, j.index, _ROW), i.index, 4)
                below = e.step(e.step(tile, i.index, _ROW), j.index, 4)
                word = e.load("i32", above)
                e.store(e.load("i32", below), above)
                e.store(word, below)
            return
        rows = [e.load("i32", e.offset(tile, n * _ROW), SIDE, align=_ROW) for n in range(SIDE)]
        for n, line in enumerate(transpose.registers(e, rows)):
            e.store(line, e.offset(tile, n * _ROW), align=_ROW)


def _copy_sums(e: Emitter, source: Matrix, target: Matrix) -> None:
    """Copy the elements that both have."""
    rows, columns = (min(pair) for pair in ((source.rows, target.rows), (source.columns, target.columns)))
    with e.loop(rows) as loop:
        at, to = (e.step(m.pointer, loop.index, m.row_stride) for m in (source, target))

        def piece(index: Value, lanes: int) -> None:
            here, there = e.step(at, index, source.column_stride), e.step(to, index, target.column_stride)
            value = elementwise.load(e, source.dtype, here, lanes, source.column_stride, "f32")
            elementwise.store(e, target.dtype, value, there, target.column_stride, "f32")

        loops.chunks(e, columns, SIDE, piece)
