"""The cpu objective: correctness, crashes, hangs, arguments written in place, finals; and its statistics."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import subjects
from hypothesis import given
from hypothesis import strategies as st

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from autotune import Database, Protocol, Space, Study, Workload, choice, search
from autotune.errors import ReferenceFailed
from autotune.figures import CPU
from autotune.measure.isolation import address
from autotune.measure.measured import Measured
from autotune.measure.timing import Spread, indistinct, median_interval, paired_ratio, quantile
from autotune.objective import Candidate
from autotune.outcome import Outcome, Reason

QUICK = Protocol(
    warmup_launches=2, warmup_seconds=0.02, launches=5, seconds=0.05, least=3, rounds=7, final_seconds=1, timeout=4
)


#: On a busy machine, a configuration may take several times as long as another one that is as fast.
PATIENT = replace(QUICK, hopeless=1e6)


@pytest.fixture
def protocol():
    return QUICK


@pytest.fixture
def objective(monkeypatch, protocol):
    monkeypatch.setenv(subjects.PARENT, str(os.getpid()))
    measured = Measured(protocol)
    yield measured
    measured.close()


def test_wrong_results_crashes_and_hangs_cost_one_trial(objective, capfd) -> None:
    workload = Workload.of(subjects.doubled, subjects.X, reference=lambda x: 2 * x.astype(np.float64))
    space = Space({"HOW": subjects.HOWS})
    database = Database(None)
    result = Study([workload], objective, space, database=database).run()
    reasons = {t.configuration["HOW"]: t.outcome.reason for t in database.trials.values()}
    assert reasons.pop("print") in (None, Reason.hopeless)  # on a busy machine it may look slow
    assert reasons == {"well": None, "wrong": Reason.wrong_result, "crash": Reason.crash, "hang": Reason.timeout}
    crash = next(t.outcome for t in database.trials.values() if t.outcome.reason is Reason.crash)
    assert "SIGSEGV" in crash.detail
    assert result.label == "cpu-measured"
    best = result.best.outcomes[0]
    assert 0 < best.low <= best.value <= best.high
    assert "kernels may print" not in capfd.readouterr().out.replace("kernels may print\n", "", 1)  # traced here once


def test_hopeless_candidates_stop_early_and_the_best_is_found(objective) -> None:
    space = Space({"PASSES": [1, 200]})
    result = search(subjects.doubled, (subjects.X,), objective=objective, space=space)
    assert result.best.configuration == {"PASSES": 1}
    assert result.rejections.counts == {Reason.hopeless: 1}


def test_candidates_known_ahead_are_compiled_in_parallel(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(subjects.LOG, str(tmp_path / "log"))
    measured = Measured(QUICK, ahead=2)
    workload = Workload.of(subjects.logged, subjects.X, reference=lambda x: 2 * x)
    try:
        measured.prepare([workload], {"N": 1})
        measured.foresee(workload, [{"N": 1}, {"N": 2}, {"N": 3}])
        traced = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
        outcomes = [measured.evaluate(workload, {"N": n}) for n in (3, 2, 1)]
    finally:
        measured.close()
    assert all(o.accepted for o in outcomes)
    pids = {int(pid) for pid, _, _ in traced}
    assert len(traced) == 3
    assert len(pids) == 2
    assert os.getpid() not in pids
    starts, ends = ([float(line[i]) for line in traced] for i in (1, 2))
    assert max(starts[:2]) < min(ends[:2])  # at the same time
    assert len((tmp_path / "log").read_text().splitlines()) == 3  # timed where they were compiled


def test_studies_look_ahead(objective, monkeypatch) -> None:
    objective.ahead, foreseen = 3, []
    foresee = objective.foresee
    monkeypatch.setattr(objective, "foresee", lambda w, c: (foreseen.append(list(c)), foresee(w, c)))
    space = Space({"PASSES": [1, 2, 3, 4, 5]}, constraints=["PASSES != 3"])
    result = search(subjects.doubled, (subjects.X,), objective=objective, space=space)
    assert foreseen == [[{"PASSES": 1}, {"PASSES": 2}], [{"PASSES": 4}, {"PASSES": 5}]]
    assert len(result.ranking) + result.rejections.total == 5


def test_slow_default_is_beaten(objective) -> None:
    kernel_space = Space({"PASSES": choice([1, 40], default=40)})
    result = search(subjects.doubled, (subjects.X,), objective=objective, space=kernel_space)
    assert result.best.configuration == {"PASSES": 1}
    assert result.default.configuration == {"PASSES": 40}
    assert result.speedup > 1.2
    assert "interleaved" in result.remark


def test_arguments_written_in_place_are_restored(objective) -> None:
    x = subjects.X.copy()
    result = subjects.incremented_in_place.tuning.search(x, objective=objective)
    assert len(result.ranking) + result.rejections.total == 2  # on a busy machine one may be found too slow
    assert Reason.wrong_result not in result.rejections.counts
    np.testing.assert_array_equal(x, subjects.X)


def test_default_stands_in_for_a_reference(objective) -> None:
    result = search(subjects.doubled, (subjects.X,), objective=objective, space={"HOW": ["well", "wrong"]})
    assert result.rejections.counts == {Reason.wrong_result: 1}
    bad = Space({"HOW": choice(["well", "crash"], default="crash")})
    with pytest.raises(ReferenceFailed, match="SIGSEGV"):
        search(subjects.doubled, (subjects.X,), objective=objective, space=bad)


class Both(NamedTuple):
    doubled: Any
    same: Any


def local_kernel(factor):
    @nki.jit
    def local(arrays, HOW="well", PASSES=1):
        out = subjects.doubled(arrays["x"], PASSES)
        if HOW == "narrow":
            nl.ndarray((256, 1), nl.float32, nl.sbuf)
        nisa.dma_copy(dst=arrays["y"], src=out)
        tile = nl.load(arrays["y"])
        nisa.tensor_scalar(tile, tile, nl.multiply, factor if HOW == "well" else factor + 1)
        result = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
        nl.store(result, tile)
        return Both(result, arrays["y"])

    return local


@pytest.mark.parametrize("protocol", [PATIENT])
def test_closures_are_measured_by_the_programs_they_trace_to(objective) -> None:
    arrays = {"x": subjects.X, "y": np.zeros_like(subjects.X)}
    kernel = local_kernel(3.0)
    assert address(kernel) is None
    assert address(subjects.doubled).endswith("subjects:doubled")
    space = Space({"HOW": choice(["well", "wrong", "narrow"], default="well"), "PASSES": [1, 2]})
    result = search(kernel, (arrays,), objective=objective, space=space)
    assert result.label == "cpu-measured"
    assert {c.configuration["HOW"] for c in result.ranking} == {"well"}
    assert result.rejections.counts.keys() == {Reason.wrong_result, Reason.hardware_limit}
    assert not arrays["y"].any()
    bad = Space({"HOW": choice(["well", "narrow"], default="narrow")})
    with pytest.raises(ReferenceFailed, match="256 partitions"):
        search(kernel, (arrays,), objective=objective, space=bad)


def test_a_crash_of_a_closure_costs_one_trial(objective, monkeypatch) -> None:
    kernel, space = local_kernel(2.0), Space({"PASSES": [1, 2]})
    workload = Workload.of(kernel, {"x": subjects.X, "y": np.zeros_like(subjects.X)})
    objective.prepare([workload], space.default(kernel.signature))
    assert objective.evaluate(workload, {"HOW": "well", "PASSES": 1}).accepted
    for measurer in objective._measurers:
        measurer._process.kill()
    objective.foresee(workload, [{"HOW": "well", "PASSES": 2}])
    for measurer in objective._measurers:
        if measurer._process is not None:
            measurer._process.kill()  # what it compiled is lost
    outcomes = [objective.evaluate(workload, {"HOW": "well", "PASSES": 2}) for _ in range(3)]
    assert outcomes[-1].accepted, outcomes


def test_database_keeps_cpu_and_level(objective) -> None:
    database = Database(None)
    search(subjects.doubled, (subjects.X,), objective=objective, space={"PASSES": [1]}, database=database)
    context = next(database.of_kernel())
    assert context.objective == "cpu"
    assert subjects.doubled.compile(subjects.X).host.level in context.cpu


class Scripted:
    """A measurer whose interleaved samples are given."""

    def __init__(self, samples) -> None:
        self.samples = samples

    def ask(self, request, timeout):
        return [[self.samples[c["N"]]] for c in request.configurations]


def settle(samples, default=None):
    objective = Measured(QUICK)
    objective._measurers = [Scripted(samples)]
    space = Space({"N": sorted(samples)})
    outcomes = {n: Outcome(value=Spread.of(s).median, low=min(s)) for n, s in samples.items()}
    candidates = [Candidate({"N": n}, (outcome,), (CPU,)) for n, outcome in outcomes.items()]
    candidates.sort(key=lambda c: c.value)
    return objective.settle((), candidates, default or {"N": -1}, space)


def test_ties_go_to_the_default_then_to_the_order() -> None:
    noise = [100.0, 130.0, 101.0, 99.0, 150.0, 100.0, 102.0]
    near = [n * (1.002 if i % 2 else 0.998) for i, n in enumerate(noise)]
    slower = [n * 1.05 for n in noise]
    verdict = settle({1: near, 2: noise, 3: slower})
    assert verdict.ranking[0].configuration == {"N": 1}
    assert verdict.ties == ({"N": 2},)
    assert verdict.ranking[-1].configuration == {"N": 3}
    assert settle({1: near, 2: noise, 3: slower}, default={"N": 2}).ranking[0].configuration == {"N": 2}


def test_pairing_sees_through_drift() -> None:
    drift = [100.0 * 1.2**i for i in range(9)]
    faster = [0.95 * d for d in drift]
    assert paired_ratio(faster, drift)[0] == pytest.approx(0.95)
    assert not indistinct(faster, drift)
    assert indistinct(drift, list(drift))


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=40))
def test_interval_encloses_the_median(samples: list[float]) -> None:
    low, high = median_interval(samples)
    assert min(samples) <= low <= quantile(samples, 0.5) <= high <= max(samples)


def test_interval_has_its_confidence() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        low, high = median_interval(rng.lognormal(size=25).tolist())
        inside += low <= 1 <= high
    assert 0.94 <= inside / 1000 <= 1
    assert median_interval([1.0, 2.0, 3.0]) == (1.0, 3.0)
