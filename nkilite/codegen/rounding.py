"""Stochastic rounding in vectors, bit by bit as nkilite/rounding.py defines it."""

from __future__ import annotations

from nkilite import dtypes
from nkilite.codegen import convert, elementwise
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import FORMS, DType, Form
from nkilite.rounding import DROPPED, FIRST, SECOND, SHIFTS

_WORD = 1 << 32


def round_stochastically(
    kernel: MicroKernel, dst: str, data: str, low: str, high: str, columns: str, site_low: str, site_high: str
) -> None:
    """dst = data, rounded as the keys of its rows and of the instruction, and its columns, decide."""
    e = kernel.e
    dtype = kernel.operands[dst].dtype
    sites = [e.convert("trunc", kernel.immediate_i64(name), "i32") for name in (site_low, site_high)]

    def body(e: Emitter, value: Value, *words: Value) -> Value:
        first, second, column = words
        keys = [e.xor(key, e.splat(site, value.lanes)) for key, site in zip((first, second), sites, strict=True)]
        return _round(e, dtype, value, _hash(e, e.xor(column, keys[0]), keys[1]))

    elementwise.map(kernel, dst, [data, low, high, columns], body, ["f32", "i32", "i32", "i32"], store_as="bits")


def _hash(e: Emitter, value: Value, key: Value) -> Value:
    first, second, third = (e.i32(shift, value.lanes) for shift in SHIFTS)
    value = e.mul(e.xor(value, e.lshr(value, first)), _word(e, FIRST, value.lanes))
    value = e.xor(value, key)
    value = e.mul(e.xor(value, e.lshr(value, second)), _word(e, SECOND, value.lanes))
    return e.xor(value, e.lshr(value, third))


def _word(e: Emitter, value: int, lanes: int) -> Value:
    return e.i32(value - _WORD if value >> 31 else value, lanes)


def _round(e: Emitter, dtype: DType, value: Value, bits: Value) -> Value:
    lanes = value.lanes
    nearest = convert.narrow(e, dtype, value)
    raw = nearest.scalar
    if dtype in FORMS:
        rounded = e.convert("trunc", _round_form(e, FORMS[dtype], value, bits), raw)
    else:
        dropped = DROPPED[dtype]
        kept = e.lshr(e.add(e.bitcast(value, "i32"), e.lshr(bits, e.i32(32 - dropped, lanes))), e.i32(dropped, lanes))
        rounded = e.convert("trunc", kept, raw) if dtype is dtypes.bfloat16 else e.shl(kept, e.i32(dropped, lanes))
    if raw == "float":
        nearest = e.bitcast(nearest, "i32")
    return e.select(e.compare("uno", value, value), nearest, rounded)


def _round_form(e: Emitter, form: Form, value: Value, bits: Value) -> Value:
    """A small float in the low bits of i32 lanes; NaN gives anything."""
    lanes = value.lanes
    pattern = e.bitcast(value, "i32")
    magnitude = e.and_(pattern, e.i32(0x7FFFFFFF, lanes))
    dropped = 23 - form.mantissa
    normal = e.lshr(e.add(magnitude, e.lshr(bits, e.i32(32 - dropped, lanes))), e.i32(dropped, lanes))
    normal = e.sub(normal, e.i32(127 - form.bias << form.mantissa, lanes))
    tiny = e.compare("ult", magnitude, e.i32(128 - form.bias << 23, lanes))
    small = e.bitcast(e.select(tiny, magnitude, e.i32(0, lanes)), "float")
    steps = e.mul(small, e.f32(form.steps, lanes))
    whole = e.convert("fptosi", steps, "i32")
    rest = e.sub(steps, e.convert("sitofp", whole, "float"))
    chance = e.convert("sitofp", e.lshr(bits, e.i32(8, lanes)), "float")
    up = e.convert("zext", e.compare("ogt", rest, e.mul(chance, e.f32(2.0**-24, lanes))), "i32")
    result = e.select(tiny, e.add(whole, up), normal)
    result = e.minimum(result, e.i32(form.limit, lanes))
    return e.or_(result, e.lshr(e.xor(pattern, magnitude), e.i32(32 - form.bits, lanes)))
