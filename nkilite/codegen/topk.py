"""The largest of the values that several partitions hold together, with their positions: a radix sort of 16-bit keys.

The values of a group of partitions are numbered column by column, partition first, and so are the results. Keys order
as the bfloat16 numbers they stand for; two passes by one byte each, stable, put the positions into order. They start
from the last position, so that of equal values the first ones come out on top.
"""

from __future__ import annotations

from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.loops import numbered

_DIGITS = 256
_SIGN, _INFINITY, _MINUS_INFINITY = 0x8000, 0x7F80, 0xFF80


def largest(
    kernel: MicroKernel, values: str, indices: str, source: str, count: int, chosen: int, partitions: int
) -> None:
    """The `chosen` largest of the first `count` elements of each group, ascending, and their numbers.

    NaN counts, and is written, as -inf, and -0 as 0.
    """
    e = kernel.e
    operands = [kernel.operands[name] for name in (values, indices, source)]
    pointers = [kernel.pointer(name) for name in (values, indices, source)]
    keys, order, best = (_Array(e, "i16", n) for n in (count, count, chosen))
    by_low, by_high = _Array(e, "i32", _DIGITS), _Array(e, "i32", _DIGITS)
    below = count - chosen
    first, end = kernel.share(operands[0].shape[0] // partitions, rows=partitions)
    with e.loop(end, start=first) as group:
        start = e.mul(group.index, partitions)
        rows = e.steps(pointers, start, [o.strides[0] for o in operands])
        for counters in (by_low, by_high):
            counters.clear()
        with e.loop(count) as loop:
            at = numbered(e, operands[2], rows[2], loop.index, partitions)
            key = _key(e, e.load("i16", at))
            keys.store(loop.index, key)
            for counters, digit in ((by_low, _low(e, key)), (by_high, _high(e, key))):
                counters.next(digit)
        for counters in (by_low, by_high):
            counters.sum_up()
        with e.loop(count) as loop:
            position = e.sub(count - 1, loop.index)
            order.store(by_low.next(_low(e, keys.load(position))), e.convert("trunc", position, "i16"))
        with e.loop(count) as loop:
            position = order.load(loop.index)
            rank = by_high.next(_high(e, keys.load(e.convert("zext", position, "i64"))))
            with e.when(e.compare("uge", rank, below)):
                best.store(e.sub(rank, below), position)
        with e.loop(chosen) as loop:
            position = best.load(loop.index)
            value = _value(e, keys.load(e.convert("zext", position, "i64")))
            e.store(value, numbered(e, operands[0], rows[0], loop.index, partitions))
            number = e.convert("zext", position, "i32")
            e.store(number, numbered(e, operands[1], rows[1], loop.index, partitions))


class _Array:
    """Scratch of integers, indexed by i64."""

    def __init__(self, e: Emitter, scalar: str, count: int) -> None:
        self._e, self._scalar, self._size, self._count = e, scalar, int(scalar[1:]) // 8, count
        self._start = e.scratch(count * self._size)

    def load(self, index: Value) -> Value:
        return self._e.load(self._scalar, self._e.step(self._start, index, self._size))

    def store(self, index: Value, value: Value) -> None:
        self._e.store(value, self._e.step(self._start, index, self._size))

    def clear(self) -> None:
        e, lanes = self._e, self._e.host.lanes
        with e.loop(self._count, step=lanes) as loop:
            e.store(e.const(self._scalar, 0, lanes), e.step(self._start, loop.index, self._size))

    def next(self, index: Value) -> Value:
        """The element as an i64, which is then increased by one."""
        value = self.load(index)
        self.store(index, self._e.add(value, 1))
        return self._e.convert("zext", value, "i64")

    def sum_up(self) -> None:
        """Replace every element by the sum of those before it."""
        e = self._e
        with e.loop(self._count, e.const(self._scalar, 0)) as loop:
            value = self.load(loop.index)
            self.store(loop.index, loop.values[0])
            loop.carry(e.add(loop.values[0], value))


def _low(e: Emitter, key: Value) -> Value:
    return e.and_(e.convert("zext", key, "i64"), _DIGITS - 1)


def _high(e: Emitter, key: Value) -> Value:
    return e.lshr(e.convert("zext", key, "i64"), 8)


def _key(e: Emitter, raw: Value) -> Value:
    """bfloat16 bits to an integer that is larger, unsigned, where the number is larger."""
    zero = e.const("i16", 0)
    magnitude = e.and_(raw, _SIGN - 1)
    nan = e.compare("ugt", magnitude, _INFINITY)
    raw = e.select(nan, _MINUS_INFINITY, raw)
    raw = e.select(e.compare("eq", magnitude, zero), zero, raw)
    return e.xor(raw, _flipped(e, e.compare("slt", raw, zero)))


def _value(e: Emitter, key: Value) -> Value:
    """The bfloat16 bits of a key."""
    return e.xor(key, _flipped(e, e.compare("sge", key, 0)))


def _flipped(e: Emitter, negative: Value) -> Value:
    """The bits in which a number and its key differ: all of a negative one, the sign of others."""
    return e.select(negative, e.const("i16", -1), e.const("i16", _SIGN))
