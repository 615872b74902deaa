"""Rows read as sequences: where elements are nonzero, and where runs of equal elements begin and end."""

from __future__ import annotations

from collections.abc import Callable

from nkilite.codegen import bits, elementwise
from nkilite.codegen.elementwise import VECTORS_PER_STEP
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.codegen.loops import Carried, element
from nkilite.codegen.walk import Chunk, Walk


def nonzero(kernel: MicroKernel, out: str, data: str, offset: str, padding: str, every: int) -> None:
    """Row by row, out = (positions of nonzero elements plus the offset, padding, how many positions there are).

    `offset` and `padding` are immediates. Of `every` partitions only the first is read and written.
    """
    e = kernel.e
    target, source = kernel.operands[out], kernel.operands[data]
    to, at = kernel.pointer(out), kernel.pointer(data)
    added = e.convert("trunc", kernel.immediate_i64(offset), "i32")
    filler = e.convert("trunc", kernel.immediate_i64(padding), "i32")
    compute, unequal = _computing(source)
    walk = Walk.free([source], e.host.lanes * VECTORS_PER_STEP, ordered=True)
    first, end = kernel.share(-(-source.shape[0] // every), rows=every)
    with e.loop(end, start=first) as core:
        row = e.step(to, core.index, every * target.strides[0])

        def step(chunk: Chunk, carried: Carried) -> Carried:
            values = elementwise.load(e, source.dtype, chunk.pointers[0], chunk.lanes, chunk.strides[0], compute)
            mask = e.bits(e.compare(unequal, values, 0))
            with e.loop(bits.count(e, mask), mask, carried[0]) as loop:
                rest, found = loop.values
                position = e.add(chunk.number, e.mul(bits.lowest(e, rest), chunk.apart))
                e.store(e.add(e.convert("trunc", position, "i32"), added), element(e, target, row, found))
                loop.carry(bits.without_lowest(e, rest), e.add(found, 1))
            return (loop.results[1],)

        (found,) = walk.run(e, [e.step(at, core.index, every * source.strides[0])], (e.i64(0),), step)
        last = e.i64(source.columns)
        with e.loop(last, start=found) as rest:
            e.store(filler, element(e, target, row, rest.index))
        e.store(e.convert("trunc", found, "i32"), element(e, target, row, last))


def bounds(kernel: MicroKernel, out: str, identifiers: str) -> None:
    """out[0, 0, i] and out[0, 1, i] = the first position and the end of the run of equal identifiers around i.

    Where the identifier is 0 they are the number of elements and -1.
    """
    e = kernel.e
    target, source = kernel.operands[out], kernel.operands[identifiers]
    to, at = kernel.pointer(out), kernel.pointer(identifiers)
    half = target._replace(shape=(1, *target.shape[2:]), strides=(0, *target.strides[2:]))
    count = e.i32(source.columns, 1)
    _run_by_run(e, source, half, [at, to], source.columns, lambda index: index)
    ends = [e.offset(p, _last(o)) for p, o in ((at, source), (e.offset(to, target.strides[1]), half))]
    _run_by_run(e, _backwards(source), _backwards(half), ends, -1, lambda index: e.sub(count, index))


def _run_by_run(
    e: Emitter, source: CpuOperand, out: CpuOperand, at: list[Value], padding: int, bound: Callable[[Value], Value]
) -> None:
    """out[i] = bound(position at which the run of equal elements around i begins); `padding` where they are 0."""
    compute, _ = _computing(source)
    equal = "oeq" if compute == "f32" else "eq"

    def step(chunk: Chunk, carried: Carried) -> Carried:
        previous, found = carried
        value = elementwise.load(e, source.dtype, chunk.pointers[0], 1, 0, compute)
        index = e.splat(e.convert("trunc", chunk.number, "i32"), 1)
        found = e.select(e.compare(equal, value, previous), found, bound(index))
        zero = e.compare(equal, value, 0)
        found = e.select(zero, padding, found)
        exact = out.dtype.is_integer
        stored = found if exact else e.convert("sitofp", found, "float")
        elementwise.store(e, out.dtype, stored, chunk.pointers[1], 0, "i32" if exact else "f32")
        return value, found

    nothing = e.const("float" if compute == "f32" else "i32", 0, 1), e.i32(padding, 1)
    Walk.free([source, out], 1, ordered=True).run(e, at, nothing, step)


def _computing(operand: CpuOperand) -> tuple[str, str]:
    """How elements are loaded to be compared without rounding, and the predicate for unequal ones."""
    return ("f32", "une") if operand.dtype.is_float else ("i32", "ne")


def _last(operand: CpuOperand) -> int:
    """Bytes from the first element of a partition to the last one."""
    return sum(stride * (n - 1) for n, stride in zip(*operand.free, strict=True))


def _backwards(operand: CpuOperand) -> CpuOperand:
    """The elements of a partition in reverse order, from the last one on."""
    return operand._replace(strides=(operand.strides[0], *(-stride for stride in operand.strides[1:])))
