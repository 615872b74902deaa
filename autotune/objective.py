"""What is minimized: the modelled latency on a chip, and the interface measured objectives share with it."""

from __future__ import annotations

import inspect
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import nkilite as nki
from autotune.context import Context, context_of
from autotune.figures import MODELLED, Figure, figure_named
from autotune.outcome import Outcome, rejection
from autotune.space import Configuration, Space

TARGET_VARIABLE = "NEURON_PLATFORM_TARGET_OVERRIDE"
DEFAULT_TARGET = "trn2"


@dataclass(frozen=True)
class Workload:
    """A kernel and the arguments it is tuned on.

    Attributes:
        kernel: an `@nki.jit` kernel.
        arguments: every argument by name, defaults included; a configuration replaces the tuned ones.
        label: names it in reports.
        reference: a NumPy function of the arrays, or None to compare with the default configuration.
        tolerance: keywords of `nkilite.testing.tolerance` and `check` for that comparison.
    """

    kernel: Any
    arguments: Mapping[str, Any]
    label: str = ""
    reference: Callable[..., Any] | None = None
    tolerance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, kernel: Any, *args: Any, label: str = "", reference: Any = None, tolerance: Any = None, **kwargs: Any
    ) -> Workload:
        """Bind arguments as a call of the kernel would."""
        bound = kernel.arguments(*args, **kwargs)
        label = label or " ".join("x".join(map(str, a.shape)) for a in bound.arguments.values() if hasattr(a, "shape"))
        return cls(kernel, dict(bound.arguments), label, reference, dict(tolerance or {}))

    def call(self, configuration: Configuration, arguments: Mapping[str, Any] | None = None) -> inspect.BoundArguments:
        """The arguments of a call in this configuration.

        All are explicit, so that configurations tuned earlier do not reach into a study.
        """
        bound = inspect.BoundArguments(self.kernel.signature, {})
        values = {**self.arguments, **(arguments or {}), **configuration}
        for name in self.kernel.signature.parameters:  # args and kwargs rely on the order of the signature
            bound.arguments[name] = values[name]
        return bound

    def program(self, configuration: Configuration, target: str) -> str:
        """A digest of the program that the kernel traces to."""
        call = self.call(configuration)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nki.program_digest(self.kernel, *call.args, target=target, **call.kwargs)

    def context(self, space: Space, objective: Objective) -> Context:
        """What its trials are stored under."""
        return context_of(self.kernel, self.arguments, space.parameters, objective.name, objective.target)


@dataclass(frozen=True)
class Candidate:
    """An accepted configuration with its outcome on every workload, and the figures it is judged by."""

    configuration: Configuration
    outcomes: tuple[Outcome, ...]
    figures: tuple[Figure, ...] = field(repr=False)

    @property
    def value(self) -> float:
        """The first figure, over all workloads."""
        return self.figures[0].combine([o.value for o in self.outcomes if o.value is not None])

    @property
    def values(self) -> tuple[float, ...]:
        """All figures, over all workloads."""
        others = (f.combine([o.figures[f.key] for o in self.outcomes]) for f in self.figures[1:])
        return self.value, *others


@dataclass(frozen=True)
class Verdict:
    """The end of the search.

    Attributes:
        ranking: candidates, the chosen one first.
        ties: configurations that cannot be told from it.
        front: of several figures, the candidates that no other is better than in all of them, by the first figure.
    """

    ranking: tuple[Candidate, ...]
    ties: tuple[Configuration, ...]
    remark: str = ""
    front: tuple[Candidate, ...] = ()


class Objective(Protocol):
    """One or several figures to minimize.

    Attributes:
        name: what the database and the command line call it.
        target: the chip whose limits a configuration must respect.
        label: "modelled" or "cpu-measured".
        figures: what outcomes hold, the first as their value, others among their figures.
        ahead: how many configurations it prepares at once.
    """

    name: str
    target: str
    label: str
    figures: tuple[Figure, ...]
    ahead: int

    def prepare(self, workloads: Sequence[Workload], default: Configuration) -> None:
        """Take on the workloads of a study; `default` is the configuration to start from."""

    def foresee(self, workload: Workload, configurations: Sequence[Configuration]) -> None:
        """Prepare configurations that will be evaluated next; called only where `ahead` is more than one."""

    def evaluate(self, workload: Workload, configuration: Configuration, incumbent: float | None) -> Outcome:
        """One trial; `incumbent` is the best figure on this workload so far."""

    def settle(
        self, workloads: Sequence[Workload], candidates: Sequence[Candidate], default: Configuration, space: Space
    ) -> Verdict:
        """Choose among the accepted candidates, which come best first."""

    def close(self) -> None:
        """Release what measuring held."""


class Modelled:
    """Modelled latency on a target: deterministic, so nothing is repeated and equal figures are ties."""

    label = MODELLED
    ahead = 1

    def __init__(self, target: str) -> None:
        self.name = self.target = target
        self.figures: tuple[Figure, ...] = (figure_named(target),)

    def prepare(self, workloads: Sequence[Workload], default: Configuration) -> None:
        """Needs nothing."""

    def foresee(self, workload: Workload, configurations: Sequence[Configuration]) -> None:
        """Nothing is prepared ahead."""

    def evaluate(self, workload: Workload, configuration: Configuration, incumbent: float | None = None) -> Outcome:
        """Trace, check and place the kernel, then run the timing model."""
        started = time.perf_counter()
        call = workload.call(configuration)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                profile = nki.profile(workload.kernel, *call.args, target=self.target, **call.kwargs)
        except Exception as error:
            return rejection(error, time.perf_counter() - started)
        if profile.overflow is not None:
            return rejection(profile.overflow, time.perf_counter() - started)
        figures: dict[str, float] = {
            "sbuf_peak_bytes": profile.sbuf_peak_bytes,
            "psum_peak_banks": profile.psum_peak_banks,
            "hbm_bytes": profile.hbm_read_bytes + profile.hbm_write_bytes,
        }
        return Outcome(value=profile.latency_us, figures=figures, seconds=time.perf_counter() - started)

    def settle(
        self, workloads: Sequence[Workload], candidates: Sequence[Candidate], default: Configuration, space: Space
    ) -> Verdict:
        """Equal figures are broken in favour of the default, then of what stands first in the space."""
        ranking = sorted(candidates, key=lambda c: (c.value, *preference(c.configuration, default, space)))
        best = ranking[0].value
        ties = [c.configuration for c in ranking[1:] if math.isclose(c.value, best, rel_tol=1e-9)]
        return Verdict(tuple(ranking), tuple(ties))

    def close(self) -> None:
        """Holds nothing."""


def preference(configuration: Configuration, default: Configuration, space: Space) -> tuple[Any, ...]:
    """The key that breaks ties: the default first, then the order of the space."""
    return configuration != default, space.positions(configuration)


def current_target() -> str:
    """The chip launches are checked against now."""
    return os.environ.get(TARGET_VARIABLE) or DEFAULT_TARGET
