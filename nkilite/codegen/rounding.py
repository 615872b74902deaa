"""Stochastic rounding in vectors, bit by bit as nkilite/rounding.py defines it."""

from __future__ import annotations

from nkilite import dtypes
from nkilite.codegen import convert, elementwise
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import FORMS, DType, Form
from nkilite.rounding import DROPPED, FIRST, FOLD, SECOND, fraction_bits

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
    value = e.xor(e.mul(value, _word(e, FIRST, value.lanes)), key)
    return e.mul(e.xor(value, e.lshr(value, FOLD)), _word(e, SECOND, value.lanes))


def _word(e: Emitter, value: int, lanes: int) -> Value:
    return e.i32(value - _WORD if value >> 31 else value, lanes)


def _round(e: Emitter, dtype: DType, value: Value, bits: Value) -> Value:
    nan = e.compare("uno", value, value)
    if dtype in FORMS:
        raw = convert.raw_scalar(dtype)
        if dtype is dtypes.float16 and e.host.f16c:  # whose NaN keep what they carry
            rounded = e.convert("trunc", _round_form(e, FORMS[dtype], value, bits), raw)
            return e.select(nan, convert.narrow(e, dtype, value), rounded)
        return e.convert("trunc", _round_form(e, FORMS[dtype], value, bits, nan), raw)
    dropped = DROPPED[dtype]
    pattern = e.bitcast(value, "i32")
    kept = e.lshr(e.add(pattern, e.lshr(bits, 32 - dropped)), dropped)
    if dtype is dtypes.bfloat16:
        sign = e.and_(e.lshr(pattern, 16), 0x8000)
        return e.convert("trunc", e.select(nan, e.or_(sign, 0x7FC0), kept), "i16")
    return e.select(nan, pattern, e.shl(kept, dropped))


def _round_form(e: Emitter, form: Form, value: Value, bits: Value, nan: Value | None = None) -> Value:
    """A small float in the low bits of i32 lanes; unless it is told which are NaN, these give anything."""
    pattern = e.bitcast(value, "i32")
    magnitude = e.and_(pattern, 0x7FFFFFFF)
    dropped = 23 - form.mantissa
    normal = e.lshr(e.add(magnitude, e.lshr(bits, 32 - dropped)), dropped)
    normal = e.sub(normal, 127 - form.bias << form.mantissa)
    tiny = e.compare("ult", magnitude, 128 - form.bias << 23)
    small = e.bitcast(e.select(tiny, magnitude, 0), "float")
    fine = fraction_bits(form)
    steps = e.convert("fptosi", e.mul(small, form.steps * (1 << fine)), "i32")
    steps = e.lshr(e.add(steps, e.lshr(bits, 32 - fine)), fine)
    result = e.select(tiny, steps, normal)
    result = e.minimum(result, form.limit)
    if nan is not None and form.limit != form.nan:
        result = e.select(nan, form.nan, result)
    return e.or_(result, e.lshr(e.xor(pattern, magnitude), 32 - form.bits))
