"""The set bits of a 64-bit mask, one by one: how scalar code treats the few lanes that pass a vector's test."""

from __future__ import annotations

from nkilite.codegen.emitter import Emitter, Value


def count(e: Emitter, mask: Value) -> Value:
    """How many are set."""
    return e.call("llvm.ctpop.i64", "i64", 0, mask)


def lowest(e: Emitter, mask: Value) -> Value:
    """The number of the lowest; undefined if none is set."""
    return e.call("llvm.cttz.i64", "i64", 0, mask, Value("true", "i1"))


def highest(e: Emitter, mask: Value) -> Value:
    """The number of the highest; undefined if none is set."""
    return e.sub(63, e.call("llvm.ctlz.i64", "i64", 0, mask, Value("true", "i1")))


def without_lowest(e: Emitter, mask: Value) -> Value:
    """The others."""
    return e.and_(mask, e.sub(mask, 1))
