"""Stochastic rounding: which random bits an element gets, and what it is rounded to with them.

Bits come from no stream. They are a hash of where a number is written: the seed and the launch, the core, the
instruction and the iteration of the loops around it, and the row and column of the element in the destination. So they
do not depend on the order in which anything runs. A number between two neighbours of its dtype goes up with the
probability of its distance to the lower one: exactly, or to 2**-20 below the smallest normal number.

Every row of a launch has a 64-bit key, every instruction has one (`Sites`), and columns are told apart by mixed words.
The column and half of the exclusive or of the keys are multiplied, the other half joins them, and the high bits are
folded into the low ones and multiplied again. Only the highest of the 32 bits that this makes are used, the best of a
product: further shifts would make them no better.
"""

from __future__ import annotations

from math import prod

import numpy as np

from nkilite.dtypes import FORMS, DType, Form, bfloat16, cast, elements, tfloat32

__all__ = [
    "DROPPED", "FIRST", "FOLD", "SECOND", "STATE_COLUMNS", "STOCHASTIC", "Sites", "columns", "fraction_bits",
    "key_bits", "launch_state", "random_bits", "round_to",
]

# The hash: multipliers and shifts of a full-period mixing of 32 bits with little bias between its bits; elements take
# the middle of it.
FIRST, SECOND = 0x21F0AAAD, 0x735A2D97
FOLD = 15
_BEFORE, _AFTER = 16, 15
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio, odd: the step of well-spread sequences
_WORD, _LONG = (1 << 32) - 1, (1 << 64) - 1

#: Words of a row's state: its key, low word first, and what every iteration of a loop adds to each.
STATE_COLUMNS = 4


def _mixed(value: int) -> int:
    """64 bits, mixed (the finalizer of SplitMix64)."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _LONG
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _LONG
    return value ^ value >> 31


def _mixed_array(values: np.ndarray) -> np.ndarray:
    """`_mixed` of uint64 values."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    result: np.ndarray = values ^ values >> np.uint64(31)
    return result


def launch_state(seed: int, launch: int, rows: int) -> np.ndarray:
    """The state of every row as a launch begins: (rows, STATE_COLUMNS) of uint32."""
    first = _mixed(_mixed(seed & _LONG) + (launch + 1) * _GOLDEN & _LONG)
    keys = _mixed_array(np.uint64(first) + np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(_GOLDEN))
    state = np.empty((rows, STATE_COLUMNS), np.uint32)
    state[:, 0], state[:, 1] = keys & np.uint64(_WORD), keys >> np.uint64(32)
    state[:, 2], state[:, 3] = _GOLDEN & _WORD, _GOLDEN >> 32 | 1
    return state


class Sites:
    """Keys of instructions by their place in the loops of a program, however often a loop has run.

    An instruction, and a loop as a whole, is known by its number in the body it is in.
    """

    def __init__(self, core: int) -> None:
        self._open = [[_mixed(core + 1), 0]]

    def next(self) -> int:
        """The 64-bit key of the next instruction; a loop's is that of the instruction that begins it."""
        body = self._open[-1]
        body[1] += 1
        return _mixed(body[0] + body[1] * _GOLDEN & _LONG)

    def begin(self, key: int) -> None:
        """The instruction with this key has begun a loop, and its body follows."""
        self._open.append([_mixed(key), 0])

    def again(self) -> None:
        """The body of the innermost loop follows once more."""
        self._open[-1][1] = 0

    def end(self) -> None:
        """The innermost loop has ended."""
        self._open.pop()


def columns(count: int) -> np.ndarray:
    """What tells the columns of a row apart, as uint32: mixed in full."""
    values = np.arange(1, count + 1, dtype=np.uint32) * np.uint32(_GOLDEN >> 32 | 1)
    values = _hashed(values ^ values >> np.uint32(_BEFORE), np.uint32(0))
    found: np.ndarray = values ^ values >> np.uint32(_AFTER)
    return found


def _hashed(values: np.ndarray, key: object) -> np.ndarray:
    """The hash of uint32 values and of a key that joins them half-way; the highest bits are the best."""
    values = values * np.uint32(FIRST) ^ key
    found: np.ndarray = (values ^ values >> np.uint32(FOLD)) * np.uint32(SECOND)
    return found


def random_bits(state: np.ndarray, site: int, shape: tuple[int, ...]) -> np.ndarray:
    """32 random bits, the lowest less so, for every element that an instruction writes.

    Args:
        state: of all rows.
        site: key of the instruction.
        shape: of the destination; its first dimension is the rows.
    """
    rows = state[: shape[0]]
    return key_bits(rows[:, :1], rows[:, 1:2], columns(prod(shape[1:])), site).reshape(shape)


def key_bits(low: np.ndarray, high: np.ndarray, column: np.ndarray, site: int) -> np.ndarray:
    """32 random bits by the two words of a row's key, what tells its column apart, and the instruction's key."""
    return _hashed(column ^ low ^ np.uint32(site & _WORD), high ^ np.uint32(site >> 32))


#: Mantissa bits of a float32 that a dtype with its exponents has no room for.
DROPPED: dict[DType, int] = {bfloat16: 16, tfloat32: 13}
#: Dtypes that numbers are rounded to stochastically, with any exponent bias.
STOCHASTIC: frozenset[DType] = frozenset({*DROPPED, *FORMS})


def round_to(values: np.ndarray, dtype: DType, bits: np.ndarray) -> np.ndarray:
    """float32 values rounded to one of the two neighbours they lie between, as random bits decide.

    What `dtype` holds exactly stays, infinities and NaN become what `cast` makes of them. Beyond the largest number
    the neighbour above is the one there would be, and stands for infinity, or NaN where a dtype has none.
    """
    values = np.ascontiguousarray(values, np.float32)
    pattern = values.view(np.uint32)
    if dtype in FORMS:
        codes = _round_form(pattern, FORMS[dtype], bits).astype(f"u{dtype.itemsize}").view(dtype.numpy)
        rounded = elements(codes, dtype)
    else:
        dropped = np.uint32(DROPPED[dtype])
        kept = pattern + (bits >> np.uint32(32) - dropped) >> dropped
        rounded = (kept.astype(np.uint16) if dtype is bfloat16 else kept << dropped).view(dtype.numpy)
    return np.where(np.isnan(values), cast(values, dtype), rounded)


def fraction_bits(form: Form) -> int:
    """Below the smallest normal number, the bits of a fraction that count: as many as 31 bits hold beside the rest."""
    return 30 - form.mantissa


def _round_form(pattern: np.ndarray, form: Form, bits: np.ndarray) -> np.ndarray:
    magnitude = pattern & np.uint32(0x7FFFFFFF)
    dropped = np.uint32(23 - form.mantissa)
    normal = (magnitude + (bits >> np.uint32(32) - dropped) >> dropped).astype(np.int64)
    normal -= 127 - form.bias << form.mantissa
    tiny = magnitude < np.uint32(128 - form.bias << 23)
    small = np.where(tiny, magnitude, np.uint32(0)).view(np.float32)
    fine = fraction_bits(form)
    steps = (small * np.float32(form.steps * (1 << fine))).astype(np.int64)
    steps = steps + (bits >> np.uint32(32 - fine)) >> fine
    result = np.minimum(np.where(tiny, steps, normal), form.limit)
    found: np.ndarray = result | (pattern >> np.uint32(31)).astype(np.int64) << (form.exponent + form.mantissa)
    return found
