"""Walks the free dimensions of one partition in vectors, in row-major positions, carrying values along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

from nkilite.codegen.ahead import fetch
from nkilite.codegen.elementwise import filled
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand
from nkilite.codegen.loops import one_by_one
from nkilite.codegen.pieces import Piece, Side, pieces
from nkilite.ir import nest
from nkilite.ir.nest import Dim
from nkilite.ir.sizes import Size

Carried = tuple[Value, ...]


class Chunk(NamedTuple):
    """The elements of one step.

    Attributes:
        pointers, strides: of every operand: the element in lane 0, and bytes between lanes.
        position: row-major index of the element in lane 0, an i64.
        apart: positions between lanes.
        lanes: how many.
        inside: of every lane, whether there is an element in it; None if there is.
    """

    pointers: list[Value]
    strides: Sequence[int]
    position: Value
    apart: int
    lanes: int
    inside: Value | None = None


Step = Callable[[Chunk, Carried], Carried]

_NEVER_DENSE = -1  # an item size no stride has: positions do not count when choosing the loop to vectorize


class FreeWalk:
    """How the elements of a partition are visited: loops, and lanes per step.

    All operands have the same number of elements per partition. The position of an element is its row-major
    index in them, whatever the order of visits.

    Attributes:
        lanes: elements of the widest step; narrower steps, each a power of two, cover the rest.
    """

    def __init__(
        self, operands: Sequence[CpuOperand], lanes: int, ordered: bool = False, written: int | None = None
    ) -> None:
        """
        Args:
            ordered: visit elements in row-major order; otherwise the best loop is made the innermost.
            written: of so many operands, the first, elements are written. Given that, steps may have lanes that are
                not inside.
        """
        self._operands = operands
        self._layouts = [(o.shape[1:], o.strides[1:]) for o in operands]
        dims = nest.unify([*self._layouts, ((prod(operands[0].shape[1:]),), (1,))])
        if dims is not None and not ordered:
            dims = nest.contiguous_last(dims, [*(o.dtype.itemsize for o in operands), _NEVER_DENSE], lanes)
        self._dims = dims
        innermost = dims[-1].count if dims else 1
        self._written = written if type(innermost) is Size else None
        self.lanes = lanes if self._written is not None else filled(lanes, innermost)

    def run(self, e: Emitter, pointers: Sequence[Value], initial: Carried, step: Step) -> Carried:
        """Visit every element once; returns what the last step carried."""
        if self._dims is None:
            with one_by_one(e, self._layouts, pointers, *initial) as (loop, at):
                loop.carry(*step(self._single(at, loop.index), loop.values))
            return loop.results
        if not self._dims:
            return step(self._single(list(pointers), e.i64(0)), initial)
        return self._descend(e, self._dims, [*pointers, e.i64(0)], initial, step)

    def _single(self, pointers: list[Value], position: Value) -> Chunk:
        return Chunk(pointers, [o.dtype.itemsize for o in self._operands], position, 1, 1)

    def _descend(self, e: Emitter, dims: list[Dim], at: list[Value], carried: Carried, step: Step) -> Carried:
        dim = dims[0]
        if len(dims) > 1:
            with e.loop(dim.count, *carried) as loop:
                loop.carry(*self._descend(e, dims[1:], _advance(e, at, loop.index, dim), loop.values, step))
            return loop.results

        def visit(index: Value, width: int, values: Carried) -> Carried:
            *pointers, position = _advance(e, at, index, dim)
            for operand, pointer, stride in zip(self._operands, pointers, dim.strides[:-1], strict=True):
                if stride == operand.dtype.itemsize:
                    fetch(e, operand.ahead, pointer, e.mul(index, e.i64(stride)), width * stride, dim.count * stride)
            return step(Chunk(pointers, dim.strides[:-1], position, dim.strides[-1], width), values)

        if self._written is not None:
            return self._pieces(e, dim, at, carried, step)
        start, width = dim.count // self.lanes * self.lanes, self.lanes
        if start:
            with e.loop(start, *carried, step=width) as loop:
                loop.carry(*visit(loop.index, width, loop.values))
            carried = loop.results
        while start < dim.count:
            width //= 2
            if dim.count - start >= width:
                carried = visit(e.i64(start), width, carried)
                start += width
        return carried

    def _pieces(self, e: Emitter, dim: Dim, at: list[Value], carried: Carried, step: Step) -> Carried:
        """A loop of any number of trips."""
        *strides, apart = dim.strides
        sides = [
            Side(p, o.dtype.itemsize, s, i < (self._written or 0))
            for i, (p, o, s) in enumerate(zip(at[:-1], self._operands, strides, strict=True))
        ]

        def body(piece: Piece, values: Carried) -> Carried:
            position = e.add(at[-1], e.mul(piece.first, e.i64(apart)))
            return step(Chunk(piece.pointers, piece.strides, position, apart, self.lanes, piece.inside), values)

        return pieces(e, dim.count, self.lanes, sides, body, *carried)


def _advance(e: Emitter, at: list[Value], index: Value, dim: Dim) -> list[Value]:
    """Pointers and position `index` trips further along a loop."""
    *pointers, position = at
    *strides, positions = dim.strides
    moved = [e.step(p, index, s) for p, s in zip(pointers, strides, strict=True)]
    return [*moved, e.add(position, e.mul(index, e.i64(positions)))]
