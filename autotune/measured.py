"""The cpu objective: configurations checked and timed in a process of their own, the best against each other."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autotune.errors import ReferenceFailed
from autotune.figures import CPU, CPU_MEASURED, Figure, geometric_mean
from autotune.isolation import Crashed, Measurer, TimedOut, address
from autotune.measuring import Expect, Interleave, Judge, Load, Measure
from autotune.objective import Candidate, Verdict, Workload, current_target, preference
from autotune.outcome import Outcome, Reason, rejection
from autotune.space import Configuration, Space
from autotune.timing import Protocol, Spread, indistinct, paired_ratio


class Measured:
    """Time of a launch on this CPU.

    First every candidate is traced here, and what breaks a rule is rejected. The rest is compiled, compared with the
    reference (or the default configuration) and timed one after the other; those much slower than the incumbent are
    dropped during warm-up. At the end the best are timed again, interleaved in rounds, and compared in pairs.
    """

    name = "cpu"
    label = CPU_MEASURED
    figures: tuple[Figure, ...] = (CPU,)

    def __init__(self, protocol: Protocol | None = None, seed: int = 0) -> None:
        self.target = current_target()
        self.protocol = Protocol() if protocol is None else protocol
        self.seed = seed
        self._workloads: list[Workload] = []
        self._measurer: Measurer | None = None

    def prepare(self, workloads: Sequence[Workload], default: Configuration) -> None:
        """Take on the workloads of a study.

        Raises:
            NotImportable: the measuring process could not load the kernel.
            ReferenceFailed: there is no reference and the default configuration cannot stand in for one.
        """
        self._workloads = list(workloads)
        self._measurer = Measurer([_load(w) for w in workloads])
        for index, workload in enumerate(workloads):
            if workload.reference is not None:
                continue
            request = Expect(index, default)
            try:
                outcome = self._measurer.ask(request, self.protocol.timeout)
            except (Crashed, TimedOut) as error:
                outcome = Outcome(reason=Reason.crash, detail=str(error))
            if not outcome.accepted:
                problem = outcome.detail
                raise ReferenceFailed(
                    kernel=workload.kernel.__name__, problem=problem, location=workload.kernel.location
                )
            self._measurer.remember(request)

    def evaluate(self, workload: Workload, configuration: Configuration, incumbent: float | None = None) -> Outcome:
        """Trace here; compile, check and time in the measuring process."""
        index = self._index(workload)
        return self._ask(workload, configuration, Measure(index, configuration, incumbent, self.protocol))

    def judge(self, workload: Workload, configuration: Configuration) -> Outcome:
        """As `evaluate`, but not timed: the value is the numerical error."""
        return self._ask(workload, configuration, Judge(self._index(workload), configuration))

    def _index(self, workload: Workload) -> int:
        return next(i for i, w in enumerate(self._workloads) if w is workload)

    def _ask(self, workload: Workload, configuration: Configuration, request: Measure | Judge) -> Outcome:
        assert self._measurer is not None
        started = time.perf_counter()
        call = workload.call(configuration)
        try:
            workload.kernel.check(*call.args, **call.kwargs)
        except Exception as error:
            return rejection(error, time.perf_counter() - started)
        try:
            outcome = self._measurer.ask(request, self.protocol.timeout)
        except TimedOut as error:
            outcome = Outcome(reason=Reason.timeout, detail=str(error))
        except Crashed as error:
            outcome = Outcome(reason=Reason.crash, detail=str(error))
        return replace(outcome, seconds=time.perf_counter() - started)

    def settle(
        self, workloads: Sequence[Workload], candidates: Sequence[Candidate], default: Configuration, space: Space
    ) -> Verdict:
        """Time the best again, in rounds, with the default; the fastest in pairs wins, ties go by preference."""
        finalists = self._finalists(candidates, default)
        if len(finalists) == 1:
            return Verdict(tuple(candidates), ())
        try:
            samples = self.retime(finalists)
        except (Crashed, TimedOut) as error:
            return Verdict(tuple(candidates), (), f"not timed again, interleaved: {error}")
        again = [_retimed(c, taken) for c, taken in zip(finalists, samples, strict=True)]
        combined = [[geometric_mean(r) for r in zip(*taken, strict=True)] for taken in samples]
        ratios = [paired_ratio(rounds, combined[0])[0] for rounds in combined]
        fastest = min(range(len(again)), key=lambda i: (ratios[i], space.positions(again[i].configuration)))
        level = [i for i in range(len(again)) if i == fastest or indistinct(combined[i], combined[fastest])]
        level.sort(key=lambda i: preference(again[i].configuration, default, space))
        rest = sorted((i for i in range(len(again)) if i not in level), key=lambda i: ratios[i])
        others = [c for c in candidates if all(c is not f for f in finalists)]
        ties = tuple(again[i].configuration for i in level[1:])
        rounds = len(combined[0])
        remark = f"the best {len(finalists)} timed again, interleaved, in {rounds} rounds (cpu-measured)"
        return Verdict((*(again[i] for i in (*level, *rest)), *others), ties, remark)

    def retime(self, candidates: Sequence[Candidate]) -> list[list[list[float]]]:
        """Samples by candidate, workload and round, of launches in interleaved rounds.

        Raises:
            Crashed, TimedOut.
        """
        assert self._measurer is not None
        request = Interleave(tuple(c.configuration for c in candidates), self.protocol, self.seed)
        return self._measurer.ask(request, self.protocol.timeout * len(candidates) + self.protocol.final_seconds)

    def _finalists(self, candidates: Sequence[Candidate], default: Configuration) -> list[Candidate]:
        """The best, those that may be as good, and the default."""
        bound = self.protocol.within * candidates[0].value
        near = [c for c in candidates if geometric_mean([o.low or c.value for o in c.outcomes]) <= bound]
        chosen = near[: self.protocol.finalists]
        usual = next((c for c in candidates if c.configuration == default), None)
        return chosen if usual is None or usual in chosen else [*chosen, usual]

    def close(self) -> None:
        """End the measuring process."""
        if self._measurer is not None:
            self._measurer.close()


def _load(workload: Workload) -> Load:
    """What the measuring process needs; the reference is computed here, for it may not be importable there."""
    expected = None
    arrays = {n: a for n, a in workload.arguments.items() if isinstance(a, np.ndarray)}
    if workload.reference is not None:
        result: Any = workload.reference(*(a.copy() for a in arrays.values()), **_understood(workload, arrays))
        expected = tuple(np.asarray(r) for r in (result if isinstance(result, (tuple, list)) else (result,)))
    longest = max((n for a in arrays.values() for n in a.shape), default=1)
    reduction = int(workload.tolerance.get("reduction", longest))
    overrides = {k: float(v) for k, v in workload.tolerance.items() if k in ("rtol", "atol")}
    return Load(address(workload.kernel), dict(workload.arguments), expected, reduction, overrides)


def _understood(workload: Workload, arrays: dict[str, Any]) -> dict[str, Any]:
    """Compile-time arguments that the reference takes by the same name."""
    assert workload.reference is not None
    parameters = inspect.signature(workload.reference).parameters
    return {n: v for n, v in workload.arguments.items() if n in parameters and n not in arrays}


def _retimed(candidate: Candidate, samples: Sequence[Sequence[float]]) -> Candidate:
    outcomes = []
    for outcome, taken in zip(candidate.outcomes, samples, strict=True):
        spread = Spread.of(taken)
        outcomes.append(replace(outcome, value=spread.median, low=spread.low, high=spread.high))
    return replace(candidate, outcomes=tuple(outcomes))
