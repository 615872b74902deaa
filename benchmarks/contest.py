"""How contestants are timed: in turns, in one process, in random order, and compared round by round.

Machines are noisy and drift, so only ratios of figures taken moments apart mean something. Every round runs each
contestant once (short ones several times); the figure is the median of the rounds' ratios with the 20th and 80th
percentile beside it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autotune.measure.timing import Spread

ROUNDS = 15
SHORTEST = 2e-3  # seconds a turn takes at least; shorter runs are repeated
LONGEST = 20.0  # seconds a contest takes about at most, from three rounds on
_LEAST_ROUNDS = 3
_SOON = 0.1  # seconds that a run takes at most of which there are many before the first round
_WARM_RUNS = 6  # so many: by then kernels of little work have the code that is made for many launches


@dataclass(frozen=True)
class Contest:
    """Seconds of every contestant, by round."""

    seconds: Mapping[str, list[float]]

    def time(self, name: str) -> Spread:
        return Spread.of(self.seconds[name])

    def ratio(self, name: str, over: str) -> Spread:
        """How many times as long `name` takes as `over`, by round."""
        return Spread.of([a / b for a, b in zip(self.seconds[name], self.seconds[over], strict=True)])


def race(contestants: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, pause: float = 0.0) -> Contest:
    """Time contestants in turns, after warm-up runs of each.

    Args:
        pause: seconds before each turn, which begins with as many runs that do not count: threads of others have gone
            to sleep by then, and what the pause has cooled down is warm again.
    """
    repeats: dict[str, int] = {}
    for name, run in contestants.items():
        run()
        started = time.perf_counter()
        run()
        once = max(time.perf_counter() - started, 1e-7)
        repeats[name] = max(1, round(SHORTEST / once))
        for _ in range(2, _WARM_RUNS if once < _SOON else 2):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    shuffle = random.Random(0).shuffle
    begun = time.perf_counter()
    for done in range(rounds):
        if done >= _LEAST_ROUNDS and time.perf_counter() - begun > LONGEST:
            break
        shuffle(order)
        for name in order:
            run, count = contestants[name], repeats[name]
            if pause:
                time.sleep(pause)
                for _ in range(count):
                    run()
            started = time.perf_counter()
            for _ in range(count):
                run()
            seconds[name].append((time.perf_counter() - started) / count)
    return Contest(seconds)
