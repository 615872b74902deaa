"""Studies on modelled latency: budgets, determinism, resuming, rejections, several workloads, brute force."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest

from autotune import Database, Space, Study, Workload, search
from autotune.errors import NothingLegal, UnknownObjective, UnknownSampler
from autotune.figures import geometric_mean
from autotune.objective import Modelled
from autotune.outcome import Outcome, Reason

SPACE = Space({
    "CHUNK": [1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 96, 192], "COPIES": range(1, 9), "REFUSE": ["no", "yes", 1],
})


class Counting(Modelled):
    """Modelled latency that counts what it evaluates."""

    def __init__(self, target: str = "trn2") -> None:
        super().__init__(target)
        self.evaluated: list[dict] = []

    def evaluate(self, workload, configuration, incumbent=None) -> Outcome:
        self.evaluated.append(configuration)
        return super().evaluate(workload, configuration, incumbent)


def study(workload, **options) -> Study:
    return Study([workload], options.pop("objective", Counting()), options.pop("space", SPACE), **options)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_a_study_is_a_function_of_its_seed(workload, sampler: str) -> None:
    runs = [study(workload, sampler=sampler, seed=seed, trials=12).run() for seed in (1, 1, 2)]
    assert runs[0].history == runs[1].history
    assert runs[0].ranking[0].value == runs[1].ranking[0].value
    assert runs[0].history != runs[2].history
    assert len({str(c) for c, _ in runs[0].history}) == len(runs[0].history)


def test_rejections_have_typed_reasons(workload) -> None:
    reasons = {
        (5, 1, "no"): Reason.divisibility, (64, 1, 1): Reason.assertion, (192, 300, "no"): Reason.capacity,
        (64, 1, 2): Reason.hardware_limit, (64, 1, 3): Reason.exception,
    }
    for (chunk, copies, refuse), reason in reasons.items():
        outcome = Modelled("trn2").evaluate(workload, {"CHUNK": chunk, "COPIES": copies, "REFUSE": refuse})
        assert (outcome.reason, outcome.value) == (reason, None)
        assert outcome.reason.early
        assert outcome.detail


def test_histogram_of_rejections(workload) -> None:
    space = Space({"CHUNK": [64, 65, 66], "COPIES": [1, 2, 400]}, constraints=["CHUNK + COPIES != 66"])
    result = study(workload, space=space, trials=20).run()
    assert {r.value: n for r, n in result.rejections.counts.items()} == {
        "divisibility": 5, "capacity": 1, "constraint": 2,
    }
    assert "CHUNK + COPIES != 66" in str(result.rejections)
    assert "192 columns are not a multiple of CHUNK=6" in str(result.rejections)
    assert result.exhausted
    assert result.best.configuration == {"CHUNK": 64, "COPIES": 1}


def test_rejected_configurations_are_free_and_stored(workload) -> None:
    database = Database(None)
    result = study(workload, trials=10, sampler="random", database=database).run()
    assert len(result.ranking) == 10
    assert result.rejections.total > 0
    stored = [t.outcome.reason for t in database.trials.values()]
    assert len(stored) == len(result.history)
    assert sum(r is not None for r in stored) == result.rejections.total


def test_nothing_legal_says_what_to_change(workload) -> None:
    workload = Workload.of(workload.kernel, np.zeros((128, 100), np.float32))
    with pytest.raises(NothingLegal) as caught:
        study(workload, space=Space({"CHUNK": [3, 7, 250], "REFUSE": [0, 1]})).run()
    message = str(caught.value)
    assert "none of the 7 configurations" in message  # the default is one of them
    assert "divisibility" in message
    assert "block sizes that divide" in message
    assert caught.value.location == workload.kernel.location


def test_small_spaces_are_searched_whole(workload) -> None:
    small = Space({"CHUNK": [1, 2, 3, 4, 5, 6, 7, 8]}, constraints=["CHUNK % 2 == 0"])
    assert study(workload, space=small, trials=4).whole
    assert not study(workload, space=small, trials=3).whole
    result = study(workload, space=small, trials=6).run()
    assert result.exhausted
    assert result.best.value == min(c.value for c in result.ranking)
    assert result.best.configuration == {"CHUNK": 64}  # the default, tried though it is not in the space


def test_equal_figures_are_ties_broken_by_the_default_then_the_order(workload) -> None:
    space = Space({"REFUSE": [7, 0, 5]})
    result = study(workload, space=space).run()
    assert result.best.configuration == {"REFUSE": 0}
    assert result.ties == ({"REFUSE": 7}, {"REFUSE": 5})
    assert result.speedup == 1


def test_known_trials_are_answered_from_the_database(workload, tmp_path) -> None:
    path = tmp_path / "db.jsonl"
    with Database(path) as database:
        first = study(workload, trials=8, database=database).run()
    again = Counting()
    with Database(path) as database:
        second = study(workload, trials=8, database=database, objective=again).run()
    assert again.evaluated == []
    assert second.history == first.history
    assert second.answered == len(first.history)


def test_a_value_added_to_the_space_retunes_nothing_else(workload) -> None:
    database = Database(None)
    study(workload, space=Space({"CHUNK": [32, 64]}), database=database).run()
    objective = Counting()
    study(workload, space=Space({"CHUNK": [32, 64, 96]}), database=database, objective=objective).run()
    assert objective.evaluated == [{"CHUNK": 96}]


def test_resume_continues_to_the_budget(workload) -> None:
    database = Database(None)
    study(workload, trials=5, seed=3, database=database).run()
    objective = Counting()
    result = study(workload, trials=9, seed=4, database=database, objective=objective, resume=True).run()
    accepted = [c for c in result.ranking if c.configuration in objective.evaluated]
    assert (len(result.ranking), len(accepted)) == (9, 4)


def test_ctrl_c_keeps_everything(workload) -> None:
    database = Database(None)

    def interrupt(progress) -> None:
        if progress.done == 4:
            signal.raise_signal(signal.SIGINT)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore SIGINT
    try:
        result = study(workload, trials=50, database=database).run(interrupt)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert result.interrupted
    assert len(result.ranking) == 4
    assert len(database) == len(result.history)


def test_time_budget(workload) -> None:
    started = time.perf_counter()
    result = study(workload, trials=10**6, seconds=0.3).run()
    assert time.perf_counter() - started < 5
    assert 0 < len(result.ranking) < 10**6


def test_one_configuration_for_several_shapes(workload, kernel) -> None:
    small = Workload.of(kernel, np.zeros((128, 96), np.float32))
    database = Database(None)
    result = Study([workload, small], Counting(), Space({"CHUNK": [32, 64, 96, 192]}), database=database).run()
    assert result.best.configuration == {"CHUNK": 96}
    values = [o.value for o in result.best.outcomes]
    assert result.best.value == pytest.approx(geometric_mean(values))
    assert result.rejections.counts == {Reason.divisibility: 2}  # 64 and 192 do not divide 96
    assert len({t.context.id for t in database.trials.values()}) == 2


def test_unknown_names(workload, kernel, x) -> None:
    with pytest.raises(UnknownSampler, match=r"'annealing'.*tpe"):
        study(workload, sampler="annealing")
    with pytest.raises(UnknownObjective, match=r"'gpu'.*trn1"):
        search(kernel, (x,), objective="gpu")
