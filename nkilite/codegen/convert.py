"""Element conversions between memory and registers: every NKI dtype to float32 or int32 lanes and back.

`dtypes.cast` is the definition. Where a CPU has no instructions for it, which the narrowest level has not for any
narrow float, integer and float32 instructions do it: there is no run-time library to fall back on.
"""

from __future__ import annotations

import functools

import numpy as np

from nkilite import dtypes
from nkilite.codegen.emitter import INTEGERS, Emitter, Value
from nkilite.dtypes import FORMS, DType, Form

_UNUSUAL = 0xA1  # classes of numbers: quiet NaN, subnormal, other NaN
_ELEMENTS = {
    dtypes.float8_e4m3fn_x4: FORMS[dtypes.float8_e4m3fn],
    dtypes.float8_e5m2_x4: FORMS[dtypes.float8_e5m2],
    dtypes.float4_e2m1fn_x4: Form(2, 1, 1, limit=0x8, nan=0x8),  # neither infinity nor NaN: all magnitudes are below
}


def raw_scalar(dtype: DType) -> str:
    """The LLVM type elements are loaded as: float for float32 and tfloat32, else an integer of their size."""
    if dtype is dtypes.float32 or dtype is dtypes.tfloat32:
        return "float"
    return INTEGERS[dtype.itemsize]


def widen(e: Emitter, dtype: DType, raw: Value) -> Value:
    """Raw lanes to float32 lanes; exact for every dtype but int32 and uint32, which round to nearest even."""
    if raw.scalar == "float":
        return raw
    if dtype.is_integer:
        wide = to_i32(e, dtype, raw)
        return e.convert("uitofp" if dtype is dtypes.uint32 else "sitofp", wide, "float")
    if dtype is dtypes.float16 and e.host.f16c:
        return e.convert("fpext", e.bitcast(raw, "half"), "float")
    bits = e.convert("zext", raw, "i32")
    if dtype is dtypes.bfloat16:
        return e.bitcast(e.shl(bits, 16), "float")
    if dtype is dtypes.float8_e8m0fnu:
        return _widen_power_of_two(e, bits)
    return _widen_small(e, FORMS[dtype], bits)


def widen_element(e: Emitter, dtype: DType, words: Value, position: int) -> Value:
    """One of the four elements of packed words (i32 lanes) to float32 lanes."""
    form = _ELEMENTS[dtype]
    moved = e.lshr(words, position * form.bits)
    return _widen_small(e, form, e.and_(moved, (1 << form.bits) - 1))


def narrow(e: Emitter, dtype: DType, value: Value) -> Value:
    """float32 lanes to raw lanes, rounded as `dtypes.cast` rounds float32."""
    if dtype is dtypes.float32:
        return value
    if dtype is dtypes.tfloat32:
        return _round_tfloat32(e, value)
    if dtype is dtypes.bool_:
        return e.convert("zext", e.compare("une", value, 0), "i8")
    if dtype.is_integer:
        return _round_integer(e, dtype, value)
    if dtype is dtypes.float16 and e.host.f16c:
        return e.bitcast(e.convert("fptrunc", value, "half"), "i16")
    if dtype is dtypes.bfloat16:
        return _round_bfloat16(e, value)
    if dtype is dtypes.float8_e8m0fnu:
        bits = _round_power_of_two(e, value)
    else:
        bits = _round_small(e, FORMS[dtype], value)
    return e.convert("trunc", bits, raw_scalar(dtype))


def to_i32(e: Emitter, dtype: DType, raw: Value) -> Value:
    """Raw lanes of an integer, bool or packed dtype, sign- or zero-extended to 32 bits; a bool becomes 0 or 1."""
    assert not dtype.is_float, dtype
    if raw.scalar == "i32":
        return raw
    if dtype is dtypes.bool_:
        raw = truth(e, raw)
    return e.convert("sext" if dtype.kind == "i" else "zext", raw, "i32")


def truth(e: Emitter, raw: Value) -> Value:
    """Raw lanes of a bool as 0 or 1."""
    return e.intrinsic("llvm.umin", raw, e.const("i8", 1, raw.lanes))


def from_i32(e: Emitter, dtype: DType, value: Value) -> Value:
    """int32 lanes to raw lanes of an integer or packed dtype: the low bits; for bool, whether any is set."""
    assert not dtype.is_float, dtype
    if dtype is dtypes.bool_:
        return e.convert("zext", e.compare("ne", value, 0), "i8")
    scalar = raw_scalar(dtype)
    return value if scalar == "i32" else e.convert("trunc", value, scalar)


# --- widening -----------------------------------------------------------------------------------------------


def _widen_small(e: Emitter, form: Form, bits: Value) -> Value:
    """A small float in the low bits of i32 lanes to float32.

    Moved into place and rebiased, a normal number is right as it stands. For a subnormal the exponent field
    is set to one, and the implied bit this adds is subtracted again by the float unit, which normalizes. A number
    with float16's exponents is the upper part of one, which the CPU may know how to widen.
    """
    lanes = bits.lanes
    if e.host.f16c and (form.exponent, form.bias) == (5, 15):
        half = e.convert("trunc", e.shl(bits, 16 - form.bits), "i16")
        return e.convert("fpext", e.bitcast(half, "half"), "float")
    shift = 23 - form.mantissa
    magnitude = e.and_(bits, (1 << (form.bits - 1)) - 1)
    moved = e.shl(magnitude, shift)
    normal = e.add(moved, (127 - form.bias) << 23)
    raised = e.add(normal, 1 << 23)
    smallest = e.f32(2.0 ** (1 - form.bias), lanes)
    subnormal = e.bitcast(e.sub(e.bitcast(raised, "float"), smallest), "i32")
    tiny = e.compare("ult", magnitude, 1 << form.mantissa)
    result = e.select(tiny, subnormal, normal)
    special = e.compare("uge", magnitude, form.limit)
    if form.limit == form.nan:
        result = e.select(special, 0x7FC00000, result)
    else:
        # Infinity keeps its empty mantissa; a NaN's becomes the quiet one.
        nan = e.compare("ugt", magnitude, form.limit)
        result = e.select(special, 0x7F800000, result)
        result = e.select(nan, 0x7FC00000, result)
    sign = e.shl(e.xor(bits, magnitude), 32 - form.bits)
    return e.bitcast(e.or_(result, sign), "float")


def _widen_power_of_two(e: Emitter, bits: Value) -> Value:
    """A float8_e8m0fnu exponent to float32: 2 ** (bits - 127), subnormal for 0; 255 is NaN."""
    power = e.shl(bits, 23)
    power = e.select(e.compare("eq", bits, 0), 0x00400000, power)
    nan = e.compare("eq", bits, 0xFF)
    return e.bitcast(e.select(nan, 0x7FC00000, power), "float")


# --- rounding -----------------------------------------------------------------------------------------------


def _is_nan(e: Emitter, value: Value) -> Value:
    return e.compare("uno", value, value)


def _round_to_even(e: Emitter, bits: Value, dropped: int) -> Value:
    """Bits plus what makes clearing the lowest `dropped` of them round to nearest even."""
    odd = e.and_(e.lshr(bits, dropped), 1)
    return e.add(bits, e.add(odd, (1 << (dropped - 1)) - 1))


def _round_bfloat16(e: Emitter, value: Value) -> Value:
    """CPUs that have an instruction for it take subnormal numbers for zero, and NaN for others."""
    if not e.host.rounds_bfloat16 or value.lanes not in (16, 32):
        return _round_bfloat16_bits(e, value)
    parts = [e.shuffle(value, None, range(i, i + 16)) for i in range(value.lanes - 16, -1, -16)]
    name, result = (("cvtneps2bf16.512", 16), ("cvtne2ps2bf16.512", 32))[len(parts) - 1]
    kinds = [e.call("llvm.x86.avx512.fpclass.ps.512", "i1", 16, part, e.i32(_UNUSUAL)) for part in parts]
    none = e.compare("eq", e.bits(functools.reduce(e.or_, kinds)), 0)

    def rounded() -> Value:
        return e.bitcast(e.call(f"llvm.x86.avx512bf16.{name}", "bfloat", result, *parts), "i16")

    return e.either(none, rounded, lambda: _round_bfloat16_bits(e, value))


def _round_bfloat16_bits(e: Emitter, value: Value) -> Value:
    bits = e.bitcast(value, "i32")
    top = e.lshr(_round_to_even(e, bits, 16), 16)
    sign = e.and_(e.lshr(bits, 16), 0x8000)
    return e.convert("trunc", e.select(_is_nan(e, value), e.or_(sign, 0x7FC0), top), "i16")


def _round_tfloat32(e: Emitter, value: Value) -> Value:
    """Ten mantissa bits are kept; rounding cannot disturb infinities, whose mantissa is empty."""
    rounded = _round_to_even(e, e.bitcast(value, "i32"), 13)
    rounded = e.bitcast(e.and_(rounded, -1 << 13), "float")
    return e.select(_is_nan(e, value), value, rounded)


def _round_small(e: Emitter, form: Form, value: Value) -> Value:
    """float32 to a small float in the low bits of i32 lanes.

    Below the smallest normal number the float unit does the rounding: adding a power of two whose last
    mantissa bit weighs as much as the smallest subnormal leaves the result in the low bits.
    """
    lanes = value.lanes
    bits = e.bitcast(value, "i32")
    magnitude = e.and_(bits, 0x7FFFFFFF)
    dropped = 23 - form.mantissa
    rebias = (127 - form.bias) << form.mantissa
    normal = e.sub(e.lshr(_round_to_even(e, magnitude, dropped), dropped), rebias)
    anchor = 2.0 ** (24 - form.bias - form.mantissa)
    pushed = e.add(e.bitcast(magnitude, "float"), anchor)
    subnormal = e.sub(e.bitcast(pushed, "i32"), e.bitcast(e.f32(anchor, lanes), "i32"))
    tiny = e.compare("ult", magnitude, (128 - form.bias) << 23)
    result = e.select(tiny, subnormal, normal)
    # A signed minimum will do: `normal` is positive even for infinities and NaN.
    result = e.minimum(result, form.limit)
    if form.limit != form.nan:
        result = e.select(_is_nan(e, value), form.nan, result)
    sign = e.lshr(e.xor(bits, magnitude), 32 - form.bits)
    return e.or_(result, sign)


def _round_power_of_two(e: Emitter, value: Value) -> Value:
    """float32 to a float8_e8m0fnu exponent: half rounds up; zero, negative numbers and NaN become NaN."""
    lanes = value.lanes
    bits = e.bitcast(value, "i32")
    # Of the subnormals, 2 ** -127 alone is a power: what is dropped has a bit less there.
    subnormal = e.compare("ult", bits, 1 << 23)
    half = e.select(subnormal, e.i32(1 << 21, lanes), e.i32(1 << 22, lanes))
    exponent = e.lshr(e.add(bits, half), 23)
    positive = e.compare("ult", e.sub(bits, 1), 0x7F800000)
    return e.select(positive, exponent, 0xFF)


def _round_integer(e: Emitter, dtype: DType, value: Value) -> Value:
    """Nearest even, saturated; NaN becomes 0. Clamped before converting: out of range LLVM gives poison."""
    limits = np.iinfo(dtype.numpy)
    bits = 8 * dtype.itemsize
    # The largest float32 the type can hold; below 32 bits that is its maximum.
    top = limits.max if bits < 32 else limits.max + 1 - (1 << (bits - 24 - (dtype.kind == "i")))
    clamped = _clamp(e, value, float(limits.min), float(top))
    whole = e.intrinsic("llvm.rint", clamped)
    result = e.convert("fptoui" if dtype is dtypes.uint32 else "fptosi", whole, "i32")
    if bits == 32:
        over = e.compare("oge", value, float(limits.max + 1))
        result = e.select(over, limits.max, result)
    if limits.min < 0:
        result = e.select(_is_nan(e, value), 0, result)
    return result if bits == 32 else e.convert("trunc", result, raw_scalar(dtype))


def _clamp(e: Emitter, value: Value, low: float, high: float) -> Value:
    """Into [low, high]; NaN becomes low. Written as the comparisons that are one min or max instruction."""
    value = e.select(e.compare("ogt", value, low), value, low)
    return e.select(e.compare("olt", value, high), value, high)
