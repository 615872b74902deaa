"""Every sampler on a space with a known optimum: found sooner than at random, the same for the same seed."""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import pytest

from autotune import Space, choice
from autotune.context import canonical
from autotune.errors import MissingExtra
from autotune.gaussian import Process
from autotune.samplers import SAMPLERS, Suggester

SPACE = Space({
    "A": range(1, 33), "B": range(1, 17), "HOW": ["x", "y", "z"], "C": choice(range(1, 9), when={"HOW": "y"}),
})
OPTIMUM = {"A": 11, "B": 7, "HOW": "y", "C": 5}
needs_cmaes = pytest.mark.skipif(find_spec("cmaes") is None, reason="cmaes is not installed")
MODELS = ["tpe", pytest.param("cmaes", marks=needs_cmaes), "gp"]


def figure(configuration) -> float | None:
    """A bowl in A, B and C; multiples of five are illegal."""
    if configuration["A"] % 5 == 0:
        return None
    how = {"x": 40.0, "y": 0.0, "z": 20.0}[configuration["HOW"]]
    return 100.0 + how + sum(4.0 * (configuration.get(n, 1) - OPTIMUM[n]) ** 2 for n in ("A", "B", "C"))


def search(sampler: str, seed: int, trials: int = 60, space: Space = SPACE) -> list[tuple[str, float | None]]:
    suggester, history = Suggester(space, sampler, seed, trials), []
    for _ in range(trials):
        configuration = suggester.ask()
        value = figure(configuration)
        suggester.tell(configuration, None if value is None else (value,))
        history.append((canonical(configuration), value))
    return history


def best(sampler: str, seed: int, space: Space = SPACE) -> float:
    return min(v for _, v in search(sampler, seed, space=space) if v is not None)


@pytest.mark.parametrize("sampler", [*MODELS, "qmc", "random"])
def test_the_same_for_the_same_seed_and_nothing_twice(sampler: str) -> None:
    first = search(sampler, 3, 30)
    assert first == search(sampler, 3, 30)
    assert first != search(sampler, 4, 30)
    assert len(dict(first)) == 30


@pytest.mark.parametrize("sampler", MODELS)
def test_better_than_random(sampler: str) -> None:
    seeds = range(4)
    ours, random = ([math.log(best(s, seed)) for seed in seeds] for s in (sampler, "random"))
    assert np.mean(ours) < np.mean(random)


def test_gaussian_process_with_several_figures_covers_the_front() -> None:
    space = Space({"A": range(1, 33), "B": range(1, 33)})
    suggester = Suggester(space, "gp", 0, 60, figures=2)
    front = set()
    for _ in range(60):
        configuration = suggester.ask()
        a, b = configuration["A"], configuration["B"]
        suggester.tell(configuration, (a + (b - 9.0) ** 2, 40.0 - a + (b - 9.0) ** 2))
        if b == 9:
            front.add(a)
    assert len(front) >= 8
    assert max(front) - min(front) >= 16


def test_gaussian_process_interpolates_and_expects_improvement_beside_the_lowest() -> None:
    x = np.linspace(0, 1, 9)[:, None]
    process = Process(1, np.random.default_rng(0))
    process.condition(x, ((x[:, 0] - 0.3) ** 2))
    fine = np.linspace(0, 1, 101)[:, None]
    improvement = process.improvement(fine)
    assert abs(fine[int(np.argmax(improvement)), 0] - 0.3) < 0.08
    assert np.all(improvement >= 0)
    assert improvement[0] < 1e-3 * improvement.max()


def test_gaussian_process_ends_small_spaces() -> None:
    suggester = Suggester(Space({"A": range(4), "B": ["x", "y", "z"]}), "gp", 0, 4)
    asked = []
    while (configuration := suggester.ask()) is not None:
        suggester.tell(configuration, (float(configuration["A"]),))
        asked.append(canonical(configuration))
    assert len(set(asked)) == len(asked) == 12


def test_what_a_sampler_needs_is_named(monkeypatch) -> None:
    monkeypatch.setattr("autotune.samplers.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"nkilite\[cmaes\]"):
        Suggester(SPACE, "cmaes", 0, 10)
    for sampler in SAMPLERS.keys() - {"cmaes"}:
        Suggester(SPACE, sampler, 0, 10)
