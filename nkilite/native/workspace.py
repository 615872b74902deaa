"""The memory that one run of a compiled kernel needs besides its arguments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nkilite.codegen.kernel import FAULT_WORDS
from nkilite.native.image import Image
from nkilite.passes.place import ARENA

_ALIGN = 64


class Workspace:
    """The arena of the tiles, HBM tensors that are neither input nor output, and the bases of all memory.

    Attributes:
        bases: one address per base; what runs the kernel sets those of inputs and outputs.
        address: of the bases, which micro-kernels are given.
        entry: the way into native code for this workspace, where there is one (nkilite/native/entry.py).
    """

    entry: Callable[..., int]

    def __init__(self, image: Image) -> None:
        self._words = np.zeros(FAULT_WORDS + image.bases, np.int64)
        self.bases = self._words[FAULT_WORDS:]
        self.address = address(self.bases)
        arena, self.bases[ARENA] = _aligned(image.arena_bytes)
        self._owned = [arena]
        first = int(self.bases[ARENA]) - address(arena)
        self.registers = [arena[first + offset : first + offset + size] for offset, size in image.registers]
        for slot, size in image.internal:
            memory, self.bases[slot] = _aligned(size)
            self._owned.append(memory)
        for slot, values in image.constants:
            self._owned.append(values)
            self.bases[slot] = address(values)

    def clear(self) -> None:
        """Engines' registers are zero when a kernel begins."""
        for registers in self.registers:
            registers[...] = 0

    def fault(self) -> tuple[int, int]:
        """The index that was out of bounds in the last run, and its limit."""
        found, limit = self._words[:FAULT_WORDS].tolist()
        return found, limit


def address(array: np.ndarray) -> int:
    """Where an array's elements are; `array.ctypes.data` takes three times as long."""
    return array.__array_interface__["data"][0]


def _aligned(size: int) -> tuple[np.ndarray, int]:
    """Memory whose returned address is aligned to a cache line, filled with NaN bytes like fresh simulated memory."""
    memory = np.full(size + _ALIGN, 0xFF, np.uint8)
    start = address(memory)
    return memory, start + -start % _ALIGN
