"""Reductions of a tile over some of its dimensions, in a fixed order.

Where the innermost reduced loop is dense, its vectors are combined in several registers at once and folded to
a scalar at the end; where a kept loop is dense, its elements are the lanes and nothing needs folding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

from nkilite.codegen import elementwise, nest
from nkilite.codegen.ahead import fetch
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.codegen.nest import Dim
from nkilite.ir.types import contiguous_strides

# Native vectors combined independently: covers the latency of a combination at two loads per cycle.
ACCUMULATORS = 8


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


def reduce(kernel: MicroKernel, out: str, source: str, axes: Sequence[int], what: Reduction) -> None:
    """out = source combined over `axes`; the kept dimensions in row-major order are the elements of out."""
    operand, target = kernel.operands[source], kernel.operands[out]
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
    loops = nest.unify([dense.layout, kept_layout])
    assert loops is not None
    _Reducer(e, dense, operand, reduced, what).run(loops, [staged, pointers[1]])

    def copy(at: list[Value], strides: Sequence[int], lanes: int) -> None:
        bits = elementwise.load(e, target.dtype, at[1], lanes, strides[1], "bits")
        elementwise.store(e, target.dtype, bits, at[0], strides[0], "bits")

    elementwise.visit(kernel, [target, dense], [pointers[0], staged], copy)


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
        if dense is None and not along and kept and kept[-1].count >= self._e.host.lanes:
            dense = len(kept) - 1  # everything is strided: gathered lanes that need no folding
        if dense is None or (along and kept[dense].count < self._reduced[-1].count):
            self._loops(kept, pointers, self._along)
            return
        across = kept[dense]
        outer = [d for i, d in enumerate(kept) if i != dense]
        self._loops(outer, pointers, lambda at: self._across(across, at))

    def _loops(self, dims: list[Dim], at: list[Value], body: Callable[[list[Value]], None]) -> None:
        if not dims:
            body(at)
            return
        with self._e.loop(dims[0].count) as loop:
            moved = [self._e.step(p, loop.index, s) for p, s in zip(at, dims[0].strides, strict=True)]
            self._loops(dims[1:], moved, body)

    # --- along the innermost reduced loop -------------------------------------------------------------------

    def _along(self, at: list[Value]) -> None:
        """One kept element: the lanes are its reduced elements."""
        out, source = at
        total = None
        for offset, dims in self._slabs:
            part = self._fold(self._accumulate(self._e.offset(source, offset), dims))
            total = part if total is None else self._what.combine(self._e, part, total)
        self._finish(source, 0, total, 1, out, 0)

    def _accumulate(self, pointer: Value, dims: list[Dim]) -> list[Value]:
        """Accumulators of decreasing width that together cover the loops."""
        if not dims:
            return [self._combine(pointer, 1, 0, self._identity(1))]
        e, (count, (stride,)) = self._e, dims[-1]
        dense = stride == self._source.dtype.itemsize
        pieces = _pieces(count, e.host.lanes * (ACCUMULATORS if dense else 1))

        def descend(level: int, pointer: Value, state: list[Value]) -> list[Value]:
            if level == len(dims) - 1:
                return [
                    self._run(pointer, stride, start, trips, value)
                    for (start, trips, _), value in zip(pieces, state, strict=True)
                ]
            with e.loop(dims[level].count, *state) as loop:
                inner = e.step(pointer, loop.index, dims[level].strides[0])
                loop.carry(*descend(level + 1, inner, list(loop.values)))
            return list(loop.results)

        return descend(0, pointer, [self._identity(width) for _, _, width in pieces])

    def _run(self, pointer: Value, stride: int, start: int, trips: int, state: Value) -> Value:
        """Combine `trips` vectors, the first at element `start`, into an accumulator of their width."""
        e, width = self._e, state.lanes
        with e.loop(start + trips * width, state, start=start, step=width) as loop:
            here = e.step(pointer, loop.index, stride)
            if stride == self._source.dtype.itemsize:
                offset, run = e.mul(loop.index, e.i64(stride)), self._reduced[-1].count * stride
                fetch(e, self._source.ahead, here, offset, width * stride, run)
            loop.carry(self._combine(here, width, stride, loop.values[0]))
        return loop.results[0]

    def _fold(self, accumulators: list[Value]) -> Value:
        """Combine accumulators and their lanes to one lane, halving the widest each time."""
        e, waiting = self._e, {a.lanes: a for a in accumulators}
        lanes = max(waiting)
        value = waiting.pop(lanes)
        while value.lanes > 1:
            half = value.lanes // 2
            low, high = e.shuffle(value, None, range(half)), e.shuffle(value, None, range(half, 2 * half))
            value = self._what.combine(e, high, low)
            if half in waiting:
                value = self._what.combine(e, waiting.pop(half), value)
        return value

    # --- across a dense kept loop ---------------------------------------------------------------------------

    def _across(self, dim: Dim, at: list[Value]) -> None:
        """The lanes are elements of a kept loop."""
        e, (out_stride, stride) = self._e, dim.strides
        wide = e.host.lanes * (ACCUMULATORS // 2 if stride == self._source.dtype.itemsize else 1)

        def chunk(index: Value, width: int) -> None:
            out, source = (e.step(p, index, s) for p, s in zip(at, dim.strides, strict=True))
            total = None
            for offset, dims in self._slabs:
                start = self._identity(width) if total is None else total
                total = self._down(e.offset(source, offset), dims, width, stride, start)
            self._finish(source, stride, total, width, out, out_stride)

        elementwise.chunks(e, dim.count, wide, chunk)

    def _down(self, pointer: Value, dims: list[Dim], width: int, stride: int, state: Value) -> Value:
        if not dims:
            return self._combine(pointer, width, stride, state)
        with self._e.loop(dims[0].count, state) as loop:
            inner = self._e.step(pointer, loop.index, dims[0].strides[0])
            loop.carry(self._down(inner, dims[1:], width, stride, loop.values[0]))
        return loop.results[0]

    # --- elements -------------------------------------------------------------------------------------------

    def _load(self, pointer: Value, width: int, stride: int) -> Value:
        return elementwise.load(self._e, self._source.dtype, pointer, width, stride, self._what.compute)

    def _combine(self, pointer: Value, width: int, stride: int, state: Value) -> Value:
        return self._what.combine(self._e, self._load(pointer, width, stride), state)

    def _identity(self, width: int) -> Value:
        scalar = "float" if self._what.compute == "f32" else f"i{8 * self._source.dtype.itemsize}"
        return self._e.const(scalar, self._what.identity, width)

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


def _pieces(count: int, widest: int) -> list[tuple[int, int, int]]:
    """(first element, vectors, lanes): full vectors, then at most one of each narrower power of two."""
    pieces = []
    start, width = 0, widest
    while start < count:
        trips = (count - start) // width
        if trips:
            pieces.append((start, trips, width))
            start += trips * width
        width //= 2
    return pieces


def _without_first(dims: list[Dim]) -> list[tuple[int, list[Dim]]]:
    """(byte offset, loops) of boxes that together are all elements but the first."""
    return [
        (dim.strides[0], [*([Dim(dim.count - 1, dim.strides)] if dim.count > 2 else []), *dims[i + 1 :]])
        for i, dim in enumerate(dims)
    ]
