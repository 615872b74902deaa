"""`nkilite.profile(kernel, *args)`: trace a kernel, and run the timing model on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import NamedTuple

from nkilite import knobs
from nkilite.errors import MemoryOverflow
from nkilite.ir.program import Program
from nkilite.ir.rank import current
from nkilite.location import Location
from nkilite.machine.target import Target, get_target
from nkilite.machine.timeline import Order, simulate
from nkilite.machine.topology import Topology
from nkilite.passes.follow_writes import FollowWrites
from nkilite.profiling.balance import balanced
from nkilite.profiling.communication import collectives, world_of
from nkilite.profiling.evacuated import evacuated
from nkilite.profiling.forward import forwarded
from nkilite.profiling.joined import joined
from nkilite.profiling.merged import merged
from nkilite.profiling.oversubscribe import allocate, fits
from nkilite.profiling.renamed import renamed
from nkilite.profiling.result import Profile
from nkilite.profiling.reuse import reused
from nkilite.profiling.spill import Spills, spilled, together
from nkilite.profiling.summary import Summary, added, summarize
from nkilite.profiling.turned import turned
from nkilite.profiling.unroll import Sizes, told_loops, unrolled
from nkilite.profiling.workload import costs_of, signature_ids, workload_of
from nkilite.runtime.collector import collector_paused
from nkilite.runtime.kernel import Kernel, jit

__all__ = ["profile", "profile_program", "profile_programs"]

_SHARES = (1, 2, 4, 0)  # tensors of which tiles are kept on chip instead of loaded again: up to these parts of SBUF


def _shortened(program: Program) -> tuple[Program, bool]:
    """The program without repeated work, as far as tiles that live longer have room; and whether they are placed."""
    placed = False
    for share in _SHARES if program.managed else (0,):
        shorter = reused(program, program.target.sbuf_size_bytes // share if share else 0)
        if shorter is not program and fits(shorter):
            program, placed = shorter, True
            break
    shorter = forwarded(program)
    if shorter is not program and fits(shorter):
        program, placed = shorter, True
    return program, placed


class _Settled(NamedTuple):
    """The program of a core as it is timed, and what is known of it as it was traced."""

    program: Program
    overflow: MemoryOverflow | None
    spills: Spills | None
    guessed: list[Location]
    summary: Summary


def _settled(
    program: Program, order: Order, trips: int | Sequence[int] | None, sizes: Sizes | None
) -> _Settled:
    """The straight-line, allocated program of one core."""
    program = FollowWrites().run(program)
    placed = False
    if order == "compiler":
        program = balanced(evacuated(turned(merged(renamed(program)))))
        program, placed = _shortened(program)
    overflow, spills = None if placed else allocate(program), None
    if overflow is not None and program.managed:
        relieved = spilled(program)
        if relieved is not None:
            overflow, (program, spills) = None, relieved
    all_loops = told_loops(program, trips, sizes)
    starts = program.starts() if all_loops else []
    guessed = [program.locations[program.code[starts[loop.begin] + 1]] for loop in all_loops if loop.trips is None]
    return _Settled(unrolled(program, all_loops), overflow, spills, guessed, summarize(program, all_loops))


def profile_programs(
    programs: Sequence[Program],
    order: Order = "compiler",
    trips: int | Sequence[int] | None = None,
    topology: str | Topology | None = None,
    sizes: Sizes | None = None,
    disable_dge: bool = False,
) -> Profile:
    """Model a launch of freshly traced programs, one per core, which are settled and allocated in place. The arguments
    are those of `profile`, and the sizes of dynamic dimensions.

    Raises:
        MemoryOverflow: a single tile is larger than its memory.
    """
    for program in programs:
        program.disable_dge = disable_dge
    with collector_paused():
        settled = [_settled(program, order, trips, sizes) for program in programs]
        launch = joined([one.program for one in settled])
        world = world_of(launch, current(), topology)
        communication = collectives(launch, world, current())
        ids, _ = signature_ids(launch.program)
        costs = costs_of(launch.program, ids, communication)
        work = workload_of(launch, costs, communication)
        line = simulate(work, order)
    counts = [Counter(one.guessed) for one in settled]
    guessed = reduce(or_, counts)  # cores run the same loops
    return Profile(
        launch.program.name, launch.program.target, order, launch, work, line, added([one.summary for one in settled]),
        costs, ids, next((one.overflow for one in settled if one.overflow is not None), None),
        tuple(guessed.elements()), world, communication, together([one.spills for one in settled]),
    )


def profile_program(program: Program, order: Order = "compiler", trips: int | Sequence[int] | None = None) -> Profile:
    """`profile_programs` for a launch on one core."""
    return profile_programs([program], order, trips)


def profile(
    kernel: Callable[..., object],
    *args: object,
    target: str | Target | None = None,
    order: Order = "compiler",
    trips: int | Sequence[int] | None = None,
    topology: str | Topology | None = None,
    disable_dge: bool = False,
    **kwargs: object,
) -> Profile:
    """Model a launch of a kernel: nothing is run, and the values of the arrays do not matter.

    Args:
        kernel: an `@nki.jit` kernel, also on two cores, ``kernel[2]``, or a plain function.
        args, kwargs: its arguments.
        target: a target's name, or the path of a target file; by default the environment's.
        order: ``compiler`` lets a free engine take the earliest instruction whose operands are ready; ``program``
            keeps the order of the source in every queue.
        trips: iterations of the loops whose number only the device knows: one number for all, or one for each in the
            order in which they begin. Without it they are taken to run once, and the profile says so. Those up to the
            size of a dynamic dimension are known from the arrays.
        topology: how the ranks that the kernel communicates with are joined: a name that ``nkilite topologies`` lists,
            or the path of a file; by default that of `nkilite.ranks`, else the smallest that holds them. Within
            `nkilite.ranks` the ranks are its own, else as many as the collectives name; all of them are taken to run
            this program.
        disable_dge: whether the kernel is compiled with the option ``--disable-dge``: descriptors of DMAs are made
            before the launch, and a queue only triggers them, unless a call chooses its `dge_mode`.

    Returns:
        The Profile; every figure in it is modelled.

    Raises:
        UnknownTarget: no such chip.
        InvalidOperand: `trips` does not fit the loops.
        UnknownTopology, InvalidTopology, NoTopology, TooManyRanks: there is no such topology, or it is too small.
        RankMissing: a collective names a rank that there is not.
        UnsupportedError: `trips` makes cores come to different numbers of meetings.
        NkiError: what tracing the kernel raises, and MemoryOverflow when a single tile does not fit.
    """
    chip = get_target(knobs.target()) if target is None else get_target(target) if isinstance(target, str) else target
    traced = kernel if isinstance(kernel, Kernel) else jit(kernel)
    with knobs.overridden_target(chip.name):
        programs = traced.programs(*args, **kwargs)
        place, values = traced.sizes(*args, **kwargs)
    return profile_programs(
        programs, order, trips, topology, Sizes(place, values) if values else None, disable_dge
    )

