"""A kernel compiled for one set of shapes, dtypes and compile-time values, and launches of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nkilite import knobs
from nkilite.codegen.host import host
from nkilite.dtypes import as_dtype
from nkilite.machine.target import get_target
from nkilite.native.compile import Compilation, compile_program
from nkilite.native.cores import launchable
from nkilite.native.executable import Executable
from nkilite.notices import give, recorded
from nkilite.runtime.aliases import merged, refusal
from nkilite.runtime.arguments import ArrayArgument
from nkilite.runtime.binding import Arguments
from nkilite.runtime.collector import collector_paused
from nkilite.runtime.globals import Globals
from nkilite.runtime.recycler import new_array
from nkilite.runtime.results import Destinations, collect, results_of
from nkilite.runtime.stored import Place, Stored
from nkilite.runtime.tracing import trace

if TYPE_CHECKING:
    from nkilite.runtime.kernel import Kernel


class Specialization:
    """What later calls with the same key run.

    Attributes:
        globals: the values that were baked in.
        executable: the native program.
        returned: what the kernel returns, with a Result in the place of every tensor.
        merged: it is for arguments that are one array, as those it was made for are.
    """

    def __init__(self, kernel: Kernel, arguments: Arguments) -> None:
        self._kernel = kernel
        self._arguments = arguments.detached()
        self._compilations: list[Compilation] | None = None
        self.globals = Globals(kernel.function)
        level = host()
        place = Place(kernel, arguments, level, get_target(knobs.target()))
        stored = place.recall()
        if stored is not None:
            for notice in stored.notices:
                give(notice)
            executables = [Executable(image, level) for image in stored.images]
            self.returned = stored.returned
        else:
            with recorded() as notices:
                executables = [c.executable for c in self.compilations]
            images = tuple(e.image for e in executables)
            place.remember(Stored(images, self.returned, tuple(notices)))
        self.executable = launchable(executables)
        image = self.executable.image
        self._outputs = [(o.shape, as_dtype(o.dtype).numpy) for o in image.outputs]
        self.merged = merged(arguments.same, [i.written is not None for i in image.inputs])

    @property
    def compilations(self) -> list[Compilation]:
        """Every product of the compiler, by core; made when asked for if the images come from the disk cache."""
        # Python 3.11 and older hold a lock around every cached_property, and a kernel may start threads.
        if self._compilations is None:
            self._compilations = self._compile()
        return self._compilations

    def _compile(self) -> list[Compilation]:
        started = time.perf_counter()
        programs, returned = trace(self._kernel, self._arguments)
        traced = time.perf_counter() - started
        with collector_paused():
            found = [compile_program(program) for program in programs]
        found[0].seconds = {"trace": traced, **found[0].seconds}
        self.returned = results_of(returned[0], found[0].program)
        return found

    @property
    def compilation(self) -> Compilation:
        """What was made for the first core."""
        return self.compilations[0]

    def run(self, arguments: Arguments, out: Any = None) -> Any:
        """Run on arrays; the results in the framework of the inputs, or in the arrays of `out`."""
        if out is None:
            arrays = self.place(arguments.arrays)
            self.executable.run(arrays)
            return collect(self.returned, arguments.originals, arrays, arguments.framework)
        destinations = Destinations(out, self.returned, arguments.arrays, self._kernel.__name__)
        arrays = self.place(arguments.arrays, destinations.arrays)
        self.executable.run(arrays)
        return destinations.fill(arrays)

    def place(self, arguments: Sequence[ArrayArgument], given: dict[int, np.ndarray] | None = None) -> list[np.ndarray]:
        """The memory of inputs and outputs: the arguments' own, and new arrays for outputs that are not given.

        Raises:
            NonContiguousArgument: an argument that the kernel writes cannot be written in place.
            OverlappingArguments: it shares memory with another one, but is not the same array.
        """
        for spec, argument in zip(self.executable.image.inputs, arguments, strict=True):
            problem = None if spec.written is None else refusal(argument, arguments)
            if problem is not None:
                raise problem(location=spec.written)
        arrays = [a.numpy for a in arguments]
        for shape, dtype in self._outputs:
            found = given.get(len(arrays)) if given else None
            arrays.append(new_array(shape, dtype) if found is None else found)
        return arrays


class Launcher:
    """A kernel compiled for, and bound to, one set of arguments; its outputs are reused from launch to launch."""

    def __init__(self, specialization: Specialization, arguments: Arguments) -> None:
        self._specialization = specialization
        self._arguments = arguments
        self._arrays = specialization.place(arguments.arrays)

    def run(self) -> Any:
        """Launch once and return what the kernel returns."""
        self._specialization.executable.run(self._arrays)
        arguments = self._arguments
        return collect(self._specialization.returned, arguments.originals, self._arrays, arguments.framework)

    def time(self, launches: int = 1) -> list[float]:
        """Microseconds (cpu-measured) of each of `launches` runs, clocked around the native loop alone."""
        elapsed = self._specialization.executable.time(self._arrays, launches)
        return [nanoseconds / 1000 for nanoseconds in elapsed]
