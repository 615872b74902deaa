"""The element types of a NeuronCore and how values are rounded into them.

A `DType` is a string (``nl.float32 == "float32"``) that NumPy accepts wherever it takes a dtype. Rounding follows the
hardware: engines compute in float32 and round on write, to nearest even; floats become integers by rounding to
nearest even and saturating, NaN becomes 0; bfloat16 and float8 follow ml_dtypes.

A float8 dtype can have another exponent bias (`biased`). NumPy has no type for it: arrays hold bytes, and who computes
with the elements takes the float32 that `elements` makes of them.

int64 and uint64 are dtypes of what DMA moves and of scalars: no engine computes with them (`is_wide`).
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np

__all__ = [
    "ALL", "BIASABLE", "BIASES", "ELEMENTS", "FORMS", "DType", "DTypeLike", "Elements", "Form", "as_dtype", "biased",
    "cast", "elements", "from_numpy", "numpy_known", "single", "stored", "unpack",
]


class _Namespace(type):
    """The class of DType: `nki.dtype.float32` is the element type of that name."""

    def __getattr__(cls, name: str) -> DType:
        found = ALL.get(name) or _ALIASES.get(name)
        if found is None:
            raise AttributeError(f"there is no element type {name!r}; there are {', '.join(ALL)}", name=name, obj=cls)
        return found


class DType(str, metaclass=_Namespace):
    """An NKI element type: a string with an item size and a NumPy equivalent.

    Attributes:
        itemsize: bytes per element.
        kind: "f" float, "i" signed, "u" unsigned, "b" bool, "x" packed ×4 (no arithmetic).
        numpy: the NumPy dtype elements are stored as.
        base: the same format with its usual exponent bias.
        is_biased: whether the exponent bias is another than the usual one, so that NumPy has no such type.
    """

    itemsize: int
    kind: str
    numpy: np.dtype
    base: DType
    is_biased: bool

    def __new__(cls, name: str, kind: str, numpy: Any) -> DType:
        self = super().__new__(cls, name)
        self.kind = kind
        self.numpy = np.dtype(numpy)
        self.itemsize = self.numpy.itemsize
        self.base = self
        self.is_biased = False  # an attribute: it is asked for every operand
        return self

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.kind in "iub"

    @property
    def is_wide(self) -> bool:
        """Whether elements have 64 bits, twice what engines compute with."""
        return self.itemsize == 8

    def to_bits(self, values: object) -> np.ndarray:
        """Numbers, rounded to nearest even, as an array of `numpy`: of bytes where the bias is adjusted."""
        return stored(cast(np.asarray(values, np.float32), self), self)

    def from_bits(self, array: np.ndarray) -> np.ndarray:
        """The float32 values of elements that are stored in an array."""
        return elements(np.asarray(array).view(self.numpy), self).astype(np.float32)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return str.__eq__(self, other)
        if isinstance(other, (type, np.dtype)) or hasattr(other, "dtype"):
            try:
                return self.numpy == np.dtype(other) and self is not tfloat32 and not self.is_biased
            except (TypeError, ValueError):
                return False
        return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __repr__(self) -> str:
        return str(self)

    def __reduce__(self) -> tuple[object, ...]:
        return as_dtype, (str(self),)


bool_ = DType("bool", "b", np.bool_)
int8 = DType("int8", "i", np.int8)
int16 = DType("int16", "i", np.int16)
int32 = DType("int32", "i", np.int32)
int64 = DType("int64", "i", np.int64)
uint8 = DType("uint8", "u", np.uint8)
uint16 = DType("uint16", "u", np.uint16)
uint32 = DType("uint32", "u", np.uint32)
uint64 = DType("uint64", "u", np.uint64)
float16 = DType("float16", "f", np.float16)
float32 = DType("float32", "f", np.float32)
bfloat16 = DType("bfloat16", "f", ml_dtypes.bfloat16)
tfloat32 = DType("tfloat32", "f", np.float32)
float8_e4m3 = DType("float8_e4m3", "f", ml_dtypes.float8_e4m3)
float8_e4m3fn = DType("float8_e4m3fn", "f", ml_dtypes.float8_e4m3fn)
float8_e5m2 = DType("float8_e5m2", "f", ml_dtypes.float8_e5m2)
float8_e3m4 = DType("float8_e3m4", "f", ml_dtypes.float8_e3m4)
float8_e8m0fnu = DType("float8_e8m0fnu", "f", ml_dtypes.float8_e8m0fnu)
float8_e4m3fn_x4 = DType("float8_e4m3fn_x4", "x", np.uint32)
float8_e5m2_x4 = DType("float8_e5m2_x4", "x", np.uint32)
float4_e2m1fn_x4 = DType("float4_e2m1fn_x4", "x", np.uint16)

ALL: dict[str, DType] = {str(value): value for value in list(globals().values()) if isinstance(value, DType)}
_ALIASES = {"bool_": bool_, "fp32": float32, "bf16": bfloat16, "fp16": float16, "tf32": tfloat32}
_FROM_NUMPY = {d.numpy: d for d in ALL.values() if d.kind != "x" and d is not tfloat32}


#: What names an element type: see `as_dtype`.
DTypeLike: TypeAlias = "DType | str | np.dtype | type"


def as_dtype(value: DTypeLike) -> DType:
    """The DType for a name, a NumPy or ml_dtypes type, or anything with a ``dtype``.

    Raises:
        KeyError: no NeuronCore element type corresponds to it.
    """
    if type(value) is DType:
        return value
    if isinstance(value, str):
        name = value.rsplit(".", 1)[-1]
        found = ALL.get(name) or _ALIASES.get(name) or _named_biased(name)
        if found is None:
            raise KeyError(value)
        return found
    if type(value).__module__.startswith("torch"):
        return as_dtype(str(value))
    try:
        return from_numpy(np.dtype(value))
    except (TypeError, ValueError):
        raise KeyError(value) from None


def from_numpy(dtype: np.dtype) -> DType:
    """The DType that stores a NumPy dtype; packed ones go by their names, for NumPy and ml_dtypes have none.

    Raises:
        KeyError: the chip has no such type (float64, complex, ...).
    """
    packed = ALL.get(dtype.name)
    if packed is not None and packed.kind == "x" and packed.itemsize == dtype.itemsize:
        return packed
    return _FROM_NUMPY[dtype]


def numpy_known(dtype: DType) -> np.dtype:
    """The NumPy dtype of a packed dtype's name, if some package has registered one, else that of its words."""
    try:
        return np.dtype(str(dtype))
    except TypeError:
        return dtype.numpy


# The four elements in a word of a packed dtype, the first in the lowest bits.
ELEMENTS: dict[DType, np.dtype] = {
    float8_e4m3fn_x4: float8_e4m3fn.numpy,
    float8_e5m2_x4: float8_e5m2.numpy,
    float4_e2m1fn_x4: np.dtype(ml_dtypes.float4_e2m1fn),
}


def unpack(words: np.ndarray, dtype: DType) -> np.ndarray:
    """The elements of words of a packed dtype as float32, along a new last dimension of four."""
    bits = 2 * dtype.itemsize
    parts = words[..., None] >> np.arange(0, 4 * bits, bits, dtype=words.dtype) & ((1 << bits) - 1)
    return parts.astype(np.uint8).view(ELEMENTS[dtype]).astype(np.float32)


class Form(NamedTuple):
    """A float format of at most 16 bits whose exponent is narrower than float32's.

    Attributes:
        exponent: exponent bits.
        mantissa: stored mantissa bits.
        bias: what the exponent of a number is stored with in addition.
        limit: magnitude bits of infinity, or of NaN in a format without it; larger ones are NaN.
        nan: magnitude bits of the NaN that rounding makes.
    """

    exponent: int
    mantissa: int
    bias: int
    limit: int
    nan: int

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def steps(self) -> float:
        """How many of the smallest subnormal numbers make one."""
        return 2.0 ** (self.bias + self.mantissa - 1)


FORMS: dict[DType, Form] = {
    float16: Form(5, 10, 15, limit=0x7C00, nan=0x7E00),
    float8_e5m2: Form(5, 2, 15, limit=0x7C, nan=0x7E),
    float8_e4m3: Form(4, 3, 7, limit=0x78, nan=0x7C),
    float8_e4m3fn: Form(4, 3, 7, limit=0x7F, nan=0x7F),
    float8_e3m4: Form(3, 4, 3, limit=0x70, nan=0x78),
}

# --- exponent biases ------------------------------------------------------------------------------------------------

#: The formats whose bias can be adjusted, those of cFP8, and the biases that it can have: with all of them every
#: number is a normal float32, and a bfloat16.
BIASABLE = (float8_e5m2, float8_e4m3, float8_e3m4)
BIASES = range(64)
_BIASED_NAME = re.compile(r"(float8_\w+)_bias(\d+)")
_biased: dict[str, DType] = {}


def biased(base: DType, bias: int) -> DType:
    """A dtype of BIASABLE with an exponent bias of BIASES: its numbers are those of `base` times a power of two."""
    form = FORMS[base]
    if bias == form.bias:
        return base
    name = f"{base}_bias{bias}"
    found = _biased.get(name)
    if found is None:
        found = DType(name, "f", np.uint8)
        found.base, found.is_biased = base, True
        FORMS[found] = form._replace(bias=bias)
        found = _biased.setdefault(name, found)
    return found


def _named_biased(name: str) -> DType | None:
    found = _BIASED_NAME.fullmatch(name)
    base = None if found is None else ALL.get(found[1])
    if found is None or base not in BIASABLE or int(found[2]) not in BIASES:
        return None
    return biased(base, int(found[2]))


def float_limits(dtype: np.dtype) -> ml_dtypes.finfo:
    """The largest number, the precision and so on of a float dtype of NumPy or ml_dtypes."""
    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]


def _step(dtype: DType) -> np.float32:
    """What a number of the base is multiplied with."""
    step: np.float32 = np.float32(math.ldexp(1.0, FORMS[dtype.base].bias - FORMS[dtype].bias))
    return step


def elements(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Elements as NumPy computes with them: those of a dtype with an adjusted bias in float32, payloads of NaN too."""
    if not dtype.is_biased:
        return array
    base, form = array.view(dtype.base.numpy), FORMS[dtype]
    with np.errstate(invalid="ignore"):
        single = base.astype(np.float32) * _step(dtype)
    bits = array.view(np.uint8).astype(np.uint32)
    nan = (bits & 0x80) << 24 | 0x7F800000 | (bits & (1 << form.mantissa) - 1) << (23 - form.mantissa)
    return np.where(np.isnan(single), nan.astype(np.uint32).view(np.float32), single)


def stored(values: np.ndarray, dtype: DType) -> np.ndarray:
    """The reverse of `elements`."""
    if not dtype.is_biased:
        return values
    form = FORMS[dtype]
    with np.errstate(over="ignore", invalid="ignore"):
        codes = (values / _step(dtype)).astype(dtype.base.numpy).view(np.uint8)
    bits = values.view(np.uint32)
    payload = bits >> (23 - form.mantissa) & (1 << form.mantissa) - 1
    nan = bits >> 24 & 0x80 | np.where(payload == 0, form.nan, form.limit | payload)
    return np.where(np.isnan(values), nan.astype(np.uint8), codes)


_TF32_DROPPED_BITS = 13


def _round_tfloat32(values: np.ndarray) -> np.ndarray:
    """Round float32 to 10 mantissa bits, nearest even; infinities and NaN stay."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    lsb = (bits >> np.uint32(_TF32_DROPPED_BITS)) & np.uint32(1)
    rounded = bits + (np.uint32((1 << (_TF32_DROPPED_BITS - 1)) - 1) + lsb)
    rounded &= np.uint32(0xFFFFFFFF << _TF32_DROPPED_BITS & 0xFFFFFFFF)
    return np.where(np.isfinite(values), rounded.view(np.float32), values)


@cache
def _numbers(dtype: np.dtype) -> np.ndarray:
    """The float32 numbers of all bytes that are elements of an 8-bit float dtype."""
    numbers: np.ndarray = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
    return numbers


@cache
def _roundings(dtype: np.dtype) -> np.ndarray:
    """What float32 numbers are in an 8-bit float dtype, by their upper 16 bits.

    The last of these stands for itself and all bits below it. It is at least two bits behind the last one that the
    dtype keeps, so that rounding from there is the same.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        codes: np.ndarray = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32).astype(dtype)
    return codes


_BYTES = frozenset(d.numpy for d in FORMS if d.itemsize == 1)  # tables are five times as fast as converting these


def single(values: np.ndarray) -> np.ndarray:
    """Elements as float32; the same array if they are."""
    if values.dtype in _BYTES and values.ndim:
        return _numbers(values.dtype).take(values.view(np.uint8))
    return values.astype(np.float32, copy=False)


def _rounded(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Float32 numbers, rounded to nearest even, powers of two half up."""
    if dtype in _BYTES and values.ndim:
        bits = values.view(np.uint32)
        places = (bits >> 16).astype(np.uint16)
        places |= bits.astype(np.uint16) != 0
        return _roundings(dtype).take(places)
    return _power_of_two(values) if dtype == float8_e8m0fnu.numpy else values.astype(dtype)


def _power_of_two(values: np.ndarray) -> np.ndarray:
    """Float32 numbers as float8_e8m0fnu: half rounds up; zero, negative numbers and NaN become NaN.

    ml_dtypes is not asked: 0.5 rounds all above 2**-127, the only subnormal power, up, and 0.7 does not.
    """
    bits = values.view(np.uint32)
    exponents = bits + np.where(bits < 1 << 23, np.uint32(1 << 21), np.uint32(1 << 22)) >> 23
    found = np.where(bits - np.uint32(1) < 0x7F800000, exponents, 255).astype(np.uint8)
    return found.view(float8_e8m0fnu.numpy)


class Elements(NamedTuple):
    """What an instruction moves rather than computes: bits that are elements of a dtype already.

    NumPy takes the elements of tfloat32 for float32, which `cast` would round.
    """

    values: np.ndarray
    dtype: DType


def cast(values: np.ndarray | Elements, dtype: DType) -> np.ndarray:
    """Convert an array as an engine does when it writes a tile of `dtype`.

    What `elements` gives for the dtype. Same dtype: bit-exact. Otherwise through float32, also between integers; float
    to integer rounds to nearest even and saturates, and NaN becomes 0; any nonzero value becomes True.
    """
    if isinstance(values, Elements):
        if values.dtype is dtype or values.dtype == dtype:
            return values.values
        values = values.values
    source = values.dtype
    if dtype is tfloat32:
        return _round_tfloat32(np.asarray(values, np.float32))
    if dtype.is_biased:
        wide = np.asarray(values).astype(np.float32)
        quiet = np.where(np.isnan(wide), np.copysign(np.float32(np.nan), wide), wide)
        return elements(stored(quiet, dtype), dtype)
    if source == dtype.numpy:
        return values
    if dtype is bool_:
        result: np.ndarray = values != 0
        return result
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = single(values)
        if not dtype.is_integer:
            return _rounded(numbers, dtype.numpy)
        limits = np.iinfo(dtype.numpy)
        whole = np.rint(np.where(np.isnan(numbers), np.float32(0), numbers).astype(np.float64))
        return np.clip(whole, limits.min, limits.max).astype(dtype.numpy)
