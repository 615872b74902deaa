"""Elementwise algorithms: one pass over any number of operands, vectorized along the best dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from nkilite import dtypes
from nkilite.codegen import convert
from nkilite.codegen.ahead import fetch
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.codegen.loops import one_by_one
from nkilite.codegen.pieces import Piece, Side, pieces
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


def chunks(e: Emitter, count: int, lanes: int, body: Callable[[Value, int], None]) -> None:
    """Cover `count` elements: a loop of full vectors, then one narrower vector per bit of the remainder."""
    full = count // lanes * lanes
    if full:
        with e.loop(full, step=lanes) as loop:
            body(loop.index, lanes)
    at, width = full, lanes // 2
    while at < count:
        if count - at >= width:
            body(e.i64(at), width)
            at += width
        width //= 2


def filled(lanes: int, count: int) -> int:
    """As many lanes, or fewer, a power of two, as so many elements fill."""
    while lanes > count:
        lanes //= 2
    return lanes


def step_lanes(e: Emitter, widest: int = 4) -> int:
    """Elements per loop step for elements of `widest` bytes or fewer."""
    return e.host.lanes * VECTORS_PER_STEP * 4 // max(widest, 4)


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
    itemsizes = [o.dtype.itemsize for o in operands]
    dims = nest.loops([o.layout for o in operands])
    if dims is None:
        with one_by_one(e, [o.layout for o in operands], pointers) as (_, at):
            element(at, itemsizes, 1)
        return
    known = not dims or type(dims[-1].count) is not Size
    dims = nest.contiguous_last(dims, itemsizes, e.host.lanes if known else 1)
    if not dims:
        element(list(pointers), list(itemsizes), 1)
        return
    lanes = step_lanes(e)
    if known and any(stride not in (0, size) for stride, size in zip(dims[-1].strides, itemsizes, strict=True)):
        lanes = min(lanes, _STRIDED_LANES)

    def piece(piece: Piece, carried: tuple[Value, ...]) -> tuple[Value, ...]:
        element(piece.pointers, piece.strides, e.host.lanes)
        return carried

    def descend(level: int, at: list[Value]) -> None:
        dim = dims[level]
        if level < len(dims) - 1:
            with e.loop(dim.count) as loop:
                descend(level + 1, [e.step(p, loop.index, s) for p, s in zip(at, dim.strides, strict=True)])
            return

        def step(index: Value, width: int) -> None:
            here = [e.step(p, index, s) for p, s in zip(at, dim.strides, strict=True)]
            for operand, pointer, stride in zip(operands, here, dim.strides, strict=True):
                if stride == operand.dtype.itemsize:
                    fetch(e, operand.ahead, pointer, e.mul(index, e.i64(stride)), width * stride, dim.count * stride)
            element(here, dim.strides, width)

        if known:
            chunks(e, dim.count, lanes, step)
        else:
            runs = enumerate(zip(at, itemsizes, dim.strides, strict=True))
            sides = [Side(pointer, size, stride, i == 0) for i, (pointer, size, stride) in runs]
            pieces(e, dim.count, e.host.lanes, sides, piece)

    descend(0, list(pointers))


def _spread(operand: CpuOperand, target: CpuOperand) -> CpuOperand:
    """Broadcast an operand to the target's shape unless it already has as many elements."""
    return operand if prod(operand.shape) == prod(target.shape) else operand.broadcast(target.shape)
