"""The cpu objective: configurations checked and timed in a process of their own, the best against each other."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autotune.context import canonical
from autotune.errors import ReferenceFailed
from autotune.figures import CPU, CPU_MEASURED, Figure, geometric_mean
from autotune.measure import turnstile
from autotune.measure.isolation import Crashed, Measurer, TimedOut, address, start_all
from autotune.measure.requests import Expect, Interleave, Judge, Load, Measure, Take
from autotune.measure.timing import Protocol, Spread, indistinct, paired_ratio
from autotune.objective import Candidate, Verdict, Workload, current_target, preference
from autotune.outcome import Outcome, Reason, rejection
from autotune.space import Configuration, Space
from nkilite import Portable

PROCESSES = 4  # at most, that compile at once; never more than the cores this process may use


class Measured:
    """Time of a launch on this CPU.

    Every candidate is traced, compiled and compared with the reference (or the default configuration) in a measuring
    process; there are several, so that candidates known ahead are compiled at the same time. Then they are timed one
    after the other, each where it was compiled, while everything else of the tuner on this host stands still; those
    much slower than the incumbent are dropped during warm-up. At the end the best are timed again, interleaved in
    rounds, and compared in pairs.

    Attributes:
        ahead: how many candidates are compiled at once.
    """

    name = "cpu"
    label = CPU_MEASURED
    figures: tuple[Figure, ...] = (CPU,)

    def __init__(self, protocol: Protocol | None = None, seed: int = 0, ahead: int | None = None) -> None:
        self.target = current_target()
        self.protocol = Protocol() if protocol is None else protocol
        self.seed = seed
        self.ahead = min(PROCESSES, len(os.sched_getaffinity(0))) if ahead is None else ahead
        self._workloads: list[Workload] = []
        self._measurers: list[Measurer] = []
        self._judged: dict[tuple[int, str], tuple[Measurer, Outcome]] = {}
        self._bringing: set[int] = set()  # workloads whose kernel a measuring process cannot import

    def prepare(self, workloads: Sequence[Workload], default: Configuration) -> None:
        """Take on the workloads of a study.

        Raises:
            NotImportable: the measuring process could not load the kernel.
            ReferenceFailed: there is no reference and the default configuration cannot stand in for one.
        """
        self._workloads = list(workloads)
        loads: list[Load | Take] = []
        self._measurers = [Measurer(loads) for _ in range(self.ahead)]
        for measurer in self._measurers:
            measurer.spawn()  # their imports take as long as the references and what the model has to say
        self._bringing = {i for i, w in enumerate(workloads) if address(w.kernel) is None}
        loads += [_load(w) for w in workloads]
        for index, workload in enumerate(workloads):
            if workload.reference is not None:
                continue
            with turnstile.many():
                try:
                    request = Expect(index, default, self._program(index, default))
                except Exception as failure:  # the kernel's
                    outcome = rejection(failure, 0.0)
                else:
                    outcome = _answer(self._measurers[0], request, self.protocol.timeout)
            if not outcome.accepted:
                problem = outcome.detail
                raise ReferenceFailed(
                    kernel=workload.kernel.__name__, problem=problem, location=workload.kernel.location
                )
            for measurer in self._measurers:
                measurer.remember(request)

    def foresee(self, workload: Workload, configurations: Sequence[Configuration]) -> None:
        """Compile and check candidates that will be evaluated next, each in a process of its own."""
        self._judge(self._index(workload), configurations, keep=True)

    def evaluate(self, workload: Workload, configuration: Configuration, incumbent: float | None = None) -> Outcome:
        """Compile and check unless that was foreseen, then time, in a measuring process."""
        index, started = self._index(workload), time.perf_counter()
        key = index, canonical(configuration)
        if key not in self._judged:
            self._judge(index, [configuration], keep=True)
        measurer, judged = self._judged.pop(key)
        if not judged.accepted:
            return judged
        program = self._program(index, configuration)
        with turnstile.alone():
            request = Measure(index, configuration, incumbent, self.protocol, program)
            outcome = _answer(measurer, request, self.protocol.timeout)
        figures = {**judged.figures, **outcome.figures} if outcome.accepted else outcome.figures
        return replace(outcome, figures=figures, seconds=judged.seconds + time.perf_counter() - started)

    def judge(self, workload: Workload, configuration: Configuration) -> Outcome:
        """As `evaluate`, but not timed: the value is the numerical error."""
        index = self._index(workload)
        self._judge(index, [configuration], keep=False)
        return self._judged.pop((index, canonical(configuration)))[1]

    def _program(self, index: int, configuration: Configuration) -> Portable | None:
        """What a measuring process needs to run a configuration, unless it can import the kernel."""
        if index not in self._bringing:
            return None
        call = self._workloads[index].call(configuration)
        program: Portable = self._workloads[index].kernel.portable(*call.args, **call.kwargs)
        return program

    def _index(self, workload: Workload) -> int:
        return next(i for i, w in enumerate(self._workloads) if w is workload)

    def _judge(self, index: int, configurations: Sequence[Configuration], keep: bool) -> None:
        """Judge as many candidates as there are processes at once."""
        with turnstile.many():
            for begin in range(0, len(configurations), len(self._measurers)):
                pairs = list(zip(self._measurers, configurations[begin:], strict=False))
                start_all([m for m, _ in pairs])
                asked = []
                for measurer, configuration in pairs:
                    started = time.perf_counter()
                    try:
                        measurer.send(Judge(index, configuration, keep, self._program(index, configuration)))
                    except Exception as failure:  # the kernel's
                        outcome = rejection(failure, time.perf_counter() - started)
                        self._judged[index, canonical(configuration)] = measurer, outcome
                    else:
                        asked.append((measurer, configuration))
                for measurer, configuration in asked:
                    outcome = _received(measurer, self.protocol.timeout)
                    self._judged[index, canonical(configuration)] = measurer, outcome

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
        configurations = tuple(c.configuration for c in candidates)
        programs = tuple(tuple(self._program(i, c) for i in range(len(self._workloads))) for c in configurations)
        request = Interleave(configurations, programs, self.protocol, self.seed)
        seconds = self.protocol.timeout * len(candidates) + self.protocol.final_seconds
        with turnstile.alone():
            times: list[list[list[float]]] = self._measurers[0].ask(request, seconds)
            return times

    def _finalists(self, candidates: Sequence[Candidate], default: Configuration) -> list[Candidate]:
        """The best, those that may be as good, and the default."""
        bound = self.protocol.within * candidates[0].value
        near = [c for c in candidates if geometric_mean([o.low or c.value for o in c.outcomes]) <= bound]
        chosen = near[: self.protocol.finalists]
        usual = next((c for c in candidates if c.configuration == default), None)
        return chosen if usual is None or usual in chosen else [*chosen, usual]

    def close(self) -> None:
        """End the measuring processes."""
        for measurer in self._measurers:
            measurer.close()


def _answer(measurer: Measurer, request: Any, timeout: float) -> Outcome:
    """Of a process that may crash or hang."""
    measurer.start()
    measurer.send(request)
    return _received(measurer, timeout)


def _received(measurer: Measurer, timeout: float) -> Outcome:
    try:
        outcome: Outcome = measurer.receive(timeout)
        return outcome
    except TimedOut as error:
        return Outcome(reason=Reason.timeout, detail=str(error))
    except Crashed as error:
        return Outcome(reason=Reason.crash, detail=str(error))


def _load(workload: Workload) -> Load | Take:
    """What the measuring process needs; the reference is computed here, for it may not be importable there."""
    expected = None
    arrays = {n: a for n, a in workload.arguments.items() if isinstance(a, np.ndarray)}
    if workload.reference is not None:
        result: Any = workload.reference(*(a.copy() for a in arrays.values()), **_understood(workload, arrays))
        expected = tuple(np.asarray(r) for r in (result if isinstance(result, (tuple, list)) else (result,)))
    longest = max((n for a in arrays.values() for n in a.shape), default=1)
    reduction = int(workload.tolerance.get("reduction", longest))
    overrides = {k: float(v) for k, v in workload.tolerance.items() if k in ("rtol", "atol")}
    found = address(workload.kernel)
    if found is not None:
        return Load(found, dict(workload.arguments), expected, reduction, overrides)
    call = workload.call({})
    memory = tuple(workload.kernel.memory(*call.args, **call.kwargs))
    return Take(workload.kernel.__qualname__, memory, expected, reduction, overrides)


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
