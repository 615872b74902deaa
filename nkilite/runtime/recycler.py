"""Memory of large outputs, used again once nothing refers to it: fresh pages cost as much time as the kernel.

An output array is a view of a `_Loan`, and so is everything derived from it (views, torch tensors, DLPack capsules,
buffers): Python ends the loan with the last of them, and only then does the memory come back.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from nkilite import forking, knobs

RECYCLED = 4 << 20  # bytes from which on an output is recycled; malloc reuses smaller blocks by itself


class Recycler:
    """Blocks of memory that nothing uses, up to a number of bytes.

    A loan may end anywhere, also while this thread is in `take`, because the garbage collector ends it, and signal
    handlers launch kernels. So nobody waits for the lock: blocks come back into a queue, which whoever gets the lock
    puts away, and `take` makes a new block where another one has the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._returned: deque[np.ndarray] = deque()
        self._idle: list[np.ndarray] = []  # the longest idle first

    @property
    def idle_bytes(self) -> int:
        """Bytes of the blocks that are kept."""
        return sum(block.nbytes for block in self._idle)

    def take(self, size: int, limit: int) -> np.ndarray:
        """A block of exactly so many bytes, idle or new; afterwards at most `limit` bytes are kept."""
        found = None
        lock = self._lock
        if lock.acquire(blocking=False):
            try:
                self._put_away(limit)
                for i in range(len(self._idle) - 1, -1, -1):  # the last one is the likeliest to be in the cache
                    if self._idle[i].nbytes == size:
                        found = self._idle.pop(i)
                        break
            finally:
                lock.release()
        self._settle(limit)
        return _pages(size) if found is None else found

    def give_back(self, block: np.ndarray, limit: int) -> None:
        """Keep a block for later."""
        self._returned.append(block)
        self._settle(limit)

    def clear(self) -> None:
        """Let go of all blocks."""
        self.give_back(np.empty(0, np.uint8), 0)

    def forked(self) -> None:
        """In a forked process: whoever had the lock is not here."""
        self._lock = threading.Lock()

    def _settle(self, limit: int) -> None:
        """Put returned blocks away, unless another one is doing it, who looks again afterwards."""
        while self._returned and (lock := self._lock).acquire(blocking=False):
            try:
                self._put_away(limit)
            finally:
                lock.release()

    def _put_away(self, limit: int) -> None:
        while self._returned:
            self._idle.append(self._returned.popleft())
        while self.idle_bytes > limit:
            self._idle.pop(0)


class _Loan:
    """Ends when nothing refers to it any more; arrays made from it do."""

    __slots__ = ("_block", "_limit")

    def __init__(self, block: np.ndarray, limit: int) -> None:
        self._block, self._limit = block, limit

    @property
    def __array_interface__(self) -> dict[str, object]:
        return self._block.__array_interface__

    def __del__(self) -> None:
        recycler.give_back(self._block, self._limit)


recycler = Recycler()


def new_array(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialized array, in recycled memory if it is large.

    Raises:
        InvalidSetting: NKILITE_RECYCLE is not a number of bytes.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < RECYCLED:
        return np.empty(shape, dtype)
    limit = knobs.recycled_bytes()
    if limit == 0:
        return np.empty(shape, dtype)
    result: np.ndarray = np.ndarray(shape, dtype, np.asarray(_Loan(recycler.take(size, limit), limit)))
    return result


def maker(shape: tuple[int, ...], dtype: np.dtype) -> Callable[[], np.ndarray]:
    """What makes uninitialized arrays of one kind, as `new_array` does."""
    recycled = math.prod(shape) * dtype.itemsize >= RECYCLED
    return functools.partial(new_array if recycled else np.empty, shape, dtype)


def _pages(size: int) -> np.ndarray:
    """Fresh memory of its own, on huge pages where the system has them."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return np.empty(size, np.uint8)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # a forked process gets a copy
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # of kernels built without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)


forking.in_child(recycler.forked)
