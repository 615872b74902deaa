"""The Python interface: `tune` marks a kernel with its space, `search` finds its best configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nkilite as nki
from autotune import children
from autotune.database import Database
from autotune.explore.several import Several
from autotune.explore.study import TRIALS, Progress, Result, Study
from autotune.figures import CPU, figures_named, is_chip
from autotune.measure.measured import Measured
from autotune.measure.timing import Protocol
from autotune.objective import Modelled, Objective, Workload
from autotune.space import Configuration, Space, infer


def objective_named(names: str | Sequence[str], seed: int = 0, protocol: Protocol | None = None) -> Objective:
    """One or several of targets and target files (modelled latency), cpu, error (measured) and sbuf (modelled).

    Args:
        names: as ``"trn2,sbuf"`` or ``("trn2", "sbuf")``.
        seed, protocol: of measuring.

    Raises:
        UnknownObjective.
    """
    figures = figures_named(names)
    if len(figures) == 1 and is_chip(figures[0].name):
        return Modelled(figures[0].name)
    return Measured(protocol, seed) if figures == (CPU,) else Several(figures, protocol, seed)


@dataclass(frozen=True)
class Tuning:
    """What `tune` knows about a kernel; its attribute `tuning`.

    Attributes:
        space: what may vary.
        key: names of the arguments whose shapes, dtypes and values select a tuned configuration; None for all.
        reference, tolerance: how results are judged when measuring.
        at_launch: chooses a configuration for a launch, from all its arguments by name, where none is known.
    """

    kernel: Any
    space: Space
    key: tuple[str, ...] | None = None
    reference: Callable[..., Any] | None = None
    tolerance: Mapping[str, Any] | None = None
    at_launch: Callable[[Mapping[str, Any]], Configuration] | None = None

    def search(self, *args: Any, **options: Any) -> Result:
        """`search` on this kernel, for the arguments of a call."""
        return search(self.kernel, args, **options)


def tune(
    space: Space | Mapping[str, Any] | None = None,
    *,
    key: Sequence[str] | None = None,
    constraints: Sequence[Any] = (),
    reference: Callable[..., Any] | None = None,
    tolerance: Mapping[str, Any] | None = None,
) -> Callable[[Any], Any]:
    """Declare what may be tuned of a kernel: a decorator over `@nki.jit`, which leaves the kernel as it is.

    Args:
        space: values by parameter, or a Space; None infers it (see `autotune.space.infer`).
        key: names of the arguments whose shapes, dtypes and values select a tuned configuration; None for all.
        constraints: see `autotune.space.Space`.
        reference: a NumPy function of the arrays, the measure of correctness.
        tolerance: keywords of `nkilite.testing.check`.

    Raises:
        InvalidSpace, UnknownParameter, NoSpace.
    """

    def mark(kernel: Any) -> Any:
        kernel = nki.jit(kernel)
        if space is None:
            own = infer(kernel)
        else:
            own = space if isinstance(space, Space) else Space(space)
        if constraints:
            own = Space(own.parameters, (*own.constraints, *constraints))
        names = None if key is None else tuple(key)
        kernel.tuning = Tuning(kernel, own.fitting(kernel), names, reference, tolerance)
        return kernel

    return mark


def search(
    kernel: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    workloads: Sequence[Workload] = (),
    objective: str | Sequence[str] | Objective = "trn2",
    space: Space | Mapping[str, Any] | None = None,
    sampler: str = "tpe",
    seed: int = 0,
    trials: int = TRIALS,
    seconds: float | None = None,
    database: Database | str | os.PathLike[str] | None = None,
    resume: bool = False,
    model: bool = True,
    protocol: Protocol | None = None,
    on_trial: Callable[[Progress], Any] = lambda progress: None,
) -> Result:
    """Find the best configuration of a kernel for the arguments of a call, or for several workloads at once.

    Args:
        kernel: an `@nki.jit` kernel.
        args, kwargs: of the call.
        workloads: instead of args and kwargs, argument sets that one configuration is to serve.
        objective: "trn2", another target or a target file (modelled latency), "cpu" (cpu-measured time), "sbuf"
            (modelled peak), "error" (numerical, cpu-measured), or several of them, "trn2,sbuf" or ("trn2", "sbuf"), for
            a Pareto front whose best in the first figure is chosen; or an Objective, which is left open.
        space: None takes the one of `tune`, or infers it.
        sampler, seed, trials, seconds, resume, model: see `Study`.
        database: a Database, the path of one, or None to remember nothing.
        protocol: how the cpu objective measures.
        on_trial: called after every configuration.

    Raises:
        NothingLegal: every configuration was rejected; says why and what to change.
        NestedSearch: in a process that a search has started.
    """
    children.require_none()
    tuning: Tuning | None = getattr(kernel, "tuning", None)
    if not workloads:
        reference = tuning.reference if tuning is not None else None
        tolerance = tuning.tolerance if tuning is not None else None
        workloads = [Workload.of(kernel, *args, reference=reference, tolerance=tolerance, **(kwargs or {}))]
    if space is None and tuning is not None:
        space = tuning.space
    if space is not None and not isinstance(space, Space):
        space = Space(space)
    own = isinstance(objective, (str, Sequence))
    chosen = objective_named(objective, seed, protocol) if isinstance(objective, (str, Sequence)) else objective
    held = database if isinstance(database, Database) else Database(database)
    try:
        return Study(workloads, chosen, space, sampler, seed, trials, seconds, held, resume, model).run(on_trial)
    finally:
        if own:
            chosen.close()
        if held is not database:
            held.close()
