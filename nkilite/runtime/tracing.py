"""Running a kernel function under a builder: to record its program, or to execute it at once (`nki.simulate`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nkilite import knobs
from nkilite.dimensions import numbered
from nkilite.dtypes import from_numpy
from nkilite.ir.program import Program
from nkilite.ir.shared_writes import follow_shared
from nkilite.ir.types import BufferKind, MemoryRegion
from nkilite.ir.unwritten import check_written, report
from nkilite.isa import numbers as numbers  # instructions of our own, that builders and passes know by name
from nkilite.isa import rounding as rounding
from nkilite.isa import unwritten as unwritten
from nkilite.isa.dynamic import assert_checked
from nkilite.machine.target import get_target
from nkilite.passes.allocate import Allocate
from nkilite.passes.check_destinations import CheckDestinations
from nkilite.runtime.aliases import merge, refusal
from nkilite.runtime.arguments import to_framework
from nkilite.runtime.binding import Arguments
from nkilite.runtime.collector import collector_paused
from nkilite.runtime.dynamic import cut, inner, memory_of, sized, write_back
from nkilite.runtime.grid import cores_of
from nkilite.runtime.joining import join
from nkilite.runtime.opaque import UserValue
from nkilite.runtime.results import Destinations, check_returned, collect, results_of, returned_views
from nkilite.runtime.schedule import apply_schedule
from nkilite.trace import active
from nkilite.trace.builder import Builder, TraceBuilder
from nkilite.trace.eager import EagerBuilder
from nkilite.trace.shared import SharedMemory
from nkilite.trace.storage import Placement
from nkilite.trace.tensor import NkiTensor
from nkilite.trace.turns import Turns

if TYPE_CHECKING:
    from nkilite.runtime.kernel import Kernel


class Traced(NamedTuple):
    """The programs of a launch, one per core, and what the kernel returned on each."""

    programs: list[Program]
    returned: list[object]


def trace(kernel: Kernel[...], arguments: Arguments) -> Traced:
    """The programs of a kernel for these arguments.

    Raises:
        CoresDiffer, Deadlock: those of its cores do not fit together.
    """
    target = get_target(knobs.target())
    found = Traced([], [])
    for core in cores_of(kernel, target):
        builder = TraceBuilder(kernel.__name__, target, core)
        program = builder.program
        program.managed, program.placed, program.renames = kernel.managed, kernel.placed, kernel.renames
        with collector_paused():
            returned = enter(builder, kernel, arguments, eager=False)
        apply_schedule(builder.program, kernel.schedule)
        check_returned(returned, builder.program, kernel.__name__, kernel.location)
        assert_checked(builder.program)
        found.programs.append(builder.program)
        found.returned.append(returned)
    merge(found.programs, arguments.same)
    join(found.programs, found.returned, kernel.__name__, kernel.location)
    follow_shared(found.programs)
    check_written(found.programs, returned_views(found.returned[0]), kernel.__name__)
    return found


def simulate(kernel: Kernel[...], arguments: Arguments, out: object) -> UserValue:
    """Run a kernel by the reference rules; its results, written to `out` unless that is None."""
    results, arrays = _simulated(kernel, arguments)
    if out is None:
        return collect(results, arguments.originals, arrays, arguments.framework)
    destinations = Destinations(out, results, arguments.arrays, kernel.__name__)
    for place, array in destinations.arrays.items():
        np.copyto(array, arrays[place])
    return destinations.fill(arrays)


def simulated_outputs(kernel: Kernel[...], arguments: Arguments) -> list[UserValue]:
    """Run a kernel by the reference rules; the arrays it makes, whole."""
    _, arrays = _simulated(kernel, arguments)
    made = arrays[len(arguments.arrays):]
    return [to_framework(array, from_numpy(array.dtype), arguments.framework) for array in made]


def _simulated(kernel: Kernel[...], arguments: Arguments) -> tuple[object, list[np.ndarray]]:
    """What a kernel returned by the reference rules, with a Result in the place of tensors, and all its arrays."""
    target = get_target(knobs.target())
    cores = cores_of(kernel, target)
    turns, shared = Turns(len(cores), kernel.location), SharedMemory()
    builders = [EagerBuilder(kernel.__name__, target, core, turns, shared) for core in cores]
    for builder in builders:
        builder.program.managed, builder.program.placed = kernel.managed, kernel.placed
        builder.watch = kernel.watch
    returned = turns.run([partial(enter, builder, kernel, arguments, eager=True) for builder in builders])
    programs = [builder.program for builder in builders]
    for program, value in zip(programs, returned, strict=True):
        check_returned(value, program, kernel.__name__, kernel.location)
        CheckDestinations().run(program)
        Allocate().run(program)  # overflows are mistakes here, too
    merge(programs, arguments.same)
    join(programs, returned, kernel.__name__, kernel.location, turns.encounters.races)
    for builder in builders:
        report(builder.program, builder.suspects)
    follow_shared(programs)
    if not any(builder.left_out for builder in builders):
        check_written(programs, returned_views(returned[0]), kernel.__name__)
    program, sizes = programs[0], arguments.size_list
    arrays = [_memory(b.data, b.shape, b.dtype.numpy) for b in (*program.inputs, *program.outputs)]
    for argument, array in zip(arguments.arrays, arrays[: len(program.inputs)], strict=True):
        write_back(argument, array)
    made = [
        a if inner(b.dims) else cut(a, b.dims, sizes)
        for a, b in zip(arrays[len(program.inputs):], program.outputs, strict=True)
    ]
    return sized(results_of(returned[0], program), sizes), [*arrays[: len(program.inputs)], *made]


def enter(builder: Builder, kernel: Kernel[...], arguments: Arguments, eager: bool) -> UserValue:
    """Run the kernel function under a builder; returns what it returned."""
    tensors: dict[int, NkiTensor] = {}
    where = kernel.location
    builder.configs = kernel.settings.configs
    for argument in arguments.arrays:
        data = Placement(memory_of(argument), 0, 0) if eager else None
        tensor = tensors[id(argument)] = builder.allocate(
            MemoryRegion.shared_hbm, argument.shape, argument.dtype, name=argument.name, kind=BufferKind.input,
            location=where, data=data, dims=argument.dims,
        )
        if isinstance(builder, EagerBuilder) and (problem := refusal(argument, arguments.arrays)) is not None:
            builder.refusals[tensor.storage.id] = problem
    if arguments.sizes is not None:
        builder.sizes = tensors[id(arguments.sizes)]
        builder.dimensions = numbered(kernel.settings.dynamic_shapes)
    try:
        with active.activate(builder):
            builder.program.watch, builder.program.fatal = arguments.watch
            if arguments.rounding is not None:
                builder.round_stochastically(tensors[id(arguments.rounding)], where)
            returned = kernel.call(arguments, tensors)
        if builder.left:
            raise builder.left[0]
        return returned
    finally:
        builder.close()


def _memory(placement: object, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The array of an HBM tensor of a simulated kernel."""
    assert isinstance(placement, Placement)
    result: np.ndarray = np.ndarray(shape, dtype, placement.memory, placement.base)
    return result
