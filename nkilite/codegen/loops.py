"""Loops over strided layouts: nested, and cut into units that threads share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from typing import NamedTuple

from nkilite.codegen.emitter import Emitter, Loop, Value
from nkilite.codegen.kernel import CpuOperand
from nkilite.codegen.watch import end_if_told
from nkilite.host.memory import LARGE, LINE
from nkilite.ir import nest
from nkilite.ir.nest import Dim

ROWS = 16  # of a tile that a thread does at once: a register block, and a block of most row groups
BAND = 128  # bytes of a row in HBM that are gone through at once: lines come in pairs

Body = Callable[[list[Dim], list[Value]], None]
Carried = tuple[Value, ...]


class Cut(NamedTuple):
    """A loop in units: `unit` trips at a time of loop number `level`."""

    level: int
    unit: int
    units: int

    @classmethod
    def of(cls, dims: Sequence[Dim], level: int, unit: int) -> Cut:
        return cls(level, unit, -(-dims[level].count // unit) if dims else 1)


def sides(dims: Sequence[Dim], size: int) -> tuple[int, int] | None:
    """The loop along which only the target is dense, and that along which only the source is; None without both."""
    across = next((i for i, d in enumerate(dims) if d.strides[0] == size != d.strides[1]), None)
    down = next((i for i, d in enumerate(dims) if d.strides[1] == size != d.strides[0]), None)
    return None if across is None or down is None else (across, down)


def past_caches(target: CpuOperand) -> bool:
    """Whether a copy to an operand should not go through the caches."""
    large = not target.region.on_chip and prod(target.shape) * target.dtype.itemsize >= LARGE
    return target.streams or large


def whole_lines(target: CpuOperand, stride: int) -> bool:
    """Whether transposes fill whole lines of rows `stride` bytes apart, as far as is known without the address."""
    return target.region.on_chip or (past_caches(target) and stride % LINE == 0)


def cut(dims: Sequence[Dim], target: CpuOperand, source: CpuOperand) -> Cut:
    """How a move whose loops have the strides of target and source is shared.

    By rows of the target, unless columns become rows on their way from or to HBM: then by bands of as many rows of
    the source as make whole lines of the target, so that what is used at once is in few pages on either side, or of
    as many columns as are in a few lines of the source where the target is not written in whole lines.
    """
    size = target.dtype.itemsize
    turned = sides(dims, size)
    if turned is None or (target.region.on_chip and source.region.on_chip):
        return Cut.of(dims, max(range(len(dims)), key=lambda i: dims[i].strides[0], default=0), ROWS)
    across, down = turned
    level = across if whole_lines(target, dims[down].strides[0]) else down
    return Cut.of(dims, level, BAND // size)


def units(
    e: Emitter, dims: Sequence[Dim], at: Sequence[Value], cut: Cut, body: Body, part: tuple[Value, Value] | None = None
) -> None:
    """The body for the units of a cut from the first to before the end of `part`, for all if it is None."""
    first, end = part or (e.i64(0), e.i64(cut.units))
    if not dims:
        with e.when(e.compare("eq", first, 0)):
            body([], list(at))
        return
    whole, rest = divmod(dims[cut.level].count, cut.unit)
    elements = prod(d.count for d in dims)

    def unit(number: Value, count: int) -> None:
        strides = dims[cut.level].strides
        here = e.steps(at, number, [cut.unit * s for s in strides])
        body([*dims[: cut.level], Dim(count, strides), *dims[cut.level + 1 :]], here)

    if whole:
        with e.loop(e.minimum(end, whole), start=first) as loop:
            end_if_told(e, elements)
            unit(loop.index, cut.unit)
    if rest:
        last = e.i64(whole)
        with e.when(e.and_(e.compare("sle", first, last), e.compare("slt", last, end))):
            unit(last, rest)


@contextmanager
def nested(e: Emitter, dims: Sequence[Dim], at: Sequence[Value]) -> Iterator[list[Value]]:
    """The addresses inside of all loops."""
    here = list(at)
    with ExitStack() as stack:
        for count, strides in dims:
            loop = stack.enter_context(e.loop(count))
            here = e.steps(here, loop.index, strides)
        yield here


def walk(
    e: Emitter, dims: Sequence[Dim], at: Sequence[Value], body: Callable[..., Carried], *carried: Value
) -> Carried:
    """`body(addresses, *carried)` inside of all loops, which yields what is carried on; what it is at last."""
    if not dims:
        return body(list(at), *carried)
    with e.loop(dims[0].count, *carried) as loop:
        loop.carry(*walk(e, dims[1:], e.steps(at, loop.index, dims[0].strides), body, *loop.values))
    return loop.results


def chunks(
    e: Emitter, count: int, lanes: int, body: Callable[..., Carried | None], *carried: Value
) -> Carried:
    """Cover `count` elements: a loop of full vectors, then one narrower vector per bit of the remainder.

    Args:
        body: `body(index, lanes, *carried)` yields what is carried on, if anything is.
    """
    at, width = count // lanes * lanes, lanes // 2
    if at:
        with e.loop(at, *carried, step=lanes) as loop:
            loop.carry(*(body(loop.index, lanes, *loop.values) or ()))
        carried = loop.results
    while at < count:
        if count - at >= width:
            carried = body(e.i64(at), width, *carried) or ()
            at += width
        width //= 2
    return carried


def filled(lanes: int, count: int) -> int:
    """As many lanes, or fewer, a power of two, as so many elements fill."""
    while lanes > count:
        lanes //= 2
    return lanes


@contextmanager
def one_by_one(
    e: Emitter, layouts: Sequence[nest.Layout], at: Sequence[Value], *carried: Value
) -> Iterator[tuple[Loop, list[Value]]]:
    """A loop over elements that lie in no loops common to all layouts: their addresses come from the position."""
    with e.loop(prod(layouts[0][0]), *carried) as loop:
        yield loop, [address(e, pointer, loop.index, layout) for pointer, layout in zip(at, layouts, strict=True)]


def element(e: Emitter, operand: CpuOperand, row: Value, position: Value) -> Value:
    """The address of the element at a row-major position of a partition, which is at `row`."""
    return address(e, row, position, nest.collapse(operand.free))


def numbered(e: Emitter, operand: CpuOperand, row: Value, number: Value, partitions: int) -> Value:
    """The address of an element of some partitions, the first of them at `row`, numbered column by column."""
    per_column = e.i64(partitions)
    row = e.step(row, e.binary("urem", number, per_column), operand.strides[0])
    return element(e, operand, row, e.binary("udiv", number, per_column))


def address(e: Emitter, pointer: Value, position: Value, layout: nest.Layout) -> Value:
    """The address of the element at a row-major position."""
    dims = list(zip(*layout, strict=True))
    for n, stride in reversed(dims[1:]):
        pointer = e.step(pointer, e.binary("urem", position, n), stride)
        position = e.binary("udiv", position, n)
    return e.step(pointer, position, dims[0][1]) if dims else pointer
