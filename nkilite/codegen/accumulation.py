"""Matmuls of operands in panels that add up in one view, and the elementwise instructions that take their sums away.

The work is cut into strips of columns. A strip of the sums goes through all matmuls and then, while it is in a near
cache, through the instructions that follow. What these will touch is fetched during the last of the matmuls.

With multiply-adds, every matmul adds its sums to the strip in memory; the strip of its moving operand stays in the
nearest cache while its stationary operand streams past, and the next matmul's is fetched. On the tile unit
(nkilite/codegen/tiles.py) sums stay in registers over all matmuls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nkilite.codegen import matrix, tiles
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.followers import Followers
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.matrix import Matrix, Packed
from nkilite.codegen.register_block import Ahead, Broadcast, lines, multiply, register_block
from nkilite.ir.group import Accumulation
from nkilite.ir.panels import LINE, WIDTH

_PIECE = 2 * WIDTH  # columns by which threads share the work
_POINTER = 8  # bytes
_TURNS = 4  # a register block is made in: something is fetched in each
_MOST_LINES = 8  # to fetch of a strip per row of the result


def write(members: Sequence[MicroKernel], plan: Accumulation) -> None:
    """The code of a group."""
    matmuls, following = members[: plan.products], members[plan.products :]
    first = matmuls[0]
    accumulate = bool(first.call.accumulate)
    operands = [(_packed(k, "stationary"), _packed(k, "moving")) for k in matmuls]
    rows, columns = (o.columns for o in operands[0])
    followers = Followers(following, plan.sums, rows, columns) if following else None
    out = None if plan.sums else matrix.direct(first, "dst")
    if plan.sums:
        for kernel in matmuls:
            kernel.private.add("dst")
    if tiles.takes(first, "stationary", "moving"):
        tiles.contract(first.e, operands, out, accumulate, first, followers)
    else:
        multiply_add(first.e, operands, out, accumulate, first, followers=followers)


def _packed(kernel: MicroKernel, name: str) -> Packed:
    found = matrix.packed(kernel, name)
    assert found is not None
    return found


def multiply_add(
    e: Emitter, operands: Sequence[tuple[Packed, Packed]], out: Matrix | None, accumulate: bool,
    kernel: MicroKernel | None, transposed: bool = False, followers: Followers | None = None,
) -> None:
    """out (+)= sum over pairs of operands of left.T @ right; every pair is summed, then added.

    Args:
        out: None if only the followers need the sums.
        kernel: whose dst `out` is, for threads to share the work.
        transposed: columns of `out` are rows of dst.
    """
    left, right = operands[0]
    block = register_block(e.host, packed=True)
    at_once = block.vectors * e.host.lanes
    each = -(-block.rows // _TURNS)
    scratch = None
    if out is None:
        assert kernel is not None
        scratch = matrix.dense_scratch(kernel, kernel.operands["dst"].dtype, left.columns, max(at_once, _PIECE))
    addresses = e.scratch(2 * _POINTER * (len(operands) + 1))

    def put(number: int, pair: Sequence[Value]) -> None:
        for side, pointer in enumerate(pair):
            e.store(pointer, e.offset(addresses, (2 * number + side) * _POINTER), align=_POINTER)

    def get(number: Value) -> list[Value]:
        at = e.step(addresses, number, 2 * _POINTER)
        return [e.load("ptr", e.offset(at, side * _POINTER), align=_POINTER) for side in range(2)]

    for number, pair in enumerate(operands):
        put(number, [o.pointer for o in pair])

    def strip(first: Value, width: int) -> None:
        """All of the work on some columns."""
        sums = scratch if out is None else out._replace(pointer=e.step(out.pointer, first, out.column_stride))
        assert sums is not None
        with e.loop(len(operands)) as loop:
            here, then = get(loop.index), get(e.add(loop.index, e.i64(1)))
            last = e.compare("eq", loop.index, e.i64(len(operands) - 1))
            adds = accumulate or (e.compare("ne", loop.index, e.i64(0)) if len(operands) > 1 else False)

            def part(inner: Value, count: int) -> None:
                """As many columns as a register block has."""
                column = e.add(first, inner)
                vectors = lines(e, right._replace(pointer=here[1]), column, count)
                corner = e.step(sums.pointer, inner, sums.column_stride)
                next_strip = right._replace(pointer=then[1]).of(e, column)
                fetched = min(_MOST_LINES, -(-right.rows * -(-count // WIDTH) // left.columns))

                def rows(row: Value, at: Value, tall: int) -> None:
                    def fetch(turn: Value) -> None:
                        """The share that rows of the result have in what comes next."""
                        number = e.add(row, e.mul(turn, e.i64(each)))
                        line = e.step(next_strip, number, fetched * LINE)
                        for i in range(fetched * each):
                            e.prefetch(e.offset(line, i * LINE), locality=2)
                        if followers is not None:
                            with e.when(last):
                                for i in range(each):
                                    followers.touch(e.add(number, e.i64(i)), column, count)

                    target = sums._replace(pointer=e.step(corner, row, sums.row_stride))
                    side = Broadcast.of(e, left)._replace(pointer=at)
                    multiply(e, side, vectors, right.rows, tall, target, adds, Ahead(_TURNS, fetch))

                Broadcast.of(e, left._replace(pointer=here[0])).blocks(e, block.rows, rows)

            whole = width // at_once
            with e.loop(whole) as parts:
                part(e.mul(parts.index, e.i64(at_once)), at_once)
            if whole * at_once < width:
                part(e.i64(whole * at_once), width - whole * at_once)
        if followers is not None:
            followers.write(first, width, scratch)

    def follow(width: int) -> None:
        """After the last matmul of a strip comes the first of the next."""
        put(len(operands), [left.pointer, right.of(e, e.i64(width))])

    share = None
    pieces = -(-right.columns // _PIECE)
    if kernel is not None and pieces > 1:
        divided = ("dst", *(sorted(followers.names) if followers is not None else ()))
        share = kernel.share(pieces, of=divided, **{"rows" if transposed else "columns": _PIECE})
    _strips(e, right.columns, at_once, share, strip, follow)


def _strips(
    e: Emitter, columns: int, widest: int, share: tuple[Value, Value] | None, body: Callable[[Value, int], None],
    begin: Callable[[int], None],
) -> None:
    """body(first column, width) for the pieces of `share`, or all; begin(width) before those of one width.

    Where three pieces make two strips of the widest kind they do, so that threads get equal shares all the same.
    """
    whole, rest = divmod(columns, _PIECE)
    first, end = share or (e.i64(0), e.i64(whole + bool(rest)))
    stop = e.minimum(end, e.i64(whole))
    if 2 * widest == 3 * _PIECE and whole >= 3:
        begin(widest)
        triples = e.binary("udiv", e.sub(stop, first), e.i64(3))
        start = e.mul(first, e.i64(_PIECE))
        with e.loop(e.mul(triples, e.i64(2))) as loop:
            body(e.add(start, e.mul(loop.index, e.i64(widest))), widest)
        first = e.add(first, e.mul(triples, e.i64(3)))
    if whole:
        begin(_PIECE)
        with e.loop(stop, start=first) as loop:
            body(e.mul(loop.index, e.i64(_PIECE)), _PIECE)
    if rest:
        begin(0)
        with e.when(e.compare("eq", end, e.i64(whole + 1))):
            body(e.i64(whole * _PIECE), rest)
