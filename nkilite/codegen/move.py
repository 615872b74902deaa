"""Moves between any two views: shapes that do not match, permuted dimensions, gathers and scatters."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod

from nkilite.codegen import copy, elementwise, loops, transpose
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.ir import nest


def move(kernel: MicroKernel, dst: str, src: str, axes: Sequence[int] | None = None) -> None:
    """dst = src, elements in row-major order of both shapes; through float32 where the dtypes differ.

    Either side may have a runtime index: one for the whole view, or one for each position of dimension 0
    (gather, scatter). Where out-of-bounds indices are skipped, nothing is written for them.

    Args:
        axes: dimension i of what is stored is dimension axes[i] of src. The shapes of dst and the reordered
            src must agree for a gather; otherwise only their sizes.
    """
    target, source = kernel.operands[dst], kernel.operands[src]
    if axes is not None:
        if source.by_row:
            target = _reordered(target, sorted(range(len(axes)), key=axes.__getitem__))
            if not kernel.call.skips_out_of_bounds and _gather_columns(kernel, target, source):
                return
        else:
            source = _reordered(source, axes)
    if not target.by_row and not source.by_row:
        dims = nest.loops([target.layout, source.layout])
        if dims is not None:
            write = copy.nested if axes is None else _shared
            write(kernel, target, source, dims, [kernel.pointer(dst), kernel.pointer(src)])
            return
    _copy_pieces(kernel, target, source)


def _shared(
    kernel: MicroKernel, target: CpuOperand, source: CpuOperand, dims: Sequence[nest.Dim], at: list[Value]
) -> None:
    """A copy between static layouts that threads share."""
    e = kernel.e
    cut = loops.cut(dims, target, source)
    if cut.units == 1 or target.indirection is not None or source.indirection is not None:
        copy.nested(kernel, target, source, dims, at)
        return
    count, (step, _) = dims[cut.level]
    by_rows = cut.unit == loops.ROWS and (count, step) == (target.shape[0], target.strides[0])
    part = kernel.share(cut.units, loops.ROWS, of=(target.name,)) if by_rows else kernel.share(cut.units)
    loops.units(e, dims, at, cut, lambda dims, at: copy.nested(kernel, target, source, dims, at), part)


def _reordered(operand: CpuOperand, axes: Sequence[int]) -> CpuOperand:
    return operand._replace(
        shape=tuple(operand.shape[a] for a in axes), strides=tuple(operand.strides[a] for a in axes)
    )


def _gather_columns(kernel: MicroKernel, target: CpuOperand, source: CpuOperand) -> bool:
    """A gather whose rows become columns of the target, in transposed blocks over a table of row addresses.

    Returns:
        False, with nothing written, if target or rows are not dense or need conversion.
    """
    e = kernel.e
    size = source.dtype.itemsize
    if not elementwise.bit_exact(target.dtype, source.dtype):
        return False
    if target.strides[0] != size or (source.shape[-1] > 1 and source.strides[-1] != size):
        return False
    count = source.shape[0]
    kernel.pointer(source.name)  # outside of the loop
    out, table = kernel.pointer(target.name), e.scratch(8 * count)
    with e.loop(count) as loop, kernel.rows([(source, loop.index)]) as (here,):
        e.store(here, e.step(table, loop.index, 8), align=8)

    steps = zip(source.shape[1:-1], source.strides[1:-1], target.strides[1:-1], strict=True)
    with loops.nested(e, [nest.Dim(n, (s, t)) for n, s, t in steps], [e.i64(0), out]) as (within, to):
        def row(position: Value, within: Value = within) -> Value:
            return e.offset(e.load("ptr", e.step(table, position, 8), align=8), within)

        transpose.columns(e, size, count, source.shape[-1], row, to, target.strides[-1])
    return True


def _copy_pieces(kernel: MicroKernel, target: CpuOperand, source: CpuOperand) -> None:
    """Copy piece by piece, where a piece has a static layout on both sides and its address is computed.

    This is how gathers and scatters run (a piece is a row), and shapes whose boundaries do not nest (a piece
    is the longest run that no boundary cuts).
    """
    e = kernel.e
    sides = (_Side(target), _Side(source))
    length, pieces = _pieces(sides)
    dims = nest.loops([inner for _, inner in pieces])
    assert dims is not None
    for side in sides:
        kernel.pointer(side.operand.name)
    with e.loop(prod(target.shape) // length) as loop:
        rows, numbers = zip(*(side.split(e, loop.index, length) for side in sides), strict=True)
        with kernel.rows([(side.operand, row) for side, row in zip(sides, rows, strict=True)]) as at:
            outer = zip(at, numbers, pieces, strict=True)
            at = [loops.address(e, row, number, layout) for row, number, (layout, _) in outer]
            copy.nested(kernel, target, source, dims, at)


class _Side:
    """One side of a copy: a row per index for a gather or scatter, otherwise a single row."""

    def __init__(self, operand: CpuOperand) -> None:
        self.operand = operand
        first = 1 if operand.by_row else 0
        self.row = nest.collapse((operand.shape[first:], operand.strides[first:]))
        self.length = prod(operand.shape[first:])

    def split(self, e: Emitter, piece: Value, length: int) -> tuple[Value, Value]:
        """The row that a piece of so many elements is in, and which piece of the row it is."""
        if not self.operand.by_row:
            return e.i64(0), piece
        per_row = e.i64(self.length // length)
        return e.binary("udiv", piece, per_row), e.binary("urem", piece, per_row)


def _pieces(sides: tuple[_Side, _Side]) -> tuple[int, list[tuple[nest.Layout, nest.Layout]]]:
    """The longest piece length that suits both sides, and each side's layouts of pieces and of a piece."""
    rows = [side.length for side in sides]
    innermost = [side.row[0][-1] if side.row[0] else 1 for side in sides]
    for length in (gcd(*rows), gcd(*innermost)):
        cuts = [nest.cut(side.row, length) for side in sides]
        if cuts[0] is not None and cuts[1] is not None and nest.unify([cuts[0][1], cuts[1][1]]) is not None:
            return length, [cuts[0], cuts[1]]
    raise AssertionError("runs of the greatest common divisor always nest")
