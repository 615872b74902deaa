"""Runs of any length, for code that knows no sizes: one body in whole vectors does all of a run.

What is left of a run beyond whole vectors goes through the body in pieces, each the greatest power of two of elements:
those that code for one length is written out for, so that sums have the same order. A piece is brought to memory with
room for a whole vector, and so are elements that do not lie side by side; lanes without an element hold anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from nkilite.codegen.emitter import INTEGERS, Emitter, Value


class Side(NamedTuple):
    """An operand: where its run begins, bytes of an element, bytes to the next one, and whether it is written, too."""

    pointer: Value
    size: int
    stride: int
    written: bool


class Piece(NamedTuple):
    """What goes through the body at once.

    Attributes:
        first: the index of its first element.
        pointers, strides: of operands, in which there is a whole vector.
        inside: of every lane, whether there is an element in it.
    """

    first: Value
    pointers: list[Value]
    strides: list[int]
    inside: Value


def pieces(
    e: Emitter, count: int, lanes: int, sides: Sequence[Side],
    body: Callable[[Piece, tuple[Value, ...]], tuple[Value, ...]], *carried: Value,
) -> tuple[Value, ...]:
    """The body for a run of `count` elements, given values and yielding those of the next piece; what they are at last.

    Args:
        lanes: of a vector, a power of two.
    """
    n = e.i64(count)
    rest = e.intrinsic("llvm.ctpop", e.and_(n, lanes - 1))
    trips = e.add(e.lshr(n, lanes.bit_length() - 1), rest)
    rooms = [e.scratch(lanes * side.size) if side.stride != 0 else None for side in sides]
    with e.loop(trips, e.i64(0), *carried) as loop:
        index, *values = loop.values
        width = e.minimum(_power(e, e.sub(n, index)), lanes)
        partial = e.compare("ne", width, lanes)
        here, pointers = [], []
        for side, room in zip(sides, rooms, strict=True):
            at = e.step(side.pointer, index, side.stride)
            here.append(at)
            if room is not None:
                _copy(e, side, room, at, width, partial, into=True)
        for side, room, at in zip(sides, rooms, here, strict=True):
            apart = side.stride != side.size
            pointers.append(at if room is None else room if apart else e.select(partial, room, at))
        strides = [0 if room is None else side.size for side, room in zip(sides, rooms, strict=True)]
        filled = e.splat(e.convert("trunc", width, "i32"), lanes)
        inside = e.compare("ult", e.vector("i32", range(lanes)), filled)
        left = body(Piece(index, pointers, strides, inside), tuple(values))
        for side, room, at in zip(sides, rooms, here, strict=True):
            if room is not None and side.written:
                _copy(e, side, room, at, width, partial, into=False)
        loop.carry(e.add(index, width), *left)
    return loop.results[1:]


def _power(e: Emitter, number: Value) -> Value:
    """The greatest power of two that is not above a positive number."""
    zeros = e.call("llvm.ctlz.i64", "i64", 0, number, e.const("i1", 0))
    return e.lshr(e.i64(-1 << 63), zeros)


def _copy(e: Emitter, side: Side, room: Value, at: Value, width: Value, partial: Value, into: bool) -> None:
    """Copy elements to the room for them, or from there, unless the body takes them where they are."""
    if side.stride == side.size:
        with e.when(partial):
            target, source = (room, at) if into else (at, room)
            bytes = e.mul(width, side.size)
            e.call("llvm.memcpy.p0.p0.i64", "void", 0, target, source, bytes, e.const("i1", 0))
        return
    with e.loop(width) as loop:
        inner, outer = e.step(room, loop.index, side.size), e.step(at, loop.index, side.stride)
        target, source = (inner, outer) if into else (outer, inner)
        e.store(e.load(INTEGERS[side.size], source), target)
