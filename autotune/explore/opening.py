"""What the model of the chip can say before anything is measured on the CPU: which configurations to try first.

Modelled latency alone ranks CPU times poorly, and so does the peak of SBUF, which on the CPU is the working set that
caches hold; but one of the two is near the best where the other is not (figures in docs/autotune.md). So a sample is
ranked by both, and the two rankings take turns. Neither is good enough to leave anything out.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator

from autotune.context import canonical
from autotune.figures import SBUF
from autotune.objective import Modelled, Workload
from autotune.space import Configuration, Space

SAMPLE = 64  # configurations, and no more than
PER_TRIAL = 2  # of the budget
SECONDS = 10.0
SHARE = 4  # of the budget, one in so many
DRAWS = 20  # per configuration wanted, of which some repeat or break constraints


def opening(
    workload: Workload, space: Space, target: str, seed: int, trials: int, seconds: float | None = None
) -> list[Configuration]:
    """Legal configurations to begin a measured search with, the most promising first.

    Args:
        target: the chip whose model ranks them.
        seed: of the sample, where the space is too large to be ranked whole.
        trials, seconds: the budget of the search; the opening takes at most a quarter of it.
    """
    model, started = Modelled(target), time.perf_counter()
    limit = SECONDS if seconds is None else min(SECONDS, seconds / SHARE)
    ranked: list[tuple[float, float, Configuration]] = []
    for configuration in _sample(space, seed, min(SAMPLE, PER_TRIAL * trials)):
        if time.perf_counter() - started > limit:
            break
        outcome = model.evaluate(workload, configuration)
        if outcome.value is not None:
            ranked.append((outcome.value, outcome.figures[SBUF.key], configuration))
    by_latency = sorted(ranked, key=lambda r: (r[0], space.positions(r[2])))
    by_footprint = sorted(ranked, key=lambda r: (r[1], r[0], space.positions(r[2])))
    turns = (r[2] for pair in zip(by_latency, by_footprint, strict=True) for r in pair)
    unique = {canonical(c): c for c in turns}
    return list(itertools.islice(unique.values(), max(1, trials // SHARE)))


def _sample(space: Space, seed: int, count: int) -> Iterator[Configuration]:
    """Configurations that keep the constraints, each once: all of a small space, else drawn at random."""
    if space.size <= count:
        yield from (c for c in space if space.violated(c) is None)
        return
    rng, seen = random.Random(seed), set()
    for _ in range(count * DRAWS):
        drawn = space.suggest(lambda name, parameter: rng.randrange(len(parameter.values)))
        if canonical(drawn) not in seen and space.violated(drawn) is None:
            seen.add(canonical(drawn))
            yield drawn
        if len(seen) == count:
            return
