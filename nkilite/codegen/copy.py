"""Moving and filling memory: copies with and without conversion, and constants."""

from __future__ import annotations

from nkilite import dtypes
from nkilite.codegen import convert, elementwise, nest
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import DType

_BITS = {1: "i8", 2: "i16", 4: "i32"}
_VECTORS = 4  # native vectors in flight per loop step of a dense copy


def bit_exact(dst: DType, src: DType) -> bool:
    """Whether a copy between the dtypes moves bits: equal dtypes, or one that every value of the other fits in."""
    return dst == src or (dst is dtypes.float32 and src is dtypes.tfloat32)


def move(kernel: MicroKernel, dst: str, src: str) -> None:
    """dst = src, elements in row-major order of both shapes; through float32 where the dtypes differ."""
    target, source = kernel.operands[dst], kernel.operands[src]
    e = kernel.e
    if not bit_exact(target.dtype, source.dtype):
        elementwise.map(kernel, dst, (src,), lambda e, x: x)
        return
    size = target.dtype.itemsize
    dims = nest.unify([target.layout, source.layout])
    if dims is None or (dims and any(s != size for s in dims[-1].strides)):
        elementwise.map(kernel, dst, (src,), lambda e, x: x, compute="bits")
        return
    at = [kernel.pointer(dst), kernel.pointer(src)]

    def descend(level: int, at: list[Value]) -> None:
        if level < len(dims) - 1:
            with e.loop(dims[level].count) as loop:
                descend(level + 1, [e.step(p, loop.index, s) for p, s in zip(at, dims[level].strides, strict=True)])
            return
        copy_bytes(e, at[0], at[1], (dims[level].count if dims else 1) * size)

    descend(0, at)


def copy_bytes(e: Emitter, dst: Value, src: Value, count: int) -> None:
    """Copy a dense run of `count` bytes."""
    native = e.host.vector_bits // 8
    step = native * _VECTORS
    full = count // step * step
    if full:
        with e.loop(full, step=step) as loop:
            at = [e.offset(src, loop.index), e.offset(dst, loop.index)]
            values = [e.load("i8", e.offset(at[0], i * native), native) for i in range(_VECTORS)]
            for i, value in enumerate(values):
                e.store(value, e.offset(at[1], i * native))
    at_byte, width = full, step // 2
    while at_byte < count:
        if count - at_byte >= width:
            lanes = min(width, native)
            for piece in range(at_byte, at_byte + width, lanes):
                e.store(e.load("i8", e.offset(src, piece), lanes), e.offset(dst, piece))
            at_byte += width
        width //= 2


def fill(kernel: MicroKernel, dst: str, value: str) -> None:
    """Every element of dst becomes an immediate, converted once from float64."""
    e = kernel.e
    target = kernel.operands[dst]
    scalar = constant_bits(e, target.dtype, kernel.immediate(value))
    wide = {lanes: e.splat(scalar, lanes) for lanes in _widths(elementwise.step_lanes(e))}

    def element(at: list[Value], strides: object, lanes: int) -> None:
        elementwise.store(e, target.dtype, wide[lanes], at[0], strides[0], "bits")  # type: ignore[index]

    elementwise.visit(kernel, [target], [kernel.pointer(dst)], element)


def _widths(lanes: int) -> list[int]:
    widths = []
    while lanes:
        widths.append(lanes)
        lanes //= 2
    return widths


def constant_bits(e: Emitter, dtype: DType, value: Value) -> Value:
    """A float64 scalar as the element bits of a dtype: integers round to nearest even and saturate; NaN becomes 0."""
    if dtype.kind == "x":
        return e.const(_BITS[dtype.itemsize], 0)
    if dtype is dtypes.bool_:
        return e.convert("zext", e.compare("une", value, e.const("double", 0)), "i8")
    if dtype.is_integer:
        bits = 8 * dtype.itemsize
        low, high = (0, (1 << bits) - 1) if dtype.kind == "u" else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        least, most = e.const("double", low), e.const("double", high)
        value = e.select(e.compare("ord", value, value), value, e.const("double", 0))
        value = e.select(e.compare("olt", value, least), least, value)
        value = e.select(e.compare("ogt", value, most), most, value)
        whole = e.convert("fptosi", e.intrinsic("llvm.rint", value), "i64")
        return e.convert("trunc", whole, _BITS[dtype.itemsize])
    raw = convert.narrow(e, dtype, e.splat(e.convert("fptrunc", value, "float"), e.host.lanes))
    return e.extract(e.bitcast(raw, _BITS[dtype.itemsize]), 0)
