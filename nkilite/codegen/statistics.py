"""Mean and variance of each partition: of the even and the odd elements of a row, and of pooled samples.

Rows are first put into float32 scratch, dense and padded with zeros to whole vectors, if they are not so yet.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from nkilite import dtypes
from nkilite.codegen import elementwise
from nkilite.codegen.ahead import Ahead, fetch
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.ir import nest
from nkilite.ir.sizes import Size

_FLOAT = dtypes.float32.itemsize


def even_odd(kernel: MicroKernel, out: str, data: str) -> None:
    """out = (count, mean, variance * count) of the even elements of each row of data, then of the odd ones.

    The mean of no elements is 0.
    """
    e, operand, target = kernel.e, kernel.operands[data], kernel.operands[out]
    count = operand.columns
    counts = [(count + 1) // 2, count // 2]
    width = 4 * e.host.lanes
    dims = nest.unify([operand.free])
    ready = count % width == 0 and operand.dtype is dtypes.float32 and dims == [nest.Dim(count, (_FLOAT,))]
    staged = None if ready else _zeros(e, count, width)
    to, source = kernel.pointer(out), kernel.pointer(data)
    with e.loop(operand.shape[0]) as partition:
        row = e.step(source, partition.index, operand.strides[0])
        if staged is not None:
            _stage(kernel, operand, row, staged, ((count,), (_FLOAT,)))
            row = staged
        sums = _pair_sums(e, row, count, width, lambda x: x)
        even, odd = (_number(e, max(n, 1)) for n in counts)
        mean = e.div(sums, e.insert(e.insert(e.undef("float", 2), even, 0), odd, 1))
        means = e.shuffle(mean, None, [lane % 2 for lane in range(width)])

        def squared(x: Value, means: Value = means) -> Value:
            deviation = e.sub(x, means)
            return e.mul(deviation, deviation)

        squares = _pair_sums(e, row, count, width, squared, operand.ahead if ready else None)
        results = [
            value
            for lane, n in enumerate(counts)
            for value in (_number(e, n), e.extract(mean, lane), e.extract(squares, lane))
        ]
        _write(e, target, e.step(to, partition.index, target.strides[0]), results)


def aggregate(kernel: MicroKernel, out: str, data: str) -> None:
    """out = (mean, variance) of the pooled samples (count, mean, variance * count) in each row of data."""
    e, operand, target = kernel.e, kernel.operands[data], kernel.operands[out]
    samples = operand.columns // 3
    width = e.host.lanes
    padded = -(-samples // width) * width
    fields = _zeros(e, 3 * padded, width)
    to, source = kernel.pointer(out), kernel.pointer(data)
    with e.loop(operand.shape[0]) as partition:
        row = e.step(source, partition.index, operand.strides[0])
        _stage(kernel, operand, row, fields, ((samples, 3), (_FLOAT, _FLOAT * padded)))

        def field(number: int, index: Value) -> Value:
            return e.load("float", e.step(e.offset(fields, number * padded * _FLOAT), index, _FLOAT), width)

        zero = e.f32(0, width)
        with e.loop(padded, zero, zero, step=width) as loop:
            count, mean = field(0, loop.index), field(1, loop.index)
            total, weighted = loop.values
            loop.carry(e.add(total, count), e.add(weighted, e.mul(count, mean)))
        total, weighted = (e.fold(v, e.add) for v in loop.results)
        overall = e.div(weighted, total)
        center = e.splat(e.extract(overall, 0), width)
        with e.loop(padded, zero, step=width) as loop:
            count, mean, squares = (field(number, loop.index) for number in range(3))
            deviation = e.sub(mean, center)
            between = e.mul(count, e.mul(deviation, deviation))
            loop.carry(e.add(loop.values[0], e.add(squares, between)))
        variance = e.div(e.fold(loop.results[0], e.add), total)
        results = [e.extract(overall, 0), e.extract(variance, 0)]
        _write(e, target, e.step(to, partition.index, target.strides[0]), results)


# --- rows ---------------------------------------------------------------------------------------------------


def _number(e: Emitter, n: int) -> Value:
    """A count, as float32."""
    return e.convert("sitofp", e.i64(n), "float") if type(n) is Size else e.f32(n)


def _zeros(e: Emitter, count: int, width: int) -> Value:
    """Zeroed scratch for at least `count` floats in whole vectors."""
    padded = -(-count // width) * width
    scratch = e.scratch(padded * _FLOAT)
    with e.loop(padded, step=width) as loop:
        e.store(e.f32(0, width), e.step(scratch, loop.index, _FLOAT))
    return scratch


def _stage(kernel: MicroKernel, operand: CpuOperand, row: Value, scratch: Value, layout: nest.Layout) -> None:
    """Copy the free elements of one partition, as float32, to scratch laid out like `layout`."""
    free, (shape, strides) = operand._replace(shape=operand.shape[1:], strides=operand.strides[1:], ahead=None), layout
    target = operand._replace(dtype=dtypes.float32, shape=shape, strides=strides)
    elementwise.copy(kernel, target, free, [scratch, row])


def _pair_sums(
    e: Emitter, row: Value, count: int, width: int, function: Callable[[Value], Value], ahead: Ahead | None = None
) -> Value:
    """Two lanes: the sums of function(x) over the even and over the odd elements of a dense row."""
    full = count // width * width
    total = e.f32(0, width)
    if full:
        with e.loop(full, total, step=width) as loop:
            at, offset = e.step(row, loop.index, _FLOAT), e.mul(loop.index, _FLOAT)
            fetch(e, ahead, at, offset, width * _FLOAT, count * _FLOAT)
            loop.carry(e.add(loop.values[0], function(e.load("float", at, width))))
        total = loop.results[0]
    if full < count:
        value = function(e.load("float", e.offset(row, full * _FLOAT), width))
        inside = e.vector("i1", [full + lane < count for lane in range(width)])
        total = e.add(total, e.select(inside, value, 0))
    return e.fold(total, e.add, 2)


def _write(e: Emitter, target: CpuOperand, row: Value, values: list[Value]) -> None:
    """Round scalars and store them as the elements of one partition."""
    for offset, value in zip(_offsets(*target.free), values, strict=True):
        elementwise.store(e, target.dtype, e.splat(value, 1), e.offset(row, offset), 0, "f32")


def _offsets(shape: Sequence[int], strides: Sequence[int]) -> Iterator[int]:
    """Byte offsets of elements in row-major order."""
    for position in itertools.product(*map(range, shape)):
        yield sum(i * s for i, s in zip(position, strides, strict=True))
