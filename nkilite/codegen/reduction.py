"""Reductions of a tile over some of its dimensions, in a fixed order.

Where the innermost reduced loop is dense, its vectors are combined in several registers at once and folded to
a scalar at the end; where a kept loop is dense, its elements are the lanes and nothing needs folding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

from nkilite.codegen import elementwise, loops
from nkilite.codegen.ahead import fetch
from nkilite.codegen.emitter import INTEGERS, Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.codegen.pieces import Piece, Side, pieces
from nkilite.codegen.sums import TURNS, Combination, Slots, Sum
from nkilite.dtypes import DType
from nkilite.ir import nest
from nkilite.ir.nest import Dim
from nkilite.ir.sizes import Size
from nkilite.ir.types import contiguous_strides

_ACROSS = 4  # native vectors whose lanes are kept elements, combined at once


class Reduction(NamedTuple):
    """What is combined.

    Attributes:
        combine: associative and commutative operator of (e, element lanes, accumulator lanes).
        identity: the operand that `combine` ignores.
        compute: type of the lanes: "f32", or "pattern" for integers of the source's width.
        leading: when given, the first element is left out of the combination and the result is
            leading(e, first, combination of the others).
        finish: applied to the result before it is stored.
    """

    combine: Callable[[Emitter, Value, Value], Value]
    identity: float
    compute: str = "f32"
    leading: Callable[[Emitter, Value, Value], Value] | None = None
    finish: Callable[[Emitter, Value], Value] = lambda e, value: value

    def combination(self, source: DType, turns: int) -> Combination:
        """How elements of a dtype are combined."""
        scalar = "float" if self.compute == "f32" else INTEGERS[source.itemsize]
        return Combination(self.combine, scalar, self.identity, turns)


def reduce(kernel: MicroKernel, out: str, source: str, axes: Sequence[int], what: Reduction) -> None:
    """out = source combined over `axes`; the kept dimensions in row-major order are the elements of out."""
    operand, target = kernel.operands[source], kernel.operands[out]
    if kernel.sweep is not None:
        _take_columns(kernel, target, operand, what)
        return
    kept_axes = [a for a in range(len(operand.shape)) if a not in axes]
    kept_layout = _select(operand, kept_axes)
    reduced = [d for d in nest.unify([_select(operand, axes)]) or [] if d.count > 1]
    pointers = [kernel.pointer(out), kernel.pointer(source)]
    kept = nest.unify([target.layout, kept_layout])
    if kept is not None:
        _Reducer(kernel.e, target, operand, reduced, what).run(kept, pointers)
        return
    # The kept dimensions and those of `out` do not nest: reduce to a dense copy of `out` first.
    e, size = kernel.e, target.dtype.itemsize
    dense = target._replace(
        shape=kept_layout[0], strides=tuple(s * size for s in contiguous_strides(kept_layout[0]))
    )
    staged = e.scratch(prod(dense.shape) * size)
    kept = nest.unify([dense.layout, kept_layout])
    assert kept is not None
    _Reducer(e, dense, operand, reduced, what).run(kept, [staged, pointers[1]])
    elementwise.copy(kernel, target, dense, [pointers[0], staged])


def _take_columns(kernel: MicroKernel, target: CpuOperand, operand: CpuOperand, what: Reduction) -> None:
    """A few columns of a row, of which all are combined."""
    e, size, out = kernel.e, operand.dtype.itemsize, kernel.pointer(target.name)
    values = elementwise.load(e, operand.dtype, kernel.pointer(operand.name), operand.columns, size, what.compute)

    def finish(total: Value) -> None:
        elementwise.store(e, target.dtype, what.finish(e, total), out, target.dtype.itemsize, what.compute)

    assert kernel.sweep is not None
    kernel.sweep.combine(what.combination(operand.dtype, TURNS), values, finish)


def _select(operand: CpuOperand, axes: Sequence[int]) -> nest.Layout:
    return tuple(operand.shape[a] for a in axes), tuple(operand.strides[a] for a in axes)


class _Reducer:
    """The loops of one reduction; kept loops have strides (out, source), reduced ones (source,)."""

    def __init__(
        self, e: Emitter, target: CpuOperand, source: CpuOperand, reduced: list[Dim], what: Reduction
    ) -> None:
        self._e, self._target, self._source, self._what = e, target, source, what
        self._reduced = reduced
        self._slabs = [(0, reduced)] if what.leading is None else _without_first(reduced)

    def run(self, kept: list[Dim], pointers: list[Value]) -> None:
        """Store the reduction of every kept element."""
        size = self._source.dtype.itemsize
        along = bool(self._reduced) and self._reduced[-1].strides[0] == size
        dense = next((i for i, d in enumerate(kept) if d.strides[1] == size), None)
        if dense is None or (along and kept[dense].count < self._reduced[-1].count):
            with loops.nested(self._e, kept, pointers) as at:
                self._along(at)
            return
        across = kept[dense]
        outer = [d for i, d in enumerate(kept) if i != dense]
        with loops.nested(self._e, outer, pointers) as at:
            self._across(across, at)

    # --- along the innermost reduced loop -------------------------------------------------------------------

    def _along(self, at: list[Value]) -> None:
        """One kept element: the lanes are its reduced elements."""
        out, source = at
        total = None
        for offset, dims in self._slabs:
            part = self._combined(self._e.offset(source, offset), dims)
            total = part if total is None else self._what.combine(self._e, part, total)
        self._finish(source, 0, total, 1, out, 0)

    def _combined(self, pointer: Value, dims: list[Dim]) -> Value:
        """Everything in some loops, in one lane."""
        if not dims:
            return self._combine(pointer, 1, 0, self._identity(1))
        e, (count, (stride,)) = self._e, dims[-1]
        dense = stride == self._source.dtype.itemsize
        lanes, what = elementwise.step_lanes(e), self._what.combination(self._source.dtype, TURNS)
        total: Sum | Slots
        if dense and type(count) is not Size:
            lanes = loops.filled(lanes, count)
            total = Sum(e, what, lanes)
        else:
            total = Slots(e, what, lanes)

        def descend(level: int, pointer: Value) -> None:
            if level == len(dims) - 1:
                if isinstance(total, Slots):
                    self._pieces(pointer, dims[-1], lanes, what, total)
                else:
                    self._run(pointer, dims[-1], lanes, total)
                return
            with e.loop(dims[level].count) as loop, total.inside(loop, dims[level].count):
                descend(level + 1, e.step(pointer, loop.index, dims[level].strides[0]))

        descend(0, pointer)
        return total.result()

    def _pieces(self, pointer: Value, dim: Dim, lanes: int, what: Combination, total: Slots) -> None:
        """Combine a run of any number of elements, or of elements that are apart."""
        e, size = self._e, self._source.dtype.itemsize

        def body(piece: Piece, carried: tuple[Value, ...]) -> tuple[Value, ...]:
            value = self._load(piece.pointers[0], lanes, piece.strides[0])
            total.take(what.only(e, value, piece.inside))
            return carried

        pieces(e, dim.count, lanes, [Side(pointer, size, dim.strides[0], False)], body)

    def _run(self, pointer: Value, dim: Dim, lanes: int, total: Sum) -> None:
        """Combine one run of elements, a few at a time."""
        e, (stride,) = self._e, dim.strides

        def ahead(index: Value, width: int) -> None:
            if stride == self._source.dtype.itemsize:
                at, run = e.mul(index, stride), dim.count * stride
                fetch(e, self._source.ahead, e.step(pointer, index, stride), at, width * stride, run)

        def take(at: Value, width: int) -> None:
            total.take(self._load(at, width, stride))

        step = TURNS * lanes
        whole = dim.count // step * step
        if whole:
            with e.loop(whole, step=step) as loop, total.inside(loop, whole // step):
                ahead(loop.index, step)
                here = e.step(pointer, loop.index, stride)
                for turn in range(TURNS):
                    take(e.offset(here, turn * lanes * stride), lanes)
        first, width = whole, lanes
        while first < dim.count:
            if dim.count - first < width:
                width //= 2
                continue
            ahead(e.i64(first), width)
            take(e.offset(pointer, first * stride), width)
            first += width

    # --- across a dense kept loop ---------------------------------------------------------------------------

    def _across(self, dim: Dim, at: list[Value]) -> None:
        """The lanes are elements of a kept loop."""
        e, (out_stride, stride) = self._e, dim.strides
        wide = e.host.lanes * (_ACROSS if stride == self._source.dtype.itemsize else 1)

        def chunk(index: Value, width: int) -> None:
            out, source = e.steps(at, index, dim.strides)
            total = None
            for offset, dims in self._slabs:
                start = self._identity(width) if total is None else total
                total = self._down(e.offset(source, offset), dims, width, stride, start)
            self._finish(source, stride, total, width, out, out_stride)

        loops.chunks(e, dim.count, wide, chunk)

    def _down(self, pointer: Value, dims: list[Dim], width: int, stride: int, state: Value) -> Value:
        def combine(at: list[Value], state: Value) -> tuple[Value]:
            return (self._combine(at[0], width, stride, state),)

        return loops.walk(self._e, dims, [pointer], combine, state)[0]

    # --- elements -------------------------------------------------------------------------------------------

    def _load(self, pointer: Value, width: int, stride: int) -> Value:
        return elementwise.load(self._e, self._source.dtype, pointer, width, stride, self._what.compute)

    def _combine(self, pointer: Value, width: int, stride: int, state: Value) -> Value:
        return self._what.combine(self._e, self._load(pointer, width, stride), state)

    def _identity(self, width: int) -> Value:
        what = self._what.combination(self._source.dtype, 1)
        return self._e.const(what.scalar, what.identity, width)

    def _finish(
        self, source: Value, stride: int, total: Value | None, width: int, out: Value, out_stride: int
    ) -> None:
        """Store results; `total` is None when the first element is all there is."""
        e, what = self._e, self._what
        if what.leading is not None:
            first = self._load(source, width, stride)
            total = first if total is None else what.leading(e, first, total)
        assert total is not None
        value = what.finish(e, total)
        elementwise.store(e, self._target.dtype, value, out, out_stride, what.compute)


def _without_first(dims: list[Dim]) -> list[tuple[int, list[Dim]]]:
    """(byte offset, loops) of boxes that together are all elements but the first."""
    return [
        (dim.strides[0], [*([Dim(dim.count - 1, dim.strides)] if dim.count > 2 else []), *dims[i + 1 :]])
        for i, dim in enumerate(dims)
    ]
