"""Loops over strided layouts: nested, and cut into units that threads share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand
from nkilite.codegen.nest import Dim

ROWS = 16  # of a tile that a thread does at once: a register block, and a block of most row groups
BAND = 128  # bytes of a row in HBM that are written at once: lines are written in pairs

Body = Callable[[list[Dim], list[Value]], None]


class Cut(NamedTuple):
    """What threads share: `unit` trips at a time of loop number `level`."""

    level: int
    unit: int
    units: int


def cut(dims: Sequence[Dim], target: CpuOperand, source: CpuOperand) -> Cut:
    """How a move whose loops have the strides of target and source is shared.

    By rows of the target, unless columns become rows on their way from or to HBM: then by bands of as many rows of
    the source as make whole lines of the target, so that either side's pages are used at once.
    """
    size = target.dtype.itemsize
    across = next((i for i, d in enumerate(dims) if d.strides[0] == size != d.strides[1]), None)
    turned = across is not None and any(d.strides[1] == size != d.strides[0] for d in dims)
    if across is not None and turned and not (target.region.on_chip and source.region.on_chip):
        level, unit = across, BAND // size
    else:
        level, unit = max(range(len(dims)), key=lambda i: dims[i].strides[0], default=0), ROWS
    return Cut(level, unit, -(-dims[level].count // unit) if dims else 1)


def units(
    e: Emitter, dims: Sequence[Dim], at: Sequence[Value], cut: Cut, part: tuple[Value, Value], body: Body
) -> None:
    """The body for the units of a cut from the first to before the end of `part`."""
    first, end = part
    if not dims:
        with e.when(e.compare("eq", first, e.i64(0))):
            body([], list(at))
        return
    whole, rest = divmod(dims[cut.level].count, cut.unit)

    def unit(number: Value, count: int) -> None:
        strides = dims[cut.level].strides
        here = [e.step(p, number, cut.unit * s) for p, s in zip(at, strides, strict=True)]
        body([*dims[: cut.level], Dim(count, strides), *dims[cut.level + 1 :]], here)

    if whole:
        with e.loop(e.minimum(end, e.i64(whole)), start=first) as loop:
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
            here = [e.step(p, loop.index, s) for p, s in zip(here, strides, strict=True)]
        yield here
