"""Matmuls of operands in panels that add up in one view, and the elementwise instructions that take their sums away.

The work is cut into strips of columns. A strip of the sums goes through all matmuls and then, while it is in a near
cache, through the instructions that follow. What these will touch is fetched during the last of the matmuls.

With multiply-adds, every matmul adds its sums to the strip in memory; the strip of its moving operand stays in the
nearest cache while its stationary operand streams past, and the next matmul's is fetched. On the tile unit
(nkilite/codegen/tiles.py) sums stay in registers over all matmuls.
"""

from __future__ import annotations

from collections.abc import Sequence

from nkilite.codegen.body import Body
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.matrix import Matrix, Packed
from nkilite.codegen.register_block import Ahead, Broadcast, lines, multiply, register_block
from nkilite.host.memory import LINE
from nkilite.schedule.panels import WIDTH

_PIECE = 2 * WIDTH  # columns by which threads share the work
_POINTER = 8  # bytes
_TURNS = 4  # a register block is made in: something is fetched in each
_MOST_LINES = 8  # to fetch of a strip per row of the result


def multiply_add(
    e: Emitter, operands: Sequence[tuple[Packed, Packed]], out: Matrix | None, accumulate: bool,
    kernel: MicroKernel | None, transposed: bool = False, body: Body | None = None,
    rows: tuple[Value, Value] | None = None,
) -> None:
    """out (+)= sum over pairs of operands of left.T @ right; every pair is summed, then added.

    All lie in panels of the same kind, whose lines are of one or two partitions.

    Args:
        out: None if only the body needs the sums.
        kernel: whose dst `out` is, for threads to share the work.
        transposed: columns of `out` are rows of dst.
        rows: the panels of rows that this call is to do, if threads share those.
    """
    _, right = operands[0]
    pieces = -(-right.columns // _PIECE)
    share = e.i64(0), e.i64(pieces)
    if kernel is not None and pieces > 1 and rows is None:
        divided = ("dst", *(body.names if body is not None else ()))
        share = kernel.share(pieces, of=divided, **{"rows" if transposed else "columns": _PIECE})
    _Chain(e, operands, out, accumulate, body, rows).write(share)


def widest_strip(e: Emitter) -> int:
    """Columns of the widest strip."""
    return max(register_block(e, packed=True).vectors * e.host.lanes, _PIECE)


class _Chain:
    """Matmuls with multiply-adds, and what takes their sums, being written."""

    def __init__(
        self, e: Emitter, operands: Sequence[tuple[Packed, Packed]], out: Matrix | None, accumulate: bool,
        body: Body | None, rows: tuple[Value, Value] | None,
    ) -> None:
        self._e = e
        self._left, self._right = operands[0]
        self._count = len(operands)
        self._out, self._accumulate, self._body = out, accumulate, body
        self._rows = rows
        self._block = register_block(e, packed=True)
        # Where the operands of every matmul are, and of the one after the last.
        self._addresses = e.scratch(2 * _POINTER * (self._count + 1))
        for number, pair in enumerate(operands):
            self._put(number, [o.pointer for o in pair])

    def _put(self, number: int, pair: Sequence[Value]) -> None:
        for side, pointer in enumerate(pair):
            self._e.store(pointer, self._e.offset(self._addresses, (2 * number + side) * _POINTER), align=_POINTER)

    def _get(self, number: Value) -> list[Value]:
        at = self._e.step(self._addresses, number, 2 * _POINTER)
        return [self._e.load("ptr", self._e.offset(at, side * _POINTER), align=_POINTER) for side in range(2)]

    def write(self, share: tuple[Value, Value]) -> None:
        """The pieces of the columns between two.

        Where three of them make two strips of the widest kind they do, so that threads get equal shares all the same.
        """
        e, widest = self._e, widest_strip(self._e)
        whole, rest = divmod(self._right.columns, _PIECE)
        first, end = share
        stop = e.minimum(end, whole)
        if 2 * widest == 3 * _PIECE and whole >= 3:
            triples = e.binary("udiv", e.sub(stop, first), 3)
            start = e.mul(first, _PIECE)
            self._follow(widest)
            with e.loop(e.mul(triples, 2)) as loop:
                self._strip(e.add(start, e.mul(loop.index, widest)), widest)
            first = e.add(first, e.mul(triples, 3))
        if whole:
            self._follow(_PIECE)
            with e.loop(stop, start=first) as loop:
                self._strip(e.mul(loop.index, _PIECE), _PIECE)
        if rest:
            self._follow(0)
            with e.when(e.compare("eq", end, whole + 1)):
                self._strip(e.i64(whole * _PIECE), rest)

    def _follow(self, width: int) -> None:
        """After the last matmul of a strip comes the first of the next, so many columns on."""
        first = self._get(self._e.i64(0))
        self._put(self._count, [first[0], self._right._replace(pointer=first[1]).of(self._e, self._e.i64(width))])

    def _strip(self, column: Value, width: int) -> None:
        """All matmuls, and what takes their sums, on some columns."""
        e, out = self._e, self._out
        sums = self._body.sums if self._body is not None else None
        if out is not None:
            sums = out._replace(pointer=e.step(out.pointer, column, out.column_stride))
        assert sums is not None
        at_once = self._block.vectors * e.host.lanes
        whole = width // at_once
        with e.loop(self._count) as loop:
            with e.loop(whole) as parts:
                inner = e.mul(parts.index, at_once)
                self._part(loop.index, e.add(column, inner), at_once, _beside(e, sums, inner))
            if whole * at_once < width:
                inner = e.i64(whole * at_once)
                self._part(loop.index, e.add(column, inner), width - whole * at_once, _beside(e, sums, inner))
        if self._body is not None:
            self._body.strip(self._left.columns, column, width, self._rows)

    def _part(self, number: Value, column: Value, width: int, sums: Matrix) -> None:
        """One matmul on as many columns as a register block has, or fewer."""
        e, last = self._e, self._count - 1
        left, right = (s._replace(pointer=p) for s, p in zip((self._left, self._right), self._get(number), strict=True))
        next_right = self._right._replace(pointer=self._get(e.add(number, 1))[1]).of(e, column)
        adds = self._accumulate or (e.compare("ne", number, 0) if last else False)
        vectors = lines(e, right, column, width)
        # Rows of the result have equal shares in what comes next.
        fetched = min(_MOST_LINES, -(-right.lines * -(-width // WIDTH) // left.columns))
        each = -(-self._block.rows // _TURNS)

        def fetch(row: Value) -> None:
            line = e.step(next_right, row, fetched * LINE)
            for i in range(fetched * each):
                e.prefetch(e.offset(line, i * LINE), locality=2)
            if self._body is not None:
                with e.when(e.compare("eq", number, last)):
                    for i in range(each):
                        self._body.prefetch(e.add(row, i), column, width)

        def rows(row: Value, at: Value, count: int) -> None:
            side, target = Broadcast.of(e, left)._replace(pointer=at), _below(e, sums, row)
            ahead = Ahead(_TURNS, lambda turn: fetch(e.add(row, e.mul(turn, each))))
            multiply(e, side, vectors, right.lines, count, target, adds, ahead)

        Broadcast.of(e, left).blocks(e, self._block.rows, rows, self._rows)


def _beside(e: Emitter, sums: Matrix, column: Value) -> Matrix:
    return sums._replace(pointer=e.step(sums.pointer, column, sums.column_stride))


def _below(e: Emitter, sums: Matrix, row: Value) -> Matrix:
    return sums._replace(pointer=e.step(sums.pointer, row, sums.row_stride))
