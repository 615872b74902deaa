"""Affine patterns: loops over a tile that know a linear function of every element's position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd, prod

from nkilite import dtypes
from nkilite.codegen import convert, elementwise
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.dtypes import DType
from nkilite.ir import nest

Element = Callable[[list[Value], Sequence[int], Value], None]


def visit(
    kernel: MicroKernel,
    operands: Sequence[CpuOperand],
    pattern: Sequence[tuple[int, int]],
    channel_multiplier: int,
    offset: Value,
    element: Element,
) -> None:
    """Call `element(pointers, byte strides, values)` so that every element is covered once.

    The pattern is one more operand whose "address" is the affine value, so that one loop nest advances both.

    Args:
        pattern: (step, num) pairs, outermost first, over the elements of a partition.
        offset: i64 added to every value; values are its low 32 bits, as i32 lanes.
    """
    e = kernel.e
    partitions = operands[0].shape[0]
    offset = e.add(offset, e.mul(kernel.from_row, e.i64(channel_multiplier)))
    if kernel.from_column is not None:  # some columns, of which there is a loop
        step = linear(pattern)
        assert step is not None
        offset = e.add(offset, e.mul(kernel.from_column, e.i64(step)))
        pattern = [(step, operands[0].columns)]
    affine = ((partitions, *(n for _, n in pattern)), (channel_multiplier, *(step for step, _ in pattern)))
    layouts = [*(o.layout for o in operands), affine]
    pointers = [kernel.pointer(o.name) for o in operands]
    dims = nest.unify(layouts)
    if dims is not None:
        sizes = [o.dtype.itemsize for o in operands]
        _descend(e, nest.contiguous_last(dims, [*sizes, 0], e.host.lanes), pointers, offset, element)
        return
    # Boundaries that do not nest: runs that none of them cuts, each from its computed start.
    layouts = [nest.collapse(layout) for layout in layouts]
    run = gcd(*(shape[-1] for shape, _ in layouts))
    cuts = [nest.cut(layout, run) for layout in layouts]
    inner = nest.unify([c[1] for c in cuts if c is not None])
    assert inner is not None
    with e.loop(prod(layouts[0][0]) // run) as loop:
        at, start = [], offset
        for pointer, cut in zip([*pointers, None], cuts, strict=True):
            assert cut is not None
            position = _position(e, loop.index, cut[0])
            if pointer is None:
                start = e.add(start, position)
            else:
                at.append(e.offset(pointer, position))
        _descend(e, inner, at, start, element)


def linear(pattern: Sequence[tuple[int, int]]) -> int | None:
    """The step from element to element of a partition; None if it differs."""
    _, steps = nest.collapse((tuple(n for _, n in pattern), tuple(step for step, _ in pattern)))
    return None if len(steps) > 1 else steps[0] if steps else 0


def _position(e: Emitter, index: Value, layout: nest.Layout) -> Value:
    """Sum of stride times coordinate for a row-major index."""
    total = e.i64(0)
    for n, stride in zip(reversed(layout[0]), reversed(layout[1]), strict=True):
        total = e.add(total, e.mul(e.binary("urem", index, e.i64(n)), e.i64(stride)))
        index = e.binary("udiv", index, e.i64(n))
    return total


def _descend(e: Emitter, dims: Sequence[nest.Dim], at: list[Value], value: Value, element: Element) -> None:
    """Open the loops; the last stride of each is the pattern's."""
    *outer, last = dims or [nest.Dim(1, (0,) * (len(at) + 1))]
    if outer:
        with e.loop(dims[0].count) as loop:
            inner = [e.step(p, loop.index, s) for p, s in zip(at, dims[0].strides[:-1], strict=True)]
            _descend(e, dims[1:], inner, e.add(value, e.mul(loop.index, e.i64(dims[0].strides[-1]))), element)
        return
    step = last.strides[-1]

    def piece(index: Value, lanes: int) -> None:
        first = e.convert("trunc", e.add(value, e.mul(index, e.i64(step))), "i32")
        steps = e.vector("i32", [_wrapped(lane * step) for lane in range(lanes)])
        pointers = [e.step(p, index, s) for p, s in zip(at, last.strides[:-1], strict=True)]
        element(pointers, last.strides[:-1], e.add(e.splat(first, lanes), steps))

    elementwise.chunks(e, last.count, elementwise.step_lanes(e), piece)


def _wrapped(value: int) -> int:
    """An integer as int32 arithmetic leaves it."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def from_int32(e: Emitter, dtype: DType, value: Value) -> Value:
    """int32 lanes as raw lanes of a dtype: integers saturate, floats round."""
    if dtype is dtypes.bool_ or dtype is dtypes.int32:
        return convert.from_i32(e, dtype, value)
    if not dtype.is_integer:
        return convert.narrow(e, dtype, e.convert("sitofp", value, "float"))
    signed = dtype.kind == "i"
    bits = 8 * dtype.itemsize - signed
    value = e.maximum(value, e.i32(-(1 << bits) if signed else 0, value.lanes))
    if bits < 31:
        value = e.minimum(value, e.i32((1 << bits) - 1, value.lanes))
    return convert.from_i32(e, dtype, value)


def iota(
    kernel: MicroKernel, dst: str, pattern: Sequence[tuple[int, int]], channel_multiplier: int, offset: str
) -> None:
    """Store the affine values themselves."""
    e = kernel.e
    target = kernel.operands[dst]

    def element(at: list[Value], strides: Sequence[int], values: Value) -> None:
        elementwise.store(e, target.dtype, from_int32(e, target.dtype, values), at[0], strides[0], "bits")

    visit(kernel, [target], pattern, channel_multiplier, kernel.immediate_i64(offset), element)


def select(
    kernel: MicroKernel,
    dst: str,
    on_true: str,
    on_false: str,
    pattern: Sequence[tuple[int, int]],
    channel_multiplier: int,
    offset: str,
    holds: Callable[[Emitter, Value], Value],
) -> None:
    """dst = on_true where `holds` (i1 lanes) of the affine value, else the float32 immediate on_false."""
    e = kernel.e
    target, source = kernel.operands[dst], kernel.operands[on_true]
    compute = "bits" if target.dtype == source.dtype else "f32"
    other = kernel.immediate_f32(on_false)
    others: dict[int, Value] = {}
    lanes = elementwise.step_lanes(e)
    while lanes:
        wide = e.splat(other, lanes)
        if compute == "bits":
            raw = convert.narrow(e, target.dtype, wide)
            wide = e.bitcast(raw, f"i{8 * target.dtype.itemsize}")
        others[lanes] = wide
        lanes //= 2

    def element(at: list[Value], strides: Sequence[int], values: Value) -> None:
        data = elementwise.load(e, source.dtype, at[1], values.lanes, strides[1], compute)
        chosen = e.select(holds(e, values), data, others[values.lanes])
        elementwise.store(e, target.dtype, chosen, at[0], strides[0], compute)

    visit(kernel, [target, source], pattern, channel_multiplier, kernel.immediate_i64(offset), element)
