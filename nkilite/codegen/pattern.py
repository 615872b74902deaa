"""Affine patterns: loops over a tile that know a linear function of every element's position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd, prod

from nkilite import dtypes
from nkilite.codegen import convert, elementwise, loops
from nkilite.codegen.emitter import INTEGERS, Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.codegen.loops import Carried
from nkilite.codegen.walk import Chunk, Walk
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

    Args:
        pattern: (step, num) pairs, outermost first, over the elements of a partition.
        offset: i64 added to every value; values are its low 32 bits, as i32 lanes.
    """
    e = kernel.e
    partitions = operands[0].shape[0]
    offset = e.step(offset, kernel.from_row, channel_multiplier)
    if kernel.from_column is not None:  # some columns, of which there is a loop
        apart = linear(pattern)
        assert apart is not None
        offset = e.step(offset, kernel.from_column, apart)
        pattern = [(apart, operands[0].columns)]
    affine = ((partitions, *(n for _, n in pattern)), (channel_multiplier, *(step for step, _ in pattern)))
    layouts, pointers = [*(o.layout for o in operands), affine], [kernel.pointer(o.name) for o in operands]

    def step(chunk: Chunk, carried: Carried) -> Carried:
        first = e.convert("trunc", chunk.number, "i32")
        steps = e.vector("i32", [_wrapped(lane * chunk.apart) for lane in range(chunk.lanes)])
        element(chunk.pointers, chunk.strides, e.add(e.splat(first, chunk.lanes), steps))
        return carried

    lanes, dims = elementwise.step_lanes(e), nest.unify(layouts)
    if dims is not None:
        dims = nest.contiguous_last(dims, [*(o.dtype.itemsize for o in operands), 0], e.host.lanes)
        Walk(operands, layouts, dims, lanes).run(e, pointers, (), step, offset)
        return
    # Boundaries that do not nest: runs that none of them cuts, each from its computed start.
    layouts = [nest.collapse(layout) for layout in layouts]
    run = gcd(*(shape[-1] for shape, _ in layouts))
    outer, inner = zip(*(found for layout in layouts if (found := nest.cut(layout, run)) is not None), strict=True)
    with e.loop(prod(layouts[0][0]) // run) as loop:
        *at, first = [loops.address(e, p, loop.index, o) for p, o in zip([*pointers, offset], outer, strict=True)]
        Walk(operands, list(inner), nest.unify(list(inner)), lanes).run(e, at, (), step, first)


def linear(pattern: Sequence[tuple[int, int]]) -> int | None:
    """The step from element to element of a partition; None if it differs."""
    _, steps = nest.collapse((tuple(n for _, n in pattern), tuple(step for step, _ in pattern)))
    return None if len(steps) > 1 else steps[0] if steps else 0


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
    value = e.maximum(value, -(1 << bits) if signed else 0)
    if bits < 31:
        value = e.minimum(value, (1 << bits) - 1)
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

    def wide(lanes: int) -> Value:
        wide = e.splat(other, lanes)
        if compute == "bits":
            wide = e.bitcast(convert.narrow(e, target.dtype, wide), INTEGERS[target.dtype.itemsize])
        return wide

    others = elementwise.by_lanes(e, wide)

    def element(at: list[Value], strides: Sequence[int], values: Value) -> None:
        data = elementwise.load(e, source.dtype, at[1], values.lanes, strides[1], compute)
        chosen = e.select(holds(e, values), data, others[values.lanes])
        elementwise.store(e, target.dtype, chosen, at[0], strides[0], compute)

    visit(kernel, [target, source], pattern, channel_multiplier, kernel.immediate_i64(offset), element)
