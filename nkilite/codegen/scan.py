"""Scans: recurrences along the free dimensions, sequential in elements and parallel in partitions.

The lanes of a vector are partitions. Dense tiles are read and written in blocks that are transposed in
registers, so memory is touched along rows while the recurrence runs across columns; the state stays
in its register, and every partition sees the exact order of operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nkilite.codegen import columns, elementwise, loops
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.codegen.loops import one_by_one
from nkilite.ir import nest

Step = Callable[..., Value]


def scan(
    kernel: MicroKernel,
    out: str,
    tiles: Sequence[str],
    vectors: Sequence[str],
    initial: str | float,
    step: Step,
    last: str | None = None,
) -> None:
    """state = step(e, state, *elements of tiles, *vectors); out = state, for each element in row-major order.

    Args:
        tiles: tile arguments with as many elements per partition as out.
        vectors: arguments with one value per partition, or immediates.
        initial: the first state: such an argument, or a constant.
        step: works on float32 lanes.
        last: a [P, 1] argument that receives the last state.
    """
    e = kernel.e
    operands = [kernel.operands[name] for name in (out, *tiles)]
    pointers = [kernel.pointer(name) for name in (out, *tiles)]
    seeds = [*vectors, *([initial] if isinstance(initial, str) else [])]
    sources = {
        name: kernel.pointer(name) if kernel.has(name) else kernel.immediate_f32(name) for name in seeds
    }
    ending = kernel.pointer(last) if last is not None else None

    def rows(index: Value, lanes: int) -> None:
        def column(name: str) -> Value:
            if not kernel.has(name):
                return e.splat(sources[name], lanes)
            operand = kernel.operands[name]
            stride = operand.strides[0]
            at = e.step(sources[name], index, stride)
            return elementwise.load(e, operand.dtype, at, lanes, stride, "f32")

        repeated = [column(name) for name in vectors]
        state = column(initial) if isinstance(initial, str) else e.f32(initial, lanes)
        at = e.steps(pointers, index, [o.strides[0] for o in operands])

        def advance(state: Value, elements: list[Value]) -> Value:
            return step(e, state, *elements, *repeated)

        state = _Rows(e, operands, lanes, advance).run(at, state)
        if last is not None and ending is not None:
            operand = kernel.operands[last]
            stride = operand.strides[0]
            elementwise.store(e, operand.dtype, state, e.step(ending, index, stride), stride, "f32")

    loops.chunks(e, operands[0].shape[0], e.host.lanes, rows)


class _Rows:
    """The scan of `lanes` neighbouring partitions; operands are out, then the tiles."""

    def __init__(
        self,
        e: Emitter,
        operands: list[CpuOperand],
        lanes: int,
        advance: Callable[[Value, list[Value]], Value],
    ) -> None:
        self._e, self._operands, self._lanes, self._advance = e, operands, lanes, advance
        self._free = [o.free for o in operands]

    def run(self, at: list[Value], state: Value) -> Value:
        """Scan from the given state; returns the last one."""
        dims = nest.unify(self._free)
        if dims is None:
            with one_by_one(self._e, self._free, at, state) as (loop, moved):
                loop.carry(self._block(moved, [0] * len(at), 1, {}, loop.values[0]))
            return loop.results[0]
        *outer, last = dims or [nest.Dim(1, (0,) * len(at))]
        return loops.walk(self._e, outer, at, lambda at, state: (self._innermost(last, at, state),), state)[0]

    def _innermost(self, dim: nest.Dim, at: list[Value], state: Value) -> Value:
        e = self._e
        # A tile repeated along the loop is one column.
        fixed = {
            i: self._column(i, at[i]) for i, stride in enumerate(dim.strides) if i > 0 and stride == 0
        }
        start = 0
        for width in (columns.RUN, 1):
            end = start + (dim.count - start) // width * width
            if end > start:
                with e.loop(end, state, start=start, step=width) as loop:
                    moved = e.steps(at, loop.index, dim.strides)
                    loop.carry(self._block(moved, dim.strides, width, fixed, loop.values[0]))
                state, start = loop.results[0], end
        return state

    def _block(
        self, at: list[Value], strides: Sequence[int], width: int, fixed: dict[int, Value], state: Value
    ) -> Value:
        """`width` neighbouring columns."""
        tiles = [
            [fixed[i]] * width if i in fixed else self._load(i, at[i], strides[i], width)
            for i in range(1, len(at))
        ]
        results = []
        for elements in zip(*tiles, strict=True):
            state = self._advance(state, list(elements))
            results.append(state)
        self._store(at[0], strides[0], results)
        return state

    # --- columns --------------------------------------------------------------------------------------------

    def _column(self, i: int, pointer: Value) -> Value:
        """One element of each partition."""
        operand = self._operands[i]
        return elementwise.load(self._e, operand.dtype, pointer, self._lanes, operand.strides[0], "f32")

    def _load(self, i: int, pointer: Value, stride: int, width: int) -> list[Value]:
        """The elements of `width` columns."""
        operand = self._operands[i]
        if self._in_runs(operand, stride, width):
            return columns.load(self._e, operand.dtype, pointer, operand.strides[0], self._lanes)
        return [self._column(i, self._e.offset(pointer, c * stride)) for c in range(width)]

    def _store(self, pointer: Value, stride: int, states: list[Value]) -> None:
        e, operand = self._e, self._operands[0]
        pitch = operand.strides[0]
        if self._in_runs(operand, stride, len(states)):
            columns.store(e, operand.dtype, states, pointer, pitch)
            return
        for c, state in enumerate(states):
            elementwise.store(e, operand.dtype, state, e.offset(pointer, c * stride), pitch, "f32")

    def _in_runs(self, operand: CpuOperand, stride: int, width: int) -> bool:
        """Whether a block is made of dense runs of rows."""
        return stride == operand.dtype.itemsize and min(self._lanes, width) >= columns.RUN
