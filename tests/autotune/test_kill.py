"""kill -9 at any moment: the database stays readable, no finished trial is lost or doubled, a run continues."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

from subjects import X, scaled

import autotune
from autotune.context import canonical
from autotune.database import Database
from autotune.figures import FIGURES
from autotune.outcome import Outcome

RUNS = 20


class Instant:
    """An objective that takes a millisecond and says when it begins."""

    name = target = "trn2"
    label = "modelled"
    ahead = 1
    figures = (FIGURES["trn2"],)

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def prepare(self, workloads, default) -> None:
        self.pipe.send(None)

    def evaluate(self, workload, configuration, incumbent) -> Outcome:
        time.sleep(0.001)
        return Outcome(value=float(configuration["FACTOR"] % 37 + 1), figures={"padding": 1.0})

    def settle(self, workloads, candidates, default, space):
        raise AssertionError("the run was to be killed")

    def close(self) -> None:
        pass


def tune(path: Path, seed: int, pipe: Connection) -> None:
    """Tells the test of every trial once it is in the database."""
    with Database(path) as database:
        autotune.search(
            scaled, (X,), objective=Instant(pipe), space={"FACTOR": range(1, 100000)}, sampler="random",
            trials=100000, database=database, resume=True, seed=seed,
            on_trial=lambda progress: pipe.send(progress.last["FACTOR"]),
        )


def test_twenty_runs_killed(tmp_path: Path) -> None:
    rng = random.Random(0)
    path = tmp_path / "db.jsonl"
    start = multiprocessing.get_context("fork")
    finished: set[int] = set()
    for seed in range(RUNS):
        ours, theirs = start.Pipe(duplex=False)
        process = start.Process(target=tune, args=(path, seed, theirs))
        process.start()
        theirs.close()
        assert ours.recv() is None
        for _ in range(3 * (seed % 2)):  # the others may be killed before their first trial
            finished.add(next(said for said in iter(ours.recv, None) if said not in finished))
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        process.join()
        finished |= drain(ours)
        database = Database(path)
        assert finished <= {t.configuration["FACTOR"] for t in database.trials.values()}
    keys = []
    for line in path.read_bytes().split(b"\n"):
        try:
            keys.append(canonical(json.loads(line)["configuration"]))
        except ValueError:
            continue
    assert len(keys) == len(set(keys)) == len(database) >= len(finished) > RUNS
    assert database.damaged <= RUNS


def drain(pipe: Connection) -> set[int]:
    """What a process said before it was killed."""
    said = set()
    while True:
        try:
            said.add(pipe.recv())
        except EOFError:
            return said
