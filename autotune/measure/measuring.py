"""A measuring process: compiles, checks and times configurations for a parent, so that a crash costs one trial.

`main` answers requests (see `Server`) on a connection until it closes. What kernels print goes to standard error.
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from autotune import children
from autotune.context import canonical
from autotune.errors import NestedSearch
from autotune.figures import ERROR
from autotune.measure import correctness
from autotune.measure.requests import Expect, Interleave, Judge, Load, Measure, Take
from autotune.measure.timing import Protocol, Spread
from autotune.objective import Workload
from autotune.outcome import Outcome, Reason, rejection
from autotune.space import Configuration
from nkilite import Portable
from nkilite.cli.specs import load_kernel
from nkilite.testing import MismatchError


class Subject:
    """One workload in this process, with its compiled configurations."""

    def __init__(self, load: Load | Take) -> None:
        self.workload: Workload | None = None
        if isinstance(load, Load):
            self.workload = Workload.of(load_kernel(load.kernel), **load.arguments)
            self.arrays = {n: a for n, a in self.workload.arguments.items() if isinstance(a, np.ndarray)}
        else:
            self.arrays = {str(i): a for i, a in enumerate(load.arrays)}
        self.pristine = {n: a.copy() for n, a in self.arrays.items()}
        self.in_place: set[str] = set()
        self.launchers: dict[str, Any] = {}
        self.expected: correctness.Reference | None = None
        self._tolerance = load.reduction, load.overrides
        if load.expected is not None:
            self.expect(load.expected)

    def expect(self, outputs: Sequence[np.ndarray]) -> None:
        """Results are compared with these from now on."""
        self.expected = correctness.Reference(outputs, [a.dtype for a in self.arrays.values()], *self._tolerance)

    def launcher(self, configuration: Configuration, program: Portable | None) -> Any:
        """Compiled once; `program` is that of the configuration if the kernel is not here."""
        key = canonical(configuration)
        if key not in self.launchers:
            if program is not None:
                self.launchers[key] = program.launcher(list(self.arrays.values()))
            else:
                assert self.workload is not None
                call = self.workload.call(configuration)
                self.launchers[key] = self.workload.kernel.launcher(*call.args, **call.kwargs)
        return self.launchers[key]

    def drop(self, configuration: Configuration) -> None:
        """Free a configuration's memory."""
        self.launchers.pop(canonical(configuration), None)
        if not self.launchers and self.workload is not None:
            self.workload.kernel.forget()

    def restore(self) -> None:
        """Give arguments that the kernel writes their first values back."""
        for name in self.in_place:
            np.copyto(self.arrays[name], self.pristine[name])

    def results(self, launcher: Any) -> tuple[np.ndarray, ...]:
        """Of one launch, and whatever it did to its arguments."""
        self.restore()
        returned = launcher.run()
        for name, array in self.arrays.items():
            if not correctness.identical(array, self.pristine[name]):
                self.in_place.add(name)
        values = returned if isinstance(returned, (tuple, list)) else (returned,)
        found = tuple(np.array(v) for v in values if v is not None)
        self.restore()
        return found

    def time(self, launcher: Any, launches: int) -> list[float]:
        """Microseconds of each launch, arguments restored before each if need be."""
        if not self.in_place:
            whole: list[float] = launcher.time(launches)
            return whole
        times = []
        for _ in range(launches):
            self.restore()
            times += launcher.time(1)
        return times

    def judge(self, got: Sequence[np.ndarray]) -> float:
        """The largest relative error of results; raises MismatchError if they are not what is expected."""
        assert self.expected is not None
        return self.expected.error(got)


class Server:
    """Answers one request after the other."""

    def __init__(self) -> None:
        self.subjects: list[Subject] = []

    def answer(self, request: Load | Take | Measure | Judge | Expect | Interleave) -> Any:
        """What the request's docstring says; an Outcome where the kernel fails."""
        if isinstance(request, (Load, Take)):
            try:
                self.subjects.append(Subject(request))
            except NestedSearch as mistake:
                return mistake
            return None
        if isinstance(request, Interleave):
            return self._interleave(request)
        started = time.perf_counter()
        subject = self.subjects[request.index]
        try:
            if isinstance(request, Expect):
                subject.expect(subject.results(subject.launcher(request.configuration, request.program)))
                return Outcome(value=0.0)
            if isinstance(request, Judge):
                error = subject.judge(subject.results(subject.launcher(request.configuration, request.program)))
                if not request.keep:
                    subject.drop(request.configuration)
                seconds = time.perf_counter() - started
                return Outcome(value=error, figures={ERROR.key: error}, seconds=seconds)
            return self._measure(subject, request, started)
        except MismatchError as mismatch:
            subject.drop(request.configuration)
            return Outcome(reason=Reason.wrong_result, detail=str(mismatch), seconds=time.perf_counter() - started)
        except Exception as failure:  # the kernel's; the parent decides what it means
            subject.drop(request.configuration)
            return rejection(failure, time.perf_counter() - started)

    def _measure(self, subject: Subject, request: Measure, started: float) -> Outcome:
        protocol = request.protocol
        launcher = subject.launcher(request.configuration, request.program)
        bound = math.inf if request.incumbent is None else protocol.hopeless * request.incumbent
        fastest = self._warm_up(subject, launcher, protocol)
        if fastest > bound:  # a burst of noise deserves a second look
            fastest = min(fastest, self._warm_up(subject, launcher, protocol))
        if fastest > bound:
            subject.drop(request.configuration)
            detail = f"{fastest:.4g} us at best in warm-up, incumbent {request.incumbent:.4g} us (cpu-measured)"
            return Outcome(reason=Reason.hopeless, detail=detail, seconds=time.perf_counter() - started)
        times: list[float] = []
        begun = time.perf_counter()
        while len(times) < protocol.launches and (
            len(times) < protocol.least or time.perf_counter() - begun < protocol.seconds
        ):
            times += subject.time(launcher, 1)
        spread = Spread.of(times)
        subject.drop(request.configuration)
        return Outcome(
            value=spread.median, low=spread.low, high=spread.high, figures={"launches": len(times)},
            seconds=time.perf_counter() - started,
        )

    def _warm_up(self, subject: Subject, launcher: Any, protocol: Protocol) -> float:
        """Microseconds of the fastest launch."""
        times: list[float] = []
        begun = time.perf_counter()
        while not times or (
            len(times) < protocol.warmup_launches and time.perf_counter() - begun < protocol.warmup_seconds
        ):
            times += subject.time(launcher, 1)
        return min(times)

    def _interleave(self, request: Interleave) -> list[list[list[float]]]:
        rng, protocol = random.Random(request.seed), request.protocol
        samples: list[list[list[float]]] = [[[] for _ in self.subjects] for _ in request.configurations]
        launchers = [
            [s.launcher(c, p) for s, p in zip(self.subjects, programs, strict=True)]
            for c, programs in zip(request.configurations, request.programs, strict=True)
        ]
        order = list(range(len(launchers)))
        begun, done = time.perf_counter(), 0
        while done < protocol.rounds and (
            done < protocol.least or time.perf_counter() - begun < protocol.final_seconds
        ):
            rng.shuffle(order)
            for candidate in order:
                for index, subject in enumerate(self.subjects):
                    # The first launch brings the candidate's memory back into the caches; the second is taken.
                    samples[candidate][index].append(subject.time(launchers[candidate][index], 2)[1])
            done += 1
        return samples


def serve(connection: Connection) -> None:
    """Answer requests until the parent closes the connection."""
    server = Server()
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        connection.send(server.answer(request))


def main() -> None:
    """Entry point of the process; its only argument is the descriptor of the connection."""
    children.begin()
    os.dup2(2, 1)
    serve(Connection(int(sys.argv[1])))
