"""The database: round trips, torn lines at every byte, several writers, export and import, fsync."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from autotune.context import Context
from autotune.database import Choice, Database, Trial, open_any
from autotune.errors import InvalidDatabase
from autotune.outcome import Outcome, Reason


def context(rows: int = 128, objective: str = "trn2") -> Context:
    return Context("m:k", {"x": ["array", [rows, 64], "float32"]}, objective, "trn2", "", "0.1.0")


def trial(n: int, rows: int = 128) -> Trial:
    program = f"{n:x}"
    if n % 2:
        outcome = Outcome(value=float(n), low=1.0, figures={"sbuf": 3.0}, seconds=0.5, program=program)
    else:
        outcome = Outcome(reason=Reason.capacity, detail="too\nmuch", program=program)
    return Trial(context(rows), {"N": n, "MODE": None}, outcome)


def fill(path: Path, numbers: range) -> None:
    with Database(path) as database:
        for n in numbers:
            database.add(trial(n))


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "db.jsonl"
    fill(path, range(4))
    again = Database(path)
    assert list(again.trials.values()) == [trial(n) for n in range(4)]
    assert again.find(context(), "3") == trial(3).outcome
    assert again.find(context(256), "3") is None
    assert again.find(context(), "30") is None
    record = json.loads(path.read_text().splitlines()[0])
    assert record["versions"].keys() >= {"nkilite", "numpy", "optuna", "llvmlite", "python"}


def test_a_finished_trial_is_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "db.jsonl"
    fill(path, range(3))
    fill(path, range(3))
    assert len(path.read_text().splitlines()) == 3


def test_torn_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "db.jsonl"
    fill(path, range(3))
    whole = path.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        assert len(Database(path)) == 2
        fill(path, range(1, 5))
        again = Database(path)
        assert {t.configuration["N"] for t in again.trials.values()} == {0, 1, 2, 3, 4}
        assert again.damaged <= 1


def test_reader_sees_what_others_append(tmp_path: Path) -> None:
    path = tmp_path / "db.jsonl"
    reader = Database(path)
    fill(path, range(2))
    assert len(reader) == 0
    reader.refresh()
    assert len(reader) == 2


def test_several_writers(tmp_path: Path) -> None:
    path = tmp_path / "db.jsonl"
    start = multiprocessing.get_context("fork")
    writers = [start.Process(target=fill, args=(path, range(50 * i, 50 * i + 50))) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    again = Database(path)
    assert (len(again), again.damaged) == (200, 0)


@pytest.mark.parametrize(("policy", "least", "most"), [("always", 4, 4), ("second", 1, 2), ("never", 0, 0)])
def test_fsync_policy(tmp_path: Path, monkeypatch, policy, least: int, most: int) -> None:
    calls = []
    monkeypatch.setattr(os, "fsync", calls.append)
    with Database(tmp_path / "db.jsonl", fsync=policy) as database:
        for n in range(3):
            database.add(trial(n))
    assert least <= len(calls) <= most


def test_best_is_the_choice_else_the_best_trial() -> None:
    database = Database(None)
    assert database.best(context()) is None
    for n in range(6):
        database.add(trial(n))
    assert database.best(context()).configuration["N"] == 1
    database.choose(Choice(context(), {"N": 5, "MODE": None}, 5.0, 9.0))
    assert database.best(context()).configuration["N"] == 5


def test_export_and_import(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.jsonl")
    database.add(trial(1))
    database.choose(Choice(context(256), {"N": 5}, 5.0, 9.0, ({"N": 7},)))
    assert database.export(tmp_path / "best.json") == 2
    other = Database(tmp_path / "b.jsonl")
    assert other.load(tmp_path / "best.json") == 2
    assert other.load(tmp_path / "best.json") == 0
    assert Database(tmp_path / "b.jsonl").choices == open_any(tmp_path / "best.json").choices
    assert other.best(context(256)).ties == ({"N": 7},)
    assert other.best(context()).value == 1.0
    assert database.export(tmp_path / "none.json", kernel="other") == 0


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("hello\n")
    with pytest.raises(InvalidDatabase, match="does not begin with a record"):
        Database(tmp_path / "x.jsonl")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InvalidDatabase):
        open_any(tmp_path / "x.json")
    with pytest.raises(InvalidDatabase, match="is not a database of trials: "):
        Database(tmp_path)
