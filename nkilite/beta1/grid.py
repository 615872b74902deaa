"""Launch grids of Beta 1: `kernel[4, 2](...)` runs one instance of the kernel per position.

The instances are recorded in one program, one after another, or one after another between two meetings. The n-th tensor
that each makes in shared HBM is one tensor: that is how they fill one result. Source: "SPMD: Launching multiple
instances of a kernel", nki.language.spmd_dim, nc, program_id.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from math import prod
from typing import SupportsInt, cast

import numpy as np

from nkilite.beta1.turns import A, R, Turns
from nkilite.dtypes import DType
from nkilite.errors import InvalidOperand, ShapeMismatch, UnsupportedError, describe
from nkilite.ir.types import MemoryRegion
from nkilite.location import Location
from nkilite.trace import active
from nkilite.trace.builder import Builder
from nkilite.trace.tensor import NkiTensor


class Cores:
    """`nl.nc(2)`: a grid dimension over physical cores; `nl.nc(2) * 2` and `nl.spmd_dim(...)` combine with others."""

    def __init__(self, size: int) -> None:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise InvalidOperand(
                instruction="nl.nc", operand="size", found=describe(size), expected="a positive int"
            )
        self.size = int(size)

    def __mul__(self, other: Cores | int) -> Cores:
        return Cores(self.size * (other.size if isinstance(other, Cores) else other))

    __rmul__ = __mul__

    def __index__(self) -> int:
        return self.size

    __int__ = __index__

    def __repr__(self) -> str:
        return f"nc({self.size})"


def spmd_dim(*parts: SupportsInt) -> Cores:
    """A grid dimension that is the product of others."""
    return Cores(prod(int(p) for p in parts))


def as_grid(key: object) -> tuple[int, ...]:
    """The sizes of a launch grid; 0, which public scripts write, stands for 1.

    Raises:
        InvalidOperand: something is no positive int.
    """
    sizes = tuple(key) if isinstance(key, (tuple, list)) else (key,)
    for size in sizes:
        plain = getattr(size, "size", size)
        if isinstance(plain, bool) or not isinstance(plain, (int, np.integer)) or plain < 0:
            raise InvalidOperand(
                instruction="kernel[grid]", operand="grid", found=describe(size), expected="positive ints"
            )
    return tuple(int(getattr(size, "size", size)) or 1 for size in sizes)


class Instances:
    """The instances of a launch while they run.

    Attributes:
        grid: its sizes; () for a launch without one.
        positions: of all of them, in order.
        number: of the one that runs.
    """

    def __init__(self, grid: tuple[int, ...]) -> None:
        self.grid = grid
        self.positions = list(product(*map(range, grid)))
        self.number = 0
        self._tensors: list[NkiTensor] = []
        self._made = [0] * len(self.positions)
        self._loops: list[list[object]] = [[] for _ in self.positions]
        self._builder = active.builder()
        self._turns = Turns(len(self.positions), self._enter)

    @property
    def at(self) -> tuple[int, ...]:
        """Position of the one that runs."""
        return self.positions[self.number]

    def run(self, body: Callable[[], object]) -> list[object]:
        """What a function returns in every instance.

        Raises:
            InstancesDiffer: some do not come to a meeting of the others.
        """
        results: list[object] = [None] * len(self.positions)

        def instance(number: int) -> None:
            with running(self):
                results[number] = body()

        self._turns.run(instance)
        return results

    def _enter(self, number: int) -> None:
        """An instance goes on, in the loops that it is in."""
        self.number = number
        constants = cast("dict[str, object]", self._builder.constants)
        constants["loops"] = self._loops[number]

    def meet(self, arrival: A, exchange: Callable[[list[A]], list[R]]) -> R:
        """Wait for the other instances; what `exchange` makes for this one of what each comes with, in order."""
        if self._builder.nesting.innermost is not None:
            raise UnsupportedError(feature="nl.all_reduce in a loop of the device")
        return self._turns.meet(self.number, arrival, exchange)

    def shared(self, make: Callable[[], NkiTensor], shape: tuple[int, ...], dtype: DType) -> tuple[NkiTensor, bool]:
        """The next tensor the instances share, and whether it is new."""
        number = self._made[self.number]
        self._made[self.number] += 1
        if number == len(self._tensors):
            self._tensors.append(make())
            return self._tensors[-1], True
        found = self._tensors[number]
        if found.shape != shape or found.dtype != dtype:
            raise ShapeMismatch(
                instruction="nl.ndarray",
                detail=f"tensor {number} in shared HBM is {found.dtype} {found.shape} in one instance of the grid and "
                f"{dtype} {shape} in another",
            )
        return found, False


class _Local(threading.local):
    instances: Instances | None = None


_local = _Local()


@contextmanager
def running(instances: Instances) -> Iterator[None]:
    """Make these the instances of this thread."""
    previous = _local.instances
    _local.instances = instances
    try:
        yield
    finally:
        _local.instances = previous


def shared(
    builder: Builder, shape: tuple[int, ...], dtype: DType, region: MemoryRegion, name: str, place: Location
) -> tuple[NkiTensor, bool]:
    """An HBM tensor, and whether it is new: one in shared HBM may be that of an earlier instance.

    What a launch of one instance makes it may return, for there is nobody to whom it could be private.
    """
    instances = _local.instances
    if region is MemoryRegion.private_hbm and (instances is None or len(instances.positions) == 1):
        region = MemoryRegion.shared_hbm

    def make() -> NkiTensor:
        return builder.allocate(region, shape, dtype, name=name, location=place)

    if instances is None or region is not MemoryRegion.shared_hbm:
        return make(), True
    return instances.shared(make, shape, dtype)


def instances() -> Instances | None:
    """Those of the launch that this thread records, if it is one."""
    return _local.instances


def program_id(axis: int = 0) -> int:
    """The position of this instance along an axis of the launch grid; 0 without a grid."""
    instances = _local.instances
    if instances is None or not instances.grid:
        return 0
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)) or not 0 <= axis < len(instances.grid):
        raise InvalidOperand(
            instruction="nl.program_id", operand="axis", found=describe(axis),
            expected=f"an axis of the launch grid {instances.grid}",
        )
    return instances.at[int(axis)]


def num_programs(axes: int | Sequence[int] | None = None) -> int:
    """The number of instances along axes of the launch grid, or in all of it."""
    grid = _local.instances.grid if _local.instances is not None else ()
    if axes is None:
        return prod(grid)
    chosen = tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
    return prod(grid[a] if a < len(grid) else 1 for a in chosen)


def program_ndim() -> int:
    """The number of dimensions of the launch grid."""
    return len(_local.instances.grid) if _local.instances is not None else 0
