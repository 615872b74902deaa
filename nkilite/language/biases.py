"""cFP8: float8 dtypes whose exponent bias the kernel chooses."""

from __future__ import annotations

import numpy as np

from nkilite.dtypes import BIASABLE, BIASES, DType, DTypeLike, as_dtype, biased
from nkilite.errors import InvalidOperand, describe

_NAMES = ", ".join(f"nl.{d}" for d in BIASABLE)


def cfp8(dtype: DTypeLike, bias: int) -> DType:
    """A float8 dtype with an adjusted exponent bias, an extension of nkilite.

    A number with sign s, exponent bits e and mantissa bits m of n is (-1)**s * 2**(e - bias) * (1 + m / 2**n), or
    (-1)**s * 2**(1 - bias) * m / 2**n where e is 0; infinities and NaN are those of `dtype`. So a larger bias has
    smaller numbers. In NumPy such elements are bytes: `cfp8(...).to_bits(values)` makes, and `.from_bits(array)` reads
    them, and `.view(cfp8(...))` reinterprets a uint8 tensor in a kernel.

    Args:
        dtype: nl.float8_e5m2, nl.float8_e4m3 or nl.float8_e3m4, whose biases are 15, 7 and 3.
        bias: 0 to 63.

    Raises:
        InvalidOperand: dtype or bias is something else.
        UnsupportedOnTarget: (by the instruction that uses it) the chip is a trn1.

    Source: the public page of NeuronCore-v3, which says that cFP8 has adjustable exponent biasing, but not how; names,
    range and interface are ours.
    """
    try:
        base = as_dtype(dtype)
    except KeyError:
        base = None
    if base not in BIASABLE:
        raise InvalidOperand(instruction="nl.cfp8", operand="dtype", found=describe(dtype), expected=_NAMES)
    if isinstance(bias, bool) or not isinstance(bias, (int, np.integer)) or bias not in BIASES:
        raise InvalidOperand(
            instruction="nl.cfp8", operand="bias", found=describe(bias),
            expected=f"an int from {BIASES[0]} to {BIASES[-1]}",
        )
    return biased(base, int(bias))
