"""A kernel that was compiled hastily, until some launches have shown that a better program for it would have paid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nkilite import forking
from nkilite.native.cores import Cores
from nkilite.native.executable import Executable
from nkilite.native.image import Image


class Hasty:
    """Runs the executable that was there soon, later a better one; like an `Executable`, for whoever launches it.

    Attributes:
        executable: the one it runs.
    """

    def __init__(self, first: Executable | Cores, launches: float, better: Callable[[], Executable | Cores]) -> None:
        """`better` makes another executable of the same program, after so many launches."""
        self.executable, self._improved = first, False
        self._left, self._better = launches, better
        self._lock = forking.lock()

    @property
    def image(self) -> Image:
        return self.executable.image

    def optimize(self) -> None:
        """Compile well, for programs that are launched often."""
        with self._lock:
            if not self._improved:
                self.executable, self._improved = self._better(), True

    def _count(self) -> None:
        """A launch begins."""
        left = self._left  # other threads may count, too: a launch more or less does not matter
        self._left = left - 1
        if left <= 0 and not self._improved:
            self.optimize()

    def enter(self, *arrays: np.ndarray) -> bool:
        """As `Executable.enter`."""
        self._count()
        return self.executable.enter(*arrays)

    @property
    def quick(self) -> bool:
        """Whether there is an entry that takes addresses."""
        return isinstance(self.executable, Executable) and self.executable.quick

    def enter_at(self, *addresses: int) -> bool:
        """As `Executable.enter_at`; False, and nothing was run, if the one it runs by now has none."""
        self._count()
        runs = self.executable
        return isinstance(runs, Executable) and runs.quick and runs.enter_at(*addresses)

    def run(self, arrays: Sequence[np.ndarray]) -> None:
        """As `Executable.run`."""
        self._count()
        self.executable.run(arrays)

    def time(self, arrays: Sequence[np.ndarray], launches: int) -> list[int]:
        """As `Executable.time`: of good code."""
        self.optimize()
        return self.executable.time(arrays, launches)
