"""A study: one parent asks for configurations, has them evaluated, tells the sampler, and remembers everything."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from autotune.context import Context, canonical
from autotune.database import Choice, Database, Point, Trial
from autotune.errors import NothingLegal
from autotune.explore import pareto
from autotune.explore.exhaustive import BruteForce
from autotune.explore.offered import BRUTE_FORCE, require
from autotune.explore.opening import opening
from autotune.figures import CPU
from autotune.objective import Candidate, Objective, Verdict, Workload
from autotune.outcome import Outcome, Reason, Rejections, rejection
from autotune.space import Configuration, Space, infer
from nkilite.later import later
from nkilite.notebook import preformatted

if TYPE_CHECKING:
    from autotune.explore import samplers
else:
    samplers = later("autotune.explore.samplers")  # and optuna, half of what importing autotune would take

TRIALS = 100
REJECTIONS = 200  # new ones a study ends after, and as many more as
REJECTIONS_PER_TRIAL = 20


@dataclass(frozen=True)
class Progress:
    """Where a study stands, after each configuration."""

    done: int
    budget: int
    rejected: int
    elapsed: float
    seconds: float | None
    best: Candidate | None
    last: Configuration
    front: int = 0  # configurations on the front of several figures

    @property
    def left(self) -> float | None:
        """Seconds to go at the present pace, or until the time is up; None before the first trial."""
        if not self.done:
            return self.seconds
        paced = self.elapsed / self.done * max(0, self.budget - self.done)
        return paced if self.seconds is None else min(paced, max(0.0, self.seconds - self.elapsed))


_SHOWN = 10  # configurations in a notebook


def _line(candidate: Candidate) -> str:
    configuration = " ".join(f"{name}={value}" for name, value in candidate.configuration.items())
    return f"{candidate.value:>12.4g}  {configuration}"


@dataclass(frozen=True, repr=False)
class Result:
    """What a study found.

    Attributes:
        best: the chosen configuration with its outcomes; its figures are `label`.
        front: of several figures, the candidates that no other is better than in all of them, by the first figure.
        default: the default configuration's, None where it was rejected.
        ties: configurations that cannot be told from the best.
        ranking: accepted configurations, best first.
        rejections: the histogram of why others were not accepted.
        history: (configuration, value or None) in the order of the search.
        answered: configurations known from the database.
        exhausted: every configuration of the space was tried.
        interrupted: stopped by Ctrl-C.
        contexts: what its trials are stored under, one per workload.
        default_reason: why the default configuration was rejected, if it was.
        overhead: processor seconds per configuration spent neither evaluating nor writing the database.
    """

    kernel: str
    objective: str
    label: str
    workloads: tuple[str, ...]
    best: Candidate
    default: Candidate | None
    default_configuration: Configuration
    ties: tuple[Configuration, ...]
    ranking: tuple[Candidate, ...]
    rejections: Rejections
    history: tuple[tuple[Configuration, float | None], ...]
    answered: int
    exhausted: bool
    interrupted: bool
    seconds: float
    overhead: float
    remark: str = ""
    front: tuple[Candidate, ...] = ()
    contexts: tuple[Context, ...] = ()
    default_reason: Reason | None = None

    @property
    def speedup(self) -> float | None:
        """Of the best over the default configuration, in the first figure; None where that is not a time."""
        if self.default is None or self.best.figures[0].unit != "µs":
            return None
        return self.default.value / self.best.value

    def __repr__(self) -> str:
        best = ", ".join(f"{name}={value!r}" for name, value in self.best.configuration.items())
        return f"<tuned {self.kernel} for {self.objective}: {self.best.value:.4g} ({self.label}) with {best}>"

    def _repr_html_(self) -> str:
        return preformatted("\n".join([repr(self)[1:-1], "", *map(_line, self.ranking[:_SHOWN])]))


@dataclass
class Study:
    """The search for the configuration of a kernel that minimizes an objective over one or several workloads.

    Attributes:
        workloads: argument sets one configuration is to serve; figures are combined by geometric mean.
        objective: see `autotune.objective`.
        space: None infers it, see `autotune.space.infer`.
        sampler: tpe, random, cmaes, gp, nsga2, qmc or grid; spaces no larger than the budget are searched whole anyway.
        seed: of the sampler. A modelled study is a function of the seed, the space and the budget alone.
        trials: budget of accepted configurations, known ones included; rejected ones are free.
        seconds: budget of time.
        database: where finished trials go and known ones come from.
        resume: begin with all trials the database holds, whichever study made them.
        model: begin a search for CPU time with what the chip's model finds promising, see `autotune.explore.opening`.
    """

    workloads: Sequence[Workload]
    objective: Objective
    space: Space | None = None
    sampler: str = "tpe"
    seed: int = 0
    trials: int = TRIALS
    seconds: float | None = None
    database: Database = field(default_factory=lambda: Database(None))
    resume: bool = False
    model: bool = True

    def __post_init__(self) -> None:
        require(self.sampler, len(self.objective.figures))
        kernel = self.workloads[0].kernel
        self.kernel = kernel
        self._space = (infer(kernel) if self.space is None else self.space).fitting(kernel)
        self.default = self._space.default(kernel.signature)
        self._contexts = [w.context(self._space, self.objective) for w in self.workloads]
        self._tried: dict[str, tuple[Configuration, tuple[Outcome, ...]]] = {}
        self._done = self._rejected = self._answered = 0
        self._programs: dict[tuple[int, str], Outcome] = {}
        self._best: Candidate | None = None
        self._leading: list[Candidate] = []  # of several figures, the front so far
        self._resumed = len(self._known()) if self.resume else 0
        self._evaluating = 0.0
        self._suggester: samplers.Suggester | BruteForce = self._make_suggester()

    def _make_suggester(self) -> samplers.Suggester | BruteForce:
        small = self._space.size <= self.trials
        if not small and self._space.size <= 100 * self.trials:  # constraints may leave few
            legal = (c for c in self._space if self._space.violated(c) is None)
            small = sum(1 for _ in islice(legal, self.trials + 1)) <= self.trials
        if small or self.sampler == BRUTE_FORCE:
            return BruteForce(self._space)
        return samplers.Suggester(self._space, self.sampler, self.seed, self.trials, len(self.objective.figures))

    @property
    def whole(self) -> bool:
        """Whether every configuration will be tried."""
        return isinstance(self._suggester, BruteForce)

    def run(self, on_trial: Callable[[Progress], Any] = lambda progress: None) -> Result:
        """Search until the budget or the space is spent or Ctrl-C, settle on a configuration and record the choice.

        Raises:
            NothingLegal: every configuration tried was rejected.
        """
        started, worked = time.perf_counter(), time.process_time()
        interrupted = exhausted = False
        self.objective.prepare(self.workloads, self.default)
        try:
            exhausted = self._search(started, on_trial)
        except KeyboardInterrupt:
            interrupted = True
        searched = time.process_time() - worked
        candidates = self._accepted()
        if not candidates:
            if interrupted:
                raise KeyboardInterrupt
            raise self._nothing_legal()
        verdict = Verdict(tuple(candidates), (), front=tuple(self._leading))
        if not interrupted:
            try:
                verdict = self.objective.settle(self.workloads, candidates, self.default, self._space)
            except KeyboardInterrupt:
                interrupted = True
        ranking, ties = verdict.ranking, verdict.ties
        default = next((c for c in ranking if c.configuration == self.default), None)
        self._record(ranking[0], default, ties, verdict.front)
        tried = max(1, len(self._tried))
        return Result(
            kernel=self.kernel.__name__,
            objective=self.objective.name,
            label=self.objective.label,
            workloads=tuple(w.label for w in self.workloads),
            best=ranking[0],
            default=default,
            default_configuration=self.default,
            ties=ties,
            ranking=ranking,
            rejections=Rejections.of(_verdict(outcomes) for _, outcomes in self._tried.values()),
            history=tuple((c, None if (v := self._values(o)) is None else v[0]) for c, o in self._tried.values()),
            answered=self._answered,
            exhausted=exhausted,
            interrupted=interrupted,
            seconds=time.perf_counter() - started,
            overhead=(searched - self._evaluating) / tried,
            remark=verdict.remark,
            front=verdict.front,
            contexts=tuple(self._contexts),
            default_reason=self._reason(self.default),
        )

    def _search(self, started: float, on_trial: Callable[[Progress], Any]) -> bool:
        """Try configurations; returns whether the space is exhausted."""
        pending = self._opening()[::-1]
        ahead: list[Configuration] = []
        while not self._spent():
            elapsed = time.perf_counter() - started
            if self.seconds is not None and elapsed >= self.seconds:
                return False
            if not ahead and not (ahead := self._look_ahead(pending)):
                return True
            configuration = ahead.pop(0)
            if canonical(configuration) in self._tried:
                continue
            self._book(configuration, self._try(configuration, self._best))
            on_trial(self._progress(configuration, started))
        return False

    def _look_ahead(self, pending: list[Configuration]) -> list[Configuration]:
        """What is tried next: as many as the objective prepares at once; none when the space is exhausted."""
        found: list[Configuration] = []
        while len(found) < min(self.objective.ahead, self.trials - self._done):
            configuration = pending.pop() if pending else self._suggester.ask()
            if configuration is None:
                break
            found.append(configuration)
        new = {k: c for c in found if (k := canonical(c)) not in self._tried and self._space.violated(c) is None}
        traced = [(c, self._traced(0, c)) for c in new.values()]
        unknown = {t.program: c for c, t in traced if t.program and self._find(0, t) is None}
        if len(unknown) > 1:  # what this workload rejects is not tried on the others
            self.objective.foresee(self.workloads[0], list(unknown.values()))
        return found

    def _traced(self, index: int, configuration: Configuration) -> Outcome:
        """An outcome that holds the program a configuration makes of a workload, or why there is none."""
        key = index, canonical(configuration)
        found = self._programs.get(key)
        if found is None:
            started = time.perf_counter()
            try:
                found = Outcome(program=self.workloads[index].program(configuration, self.objective.target))
            except Exception as error:
                found = rejection(error, time.perf_counter() - started)
            self._programs[key] = found
        return found

    def _find(self, index: int, traced: Outcome) -> Outcome | None:
        """What became of a program before."""
        return self.database.find(self._contexts[index], traced.program) if traced.program else None

    def _opening(self) -> list[Configuration]:
        """What is tried before the sampler is asked, in order."""
        first = [self.default, *(self._known() if self.resume else ())]
        if self.model and not self.whole and self.objective.figures[0] is CPU:
            budget = self.trials, self.seconds
            first += opening(self.workloads[0], self._space, self.objective.target, self.seed, *budget)
        return first

    def _spent(self) -> bool:
        """Whether the budget is used up, or so many configurations were rejected that no more are tried."""
        patience = REJECTIONS + REJECTIONS_PER_TRIAL * self.trials + self._resumed
        return self._done >= self.trials or self._rejected >= patience

    def _book(self, configuration: Configuration, outcomes: tuple[Outcome, ...]) -> None:
        """Take in what became of a configuration."""
        self._tried[canonical(configuration)] = configuration, outcomes
        values = self._values(outcomes)
        self._suggester.tell(configuration, values)
        if values is None:
            self._rejected += 1
            return
        self._done += 1
        candidate = self._candidate(configuration, outcomes)
        if self._best is None or values < self._best.values:
            self._best = candidate
        if len(values) > 1:
            self._leading = pareto.front([*self._leading, candidate], values=lambda c: c.values, order=lambda c: 0)

    def _progress(self, last: Configuration, started: float) -> Progress:
        elapsed = time.perf_counter() - started
        foreign = self._space.complete(self.default) != self.default  # the default is tried all the same
        budget = min(self.trials, self._space.size + foreign) if self.whole else self.trials
        return Progress(
            self._done, budget, self._rejected, elapsed, self.seconds, self._best, last, len(self._leading)
        )

    def _try(self, configuration: Configuration, best: Candidate | None) -> tuple[Outcome, ...]:
        """Outcomes per workload, up to the first that rejects the configuration."""
        rule = self._space.violated(configuration)
        if rule is not None:  # not stored: constraints belong to the space, not to the kernel
            return (Outcome(reason=Reason.constraint, detail=rule.text),)
        outcomes: list[Outcome] = []
        known = True
        for index, (workload, context) in enumerate(zip(self.workloads, self._contexts, strict=True)):
            worked = time.process_time()
            traced = self._traced(index, configuration)
            outcome = self._find(index, traced)
            if outcome is None:
                known = False
                outcome = traced
                if traced.program:
                    incumbent = None if best is None else best.outcomes[index].value
                    found = self.objective.evaluate(workload, configuration, incumbent)
                    outcome = replace(found, program=traced.program)
                self.database.add(Trial(context, configuration, outcome))
            self._evaluating += time.process_time() - worked
            outcomes.append(outcome)
            if not outcome.accepted:
                break
        self._answered += known
        return tuple(outcomes)

    def _known(self) -> list[Configuration]:
        """Configurations of this space that the database has for the first workload."""
        first: Context = self._contexts[0]
        found = [t.configuration for t in self.database.trials.values() if t.context.id == first.id]
        return [c for c in found if self._space.complete(c) == c]

    def _accepted(self) -> list[Candidate]:
        accepted = [self._candidate(c, o) for c, o in self._tried.values() if o[-1].accepted]
        return sorted(accepted, key=lambda c: (c.values, self._space.positions(c.configuration)))

    def _reason(self, configuration: Configuration) -> Reason | None:
        """Why it was rejected; None if it was not, or not tried."""
        tried = self._tried.get(canonical(configuration))
        return None if tried is None else tried[1][-1].reason

    def _candidate(self, configuration: Configuration, outcomes: tuple[Outcome, ...]) -> Candidate:
        return Candidate(configuration, outcomes, self.objective.figures)

    def _values(self, outcomes: tuple[Outcome, ...]) -> tuple[float, ...] | None:
        return self._candidate({}, outcomes).values if outcomes[-1].accepted else None

    def _nothing_legal(self) -> NothingLegal:
        rejections = Rejections.of(_verdict(outcomes) for _, outcomes in self._tried.values())
        return NothingLegal(
            count=len(self._tried), kernel=self.kernel.__name__, histogram=str(rejections), advice=rejections.advice,
            location=self.kernel.location,
        )

    def _record(
        self, best: Candidate, default: Candidate | None, ties: tuple[Configuration, ...], front: tuple[Candidate, ...]
    ) -> None:
        for index, context in enumerate(self._contexts):
            value = best.outcomes[index].value
            assert value is not None
            usual = None if default is None else default.outcomes[index].value
            points = tuple(Point(c.configuration, replace(c, outcomes=(c.outcomes[index],)).values) for c in front)
            program = best.outcomes[index].program
            self.database.choose(Choice(context, best.configuration, value, usual, ties, points, program))


def _verdict(outcomes: tuple[Outcome, ...]) -> Outcome:
    """The outcome that decided: the rejection, or the last."""
    return outcomes[-1]
