"""Objectives of several figures: latencies on chips or this CPU, SBUF, numerical error; their end is a Pareto front."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import nkilite as nki
from autotune.errors import ReferenceFailed
from autotune.explore import pareto
from autotune.figures import CPU, CPU_MEASURED, ERROR, Figure, is_chip
from autotune.measure.isolation import Crashed, TimedOut
from autotune.measure.measured import Measured
from autotune.measure.timing import Protocol, Spread
from autotune.objective import Candidate, Modelled, Verdict, Workload, current_target, preference
from autotune.outcome import Outcome
from autotune.space import Configuration, Space


class Several:
    """The figures named, of one configuration after the other.

    Models come first, so that what breaks a rule of a chip is never compiled. Nothing is dropped for being slow, for it
    may be the best in another figure. The first chip named is the target; SBUF is that of the target.
    """

    ahead = 1  # models come first

    def __init__(self, figures: Sequence[Figure], protocol: Protocol | None = None, seed: int = 0) -> None:
        self.figures = tuple(figures)
        self.name = ",".join(f.name for f in figures)
        self.label = " and ".join(dict.fromkeys(f.label for f in figures))
        chips = [f.name for f in figures if is_chip(f.name)]
        self.target = chips[0] if chips else current_target()
        modelled = self.label != CPU_MEASURED
        self._models = [Modelled(chip) for chip in chips or [self.target] * modelled]
        self._timed, self._judged = CPU in figures, ERROR in figures
        self._measured = Measured(protocol, seed, ahead=1) if self._timed or self._judged else None
        self._replaced: dict[int, Workload] = {}

    def prepare(self, workloads: Sequence[Workload], default: Configuration) -> None:
        """Take on the workloads; where error counts and there is no reference, simulate one in float32.

        Raises:
            NotImportable, ReferenceFailed: as `Measured`.
        """
        if self._measured is None:
            return
        replaced = [_with_reference(w, default) if self._judged and w.reference is None else w for w in workloads]
        self._replaced = {id(w): r for w, r in zip(workloads, replaced, strict=True)}
        self._measured.prepare(replaced, default)

    def foresee(self, workload: Workload, configurations: Sequence[Configuration]) -> None:
        """Nothing is prepared ahead."""

    def evaluate(self, workload: Workload, configuration: Configuration, incumbent: float | None = None) -> Outcome:
        """All figures of one configuration, or the first rejection."""
        started = time.perf_counter()
        figures: dict[str, float] = {}
        for model in self._models:
            outcome = model.evaluate(workload, configuration)
            if outcome.value is None:
                return outcome
            figures = {**outcome.figures, **figures, model.name: outcome.value}
        if self._measured is not None:
            take = self._measured.evaluate if self._timed else self._measured.judge
            outcome = take(self._replaced[id(workload)], configuration)
            if outcome.value is None:
                return replace(outcome, seconds=time.perf_counter() - started)
            figures |= outcome.figures
            if self._timed:
                figures |= _timing(outcome)
        return _with_first(self.figures[0], Outcome(figures=figures, seconds=time.perf_counter() - started))

    def settle(
        self, workloads: Sequence[Workload], candidates: Sequence[Candidate], default: Configuration, space: Space
    ) -> Verdict:
        """The front, of which the best in the first figure is chosen; a measured front is timed again, interleaved."""

        def leading(among: Sequence[Candidate]) -> list[Candidate]:
            return pareto.front(among, lambda c: c.values, lambda c: preference(c.configuration, default, space))

        front, remark = leading(candidates), ""
        again = {c.configuration == default: c for c in candidates}
        usual = [again[True]] if True in again and again[True] not in front else []
        if self._timed and len(front) + len(usual) > 1:
            assert self._measured is not None
            timed = [*front, *usual]
            try:
                samples = self._measured.retime(timed)
            except (Crashed, TimedOut) as error:
                remark = f"not timed again, interleaved: {error}"
            else:
                timed = [self._retimed(c, taken) for c, taken in zip(timed, samples, strict=True)]
                front, usual = leading(timed[: len(front)]), timed[len(front) :]
                remark = f"{len(timed)} timed again, interleaved, in {len(samples[0][0])} rounds (cpu-measured)"
        taken = [c.configuration for c in (*front, *usual)]
        rest = [*usual, *(c for c in candidates if c.configuration not in taken)]
        rest.sort(key=lambda c: (c.values, *preference(c.configuration, default, space)))
        ties = [c.configuration for c in rest if _equal(c.values, front[0].values)]
        return Verdict((*front, *rest), tuple(ties), remark, tuple(front) if len(self.figures) > 1 else ())

    def _retimed(self, candidate: Candidate, samples: Sequence[Sequence[float]]) -> Candidate:
        outcomes = []
        for outcome, times in zip(candidate.outcomes, samples, strict=True):
            spread = Spread.of(times)
            timing = _timing(Outcome(value=spread.median, low=spread.low, high=spread.high))
            outcomes.append(_with_first(self.figures[0], replace(outcome, figures=outcome.figures | timing)))
        return replace(candidate, outcomes=tuple(outcomes))

    def close(self) -> None:
        """End the measuring process."""
        if self._measured is not None:
            self._measured.close()


def _timing(outcome: Outcome) -> dict[str, float]:
    assert outcome.value is not None
    spread = {"cpu_low": outcome.low, "cpu_high": outcome.high}
    return {CPU.key: outcome.value, **{k: v for k, v in spread.items() if v is not None}}


def _with_first(figure: Figure, outcome: Outcome) -> Outcome:
    """The outcome with its first figure as its value."""
    low, high = (outcome.figures.get(k) if figure is CPU else None for k in ("cpu_low", "cpu_high"))
    return replace(outcome, value=outcome.figures[figure.key], low=low, high=high)


def _equal(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(ours, theirs, strict=True))


def _with_reference(workload: Workload, default: Configuration) -> Workload:
    """The workload with the reference rules of its instructions, on arrays widened to float32, as its reference."""
    names = [n for n, a in workload.arguments.items() if isinstance(a, np.ndarray)]

    def simulated(*arrays: np.ndarray) -> Any:
        exact = [a if a.dtype.kind in "iub" else a.astype(np.float32) for a in arrays]
        call = workload.call(default, dict(zip(names, exact, strict=True)))
        try:
            return nki.simulate(workload.kernel)(*call.args, **call.kwargs)
        except Exception as error:
            raise ReferenceFailed(
                kernel=workload.kernel.__name__, problem=f"in float32: {error}", location=workload.kernel.location
            ) from None

    return replace(workload, reference=simulated)
