"""Mathematical functions on float32 lanes, written with multiplies and adds alone.

Errors are at most 2 units in the last place (ulp), with or without fused multiply-add; docstrings say where the
relative error is larger, and docs/vector-math.md has the figures. Where several roundings would add up, values are
carried as a `Pair`. Infinities, NaN and subnormal numbers are handled, and an activation whose formula
is 0 * inf at infinity gives the limit. Polynomials are minimax fits with the relative error stated beside
them; coefficients are in ascending order.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nkilite.codegen.emitter import Emitter, Value

# --- building blocks ----------------------------------------------------------------------------------------


def _polynomial(e: Emitter, x: Value, coefficients: Sequence[float]) -> Value:
    """c[0] + c[1] x + c[2] x**2 + ... by Horner's rule, in the type of x."""
    *rest, last = (e.const(x.scalar, c, x.lanes) for c in coefficients)
    result = last
    for c in reversed(rest):
        result = e.fma(result, x, c)
    return result


def _const(e: Emitter, like: Value, number: float) -> Value:
    return e.const(like.scalar, number, like.lanes)


def _at_least(e: Emitter, x: Value, low: float) -> Value:
    """x, raised to `low`; NaN stays. One instruction, unlike Emitter.maximum."""
    return e.select(e.compare("ogt", low, x), low, x)


def _at_most(e: Emitter, x: Value, high: float) -> Value:
    """x, lowered to `high`; NaN stays."""
    return e.select(e.compare("olt", high, x), high, x)


def _negative(e: Emitter, x: Value) -> Value:
    return e.compare("olt", x, 0)


def _with_sign(e: Emitter, magnitude: Value, x: Value) -> Value:
    """A non-negative magnitude with the sign of x."""
    sign = e.and_(e.bitcast(x, "i32"), -(1 << 31))
    return e.bitcast(e.or_(e.bitcast(magnitude, "i32"), sign), "float")


class Pair(NamedTuple):
    """A value as the unevaluated sum of two floats, the second far smaller than the first."""

    high: Value
    low: Value


def _exact_product(e: Emitter, a: Value, b: Value) -> Pair:
    """a * b, all digits of it."""
    high = e.mul(a, b)
    if e.host.fma:
        return Pair(high, e.fma(a, b, e.neg(high)))
    a_top, b_top = _top(e, a), _top(e, b)
    a_rest, b_rest = e.sub(a, a_top), e.sub(b, b_top)
    low = e.add(e.sub(e.mul(a_top, b_top), high), e.add(e.mul(a_top, b_rest), e.mul(a_rest, b_top)))
    return Pair(high, e.add(low, e.mul(a_rest, b_rest)))


def _top(e: Emitter, x: Value) -> Value:
    """The leading 12 bits of x: products of two such numbers are exact."""
    return e.bitcast(e.and_(e.bitcast(x, "i32"), -1 << 12), "float")


def _square(e: Emitter, x: Value) -> Pair:
    """x * x, all digits of it."""
    return _exact_product(e, x, x)


def _product(e: Emitter, a: Pair, b: Pair) -> Pair:
    """a * b."""
    high, low = _exact_product(e, a.high, b.high)
    return Pair(high, e.add(low, e.fma(a.high, b.low, e.mul(a.low, b.high))))


def _quotient(e: Emitter, a: Pair, b: Pair) -> Value:
    """a / b for a moderate b, corrected by what the division and the low parts leave over."""
    inverse = e.div(1, b.high)
    ratio = e.mul(a.high, inverse)
    taken = _exact_product(e, ratio, b.high)
    rest = e.sub(e.sub(a.high, taken.high), taken.low)
    rest = e.fma(e.neg(ratio), b.low, e.add(rest, a.low))
    return e.fma(rest, inverse, ratio)


def _pair(e: Emitter, like: Value, number: float) -> Pair:
    """A number with the digits that float32 has no room for."""
    (high,) = struct.unpack("f", struct.pack("f", number))
    return Pair(_const(e, like, high), _const(e, like, number - high))


def _raised(e: Emitter, number: Value, x: Pair) -> Pair:
    """number + x, for non-negative x of any size."""
    high = e.add(number, x.high)
    taken = e.sub(high, x.high)
    lost = e.add(e.sub(number, taken), e.sub(x.high, e.sub(high, taken)))
    return Pair(high, e.add(lost, x.low))


# --- exponential and logarithm ------------------------------------------------------------------------------

_LOG2_E = 1.4426950408889634
# ln 2 in two parts; a multiple of the first up to 2**8 is exact, with or without fused multiply-add.
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.428606765330187e-06
# Adding 1.5 * 2**23 leaves a float's nearest integer in its low bits.
_ROUND, _ROUND_BITS = 12582912.0, 0x4B400000
_EXP_ZERO = -176.0  # -254 * ln(2)
# (exp(r) - 1 - r) / r**2 for |r| <= ln(2) / 2: 2**-28.
_EXP = (0.49999994, 0.16666509, 0.04166801, 0.008369991, 0.0013847065)


def exp(e: Emitter, x: Value) -> Value:
    """e ** x."""
    return _exp(e, x)


def _exp(e: Emitter, x: Value, low: Value | None = None) -> Value:
    """exp(x + low), where `low` is a small correction to x."""
    r, scaled = _bounded_exp(e, x, low)
    if e.host.fma:  # Horner's rule to the end rounds no worse, in one instruction less
        return scaled(_polynomial(e, r, (1.0, 1.0, *_EXP)))
    return scaled(e.add(_exp_minus_one(e, r), 1))


# By how many powers of two functions of the form x * exp(x) keep their factors larger than they are: products are
# rounded once where they are subnormal.
_RAISED = 24
_LOWERING = 2.0**-_RAISED


def _exp_pair(e: Emitter, x: Value, low: Value | None = None, raised: int = 0) -> Pair:
    """exp(x + low) * 2**raised, with what rounding 1 + p loses beside it."""
    r, scaled = _bounded_exp(e, x, low, raised)
    p = _exp_minus_one(e, r)
    rounded = e.add(p, 1)
    return Pair(scaled(rounded), scaled(e.sub(p, e.sub(rounded, 1))))


def _lowered(e: Emitter, x: Pair) -> Pair:
    """What was raised, as it is."""
    return Pair(e.mul(x.high, _LOWERING), e.mul(x.low, _LOWERING))


def _bounded_exp(
    e: Emitter, x: Value, low: Value | None, raised: int = 0
) -> tuple[Value, Callable[[Value], Value]]:
    """r, and a function that multiplies by 2**n, such that exp(x + low) * 2**raised = 2**n * exp(r).

    The arguments of a masked softmax must not underflow, which costs a hundred cycles for every vector.
    AVX-512 masks such lanes out of the scaling; elsewhere they are clamped to where `_scale` multiplies by 0.
    """
    masked = e.host.vector_bits == 512
    bounded = _at_most(e, x, 89.0)
    n, r = _reduce_exp(e, bounded if masked else _at_least(e, bounded, _EXP_ZERO), low)
    if not masked:
        return r, lambda value: _scale(e, value, e.sub(e.bitcast(n, "i32"), _ROUND_BITS - raised))
    kept = e.compare("ugt", x, -104 - raised * _LN2_HIGH)
    whole = e.sub(n, _ROUND - raised)
    return r, lambda value: e.select(kept, _scale_avx512(e, value, whole), 0)


def _reduce_exp(e: Emitter, x: Value, low: Value | None = None) -> tuple[Value, Value]:
    """(n + _ROUND, r) with exp(x + low) = 2**n * exp(r), n whole and |r| <= ln(2) / 2."""
    rounded = e.fma(x, _LOG2_E, _ROUND)
    n = e.sub(rounded, _ROUND)
    r = e.fma(n, -_LN2_HIGH, x)
    r = e.fma(n, -_LN2_LOW, r)
    return rounded, r if low is None else e.add(r, low)


def _exp_minus_one(e: Emitter, r: Value) -> Value:
    """exp(r) - 1 for |r| <= ln(2) / 2."""
    return e.fma(e.mul(r, r), _polynomial(e, r, _EXP), r)


def _integer(e: Emitter, rounded: Value) -> Value:
    """n of n + _ROUND as integer lanes."""
    return e.sub(e.bitcast(rounded, "i32"), _ROUND_BITS)


def _scale_avx512(e: Emitter, x: Value, n: Value) -> Value:
    """x * 2**n for whole n, which the instruction takes as floats."""
    if not x.lanes:
        return e.extract(_scale_avx512(e, e.splat(x, 1), e.splat(n, 1)), 0)
    lanes = min(max(x.lanes, 4), 16)
    name = f"llvm.x86.avx512.mask.scalef.ps.{32 * lanes}"
    rest = [e.const(f"i{max(lanes, 8)}", -1), *([e.i32(4)] if lanes == 16 else [])]  # all lanes; rounding as set
    parts = []
    for first in range(0, x.lanes, lanes):
        a, b = (_part(e, v, first, lanes) for v in (x, n))
        parts.append(e.call(name, "float", lanes, a, b, a, *rest))
    return _part(e, e.join(parts), 0, x.lanes)


def _part(e: Emitter, x: Value, first: int, lanes: int) -> Value:
    """Lanes of x from the first on; those beyond it are anything."""
    if lanes == x.lanes:
        return x
    return e.shuffle(x, None, [i if i < x.lanes else -1 for i in range(first, first + lanes)])


def _power_of_two(e: Emitter, n: Value) -> Value:
    """2**n for -126 <= n <= 127, and 0 for n = -127."""
    return e.bitcast(e.shl(e.add(n, 127), 23), "float")


def _scale(e: Emitter, x: Value, n: Value) -> Value:
    """x * 2**n for -254 <= n <= 128 and x near 1, rounding once when the result is subnormal."""
    half = e.ashr(n, 1)
    return e.mul(e.mul(x, _power_of_two(e, half)), _power_of_two(e, e.sub(n, half)))


# (log(1 + f) - f + f**2 / 2) / f**3 for 1 + f in [sqrt(1/2), sqrt(2)]: 2**-29.
_LOG = (
    0.33333313, -0.2500017, 0.20002225, -0.16659214, 0.14209425, -0.12552162, 0.12112178, -0.10903786,
    0.05317236,
)
_SQRT_HALF_BITS = 0x3F3504F3


def log(e: Emitter, x: Value) -> Value:
    """Natural logarithm: -inf at 0, NaN below."""
    subnormal = e.compare("olt", x, 2.0**-126)
    scaled = e.select(subnormal, e.mul(x, 2.0**23), x)
    bits = e.bitcast(scaled, "i32")
    exponent = e.ashr(e.sub(bits, _SQRT_HALF_BITS), 23)
    f = e.sub(e.bitcast(e.sub(bits, e.shl(exponent, 23)), "float"), 1)
    n = e.convert("sitofp", exponent, "float")
    n = e.sub(n, e.select(subnormal, _const(e, x, 23), 0))
    square = e.mul(f, f)
    tail = e.mul(_polynomial(e, f, _LOG), e.mul(square, f))
    tail = e.fma(n, _LN2_LOW, tail)
    tail = e.fma(square, -0.5, tail)
    result = e.fma(n, _LN2_HIGH, e.add(f, tail))
    regular = e.and_(e.compare("ogt", x, 0), e.compare("olt", x, math.inf))
    # Infinity is its own logarithm; what is not positive is zero, negative or NaN.
    special = e.select(e.compare("ogt", x, 0), x, math.nan)
    special = e.select(e.compare("oeq", x, 0), -math.inf, special)
    return e.select(regular, result, special)


# log2((1 + s) / (1 - s)) / s as a polynomial of s**2, for mantissas in [sqrt(1/2), sqrt(2)]: 2**-45.
_LOG2_DOUBLE = (
    2.8853900817778495, 0.9617966941140343, 0.5770779421751324, 0.41220927059733076, 0.31990498252850674,
    0.28290996511089067,
)
# 2**f for |f| <= 1/2: 2**-40.
_EXP2_DOUBLE = (
    0.9999999999997624, 0.6931471805465143, 0.240226506988798, 0.055504109393417045, 0.009618128542971695,
    0.00133334520621153, 0.00015403851677392224, 1.5309737477805883e-05, 1.3175872771255866e-06,
)
_SQRT_HALF_DOUBLE_BITS = 0x3FE6A09E667F3BCD
_ROUND_DOUBLE = 6755399441055744.0  # 1.5 * 2**52


def power(e: Emitter, x: Value, y: Value) -> Value:
    """x ** y with the special cases of IEEE 754, such as NaN for a negative x unless y is an integer.

    Computed in double precision: y multiplies the error of the logarithm by up to 150.
    """
    magnitude = e.abs(x)
    product = e.mul(e.convert("fpext", y, "double"), _log2_double(e, magnitude))
    result = e.convert("fptrunc", _exp2_double(e, product), "float")

    half = e.mul(y, 0.5)
    integer = e.compare("oeq", e.intrinsic("llvm.floor", y), y)
    odd = e.and_(integer, e.compare("une", e.intrinsic("llvm.floor", half), half))
    negative = e.compare("slt", e.bitcast(x, "i32"), 0)
    result = e.select(e.and_(negative, odd), e.neg(result), result)
    finite_negative = e.and_(_negative(e, x), e.compare("olt", magnitude, math.inf))
    result = e.select(e.and_(finite_negative, e.not_(integer)), math.nan, result)
    # 1 ** y and x ** 0 are 1 even for NaN, as is (-1) ** inf.
    minus_one = e.and_(e.compare("oeq", magnitude, 1), e.compare("oeq", e.abs(y), math.inf))
    trivial = e.or_(e.compare("oeq", x, 1), e.compare("oeq", y, 0))
    return e.select(e.or_(trivial, minus_one), 1, result)


def _log2_double(e: Emitter, x: Value) -> Value:
    """log2 of non-negative float32 lanes, as double lanes."""
    wide = e.convert("fpext", x, "double")
    bits = e.bitcast(wide, "i64")
    # Biased to stay positive; its high bits are the exponent, made a double by the bits of 2**52.
    shifted = e.add(e.sub(bits, _SQRT_HALF_DOUBLE_BITS), 1024 << 52)
    exponent = e.lshr(shifted, 52)
    mantissa = e.bitcast(e.sub(bits, e.shl(e.sub(exponent, 1024), 52)), "double")
    n = e.sub(e.bitcast(e.or_(exponent, 0x4330000000000000), "double"), 2.0**52 + 1024)
    s = e.div(e.sub(mantissa, 1), e.add(mantissa, 1))
    result = e.fma(s, _polynomial(e, e.mul(s, s), _LOG2_DOUBLE), n)
    result = e.select(e.compare("oeq", wide, 0), -math.inf, result)
    return e.select(e.compare("ult", wide, math.inf), e.select(_is_nan(e, wide), wide, result), wide)


def _is_nan(e: Emitter, x: Value) -> Value:
    return e.compare("uno", x, x)


def _exp2_double(e: Emitter, x: Value) -> Value:
    """2**x of double lanes, good for what float32 can tell apart: bounded to 2**-200 and 2**200."""
    x = _at_most(e, _at_least(e, x, -200.0), 200.0)
    rounded = e.add(x, _ROUND_DOUBLE)
    p = _polynomial(e, e.sub(x, e.sub(rounded, _ROUND_DOUBLE)), _EXP2_DOUBLE)
    # p is near 1: its exponent field takes the integer part, except that a NaN stays one.
    n = e.shl(e.bitcast(rounded, "i64"), 52)
    scaled = e.bitcast(e.add(e.bitcast(p, "i64"), n), "double")
    return e.select(_is_nan(e, x), x, scaled)


# --- roots and reciprocals ----------------------------------------------------------------------------------


def sqrt(e: Emitter, x: Value) -> Value:
    """Square root, correctly rounded; NaN below 0."""
    return e.sqrt(x)


def reciprocal(e: Emitter, x: Value) -> Value:
    """1 / x, correctly rounded."""
    return e.div(1, x)


def rsqrt(e: Emitter, x: Value) -> Value:
    """1 / sqrt(x): inf at 0, NaN below."""
    return e.div(1, e.sqrt(x))


# --- sigmoid and its relatives ------------------------------------------------------------------------------

# Activations of the form x * s(x) vanish below this; clamping there keeps -inf * 0 from making a NaN.
_VANISHES = -110.0
_SATURATED = 20.0  # those of the form x * s(x) are x from here on


def _below_one(e: Emitter, x: Pair) -> Pair:
    """1 + x for 0 <= x <= 1."""
    one = _const(e, x.high, 1)
    high = e.add(one, x.high)
    return Pair(high, e.add(e.sub(x.high, e.sub(high, one)), x.low))


def sigmoid(e: Emitter, x: Value) -> Value:
    """1 / (1 + exp(-x))."""
    return _logistic(e, x, e.f32(1, x.lanes))


def _logistic(e: Emitter, x: Value, factor: Value, low: Value | None = None) -> Value:
    """factor / (1 + exp(-(x + low)))."""
    zero = _const(e, x, 0)
    if low is not None:
        low = e.select(_negative(e, x), low, e.neg(low))
    decayed = _exp_pair(e, e.neg(e.abs(x)), low, _RAISED)
    scaled = _product(e, Pair(factor, zero), decayed)
    negative = _negative(e, x)
    top = Pair(e.select(negative, scaled.high, factor), e.select(negative, scaled.low, zero))
    ratio = _quotient(e, top, _below_one(e, _lowered(e, decayed)))
    ratio = e.mul(ratio, e.select(negative, _const(e, x, _LOWERING), _const(e, x, 1)))
    # A quotient of 0 has lost the sign of the factor.
    return _with_sign(e, e.select(e.compare("ogt", x, _SATURATED), factor, ratio), factor)


def silu(e: Emitter, x: Value) -> Value:
    """x / (1 + exp(-x))."""
    return _logistic(e, x, _at_least(e, x, _VANISHES))


def silu_dx(e: Emitter, x: Value) -> Value:
    """Derivative of silu. Relative to the largest term near its zero at -1.278."""
    raised, _ = _exp_pair(e, e.neg(e.abs(x)), raised=_RAISED)
    decayed = e.mul(raised, _LOWERING)
    total = e.add(decayed, 1)
    negative = _negative(e, x)
    bounded = _at_most(e, _at_least(e, x, _VANISHES), -_VANISHES)
    # s + x s (1 - s), with s = 1 / total or decayed / total on either side of 0.
    slope = e.select(negative, bounded, e.mul(bounded, decayed))
    outer = e.select(negative, raised, 1 / _LOWERING)
    slopes = e.mul(e.div(outer, total), e.div(e.add(total, slope), total))
    return e.mul(slopes, _LOWERING)


def softplus(e: Emitter, x: Value) -> Value:
    """log(1 + exp(x))."""
    return e.add(_at_least(e, x, 0.0), _log1p(e, _exp_pair(e, e.neg(e.abs(x)))))


# (2 atanh(s / 2) - s) / s**3 as a polynomial of s**2, for s <= 2/3: 2**-33.
_ATANH = (0.083333343, 0.012499671, 0.0022355639, 0.00041882262, 0.00011839035)


def _log1p(e: Emitter, u: Pair) -> Value:
    """log(1 + u) for 0 <= u <= 1, as 2 atanh(s / 2) with s = u / (1 + u / 2)."""
    s = _quotient(e, u, _below_one(e, Pair(e.mul(u.high, 0.5), e.mul(u.low, 0.5))))
    square = e.mul(s, s)
    return e.fma(e.mul(s, square), _polynomial(e, square, _ATANH), s)


def mish(e: Emitter, x: Value) -> Value:
    """x * tanh(softplus(x)), as x * n / (n + 2) with n = exp(x) * (exp(x) + 2)."""
    power = _exp_pair(e, _at_most(e, x, 20.0), raised=_RAISED)
    two = _const(e, x, 2)
    n = _product(e, power, _raised(e, two, _lowered(e, power)))
    factor = Pair(_at_least(e, x, _VANISHES), _const(e, x, 0))
    ratio = _quotient(e, _product(e, factor, n), _raised(e, two, _lowered(e, n)))
    ratio = e.mul(ratio, _LOWERING)
    return _with_sign(e, e.select(e.compare("ogt", x, _SATURATED), x, ratio), x)


def tanh(e: Emitter, x: Value) -> Value:
    """Hyperbolic tangent, as m / (m + 2) with m = exp(2 |x|) - 1."""
    magnitude = e.abs(x)
    doubled = _at_most(e, e.add(magnitude, magnitude), 20.0)
    n, r = _reduce_exp(e, doubled)
    power, p = _power_of_two(e, _integer(e, n)), _exp_minus_one(e, r)
    m = Pair(e.fma(power, p, e.sub(power, 1)), _const(e, x, 0))
    return _with_sign(e, _quotient(e, m, _raised(e, _const(e, x, 2), m)), x)


# --- the normal distribution --------------------------------------------------------------------------------

# erf(x) / x - 1 as a polynomial of x**2, for |x| <= 1: 2**-29.
_ERF = (0.12837917, -0.37612626, 0.11283579, -0.026853347, 0.005187162, -0.0007997853, 7.806904e-05)
# log(erfc(x)) for 1 <= x <= 3.95, where erf becomes 1: 2**-29 of erf.
_LOG_ERFC = (-0.00034153962, -1.1270891, -0.6381449, -0.10310666, 0.021838, -0.0029476376, 0.00018637702)


def erf(e: Emitter, x: Value) -> Value:
    """The error function."""
    magnitude = _at_most(e, e.abs(x), 3.95)
    square = e.mul(magnitude, magnitude)
    near = e.fma(magnitude, _polynomial(e, square, _ERF), magnitude)
    far = e.sub(1, _exp(e, _polynomial(e, magnitude, _LOG_ERFC)))
    return _with_sign(e, e.select(e.compare("olt", magnitude, 1), near, far), x)


def erf_dx(e: Emitter, x: Value) -> Value:
    """Derivative of erf: 2 / sqrt(pi) * exp(-x**2)."""
    high, low = _square(e, _at_most(e, e.abs(x), 11.0))
    density = _exp_pair(e, e.neg(high), e.neg(low))
    scaled = _product(e, density, _pair(e, x, 2 / math.sqrt(math.pi)))
    return e.add(scaled.high, scaled.low)


# exp(x**2 / 2) * (1 - Phi(x)) as a ratio of polynomials for 0 <= x <= 14.4, Phi being the normal
# distribution's cumulative function: 2**-27.
_TAIL_P = (0.5, 0.4380905032157898, 0.18308351933956146, 0.040582071989774704, 0.004108702763915062)
_TAIL_Q = (
    1.0, 1.6740659475326538, 1.2018736600875854, 0.46907034516334534, 0.10173068195581436,
    0.010298868641257286,
)
_TAIL_END = 14.6  # the density is zero from here on


def _normal_tail(e: Emitter, x: Value) -> tuple[Value, Value, Value]:
    """(|x| bounded, exp(-x**2 / 2), ratio) such that the product of the last two is 1 - Phi(|x|).

    The square has twice the precision: the tail's relative error is the absolute error of its exponent.
    """
    magnitude = _at_most(e, e.abs(x), _TAIL_END)
    high, low = _square(e, magnitude)
    density = _exp(e, e.mul(high, -0.5), e.mul(low, -0.5))
    ratio = e.div(_polynomial(e, magnitude, _TAIL_P), _polynomial(e, magnitude, _TAIL_Q))
    return magnitude, density, ratio


def gelu(e: Emitter, x: Value) -> Value:
    """x * Phi(x), relatively accurate in the negative tail too: max(x, 0) - |x| * (1 - Phi(|x|))."""
    magnitude, density, ratio = _normal_tail(e, x)
    return _with_sign(e, e.sub(_at_least(e, x, 0.0), e.mul(density, e.mul(magnitude, ratio))), x)


def gelu_dx(e: Emitter, x: Value) -> Value:
    """Derivative of gelu: Phi(x) + x * phi(x). Relative to the larger term near its zero at -0.752."""
    magnitude, density, ratio = _normal_tail(e, x)
    rest = e.mul(density, e.fma(magnitude, -1 / math.sqrt(2 * math.pi), ratio))
    return e.select(_negative(e, x), rest, e.sub(1, rest))


def gelu_apprx_tanh(e: Emitter, x: Value) -> Value:
    """0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))."""
    scale = 2 * math.sqrt(2 / math.pi)
    # Bounded so that the cube stays finite; past this the function is x or 0.
    bounded = _at_most(e, _at_least(e, x, -20.0), 20.0)
    cubic = _product(e, _square(e, bounded), _pair(e, x, scale * 0.044715))
    one = _pair(e, x, scale)
    slope = _raised(e, one.high, Pair(cubic.high, e.add(cubic.low, one.low)))
    z = _product(e, Pair(bounded, _const(e, x, 0)), slope)
    return _logistic(e, z.high, _at_least(e, x, -20.0), z.low)


GELU_SIGMOID = 1.702


def gelu_apprx_sigmoid(e: Emitter, x: Value) -> Value:
    """x / (1 + exp(-1.702 * x))."""
    bounded = _at_most(e, _at_least(e, x, _VANISHES), -_VANISHES)
    z = _product(e, Pair(bounded, _const(e, x, 0)), _pair(e, x, GELU_SIGMOID))
    return _logistic(e, z.high, _at_least(e, x, _VANISHES), z.low)


def gelu_apprx_sigmoid_dx(e: Emitter, x: Value) -> Value:
    """Derivative of gelu_apprx_sigmoid, which is silu's derivative at 1.702 * x."""
    return silu_dx(e, e.mul(x, GELU_SIGMOID))


# --- trigonometry -------------------------------------------------------------------------------------------

_PI_HIGH, _PI_LOW = 3.1415927410125732, -8.742277657347586e-08
# (sin(x) - x) / x**3 as a polynomial of x**2, for |x| <= pi / 2: 2**-31.
_SIN = (-0.16666667, 0.0083333505, -0.00019843093, 2.7627061e-06, -2.5503285e-08)


def sin(e: Emitter, x: Value) -> Value:
    """Sine as the Scalar Engine evaluates it, without range reduction.

    Within [-pi, pi] this is the sine. Outside, the documents (nki.api.shared) have a cubic extrapolated and
    say that sin(9.0) is about 27.65: the value of the cubic Taylor polynomial around pi (27.653).
    """
    magnitude = e.abs(x)
    from_pi = e.add(e.sub(_PI_HIGH, magnitude), _PI_LOW)
    y = e.select(e.compare("ogt", magnitude, math.pi / 2), from_pi, magnitude)
    square = e.mul(y, y)
    inside = e.fma(e.mul(y, square), _polynomial(e, square, _SIN), y)
    outside = e.mul(y, e.fma(square, -1 / 6, 1))
    beyond = e.compare("ogt", magnitude, _PI_HIGH)
    sine = e.select(beyond, outside, inside)
    sign = e.and_(e.bitcast(x, "i32"), -(1 << 31))
    return e.bitcast(e.xor(e.bitcast(sine, "i32"), sign), "float")


# (arctan(x) - x) / x**3 as a polynomial of x**2, for |x| <= 1: 2**-28.
_ARCTAN = (
    -0.333333, 0.1999853, -0.14264016, 0.10950882, -0.083993256, 0.057882328, -0.031099021, 0.010870613,
    -0.0017834703,
)
_HALF_PI_HIGH, _HALF_PI_LOW = _PI_HIGH / 2, _PI_LOW / 2


def arctan(e: Emitter, x: Value) -> Value:
    """Inverse tangent, over the whole number line."""
    magnitude = e.abs(x)
    steep = e.compare("ogt", magnitude, 1)
    t = e.div(e.select(steep, 1, magnitude), e.select(steep, magnitude, 1))
    square = e.mul(t, t)
    angle = e.fma(e.mul(t, square), _polynomial(e, square, _ARCTAN), t)
    complement = e.add(e.sub(_HALF_PI_HIGH, angle), _HALF_PI_LOW)
    return _with_sign(e, e.select(steep, complement, angle), x)


# --- piecewise ----------------------------------------------------------------------------------------------


def sign(e: Emitter, x: Value) -> Value:
    """-1, 0 or 1; NaN for NaN. Of -0, too, it is 0."""
    zero, one = e.f32(0, x.lanes), e.f32(1, x.lanes)
    sign = e.select(e.compare("ogt", x, zero), one, e.select(e.compare("olt", x, zero), e.neg(one), zero))
    return e.select(_is_nan(e, x), x, sign)
