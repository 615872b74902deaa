"""A kernel compiled for one set of shapes, dtypes and compile-time values, and launches of it."""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nkilite import knobs
from nkilite.dtypes import as_dtype
from nkilite.host.cpu import Host, host
from nkilite.ir.digest import digest
from nkilite.ir.program import Program
from nkilite.native import effort
from nkilite.native.compile import Compilation, compile_program, improve
from nkilite.native.cores import Cores, launchable
from nkilite.native.executable import Executable
from nkilite.native.tiers import Hasty
from nkilite.notices import give, recorded
from nkilite.runtime.aliases import merged, refusal
from nkilite.runtime.binding import Arguments
from nkilite.runtime.collector import collector_paused
from nkilite.runtime.dynamic import fill, rows_of, sized
from nkilite.runtime.opaque import UserValue
from nkilite.runtime.reach import Reach
from nkilite.runtime.recycler import new_array
from nkilite.runtime.results import Destinations, collect, results_of
from nkilite.runtime.stored import Place, Stored
from nkilite.runtime.tracing import trace

if TYPE_CHECKING:
    from nkilite.runtime.kernel import Kernel

ticks = itertools.count(1)

class Specialization:
    """What later calls with the same key run.

    Attributes:
        reach: what the trace could see: as long as that is unchanged, it need not be repeated.
        program: digest of the program that was traced.
        executable: the native program.
        returned: what the kernel returns, with a Result in the place of every tensor.
        dims: of every output, its dynamic dimensions.
        unwritten: what the target's memory holds before it is written.
        merged: it is for arguments that are one array, as those it was made for are.
        used: when a launch used it, for the least recently used to go first.
    """

    def __init__(
        self, kernel: Kernel[...], arguments: Arguments, compiled: MutableMapping[str, Executable | Cores | Hasty]
    ) -> None:
        """
        Args:
            compiled: executables of this kernel by digest of their programs.
        """
        self._kernel = kernel
        self._arguments = arguments.detached()
        self._compilations: list[Compilation] | None = None
        self.used = next(ticks)
        self.reach = Reach(kernel.function, arguments.held)
        started = time.perf_counter()
        programs, returned = trace(kernel, arguments)
        traced = time.perf_counter() - started
        self.reach.settle(kernel.location)
        self.returned = results_of(returned[0], programs[0])
        level = host()
        self.program = digest(*programs)
        found = compiled.pop(self.program, None)
        if found is None or found.image.level != level.level:
            found = self._compiled(programs, level, traced)
        self.executable = compiled[self.program] = found  # the last of them: it was used last
        image = self.executable.image
        self.dims, self.unwritten = [b.dims for b in programs[0].outputs], programs[0].target.unwritten_byte
        self._outputs = [
            (o.shape, as_dtype(o.dtype).numpy, dims) for o, dims in zip(image.outputs, self.dims, strict=True)
        ]
        self.merged = merged(arguments.same, [i.written is not None for i in image.inputs])

    def _compiled(self, programs: list[Program], level: Host, traced: float) -> Executable | Cores | Hasty:
        """What runs programs just traced, from the disk cache if they are there."""
        kernel = weakref.ref(self._kernel)

        def settle(good: Executable | Cores) -> None:
            """Later launches go to a better executable directly."""
            self.executable = good
            owner = kernel()
            if owner is not None:
                owner.settle(self, good)

        found, self._compilations = executable_of(
            self._kernel.__name__, programs, self.program, level, traced, settle
        )
        return found

    @property
    def compilations(self) -> list[Compilation]:
        """Every product of the compiler, by core; made when asked for if the executable was there already."""
        if self._compilations is None:
            started = time.perf_counter()
            programs = trace(self._kernel, self._arguments).programs
            self._compilations = _compile(programs, time.perf_counter() - started)
        return self._compilations

    @property
    def compilation(self) -> Compilation:
        """What was made for the first core."""
        return self.compilations[0]

    def run(self, arguments: Arguments, out: object = None) -> UserValue:
        """Run on arrays; the results in the framework of the inputs, or in the arrays of `out`."""
        returned = self.results(arguments)
        if out is None:
            arrays = self.place(arguments)
            self.executable.run(arrays)
            return collect(returned, arguments.originals, arrays, arguments.framework)
        destinations = Destinations(out, returned, arguments.arrays, self._kernel.__name__)
        arrays = self.place(arguments, destinations.arrays)
        self.executable.run(arrays)
        return destinations.fill(arrays)

    def results(self, arguments: Arguments) -> UserValue:
        """What the kernel returns for arguments of a launch, with a Result in the place of every tensor."""
        return self.returned if arguments.sizes is None else sized(self.returned, arguments.size_list)

    def place(self, arguments: Arguments, given: dict[int, np.ndarray] | None = None) -> list[np.ndarray]:
        """The memory of inputs and outputs: the arguments' own, and new arrays for outputs that are not given.

        Raises:
            NonContiguousArgument: an argument that the kernel writes cannot be written in place.
            OverlappingArguments: it shares memory with another one, but is not the same array.
        """
        for spec, argument in zip(self.executable.image.inputs, arguments.arrays, strict=True):
            problem = None if spec.written is None else refusal(argument, arguments.arrays)
            if problem is not None:
                raise problem(location=spec.written)
        arrays, sizes = [a.numpy for a in arguments.arrays], arguments.size_list
        for shape, dtype, dims in self._outputs:
            found = given.get(len(arrays)) if given else None
            array = new_array(rows_of(shape, dims, sizes), dtype) if found is None else found
            if dims:  # what loops on the device write of it is not known
                fill(array, dims, sizes, self.unwritten)
            arrays.append(array)
        return arrays


def launcher_of(specialization: Specialization, arguments: Arguments) -> Launcher:
    """A launcher for the arguments of a call."""
    return Launcher(
        specialization.executable, specialization.results(arguments), arguments.originals,
        specialization.place(arguments), arguments.framework,
    )


def executable_of(
    kernel: str, programs: Sequence[Program], program: str, level: Host, traced: float = 0.0,
    settle: Callable[[Executable | Cores], None] | None = None,
) -> tuple[Executable | Cores | Hasty, list[Compilation] | None]:
    """What runs the programs of a kernel's cores, and how it was compiled unless it was in the disk cache.

    Args:
        program: digest of the programs.
        traced: seconds that tracing took.
        settle: if given, what does little work may be compiled hastily; called with the better executable when it is
            there.
    """
    place = Place(kernel, program, level)
    stored = place.recall()
    hurry = settle is not None
    if stored is not None and (not _any_hasty(stored) or (hurry and knobs.optimize() != "always")):
        for notice in stored.notices:
            give(notice)
        executables = [Executable(image, level) for image in stored.images]
        compilations = None
    else:
        with recorded() as notices:
            compilations = _compile(programs, traced, hurry)
        executables = [c.executable for c in compilations]
        stored = Stored(tuple(e.image for e in executables), tuple(notices))
        place.remember(stored)
    if not _any_hasty(stored):
        return launchable(executables), compilations
    assert settle is not None
    hasty, notices_given = compilations, stored.notices

    def better() -> Executable | Cores:
        with collector_paused():
            made = map(compile_program, programs) if hasty is None else [improve(c) if c.hasty else c for c in hasty]
            good = [c.executable for c in made]
        place.remember(Stored(tuple(e.image for e in good), notices_given))
        found = launchable(good)
        found.optimize()
        settle(found)
        return found

    launches = effort.hasty_launches([image.lowered for image in stored.images if image.hasty])
    return Hasty(launchable(executables), launches, better), None


def _any_hasty(found: Stored) -> bool:
    return any(image.hasty for image in found.images)


def _compile(programs: Sequence[Program], traced: float, hurry: bool = False) -> list[Compilation]:
    with collector_paused():
        found = [compile_program(program, hurry=hurry) for program in programs]
    found[0].seconds = {"trace": traced, **found[0].seconds}
    return found


class Launcher:
    """A kernel compiled for, and bound to, one set of arguments; its outputs are reused from launch to launch."""

    def __init__(
        self, executable: Executable | Cores | Hasty, returned: object, originals: Sequence[object],
        arrays: Sequence[np.ndarray],
        framework: str = "numpy",
    ) -> None:
        """
        Args:
            returned: what the kernel returns, with a Result in the place of every tensor.
            originals: the arguments' arrays as the caller passed them.
            arrays: the memory of inputs and outputs.
        """
        self._executable, self._returned, self._originals = executable, returned, originals
        self._arrays, self._framework = arrays, framework

    def run(self) -> UserValue:
        """Launch once and return what the kernel returns."""
        self._executable.run(self._arrays)
        return collect(self._returned, self._originals, self._arrays, self._framework)

    def time(self, launches: int = 1) -> list[float]:
        """Microseconds (cpu-measured) of each of `launches` runs, clocked around the native loop alone."""
        elapsed = self._executable.time(self._arrays, launches)
        return [nanoseconds / 1000 for nanoseconds in elapsed]
