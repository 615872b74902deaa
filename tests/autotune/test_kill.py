"""kill -9 at any moment: the database stays readable, no finished trial is lost or doubled, a run continues."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from autotune.context import canonical
from autotune.database import Database

ROOT = Path(__file__).parents[2]
RUNS = 20

# Prints a line after each trial is in the database, so that the test knows what was finished.
TUNING = """
import sys, time
import autotune
from autotune.objective import Workload
from autotune.outcome import Outcome
from subjects import X, doubled

class Slow:
    name = target = "trn2"
    label = "modelled"
    def prepare(self, workloads, default): print("ready", flush=True)
    def evaluate(self, workload, configuration, incumbent):
        time.sleep(0.001)
        return Outcome(value=float(configuration["PASSES"] % 37 + 1), figures={"padding": 1.0})
    def settle(self, workloads, candidates, default, space): raise SystemExit("finished")
    def close(self): pass

def told(progress):
    print(progress.last["PASSES"], flush=True)

with autotune.Database(sys.argv[1]) as database:
    autotune.search(
        doubled, (X,), objective=Slow(), space={"PASSES": range(1, 100000)}, sampler="random", trials=100000,
        database=database, resume=True, seed=int(sys.argv[2]), on_trial=told,
    )
"""


def test_twenty_runs_killed(tmp_path: Path) -> None:
    rng = random.Random(0)
    path = tmp_path / "db.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    commands = [[sys.executable, "-c", TUNING, str(path), str(seed)] for seed in range(RUNS)]
    finished: set[int] = set()
    for command in commands:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        finished |= {int(line) for line in process.stdout.read().split("\n")[:-1]}
        process.wait()
        database = Database(path)
        stored = {t.configuration["PASSES"] for t in database.trials.values()}
        assert finished <= stored
    lines = path.read_bytes().split(b"\n")
    keys = []
    for line in lines:
        try:
            keys.append(canonical(json.loads(line)["configuration"]))
        except ValueError:
            continue
    assert len(keys) == len(set(keys)) == len(database) >= len(finished) > RUNS
    assert database.damaged <= RUNS
