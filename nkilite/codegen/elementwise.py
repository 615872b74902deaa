"""Elementwise algorithms: one pass over any number of operands, vectorized along the best dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from nkilite import dtypes
from nkilite.codegen import convert
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.codegen.loops import Carried
from nkilite.codegen.walk import Chunk, Walk
from nkilite.dtypes import DType
from nkilite.ir import nest
from nkilite.ir.sizes import Size

Body = Callable[..., Value]

_STRIDED_LANES = 8  # loaded and stored one by one: wider vectors are longer code, which is not faster
VECTORS_PER_STEP = 2  # native vectors per loop step: hides latency without spilling long expressions


def load(e: Emitter, dtype: DType, pointer: Value, lanes: int, stride: int, compute: str) -> Value:
    """`lanes` elements `stride` bytes apart, in the compute type.

    compute: "f32" converts to float32; "i32" extends integers to 32 bits; "bits" leaves the element's bits, as does
    "pattern" but for a bool, of which it makes 0 or 1.
    """
    scalar = convert.raw_scalar(dtype)
    if compute == "bits" and scalar == "float":
        scalar = "i32"
    if stride == 0:
        raw = e.splat(e.load(scalar, pointer), lanes)
    elif stride == dtype.itemsize:
        raw = e.load(scalar, pointer, lanes)
    else:
        raw = e.undef(scalar, lanes)
        for lane in range(lanes):
            raw = e.insert(raw, e.load(scalar, e.offset(pointer, lane * stride)), lane)
    return from_raw(e, dtype, raw, compute)


def bit_exact(dst: DType, src: DType) -> bool:
    """Whether a conversion from src to dst leaves every element's bits alone."""
    return dst == src or (dst is dtypes.float32 and src is dtypes.tfloat32)


def from_raw(e: Emitter, dtype: DType, raw: Value, compute: str) -> Value:
    """Element bits to the compute type."""
    if compute == "bits":
        return raw
    if compute == "pattern":
        return convert.truth(e, raw) if dtype is dtypes.bool_ else raw
    return convert.widen(e, dtype, raw) if compute == "f32" else convert.to_i32(e, dtype, raw)


def store(
    e: Emitter, dtype: DType, value: Value, pointer: Value, stride: int, compute: str, mask: Value | None = None
) -> None:
    """Convert and store; `mask` (i1 lanes) keeps the old element where false."""
    lanes = value.lanes
    if compute == "f32":
        raw = convert.narrow(e, dtype, value)
    elif compute == "i32":
        raw = convert.from_i32(e, dtype, value)
    else:
        raw = value
    if stride == dtype.itemsize or lanes == 1:
        if mask is not None:
            raw = e.select(mask, raw, e.load(raw.scalar, pointer, lanes))
        e.store(raw, pointer)
        return
    for lane in range(lanes):
        at = e.offset(pointer, lane * stride)
        one = e.extract(raw, lane)
        if mask is not None:
            one = e.select(e.extract(mask, lane), one, e.load(raw.scalar, at))
        e.store(one, at)


def step_lanes(e: Emitter, widest: int = 4) -> int:
    """Elements per loop step for elements of `widest` bytes or fewer."""
    return e.host.lanes * VECTORS_PER_STEP * 4 // max(widest, 4)


def by_lanes(e: Emitter, value: Callable[[int], Value]) -> dict[int, Value]:
    """Something as wide as each of a loop's steps may be; ask outside of the loop."""
    widest = step_lanes(e)
    return {lanes: value(lanes) for lanes in (widest >> i for i in range(widest.bit_length()))}


def map(
    kernel: MicroKernel,
    out: str,
    inputs: Sequence[str],
    body: Body,
    compute: str | Sequence[str] = "f32",
    store_as: str | None = None,
    mask: str | None = None,
) -> None:
    """out[i] = body(e, *inputs[i]) for every element.

    Args:
        inputs: tensor arguments; those smaller than `out` are broadcast along dimensions of size 1. An argument that
            is an immediate is passed as a splat of its float32 value.
        compute: compute type of the inputs (one for all, or one each); see `load`.
        store_as: compute type of what body returns; default that of the first input.
        mask: "body returns (value, i1 mask)" when given; elements whose mask is false keep their content.
    """
    e = kernel.e
    kinds = [compute] * len(inputs) if isinstance(compute, str) else list(compute)
    target = kernel.operands[out]
    tensors = [(name, kernel.operands[name]) for name in inputs if kernel.has(name)]
    sources = [_spread(operand, target) for _, operand in tensors]
    scalars = {name: kernel.immediate_f32(name) for name in inputs if not kernel.has(name)}
    pointers = [kernel.pointer(out), *(kernel.pointer(name) for name, _ in tensors)]
    operands = [target, *sources]

    def element(at: list[Value], strides: Sequence[int], lanes: int) -> None:
        values = []
        position = 1
        for name, kind in zip(inputs, kinds, strict=True):
            if name in scalars:
                values.append(e.splat(scalars[name], lanes))
            else:
                values.append(load(e, operands[position].dtype, at[position], lanes, strides[position], kind))
                position += 1
        result = body(e, *values)
        keep = None
        if mask is not None:
            result, keep = result  # type: ignore[misc]
        store(e, target.dtype, result, at[0], strides[0], store_as or (kinds[0] if kinds else "f32"), keep)

    visit(kernel, operands, pointers, element)


def visit(
    kernel: MicroKernel,
    operands: Sequence[CpuOperand],
    pointers: Sequence[Value],
    element: Callable[[list[Value], Sequence[int], int], None],
) -> None:
    """Call `element(pointers, byte strides, lanes)` so that every element is covered once, in any order.

    The first operand is written; code that knows no sizes may have more lanes than elements.
    """
    e = kernel.e
    sizes, layouts = [o.dtype.itemsize for o in operands], [o.layout for o in operands]
    dims, lanes = nest.loops(layouts), step_lanes(e)
    known = not dims or type(dims[-1].count) is not Size
    if dims:
        dims = nest.contiguous_last(dims, sizes, e.host.lanes if known else 1)
        if not known:
            lanes = e.host.lanes
        elif any(stride not in (0, size) for stride, size in zip(dims[-1].strides, sizes, strict=True)):
            lanes = min(lanes, _STRIDED_LANES)

    def step(chunk: Chunk, carried: Carried) -> Carried:
        element(chunk.pointers, chunk.strides, chunk.lanes)
        return carried

    Walk(operands, layouts, dims, lanes, None if known else 1).run(e, pointers, (), step)


def copy(kernel: MicroKernel, target: CpuOperand, source: CpuOperand, at: Sequence[Value]) -> None:
    """target = source, at two addresses: bits where these are all that a conversion would leave, else by float32."""
    e, compute = kernel.e, "bits" if bit_exact(target.dtype, source.dtype) else "f32"

    def element(at: list[Value], strides: Sequence[int], lanes: int) -> None:
        value = load(e, source.dtype, at[1], lanes, strides[1], compute)
        store(e, target.dtype, value, at[0], strides[0], compute)

    visit(kernel, [target, source], at, element)


def _spread(operand: CpuOperand, target: CpuOperand) -> CpuOperand:
    """Broadcast an operand to the target's shape unless it already has as many elements."""
    return operand if prod(operand.shape) == prod(target.shape) else operand.broadcast(target.shape)
