"""Claims, leases and outcomes on storages within one process; URLs of storages; what is missing or wrong."""

from __future__ import annotations

import builtins
import time

import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from autotune import Database, Space, powers_of_two, search
from autotune.context import canonical
from autotune.errors import InvalidDatabase, InvalidStorage, MissingExtra, NoSharedStudy
from autotune.outcome import Outcome, Reason
from autotune.shared import dashboard
from autotune.shared.claims import RETRIES, SharedStudy, blamed
from autotune.shared.storage import open_storage

SPACE = Space({"A": range(2, 11, 2), "B": powers_of_two(1, 64), "C": [1, 3, 4], "D": ["x", None, True]})
ONE = {"A": 4, "B": 8, "C": 4, "D": None}
GOOD = (Outcome(value=3.0, figures={"padding": 1.0}), Outcome(value=5.0))


@pytest.fixture(params=["memory", "journal", "sqlite"])
def shared(request, tmp_path) -> SharedStudy:
    urls = {"journal": str(tmp_path / "study.log"), "sqlite": f"sqlite:///{tmp_path}/study.db"}
    storage = InMemoryStorage() if request.param == "memory" else open_storage(urls[request.param])
    study = SharedStudy.create(storage, "study", 1)
    study.describe(specification={})
    return study


def claim(shared: SharedStudy, worker: str = "me"):
    return shared.claim(ONE, SPACE, worker, shared.entries())


def test_a_configuration_is_claimed_once_and_finished_once(shared: SharedStudy) -> None:
    first = claim(shared)
    assert claim(shared, "another") is None
    assert shared.entries()[canonical(ONE)].under_way
    assert shared.tell(first, GOOD, (4.0,))
    (entry,) = shared.entries().values()
    assert (entry.configuration, entry.outcomes, entry.finished, entry.lost) == (ONE, GOOD, True, ())
    assert claim(shared, "another") is None
    assert not shared.tell(first, GOOD, (9.0,))
    assert len(shared.entries()) == 1


def test_the_first_of_simultaneous_claims_counts(shared: SharedStudy, monkeypatch) -> None:
    """Another claim is made between the write of ours and the look at all."""
    create, second = shared.storage.create_new_trial, []

    def create_two(study, template):
        made = create(study, template)
        monkeypatch.setattr(shared.storage, "create_new_trial", create)
        second.append(claim(shared, "another"))
        return made

    monkeypatch.setattr(shared.storage, "create_new_trial", create_two)
    assert claim(shared).number == 0
    assert second == [None]


def test_rejections_are_pruned_with_their_reason(shared: SharedStudy) -> None:
    rejected = (Outcome(reason=Reason.capacity, detail="too much"),)
    assert shared.tell(claim(shared), rejected, None)
    assert shared.entries()[canonical(ONE)].outcomes == rejected
    assert shared.storage.get_all_trials(shared.id)[0].state == TrialState.PRUNED


def test_a_beat_keeps_a_claim_and_silence_loses_it(shared: SharedStudy) -> None:
    lease = 1.0
    held = claim(shared)
    with shared.kept(held, lease):
        until = time.monotonic() + 2 * lease
        while time.monotonic() < until:
            assert shared.watch(lease)[canonical(ONE)].under_way
            time.sleep(0.05)
    until = time.monotonic() + 30
    while not shared.watch(lease)[canonical(ONE)].open and time.monotonic() < until:
        time.sleep(0.05)
    assert shared.entries()[canonical(ONE)].lost == (0,)
    again = claim(shared, "another")
    assert shared.storage.get_trial(again.id).system_attrs == {"failed_trial": 0, "retry_history": [0]}
    # The worker that was only slow comes too late; the other's outcome counts.
    assert not shared.tell(held, GOOD, (4.0,))
    assert shared.tell(again, GOOD, (4.0,))
    assert [e.number for e in shared.entries().values()] == [1]


def test_what_loses_its_workers_again_and_again_is_blamed(shared: SharedStudy) -> None:
    for _ in range(RETRIES + 1):
        held = claim(shared)
        assert blamed(held.entries[canonical(ONE)]) is None
        shared.release(held)  # let go of: no blame
        held = claim(shared)
        shared.storage.set_trial_state_values(held.id, TrialState.FAIL)  # lost
    assert shared.entries()[canonical(ONE)].open
    assert blamed(claim(shared).entries[canonical(ONE)]).reason is Reason.crash


def test_dashboards_see_values(shared: SharedStudy) -> None:
    claim(shared)
    (trial,) = shared.storage.get_all_trials(shared.id)
    assert trial.params == ONE
    assert trial.distributions == {
        "A": IntDistribution(2, 10, step=2), "B": IntDistribution(1, 64, log=True),
        "C": CategoricalDistribution((1, 3, 4)), "D": CategoricalDistribution(("x", None, True)),
    }
    assert shared.claim({**ONE, "A": 1000}, SPACE, "me", {}) is not None  # a default outside the space
    assert "A" not in shared.storage.get_all_trials(shared.id)[1].params


def test_joining(shared: SharedStudy) -> None:
    assert SharedStudy.join(shared.storage).name == "study"
    shared.finish()
    with pytest.raises(NoSharedStudy, match="no study is running"):
        SharedStudy.join(shared.storage)
    assert SharedStudy.join(shared.storage, "study").id == shared.id
    with pytest.raises(NoSharedStudy, match="'other'"):
        SharedStudy.join(shared.storage, "other")


@pytest.mark.parametrize("url", ["redis://localhost", "study.db", "journal://", "grpc://", "sqlite:////no/such/x.db"])
def test_urls_that_name_no_storage(url: str) -> None:
    with pytest.raises(InvalidStorage) as caught:
        open_storage(url)
    assert url in str(caught.value)


def test_a_database_as_studies(workload) -> None:
    database = Database(None)
    search(workload.kernel, workloads=[workload], space={"CHUNK": [64, 65, 96]}, database=database)
    storage = dashboard.as_storage(database)
    (study,) = storage.get_all_studies()
    assert "128x192 trn2" in study.study_name
    states = {t.params["CHUNK"]: t.state for t in storage.get_all_trials(study._study_id)}
    assert states == {64: TrialState.COMPLETE, 65: TrialState.PRUNED, 96: TrialState.COMPLETE}


def test_the_dashboard_serves_or_names_its_extra(tmp_path, monkeypatch) -> None:
    served = []
    optuna_dashboard = pytest.importorskip("optuna_dashboard")
    monkeypatch.setattr(optuna_dashboard, "run_server", lambda storage, host, port: served.append((host, port)))
    dashboard.show(f"journal://{tmp_path}/study.log", None, "localhost", 1234)
    assert served == [("localhost", 1234)]
    with pytest.raises(InvalidDatabase):
        dashboard.show(None, tmp_path / "none.jsonl", "localhost", 1234)
    without(monkeypatch, "optuna_dashboard")
    with pytest.raises(MissingExtra, match=r"nkilite\[dashboard\]"):
        dashboard.show(None, None, "localhost", 1234)


def test_drivers_name_their_extra(monkeypatch) -> None:
    monkeypatch.setattr("autotune.shared.storage.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"nkilite\[storage\]"):
        open_storage("grpc://localhost:1")


def without(monkeypatch, package: str) -> None:
    """Imports of a package fail."""
    load = builtins.__import__

    def fail(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fail)
