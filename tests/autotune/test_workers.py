"""Several processes on one study, over every kind of storage; one is killed while it tries a configuration."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import servers
import slow_subject
from optuna.trial import TrialState

from autotune import Database
from autotune.context import canonical
from autotune.errors import StorageLost, StudyMismatch, WorkersLost
from autotune.outcome import Reason
from autotune.shared.claims import SharedStudy
from autotune.shared.coordinator import Coordinator, distribute
from autotune.shared.specification import Specification
from autotune.shared.storage import open_storage
from autotune.shared.worker import Worker, work

KERNEL = f"{slow_subject.__file__}:slow"
WHOLE = Specification(KERNEL, ("16x8",), trials=100, lease=3.0)
ALL, LEGAL = 24, 22
TIME_TO_START = 60


@contextmanager
def journal(folder: Path):
    yield f"journal://{folder}/study.log"


@contextmanager
def sqlite(folder: Path):
    yield f"sqlite:///{folder}/study.db"


@contextmanager
def postgresql(folder: Path):
    with servers.postgresql() as url:
        yield url


@contextmanager
def grpc(folder: Path):
    with servers.grpc_proxy(f"sqlite:///{folder}/study.db") as url:
        yield url


def kill(marker: Path) -> None:
    """Kill -9 the worker that hangs."""
    until = time.monotonic() + TIME_TO_START
    while time.monotonic() < until:
        if marker.exists() and (pid := marker.read_text()).endswith("\n"):
            os.kill(int(pid), signal.SIGKILL)
            return
        time.sleep(0.02)


@pytest.mark.parametrize("storage", [journal, postgresql, sqlite, grpc])
def test_a_worker_killed_while_it_tries_a_configuration(storage, tmp_path: Path, monkeypatch) -> None:
    marker, path = tmp_path / "hangs", tmp_path / "db.jsonl"
    monkeypatch.setenv(slow_subject.HANGS, str(marker))
    killer = threading.Thread(target=kill, args=(marker,))
    with storage(tmp_path) as url:
        killer.start()
        seen = []
        result = distribute(WHOLE, url, workers=3, database=path, on_trial=seen.append)
        killer.join()
        opened = open_storage(url)
        shared = SharedStudy.join(opened, opened.get_all_studies()[0].study_name)
        trials = [t for t in opened.get_all_trials(shared.id) if "withdrawn" not in t.user_attrs]
    assert result.exhausted
    assert result.answered == 0
    assert (len(result.ranking), result.rejections.counts) == (LEGAL, {Reason.assertion: ALL - LEGAL})
    assert result.best.configuration == {"PASSES": 1, "SHIFT": 0.0}
    assert (seen[-1].done, seen[-1].rejected) == (LEGAL, ALL - LEGAL)
    # Nothing finished is lost or there twice, in the storage or in the database.
    finished = Counter(canonical(t.user_attrs["configuration"]) for t in trials if t.state != TrialState.FAIL)
    assert len(finished) == ALL
    assert set(finished.values()) == {1}
    lines = path.read_text().splitlines()
    kept = Database(path)
    assert (len(kept), len(lines), kept.damaged) == (ALL, ALL + 1, 0)  # and the choice
    # What the killed worker was trying was tried again by another.
    lost = next(t for t in trials if t.state == TrialState.FAIL)
    again = next(t for t in trials if t.state != TrialState.FAIL and t.user_attrs["configuration"] == {
        "PASSES": 7, "SHIFT": 1.0})
    assert lost.user_attrs["configuration"] == again.user_attrs["configuration"]
    assert lost.user_attrs["worker"].endswith(f"-{marker.read_text().strip()}")
    assert lost.user_attrs["worker"] != again.user_attrs["worker"]
    assert again.system_attrs["retry_history"] == [lost.number]
    assert len({t.user_attrs["worker"] for t in trials}) >= 2


def test_workers_join_from_outside_and_budgets_are_kept(tmp_path: Path) -> None:
    url = f"journal://{tmp_path}/study.log"
    budget = Specification(KERNEL, ("16x8",), trials=7, sampler="random")
    environment = {**os.environ, "AUTOTUNE_STORAGE": url}
    joined = []

    def join() -> None:
        until = time.monotonic() + TIME_TO_START
        while not is_running(url) and time.monotonic() < until:
            time.sleep(0.05)
        name = open_storage(url).get_all_studies()[0].study_name
        for which in ([], ["--study", name]):  # the one that is named may come when all is done
            command = [sys.executable, "-m", "autotune", "worker", "--kernel", KERNEL, *which]
            joined.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))

    thread = threading.Thread(target=join)
    thread.start()
    result = distribute(budget, url, workers=0, database=tmp_path / "db.jsonl")
    thread.join()
    said = [p.communicate(timeout=TIME_TO_START)[0] for p in joined]
    assert [p.returncode for p in joined] == [0, 0]
    assert len(result.ranking) == 7
    tried = [int(line.split(": ")[1].split()[0]) for line in said]
    assert sum(tried) == 7 + result.rejections.total
    # The same search continues where it was, here with a process of its own for a larger budget.
    more = distribute(Specification(KERNEL, ("16x8",), trials=9, sampler="random"), url, database=tmp_path / "db.jsonl")
    assert len(more.ranking) == 9
    assert {canonical(c.configuration) for c in result.ranking} < {canonical(c.configuration) for c in more.ranking}
    assert more.answered == 7 + result.rejections.total
    assert len(Database(tmp_path / "db.jsonl")) == 9 + more.rejections.total


def is_running(url: str) -> bool:
    return any(s.user_attrs.get("state") == "running" for s in open_storage(url).get_all_studies())


def test_a_private_journal_resumes_from_the_database_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db.jsonl"
    first = distribute(Specification(KERNEL, ("16x8",), trials=5), workers=2, database=path)
    assert os.listdir(tmp_path) == ["db.jsonl"]
    more = distribute(Specification(KERNEL, ("16x8",), trials=8, seed=1), workers=2, database=path, resume=True)
    assert os.listdir(tmp_path) == ["db.jsonl"]
    assert (len(first.ranking), len(more.ranking)) == (5, 8)
    assert more.answered >= 5


def test_the_coordinator_is_killed_and_the_same_command_continues(tmp_path: Path) -> None:
    path = tmp_path / "db.jsonl"
    command = ["run", KERNEL, "--shapes", "16x8", "--workers", "2", "--lease", "2", "-d", str(path)]
    process = subprocess.Popen([sys.executable, "-m", "autotune", *command], stdout=subprocess.DEVNULL)
    until = time.monotonic() + TIME_TO_START
    while time.monotonic() < until and not (path.exists() and len(Database(path)) > 5):
        time.sleep(0.02)
    process.kill()
    process.wait()
    known = len(Database(path))
    left = [f for f in os.listdir(tmp_path) if f.endswith(".log")]
    assert len(left) == 1
    assert ALL > known > 5
    result = distribute(WHOLE, workers=2, database=path)
    assert len(Database(path)) == ALL
    assert len(path.read_text().splitlines()) == ALL + 1
    assert result.exhausted
    assert result.answered >= known
    assert os.listdir(tmp_path) == ["db.jsonl"]


def test_what_differs_is_told(tmp_path: Path) -> None:
    source = Path(slow_subject.__file__).read_text()
    ours, theirs = tmp_path / "ours" / "kernels_of_test.py", tmp_path / "theirs" / "kernels_of_test.py"
    for path, text in ((ours, source), (theirs, source.replace("op0=nl.add", "op0=nl.subtract"))):
        path.parent.mkdir()
        path.write_text(text)
    url = f"journal://{tmp_path}/study.log"
    distribute(Specification(f"{ours}:slow", ("16x8",), trials=2), url, study="mine")
    storage = open_storage(url)
    shared = SharedStudy.join(storage, "mine")
    storage.set_study_user_attr(shared.id, "state", "running")
    with pytest.raises(StudyMismatch, match="another program than where"):
        work(url, [f"{theirs}:slow"])
    with pytest.raises(StudyMismatch, match="another program than where"):
        distribute(Specification(f"{theirs}:slow", ("16x8",), trials=2), url, study="mine")
    with pytest.raises(StudyMismatch, match="the arguments: "):
        distribute(Specification(f"{ours}:slow", ("16x4",), trials=2), url, study="mine")
    fewer = ("PASSES=1,2", "SHIFT=0.0,1.0")
    with pytest.raises(StudyMismatch, match="space"):
        distribute(Specification(f"{ours}:slow", ("16x8",), parameters=fewer), url, study="mine")
    identity = dict(shared.description["identity"])
    identity["contexts"] = [{**identity["contexts"][0], "nkilite": "0.0.1"}]
    storage.set_study_user_attr(shared.id, "identity", identity)
    with pytest.raises(StudyMismatch, match=r"the version of nkilite: .* here, 0\.0\.1 where"):
        work(url, [f"{ours}:slow"])


@pytest.mark.parametrize("storage", [journal, postgresql, grpc])
def test_a_worker_whose_storage_is_lost_says_so(storage, tmp_path: Path, monkeypatch) -> None:
    """After the third configuration: the journal's file is removed, the servers are stopped."""
    tried = []

    def attempt(worker, configuration, *known):
        if len(tried) == 3:
            (tmp_path / "study.log").unlink(missing_ok=True)
            stack.close()
        tried.append(configuration)
        return trying(worker, configuration, *known)

    trying = Worker._attempt
    monkeypatch.setattr(Worker, "_attempt", attempt)
    with ExitStack() as stack:
        url = stack.enter_context(storage(tmp_path))
        Coordinator(url, WHOLE, Database(None), None, 0, False).open()
        with pytest.raises(StorageLost, match="(?s)does not answer any more: .*continue"):
            work(url, [KERNEL])
    assert len(tried) == 4


def test_workers_that_cannot_start_are_reported(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("autotune.shared.coordinator._PROGRAM", "raise SystemExit('no such luck')")
    with pytest.raises(WorkersLost, match="no such luck"):
        distribute(WHOLE, workers=1, database=tmp_path / "db.jsonl")
    monkeypatch.setattr("autotune.shared.coordinator._PROGRAM", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(WorkersLost, match="signal 9"):
        distribute(WHOLE, workers=1, database=tmp_path / "db.jsonl")


def test_measuring_by_several_workers(tmp_path: Path) -> None:
    budget = Specification(KERNEL, ("128x64",), parameters=("PASSES=1,2,40",), objective="cpu")
    result = distribute(budget, workers=2, database=tmp_path / "db.jsonl")
    assert result.label == "cpu-measured"
    assert result.exhausted
    assert len(result.ranking) + result.rejections.counts.get(Reason.hopeless, 0) == 3
    assert result.best.configuration in ({"PASSES": 1}, {"PASSES": 2})
    kept = Database(tmp_path / "db.jsonl")
    assert {t.context.objective for t in kept.trials.values()} == {"cpu"}
    assert len(kept) == 3
