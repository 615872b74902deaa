"""Where the next configuration comes from: optuna's samplers on the positions of a space, by ask and tell."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from autotune.context import canonical
from autotune.explore import pareto
from autotune.explore.offered import require
from autotune.space import Configuration, Parameter, Space

REPEATS = 1  # suggestions of known configurations taken before the neighbourhood of the best is searched instead
REJECTIONS_TOLD = 100  # more than the accepted ones; a model of more only costs time
LOCAL = 2  # after its start-up every so many suggestions of TPE are neighbours of the best instead
BEST = 5  # configurations whose neighbourhood is searched
SCATTER = 1000  # random draws for an unseen configuration before the whole space is walked


def _tpe(seed: int, startup: int, conditional: bool) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=startup, multivariate=True, group=conditional, n_ei_candidates=24
    )


def _cmaes(seed: int, startup: int, conditional: bool) -> optuna.samplers.BaseSampler:
    return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=startup)


def _gp(seed: int, startup: int, conditional: bool) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)


SAMPLERS: dict[str, Callable[[int, int, bool], optuna.samplers.BaseSampler]] = {
    "tpe": _tpe,
    "random": lambda seed, startup, conditional: optuna.samplers.RandomSampler(seed=seed),
    "cmaes": _cmaes,
    "gp": _gp,
    "nsga2": lambda seed, startup, conditional: optuna.samplers.NSGAIISampler(
        seed=seed, population_size=2 * startup
    ),
    "qmc": lambda seed, startup, conditional: optuna.samplers.QMCSampler(seed=seed, scramble=True),
}


class Suggester:
    """Suggests configurations that were not suggested before, and learns from what became of them.

    Rejected configurations are told as pruned: samplers that can, steer away from them.
    """

    def __init__(self, space: Space, sampler: str, seed: int, trials: int, figures: int = 1) -> None:
        require(sampler, figures)
        self.space = space
        self.random = sampler == "random"
        startup = max(4, min(10, trials // 3))
        self._local_from = startup if sampler == "tpe" else None
        conditional = any(p.when is not None for p in space.parameters.values())
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            chosen = SAMPLERS[sampler](seed, startup, conditional)
            self._study = optuna.create_study(sampler=chosen, directions=["minimize"] * figures)
        optuna.logging.set_verbosity(level)
        self._rng = random.Random(seed)
        self._rejected = self._suggested = 0
        self._asked: dict[str, optuna.Trial] = {}
        self._seen: set[str] = set()
        self._accepted: list[tuple[tuple[float, ...], tuple[int, ...], Configuration]] = []
        self._remaining: Iterator[Configuration] | None = None

    def ask(self) -> Configuration | None:
        """A configuration not seen yet; None when all have been."""
        self._suggested += 1
        repeats = REPEATS
        if self._local_from is not None and len(self._accepted) >= self._local_from and self._suggested % LOCAL == 0:
            repeats = 0
        for _ in range(repeats):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trial = self._study.ask()
                configuration = self.space.suggest(partial(_suggest, trial))
            key = canonical(configuration)
            if key not in self._seen:
                self._seen.add(key)
                self._asked[key] = trial
                return configuration
            self._study.tell(trial, state=TrialState.FAIL)
        found = None if self.random else self._beside_the_best()
        if found is None:
            found = self._unseen()
        if found is not None:
            self._seen.add(canonical(found))
        return found

    def see(self, configuration: Configuration) -> None:
        """Do not suggest a configuration that somebody else tries."""
        self._seen.add(canonical(configuration))

    def tell(self, configuration: Configuration, values: tuple[float, ...] | None) -> None:
        """The figures of a configuration, asked for or known from before; None when it was rejected."""
        key = canonical(configuration)
        self._seen.add(key)
        positions = self.space.positions(configuration)
        if values is not None:
            self._accepted.append((values, positions, configuration))
        else:
            self._rejected += 1
        told = values is not None or self._rejected <= len(self._accepted) + REJECTIONS_TOLD
        trial = self._asked.pop(key, None)
        if trial is not None:
            if values is not None:
                self._study.tell(trial, values)
            else:
                self._study.tell(trial, state=TrialState.PRUNED if told else TrialState.FAIL)
            return
        if not told:
            return
        if any(p < 0 for n, p in zip(self.space.parameters, positions, strict=True) if n in configuration):
            return  # a default that is not among the values to try
        names = [n for n in self.space.parameters if n in configuration]
        held = {n: p for n, p in zip(self.space.parameters, positions, strict=True) if n in configuration}
        self._study.add_trial(
            create_trial(
                params=held, distributions={n: _distribution(self.space.parameters[n]) for n in names}, values=values,
                state=TrialState.PRUNED if values is None else TrialState.COMPLETE,
            )
        )

    def _beside_the_best(self) -> Configuration | None:
        """An unseen neighbour of one of the best configurations, of one on the front if there are several figures."""
        for _, _, configuration in self._best():
            near = [c for c in self.space.neighbours(configuration) if canonical(c) not in self._seen]
            if near:
                return self._rng.choice(near)
        return None

    def _best(self) -> list[tuple[tuple[float, ...], tuple[int, ...], Configuration]]:
        if not self._accepted or len(self._accepted[0][0]) == 1:
            return sorted(self._accepted, key=lambda a: a[:2])[:BEST]
        leading = pareto.front(self._accepted, values=lambda a: a[0], order=lambda a: a[1])
        return self._rng.sample(leading, min(BEST, len(leading)))

    def _unseen(self) -> Configuration | None:
        for _ in range(min(SCATTER, self.space.size)):
            drawn = self.space.suggest(lambda name, p: self._rng.randrange(len(p.values)))
            if canonical(drawn) not in self._seen:
                return drawn
        if self._remaining is None:
            self._remaining = iter(self.space)
        return next((c for c in self._remaining if canonical(c) not in self._seen), None)


def _distribution(parameter: Parameter) -> BaseDistribution:
    last = len(parameter.values) - 1
    return IntDistribution(0, last) if parameter.ordered else CategoricalDistribution(range(last + 1))


def _suggest(trial: Any, name: str, parameter: Parameter) -> int:
    last = len(parameter.values) - 1
    if parameter.ordered:
        return int(trial.suggest_int(name, 0, last))
    return int(trial.suggest_categorical(name, range(last + 1)))
