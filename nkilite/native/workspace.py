"""The memory that one run of a compiled kernel needs besides its arguments."""

from __future__ import annotations

import numpy as np

from nkilite.codegen.kernel import FAULT_WORDS, HEAD_WORDS
from nkilite.codegen.watch import STOP
from nkilite.host.cpu import Host
from nkilite.native.entry import Entries
from nkilite.native.image import Image
from nkilite.native.interrupts import new_watch
from nkilite.schedule.place import ARENA

_ALIGN = 64


class Workspace:
    """The arena of the tiles, HBM tensors that are neither input nor output, and the bases of all memory.

    Attributes:
        bases: one address per base; what runs the kernel sets those of inputs and outputs.
        arena: the memory of the tiles.
        address: of the bases, which micro-kernels are given.
        zeroed: memory that is zero when a kernel begins: engines' registers, and what the run's watch has seen.
        entries: the ways into native code for this workspace (nkilite/native/entry.py), once there are any.
    """

    entries: Entries | None = None

    def __init__(self, image: Image, host: Host) -> None:
        self._words = np.zeros(HEAD_WORDS + image.bases, np.int64)
        self.bases = self._words[HEAD_WORDS:]
        self.address = address(self.bases)
        self._watch = watch = new_watch(host)
        self._words[0] = address(watch)
        arena, self.bases[ARENA] = _aligned(image.arena_bytes)
        self._owned = [arena, watch]
        first = int(self.bases[ARENA]) - address(arena)
        self.arena = arena[first:]
        registers = (arena[first + offset : first + offset + size] for offset, size in image.registers)
        self.zeroed = [watch[:2], *registers]
        for slot, size in image.internal:
            memory, self.bases[slot] = _aligned(size)
            self._owned.append(memory)
        for slot, values in image.constants:
            self._owned.append(values)
            self.bases[slot] = address(values)

    def clear(self) -> None:
        """As a kernel finds it."""
        for memory in self.zeroed:
            memory[...] = 0

    def end(self) -> None:
        """Have the run in this workspace end soon, from another thread."""
        self._watch[STOP // 8] = 1

    def fault(self) -> tuple[int, int]:
        """The index that was out of bounds in the last run, and its limit."""
        found, limit = self._words[HEAD_WORDS - FAULT_WORDS : HEAD_WORDS].tolist()
        return found, limit


def address(array: np.ndarray) -> int:
    """Where an array's elements are; `array.ctypes.data` takes three times as long."""
    result: int = array.__array_interface__["data"][0]
    return result


def new_memory(size: int) -> np.ndarray:
    """Memory with room for so many bytes from a cache line on; every float in it is NaN."""
    return np.full(size + _ALIGN, 0xFF, np.uint8)


def aligned(memory: np.ndarray) -> int:
    """The address of the first cache line in it."""
    start = address(memory)
    return start + -start % _ALIGN


def _aligned(size: int) -> tuple[np.ndarray, int]:
    memory = new_memory(size)
    return memory, aligned(memory)
