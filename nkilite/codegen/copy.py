"""Copies between static layouts, with and without conversion, and constants."""

from __future__ import annotations

from collections.abc import Sequence

from nkilite import dtypes
from nkilite.codegen import convert, elementwise, loops, transpose
from nkilite.codegen.ahead import Ahead, fetch
from nkilite.codegen.emitter import INTEGERS, Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.dtypes import DType
from nkilite.host.memory import LINE
from nkilite.ir import nest
from nkilite.ir.sizes import Size

_VECTORS = 4  # native vectors in flight per loop step of a dense copy
_SHORT_VECTOR = 16  # bytes
_LONG_RUN = 8 << 10  # what a run must reach for non-temporal stores to pay
_STREAMED_RUN = 512  # the same where nothing will read it soon
_STAGED_RUN = 4 << 10  # of a row that transposes fill in one go


def nested(
    kernel: MicroKernel, target: CpuOperand, source: CpuOperand, dims: Sequence[nest.Dim], at: list[Value]
) -> None:
    """Copy over loops whose strides are those of the target and of the source, in any order.

    Equal dtypes move bits: dense runs by whole vectors, runs that are dense along different loops in
    transposed blocks. Different dtypes convert through float32.
    """
    e = kernel.e
    size = target.dtype.itemsize
    exact = elementwise.bit_exact(target.dtype, source.dtype)
    dense = exact and (not dims or dims[-1].strides == (size, size))
    past_caches, turned = loops.past_caches(target), loops.sides(dims, size)
    if exact and not dense and turned is not None:
        if loops.whole_lines(target, dims[turned[1]].strides[0]):
            transpose.blocks(e, dims, turned, at, size, past_caches)
        else:
            _staged(e, dims, turned, at, size, past_caches)
        return
    if not dense:
        shape = tuple(d.count for d in dims) or (1,)
        sides = [
            o._replace(shape=shape, strides=tuple(d.strides[i] for d in dims) or (o.dtype.itemsize,))
            for i, o in enumerate((target, source))
        ]
        elementwise.copy(kernel, sides[0], sides[1], at)
        return

    *outer, run = dims or [nest.Dim(1, (size, size))]
    bytes = run.count * size
    streams = past_caches and bytes >= (_STREAMED_RUN if target.streams else _LONG_RUN)
    with loops.nested(e, outer, at) as (to, origin):
        (_stream_bytes if streams else copy_bytes)(e, to, origin, bytes, source.ahead)


def _staged(
    e: Emitter, dims: Sequence[nest.Dim], sides: tuple[int, int], at: Sequence[Value], size: int, past_caches: bool
) -> None:
    """Transpose to scratch memory, a few columns of the source at a time, and from there copy long runs."""
    across, down = sides
    rows, run = (
        loops.Cut.of(dims, side, min(bytes // size, dims[side].count))
        for side, bytes in ((down, loops.BAND), (across, _STAGED_RUN))
    )
    pitch = run.unit * size + LINE
    scratch = e.scratch(rows.unit * pitch)

    def block(dims: list[nest.Dim], at: list[Value]) -> None:
        wide, tall = dims[across], dims[down]
        turned = nest.Dim(wide.count, (size, wide.strides[1])), nest.Dim(tall.count, (pitch, size))
        with loops.nested(e, [d for i, d in enumerate(dims) if i not in sides], at) as (to, origin):
            transpose.blocks(e, turned, (0, 1), [scratch, origin], size)
            with e.loop(tall.count) as loop:
                line, filled = e.step(to, loop.index, tall.strides[0]), e.step(scratch, loop.index, pitch)
                bytes = wide.count * size
                (_stream_bytes if past_caches and bytes >= _STREAMED_RUN else copy_bytes)(e, line, filled, bytes)

    def columns(dims: list[nest.Dim], at: list[Value]) -> None:
        loops.units(e, dims, at, run, block)

    loops.units(e, dims, at, rows, columns)


def copy_bytes(e: Emitter, dst: Value, src: Value, count: int, ahead: Ahead | None = None) -> None:
    """Copy a dense run of `count` bytes."""
    native = e.host.vector_bits // 8
    step = native * _VECTORS
    if type(count) is Size:
        _copy_any(e, dst, src, count, step)
        return
    full = count // step * step
    if full:
        with e.loop(full, step=step) as loop:
            at = [e.offset(src, loop.index), e.offset(dst, loop.index)]
            values = [e.load("i8", e.offset(at[0], i * native), native) for i in range(_VECTORS)]
            fetch(e, ahead, at[0], loop.index, step, count)
            for i, value in enumerate(values):
                e.store(value, e.offset(at[1], i * native))
    done, width = full, step // 2
    while done < count:
        if count - done >= width:
            e.store(e.load("i8", e.offset(src, done), width), e.offset(dst, done))
            done += width
        width //= 2


def _copy_any(e: Emitter, dst: Value, src: Value, count: Size, step: int) -> None:
    """The same for any count."""
    done: int = 0
    for bytes in (step, _SHORT_VECTOR, 1):
        end = count // bytes * bytes
        with e.loop(end, start=done, step=bytes) as loop:
            value = e.load("i8", e.offset(src, loop.index), bytes)
            e.store(value, e.offset(dst, loop.index))
        done = end


def fill(kernel: MicroKernel, dst: str, value: str) -> None:
    """Every element of dst becomes an immediate, converted once from float64."""
    e = kernel.e
    target = kernel.operands[dst]
    bits = constant_bits(e, target.dtype, kernel.immediate(value))
    wide = elementwise.by_lanes(e, lambda lanes: e.splat(bits, lanes))
    pointer = kernel.pointer(dst)

    def element(at: list[Value], strides: Sequence[int], lanes: int) -> None:
        elementwise.store(e, target.dtype, wide[lanes], at[0], strides[0], "bits")

    elementwise.visit(kernel, [target], [pointer], element)


def _stream_bytes(e: Emitter, dst: Value, src: Value, count: int, ahead: Ahead | None = None) -> None:
    """Copy a dense run of `count` bytes around the caches: whole lines by non-temporal stores, its ends by plain ones.

    No line is stored to in both ways: that would write it to memory twice.
    """
    address = e.convert("ptrtoint", dst, "i64")
    head = e.and_(e.sub(0, address), LINE - 1)
    _copy_few(e, dst, src, head)
    rest = e.sub(count, head)
    first, target, done = e.offset(src, head), e.offset(dst, head), e.i64(0)
    native = min(e.host.vector_bits // 8, LINE)
    for step in (LINE * _VECTORS, LINE):
        end = e.and_(rest, -step)
        with e.loop(end, start=done, step=step) as loop:
            at = e.offset(first, loop.index)
            values = [e.load("i8", e.offset(at, i), native) for i in range(0, step, native)]
            fetch(e, ahead, at, loop.index, step, count)
            for i, value in enumerate(values):
                to = e.offset(e.offset(target, loop.index), i * native)
                e.store(value, to, align=native, streaming=True)
        done = end
    _copy_few(e, e.offset(target, done), e.offset(first, done), e.sub(rest, done))


def _copy_few(e: Emitter, dst: Value, src: Value, count: Value) -> None:
    """Copy less than a line, of which `count` is known when the code runs."""
    done, width = e.i64(0), LINE // 2
    while width:
        part = e.and_(count, width)
        with e.when(e.compare("ne", part, 0)):
            e.store(e.load("i8", e.offset(src, done), width), e.offset(dst, done))
        done = e.add(done, part)
        width //= 2


def move_where(kernel: MicroKernel, dst: str, src: str, predicate: str, reverse: bool) -> None:
    """dst = src where the predicate is nonzero (zero if reversed); src has dst's dtype or is an immediate."""
    e = kernel.e
    target, control = kernel.operands[dst], kernel.operands[predicate]
    operands = [target, control]
    constants: dict[int, Value] = {}
    if kernel.has(src):
        operands.append(kernel.operands[src])
    else:
        constant = constant_bits(e, target.dtype, kernel.immediate(src))
        constants = elementwise.by_lanes(e, lambda lanes: e.splat(constant, lanes))

    def element(at: list[Value], strides: Sequence[int], lanes: int) -> None:
        bits = elementwise.load(e, control.dtype, at[1], lanes, strides[1], "bits")
        chosen = e.compare("eq" if reverse else "ne", bits, 0)
        if constants:
            value = constants[lanes]
        else:
            value = elementwise.load(e, target.dtype, at[2], lanes, strides[2], "bits")
        elementwise.store(e, target.dtype, value, at[0], strides[0], "bits", chosen)

    elementwise.visit(kernel, operands, [kernel.pointer(o.name) for o in operands], element)


def constant_bits(e: Emitter, dtype: DType, value: Value) -> Value:
    """A float64 scalar as the element bits of a dtype; integers round to nearest even and saturate."""
    if dtype.kind == "x":
        return e.const(INTEGERS[dtype.itemsize], 0)
    if dtype is dtypes.bool_:
        return e.convert("zext", e.compare("une", value, 0), "i8")
    if dtype.is_wide:
        sign = "s" if dtype.kind == "i" else "u"
        return e.call(f"llvm.fpto{sign}i.sat.i64.f64", "i64", 0, e.intrinsic("llvm.rint", value))
    if dtype.is_integer:
        bits = 8 * dtype.itemsize
        low, high = (0, (1 << bits) - 1) if dtype.kind == "u" else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        value = e.select(e.compare("ord", value, value), value, 0)
        value = e.select(e.compare("olt", value, low), low, value)
        value = e.select(e.compare("ogt", value, high), high, value)
        whole = e.convert("fptosi", e.intrinsic("llvm.rint", value), "i64")
        return e.convert("trunc", whole, INTEGERS[dtype.itemsize])
    raw = convert.narrow(e, dtype, e.splat(e.convert("fptrunc", value, "float"), e.host.lanes))
    return e.extract(e.bitcast(raw, INTEGERS[dtype.itemsize]), 0)
