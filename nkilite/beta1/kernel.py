"""Kernels of Beta 1: decorators, launch grids, and what arguments and results are inside and outside of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

from nkilite import isa as nisa
from nkilite.beta1.blocks import Blocks
from nkilite.beta1.functional import moved
from nkilite.beta1.grid import Instances, as_grid
from nkilite.beta1.tile import Tile, tile
from nkilite.compiler.directives import AS_WRITTEN
from nkilite.errors import InvalidOperand, InvalidReturn, describe
from nkilite.ir.types import MemoryRegion
from nkilite.profiling.benchmark import Benchmark, compile_options
from nkilite.runtime.binding import Arguments
from nkilite.runtime.containers import map_leaves
from nkilite.runtime.functions import found_in, reference
from nkilite.runtime.kernel import Kernel
from nkilite.runtime.options import check_vendor
from nkilite.runtime.settings import FROM_ENVIRONMENT, Settings
from nkilite.trace import active
from nkilite.trace.tensor import NkiTensor

MODES = ("auto", "baremetal", "benchmark", "jax", "profile", "simulation", "torchxla", "trace")


class Beta1Kernel(Kernel[...]):
    """A function in the Beta-1 dialect that runs on a (modelled) NeuronCore."""

    def __init__(
        self, function: Callable[..., object], simulated: bool = False, grid: tuple[int, ...] = (),
        settings: Settings = FROM_ENVIRONMENT,
    ) -> None:
        super().__init__(function, 1, simulated, settings)
        self.grid = grid
        self._grids: dict[tuple[int, ...], Beta1Kernel] = {}

    @property
    def managed(self) -> bool:
        """Whether the vendor's compiler would schedule it, unless `skip_middle_end_transformations` tells it not to."""
        return not getattr(self.function, AS_WRITTEN, False)

    @property
    def placed(self) -> bool:
        return True

    @property
    def renames(self) -> bool:
        return True

    def __getitem__(self, grid: object) -> Beta1Kernel:
        """`kernel[grid]`: the kernel once for each position of a grid of any number of dimensions.

        Raises:
            InvalidOperand: a size is no positive int.
        """
        sizes = as_grid(grid)
        found = self._grids.get(sizes)
        if found is None:
            found = self._grids[sizes] = type(self)(self.function, self.simulated, sizes, self.settings)
            found.watch = self.watch
        return found

    def as_simulated(self, settings: Settings) -> Beta1Kernel:
        return Beta1Kernel(self.function, True, self.grid, settings)

    def __deepcopy__(self, memo: dict[int, object]) -> Beta1Kernel:
        function = copy.deepcopy(self.function, memo)  # another one for a method of an object that is copied
        return self if function is self.function else _derived(function, 0, self.simulated, self.grid)

    def __reduce__(self) -> str | tuple[object, ...]:
        return reference(self, _derived, (self.simulated, self.grid))

    def call(self, arguments: Arguments, tensors: dict[int, NkiTensor]) -> Any:
        """Run every instance on the tensors of a launch; what the first one returned."""

        def instance() -> object:
            wrapped = cast("dict[int, NkiTensor]", {key: tile(tensor) for key, tensor in tensors.items()})
            return map_leaves(arguments.call(self.function, wrapped), _unwrapped, records=False)

        results = Instances(self.grid).run(instance)
        for other in results[1:]:
            _require_same(results[0], other, self)
        return results[0]


def _derived(place: object, steps: int, simulated: bool, grid: tuple[int, ...]) -> Beta1Kernel:
    """The kernel that a pickle or a copy describes; see nkilite/runtime/functions.py."""
    return Beta1Kernel(found_in(place, steps), simulated, grid)


def _unwrapped(value: object, _: str) -> object:
    """What the runtime takes of a returned value: HBM tensors; those on chip are stored to new ones."""
    if isinstance(value, Blocks):
        raise InvalidReturn(kernel="the kernel", what=repr(value), fix="store its tiles to a tensor in HBM")
    if not isinstance(value, Tile):
        return value
    view = value.nki
    if not view.type.region.on_chip:
        return view
    stored = active.builder().allocate(MemoryRegion.shared_hbm, view.shape, view.dtype)
    nisa.dma_copy(stored, moved(view) if view.type.region is MemoryRegion.psum else view)
    return stored


def _require_same(first: object, other: object, kernel: Kernel[...]) -> None:
    """Raise InvalidReturn unless two instances of a grid returned the same tensors."""
    found: list[object] = []

    def leaf(value: object, _: str) -> object:
        found.append(value.storage if isinstance(value, NkiTensor) else None)
        return value

    map_leaves(first, leaf, records=False)
    map_leaves(other, leaf, records=False)
    half = len(found) // 2
    for one, two in zip(found[:half], found[half:], strict=False):
        if one is not two:
            raise InvalidReturn(
                kernel=kernel.__name__, what=f"{one!r}, which every instance of the grid makes for itself",
                fix="allocate it with buffer=nl.shared_hbm, which the instances share", location=kernel.location,
            )


def jit(func: Callable[..., object] | None = None, mode: str = "auto", **options: object) -> Any:
    """Make a function a Beta-1 kernel; `@nki.jit`, `@nki.jit(mode=...)`, or as a call.

    Args:
        func: the function.
        mode: "simulation" runs it by the reference rules, "benchmark" models its latency, others compile it.
        options: of the vendor's compiler; they have no meaning here.

    Raises:
        InvalidOperand: no such mode.
        UnknownKeyword: no release has had such an option.
    """
    check_vendor("nki.jit", options)
    if isinstance(func, str):
        func, mode = None, func
    if func is None:
        return lambda function: jit(function, mode, **options)
    if mode not in MODES:
        raise InvalidOperand(
            instruction="nki.jit", operand="mode", found=describe(mode), expected=" or ".join(map(repr, MODES))
        )
    if mode in ("benchmark", "profile"):
        return benchmark(func)
    return as_kernel(func, mode == "simulation")


def as_kernel(function: object, simulated: bool | None = None) -> Beta1Kernel:
    """The kernel of a function, or a kernel that runs in another way."""
    function = getattr(function, "kernel", function)
    if isinstance(function, Beta1Kernel):
        if simulated is None or simulated == function.simulated:
            return function
        return Beta1Kernel(function.function, simulated, function.grid)
    return Beta1Kernel(cast("Callable[..., object]", getattr(function, "function", function)), bool(simulated))


def baremetal(kernel: Callable[..., object] | None = None, **options: object) -> Any:
    """A kernel that runs compiled, as `@nki.jit` makes it."""
    check_vendor("nki.baremetal", options)
    if kernel is None:
        return lambda function: baremetal(function, **options)
    return as_kernel(kernel, False)


def trace(kernel: Callable[..., object] | None = None, mode: str = "auto", **options: object) -> Any:
    """The old name of `nki.jit` for kernels that are given to nki.simulate_kernel or nki.benchmark."""
    return jit(kernel, mode, **options)


def simulate_kernel(kernel: object, *args: object, **kwargs: object) -> Any:
    """Run a kernel by NumPy reference semantics, so that print and breakpoint() see values; what it returned."""
    return as_kernel(kernel, True)(*args, **kwargs)


def benchmark(kernel: Callable[..., object] | None = None, **options: object) -> Any:
    """A kernel whose latency is modelled when it is called: `@nki.benchmark`, with options, or as a call.

    Options (warmup, iters, save_neff_name, ...) are about runs on a chip and have no meaning here, but for
    `additional_compile_opt` with ``--disable-dge``.
    """
    check_vendor("nki.benchmark", options)
    if kernel is None:
        return lambda function: benchmark(function, **options)
    return Benchmark(as_kernel(kernel, False), compile_options(options))


def profile(func: Callable[..., object] | None = None, **options: object) -> Any:
    """As `benchmark`; no files are written. `python -m nkilite profile` makes reports."""
    return benchmark(func, **options)
