"""Walks elements in vectors, carrying values along: all of some operands, or the free dimensions of one partition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from nkilite.codegen import loops
from nkilite.codegen.ahead import fetch
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand
from nkilite.codegen.loops import Carried
from nkilite.codegen.pieces import Piece, Side, pieces
from nkilite.ir import nest
from nkilite.ir.nest import Dim
from nkilite.ir.sizes import Size


class Chunk(NamedTuple):
    """The elements of one step.

    Attributes:
        pointers, strides: of every operand: the element in lane 0, and bytes between lanes.
        number: what the walk counts, of the element in lane 0: an i64.
        apart: from lane to lane.
        lanes: how many.
        inside: of every lane, whether there is an element in it; None if there is.
    """

    pointers: list[Value]
    strides: Sequence[int]
    number: Value
    apart: int
    lanes: int
    inside: Value | None = None


Step = Callable[[Chunk, Carried], Carried]

_NEVER_DENSE = -1  # an item size no stride has: positions do not count when choosing the loop to vectorize


class Walk(NamedTuple):
    """How elements are visited: loops, and lanes per step.

    Attributes:
        layouts: of the operands, and of a number if there is one more, which grows as addresses do.
        dims: loops that suit all of these; None if there are none.
        lanes: elements of the widest step; narrower steps, each a power of two, cover the rest.
        written: where the code does not know how long the innermost loop is: of so many operands, the first, elements
            are written, and steps may have lanes that are not inside.
    """

    operands: Sequence[CpuOperand]
    layouts: list[nest.Layout]
    dims: list[Dim] | None
    lanes: int
    written: int | None = None

    @classmethod
    def free(
        cls, operands: Sequence[CpuOperand], lanes: int, ordered: bool = False, written: int | None = None
    ) -> Walk:
        """That of the elements of a partition, as many of all operands, which counts their row-major positions.

        Args:
            ordered: visit elements in row-major order; otherwise the best loop is made the innermost.
            written: as the attribute, where steps may have lanes that are not inside.
        """
        layouts = [*(o.free for o in operands), ((operands[0].columns,), (1,))]
        dims = nest.unify(layouts)
        if dims is not None and not ordered:
            dims = nest.contiguous_last(dims, [*(o.dtype.itemsize for o in operands), _NEVER_DENSE], lanes)
        innermost = dims[-1].count if dims else 1
        if written is not None and type(innermost) is Size:
            return cls(operands, layouts, dims, lanes, written)
        return cls(operands, layouts, dims, loops.filled(lanes, innermost))

    def run(
        self, e: Emitter, pointers: Sequence[Value], initial: Carried, step: Step, first: Value | None = None
    ) -> Carried:
        """Visit every element once; returns what the last step carried. The number begins at `first`, or at 0."""
        counted = len(self.layouts) > len(pointers)
        at, sizes = [*pointers, *[first or e.i64(0)] * counted], [*(o.dtype.itemsize for o in self.operands), 1]
        if self.dims is None:
            with loops.one_by_one(e, self.layouts, at, *initial) as (loop, here):
                loop.carry(*step(self._chunk(e, here, sizes, 1), loop.values))
            return loop.results
        if not self.dims:
            return step(self._chunk(e, at, sizes, 1), initial)
        *outer, last = self.dims
        innermost = self._pieces if self.written is not None else self._chunks
        return loops.walk(e, outer, at, lambda at, *values: innermost(e, last, at, values, step), *initial)

    def _chunk(
        self, e: Emitter, at: Sequence[Value], strides: Sequence[int], lanes: int, inside: Value | None = None
    ) -> Chunk:
        count = len(self.operands)
        number, apart = (at[count], strides[count]) if count < len(at) else (e.i64(0), 0)
        return Chunk(list(at[:count]), strides[:count], number, apart, lanes, inside)

    def _chunks(self, e: Emitter, dim: Dim, at: list[Value], carried: Carried, step: Step) -> Carried:
        """A loop of so many trips."""

        def visit(index: Value, width: int, *values: Value) -> Carried:
            here = e.steps(at, index, dim.strides)
            for operand, pointer, stride in zip(self.operands, here, dim.strides, strict=False):
                if stride == operand.dtype.itemsize:
                    fetch(e, operand.ahead, pointer, e.mul(index, stride), width * stride, dim.count * stride)
            return step(self._chunk(e, here, dim.strides, width), values)

        return loops.chunks(e, dim.count, self.lanes, visit, *carried)

    def _pieces(self, e: Emitter, dim: Dim, at: list[Value], carried: Carried, step: Step) -> Carried:
        """A loop of any number of trips."""
        count = len(self.operands)
        sides = [
            Side(p, o.dtype.itemsize, s, i < (self.written or 0))
            for i, (p, o, s) in enumerate(zip(at, self.operands, dim.strides, strict=False))
        ]

        def body(piece: Piece, values: Carried) -> Carried:
            here = [*piece.pointers, *e.steps(at[count:], piece.first, dim.strides[count:])]
            return step(self._chunk(e, here, [*piece.strides, *dim.strides[count:]], self.lanes, piece.inside), values)

        return pieces(e, dim.count, self.lanes, sides, body, *carried)
