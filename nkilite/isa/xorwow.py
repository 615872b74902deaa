"""The engines' random number generators in NumPy: what codegen/xorwow.py computes, and the state it starts from.

The order of random numbers of the hardware is not public, and before trn3 neither is the Vector Engine's algorithm.
Here all engines use XORWOW (G. Marsaglia, Xorshift RNGs, 2003) with the state sizes that are documented.
"""

from __future__ import annotations

import numpy as np

from nkilite.codegen.xorwow import GOLDEN, MIX, WEYL
from nkilite.machine.registers import STATE_WORDS

# What an engine is seeded with that a kernel does not seed.
DEFAULT_SEEDS = {"vector": 0, "gpsimd": 1}


def states(registers: np.ndarray, seed: int) -> np.ndarray:
    """[partitions, streams, words] of registers, with those that are all zero as the default seed makes them."""
    found = registers.reshape(registers.shape[0], -1, STATE_WORDS)
    return np.where(found.any(axis=2, keepdims=True), found, seeded(seed, *found.shape[:2]))


def seeded(seed: int, partitions: int, streams: int) -> np.ndarray:
    """The states that a 32-bit seed makes."""
    number = np.arange(1, partitions * streams * STATE_WORDS + 1, dtype=np.uint32)
    words = _mix(_mix(np.array([seed], np.uint32)) + number * np.uint32(GOLDEN))
    return words.reshape(partitions, streams, STATE_WORDS)


def draw(registers: np.ndarray, seed: int, partitions: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` numbers of 32 bits for each of the first partitions, and the registers afterwards."""
    after = registers.copy()
    current = states(registers, seed)[:partitions]
    streams = current.shape[1]
    drawn = np.empty((partitions, -(-count // streams) * streams), np.uint32)
    for first in range(0, count, streams):
        active = slice(0, min(streams, count - first))
        x, y, z, w, v, d = np.moveaxis(current[:, active], 2, 0)
        t = x ^ (x >> np.uint32(2))
        new = (v ^ (v << np.uint32(4))) ^ (t ^ (t << np.uint32(1)))
        d = d + np.uint32(WEYL)
        drawn[:, first : first + new.shape[1]] = new + d
        current[:, active] = np.stack([y, z, w, v, new, d], axis=2)
    after[:partitions] = current.reshape(partitions, -1)
    return drawn[:, :count], after


def uniform(bits: np.ndarray) -> np.ndarray:
    """The high 24 bits as float32 in [0, 1)."""
    result: np.ndarray = (bits >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    return result


def _mix(value: np.ndarray) -> np.ndarray:
    for shift, multiplier in ((16, MIX[0]), (13, MIX[1])):
        value = (value ^ (value >> np.uint32(shift))) * np.uint32(multiplier)
    result: np.ndarray = value ^ (value >> np.uint32(16))
    return result
