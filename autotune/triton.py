"""Tuning in the manner of `triton.autotune`: a list of configurations, tried at the first launch for each key."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import nkilite as nki
from autotune.api import Tuning, search
from autotune.context import canonical
from autotune.database import Database
from autotune.errors import InvalidSpace, UnknownParameter
from autotune.lookup import ensure
from autotune.measure.timing import Protocol
from autotune.objective import Workload
from autotune.space import Configuration, Rule, Space, choice


@dataclass(frozen=True)
class Config:
    """Values for meta-parameters. The others are accepted, and mean nothing to a NeuronCore."""

    kwargs: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 3
    num_ctas: int = 1
    maxnreg: int | None = None
    all_kwargs: Configuration = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "all_kwargs", dict(self.kwargs))


def autotune(
    configs: Sequence[Config],
    key: Sequence[str],
    prune_configs_by: Mapping[str, Any] | None = None,
    reset_to_zero: Sequence[str] | None = None,
    restore_value: Sequence[str] | None = None,
    *,
    warmup: float | None = None,
    rep: float | None = None,
    objective: str | Sequence[str] = "cpu",
    protocol: Protocol | None = None,
    database: Database | str | os.PathLike[str] | None = None,
) -> Callable[[Any], Any]:
    """Decorate a kernel with configurations that its first launch for new values of `key` chooses from.

    Args:
        configs: the configurations, all of the same parameters; the first is the default.
        key: names of the arguments whose shapes, dtypes and values select a choice.
        prune_configs_by: any of "early_config_prune", a function of (configs, named arguments, **named arguments);
            "perf_model", a function of the named arguments and a configuration that returns a cost; and with it
            "top_k", how many to keep (a fraction if below 1).
        reset_to_zero, restore_value: names of arguments the kernel writes. Writing is noticed anyway, and every launch
            that measures finds them as they were; names are checked.
        warmup, rep: milliseconds to warm up and to time a configuration for, in the place of those in `protocol`.
        objective: "cpu" for measured time, a target for modelled latency; see `autotune.search`.
        protocol: how measuring is done.
        database: where choices outlive the process; None keeps them in memory.

    Raises:
        InvalidSpace: no configurations, different parameters, or a parameter without a default in the signature.
        UnknownParameter: a name the kernel does not take.
    """

    timing = Protocol() if protocol is None else protocol
    timing = replace(timing, warmup_seconds=timing.warmup_seconds if warmup is None else warmup / 1000,
                     seconds=timing.seconds if rep is None else rep / 1000)

    def mark(kernel: Any) -> Any:
        kernel = nki.jit(kernel)
        space = space_of(configs).fitting(kernel)
        taken = kernel.signature.parameters
        for name in (*key, *(reset_to_zero or ()), *(restore_value or ())):
            if name not in taken:
                raise UnknownParameter(name=name, kernel=kernel.__name__, choices=", ".join(taken))
        for name in space.parameters:
            if taken[name].default is taken[name].empty:
                raise InvalidSpace(problem=f"{name!r} needs a default in the kernel's signature")
        held = database if isinstance(database, Database) else Database(database)

        def at_launch(arguments: Mapping[str, Any]) -> Configuration:
            kept = pruned(configs, arguments, prune_configs_by or {})
            result = search(
                kernel, workloads=[Workload(kernel, dict(arguments))], objective=objective, protocol=timing,
                space=space_of(kept), trials=len(kept), database=held,
            )
            return result.best.configuration

        kernel.tuning = Tuning(kernel, space, tuple(key), at_launch=at_launch)
        ensure()
        return kernel

    return mark


def space_of(configs: Sequence[Config]) -> Space:
    """The space that holds exactly these configurations.

    Raises:
        InvalidSpace.
    """
    if not configs:
        raise InvalidSpace(problem="no configurations")
    names = tuple(configs[0].kwargs)
    for config in configs:
        if set(config.kwargs) != set(names):
            raise InvalidSpace(problem=f"{dict(config.kwargs)} sets other parameters than {names}")
    parameters = {n: choice(dict.fromkeys(c.kwargs[n] for c in configs), configs[0].kwargs[n]) for n in names}
    listed = {canonical(c.all_kwargs) for c in configs}
    member = Rule("one of the listed configurations", frozenset(names), lambda c: canonical(dict(c)) in listed)
    return Space(parameters, (member,))


def pruned(configs: Sequence[Config], arguments: Mapping[str, Any], by: Mapping[str, Any]) -> list[Config]:
    """The configurations that are left for these arguments; the first of all if none is."""
    kept = list(configs)
    if "early_config_prune" in by:
        kept = list(by["early_config_prune"](kept, dict(arguments), **arguments)) or kept[:1]
    if "perf_model" in by:
        count = by.get("top_k", 1.0)
        count = max(1, int(len(configs) * count)) if isinstance(count, float) and count <= 1 else int(count)
        kept.sort(key=lambda c: by["perf_model"](**{**arguments, **c.all_kwargs}))
        kept = kept[:count]
    return kept
