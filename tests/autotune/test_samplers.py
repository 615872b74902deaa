"""Every sampler on a space with a known optimum: found sooner than at random, the same for the same seed."""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import pytest

from autotune import Space, choice
from autotune.context import canonical
from autotune.errors import MissingExtra
from autotune.explore.offered import MODULES
from autotune.explore.samplers import SAMPLERS, Suggester

SPACE = Space({
    "A": range(1, 33), "B": range(1, 17), "HOW": ["x", "y", "z"], "C": choice(range(1, 9), when={"HOW": "y"}),
})
OPTIMUM = {"A": 11, "B": 7, "HOW": "y", "C": 5}
needs_cmaes = pytest.mark.skipif(find_spec("cmaes") is None, reason="cmaes is not installed")
needs_torch = pytest.mark.skipif(not (find_spec("torch") and find_spec("scipy")), reason="torch or scipy is missing")
MODELS = ["tpe", pytest.param("cmaes", marks=needs_cmaes)]


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


@needs_torch
def test_gaussian_process_takes_one_figure_or_several() -> None:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # its matrices are tiny
    try:
        first = search("gp", 3, 9)
        assert first == search("gp", 3, 9)
        assert len(dict(first)) == 9
        suggester, asked = Suggester(SPACE, "gp", 0, 9, figures=2), set()
        for _ in range(9):
            configuration = suggester.ask()
            suggester.tell(configuration, (float(configuration["A"]), -float(configuration["B"])))
            asked.add(canonical(configuration))
    finally:
        torch.set_num_threads(threads)
    assert len(asked) == 9


def test_what_a_sampler_needs_is_named(monkeypatch) -> None:
    monkeypatch.setattr("autotune.explore.offered.find_spec", lambda name: None)
    for sampler in ("cmaes", "gp"):
        with pytest.raises(MissingExtra, match=rf"nkilite\[{sampler}\]"):
            Suggester(SPACE, sampler, 0, 10)
    assert SAMPLERS.keys() == MODULES.keys()
    for sampler in SAMPLERS.keys() - {"cmaes", "gp"}:
        Suggester(SPACE, sampler, 0, 10)
