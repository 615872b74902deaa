"""Gathers inside partitions: elements whose positions, row-major in the partition, are data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod

from nkilite.codegen import bits, convert, elementwise
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.codegen.loops import Carried, address, element, numbered
from nkilite.codegen.walk import Chunk, Walk
from nkilite.ir import nest

_CHECKED = 16  # positions compared with their limit at once
_POSITION = 4  # bytes of one in a table


def by_element(kernel: MicroKernel, out: str, data: str, positions: str) -> None:
    """out[p, i] = data[p, positions[p, i]]; positions are 32 bits wide."""
    e = kernel.e
    target, source, chosen = (kernel.operands[name] for name in (out, data, positions))
    pointers = {name: kernel.pointer(name) for name in (out, data, positions)}
    walk = Walk.free([target, chosen], _CHECKED, ordered=True)  # the first wrong position is the one reported
    limit, scalar = source.columns, convert.raw_scalar(source.dtype)
    first, end = kernel.share(target.shape[0], rows=1)
    with e.loop(end, start=first) as partition:
        rows = {n: e.step(p, partition.index, kernel.operands[n].strides[0]) for n, p in pointers.items()}

        def step(chunk: Chunk, carried: Carried) -> Carried:
            to, at = chunk.pointers
            _require_positions(kernel, chosen, at, chunk.lanes, chunk.strides[1], limit)
            for lane in range(chunk.lanes):
                # Read again rather than taken from the vector compared: that would keep the shuffle unit busy.
                position = e.convert("zext", e.load("i32", e.offset(at, lane * chunk.strides[1])), "i64")
                value = e.load(scalar, element(e, source, rows[data], position))
                e.store(value, e.offset(to, lane * chunk.strides[0]))
            return carried

        walk.run(e, [rows[out], rows[positions]], (), step)


def by_group(kernel: MicroKernel, out: str, data: str, positions: str, partitions: int, count: int, width: int) -> None:
    """out[p, j * width + i] = data[p, position j of p's group + i], for j < count and i < width.

    A group is `partitions` partitions, and its positions are the elements of its part of `positions`, partition first.
    """
    source = kernel.operands[data]
    copy = _run_copier(kernel.e, kernel.operands[out], source, width)
    limit = source.columns - width + 1
    with _in_groups(kernel, (out, data, positions), partitions, count, limit) as (to, at, number, position):
        copy(to, number, at, position)


def to_group(kernel: MicroKernel, out: str, data: str, positions: str, partitions: int, count: int) -> None:
    """out[p, position j of p's group] = data[p, j], for j < count in order; groups are those of `by_group`."""
    e, target, source = kernel.e, kernel.operands[out], kernel.operands[data]
    with _in_groups(kernel, (out, data, positions), partitions, count, target.columns) as (to, at, number, position):
        value = e.load(convert.raw_scalar(source.dtype), element(e, source, at, number))
        e.store(value, element(e, target, to, position))


@contextmanager
def _in_groups(
    kernel: MicroKernel, names: tuple[str, str, str], partitions: int, count: int, limit: int
) -> Iterator[tuple[Value, Value, Value, Value]]:
    """A loop over the positions of every partition: addresses of its rows of out and data, a number, its position."""
    e = kernel.e
    operands, pointers = [kernel.operands[n] for n in names], [kernel.pointer(n) for n in names]
    (target, _, chosen), pitches = operands, [o.strides[0] for o in operands]
    table = e.scratch(count * _POSITION)
    first, end = kernel.share(target.shape[0] // partitions, rows=partitions)
    with e.loop(end, start=first) as group:
        start = e.mul(group.index, partitions)
        to, at, read = e.steps(pointers, start, pitches)
        _tabulate(kernel, chosen, read, partitions, count, limit, table)
        with e.loop(partitions) as partition:
            to, at = e.steps([to, at], partition.index, pitches[:2])
            with e.loop(count) as number:
                position = e.load("i32", e.step(table, number.index, _POSITION))
                yield to, at, number.index, e.convert("zext", position, "i64")


def _tabulate(
    kernel: MicroKernel, chosen: CpuOperand, row: Value, partitions: int, count: int, limit: int, table: Value
) -> None:
    """The positions of a group as dense 32-bit integers, all below the limit."""
    e = kernel.e
    with e.loop(count) as number:
        at = numbered(e, chosen, row, number.index, partitions)
        found = e.convert("zext", e.load(convert.raw_scalar(chosen.dtype), at), "i64")
        kernel.fail_unless(e.compare("ult", found, limit), limit, lambda: found)
        e.store(e.convert("trunc", found, "i32"), e.step(table, number.index, _POSITION))


def _require_positions(
    kernel: MicroKernel, chosen: CpuOperand, at: Value, lanes: int, stride: int, limit: int
) -> None:
    """End the micro-kernel unless `lanes` positions are below the limit."""
    e = kernel.e
    found = elementwise.load(e, chosen.dtype, at, lanes, stride, "i32")
    outside = e.bits(e.compare("uge", found, limit))

    def first() -> Value:
        return e.convert("zext", e.load("i32", e.step(at, bits.lowest(e, outside), stride)), "i64")

    kernel.fail_unless(e.compare("eq", outside, 0), limit, first)


def _run_copier(
    e: Emitter, target: CpuOperand, source: CpuOperand, width: int
) -> Callable[[Value, Value, Value, Value], None]:
    """What copies `width` elements to run `number` of a target row, from a position of a source row."""
    pieces = nest.cut(target.free, width)
    read = nest.collapse(source.free)
    size = source.dtype.itemsize

    def whole(to: Value, number: Value, at: Value, position: Value) -> None:
        assert pieces is not None
        outer, inner = pieces
        value = elementwise.load(e, source.dtype, element(e, source, at, position), width, _stride(read, size), "bits")
        elementwise.store(e, target.dtype, value, address(e, to, number, outer), _stride(inner, size), "bits")

    def one_by_one(to: Value, number: Value, at: Value, position: Value) -> None:
        with e.loop(width) as loop:
            value = e.load(convert.raw_scalar(source.dtype), element(e, source, at, e.add(position, loop.index)))
            e.store(value, element(e, target, to, e.add(e.mul(number, width), loop.index)))

    in_runs = pieces is not None and len(pieces[1][0]) <= 1 and len(read[0]) <= 1
    return whole if in_runs else one_by_one


def _stride(layout: nest.Layout, size: int) -> int:
    """Bytes from element to element of a layout of at most one dimension."""
    return layout[1][0] if prod(layout[0]) > 1 else size
