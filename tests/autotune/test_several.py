"""Several figures at once: fronts against exhaustive search, determinism, the choice, its record and its lookup."""

from __future__ import annotations

import importlib
import itertools
import json
import random

import numpy as np
import pytest
import subjects
from hypothesis import given
from hypothesis import strategies as st

import autotune
import nkilite as nki
from autotune import Database, Protocol, Space, Workload, search
from autotune.errors import OneFigureOnly, ReferenceFailed, UnknownObjective
from autotune.explore import pareto
from autotune.explore.several import Several
from autotune.figures import figures_named
from autotune.lookup import Configurations
from autotune.measure.correctness import relative_error
from autotune.outcome import Outcome
from nkilite.testing import make

QUICK = Protocol(
    warmup_launches=2, warmup_seconds=0.02, launches=5, seconds=0.05, least=3, rounds=7, final_seconds=1, timeout=20
)
SPACE = Space({"CHUNK": [8, 12, 16, 24, 32, 48, 64, 96, 192], "COPIES": range(1, 9)})

BLOCKS = {"TILES_IN_BLOCK_M": [1, 2, 4], "TILES_IN_BLOCK_K": [1, 2, 4]}


@pytest.fixture
def matmul():
    module = importlib.import_module("kernels.matmul")
    return module.matmul, module.inputs("bfloat16", M=512, N=1024, K=512)


points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), max_size=30)


@given(points)
def test_a_front_is_what_nothing_dominates(found: list[tuple[int, int, int]]) -> None:
    front = pareto.front(found, lambda p: p, lambda p: 0)
    plain = {p for p in found if not any(pareto.dominates(q, p) for q in found)}
    assert set(front) == plain
    assert front == sorted(plain)
    shuffled = random.Random(0).sample(found, len(found))
    assert pareto.front(shuffled, lambda p: p, lambda p: 0) == front


def test_front_of_equal_values_keeps_the_first_in_order() -> None:
    items = [("b", (1, 2)), ("a", (1, 2)), ("c", (2, 1))]
    assert pareto.front(items, lambda i: i[1], lambda i: i[0]) == [("a", (1, 2)), ("c", (2, 1))]


def test_small_spaces_give_the_exact_front(matmul) -> None:
    kernel, arrays = matmul
    values = {}
    for combination in itertools.product(*BLOCKS.values()):
        profile = nki.profile(kernel, *arrays, **dict(zip(BLOCKS, combination)))
        values[combination] = (profile.latency_us, profile.sbuf_peak_bytes)
    expected = [v for v in values.values() if not any(pareto.dominates(w, v) for w in values.values())]
    result = search(kernel, arrays, objective="trn2,sbuf", space=BLOCKS)
    assert [c.values for c in result.front] == sorted(expected)
    assert len(result.front) > 1
    assert result.best is result.front[0]
    assert result.best.value == min(v[0] for v in values.values())
    assert result.ranking[: len(result.front)] == result.front


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "qmc"])
def test_a_modelled_study_is_a_function_of_its_seed(kernel, x, sampler: str) -> None:
    objective = ("trn1", "trn2", "sbuf")
    runs = [
        search(kernel, (x,), objective=objective, space=SPACE, sampler=sampler, seed=s, trials=16) for s in (4, 4, 5)
    ]
    assert runs[0].history == runs[1].history
    assert [c.values for c in runs[0].front] == [c.values for c in runs[1].front]
    assert runs[0].history != runs[2].history
    assert runs[0].label == "modelled"


def test_records_hold_all_figures_and_answer_again(kernel, x, tmp_path) -> None:
    path = tmp_path / "db.jsonl"
    with Database(path) as database:
        first = search(kernel, (x,), objective="trn2,sbuf", space=SPACE, trials=10, database=database)
    stored = [json.loads(line) for line in path.read_text().splitlines()]
    figures = [r["outcome"]["figures"] for r in stored if r["kind"] == "trial"]
    assert all({"trn2", "sbuf_peak_bytes"} <= f.keys() for f in figures)
    again = Database(path)
    second = search(kernel, (x,), objective="trn2,sbuf", space=SPACE, trials=10, database=again)
    assert second.answered == len(second.history)
    assert second.history == first.history
    (choice,) = again.choices.values()
    assert [p.values for p in choice.front] == [c.values for c in first.front]
    assert again.export(tmp_path / "best.json") == 1
    assert autotune.database.open_any(tmp_path / "best.json").choices == again.choices


def test_choices_of_one_figure_have_no_front_and_old_ones_are_read(kernel, x, tmp_path) -> None:
    path = tmp_path / "db.jsonl"
    with Database(path) as database:
        search(kernel, (x,), space={"CHUNK": [32, 64]}, database=database)
    lines = path.read_text().splitlines()
    assert not any('"front"' in line for line in lines)  # as records were before there were fronts
    (choice,) = Database(path).choices.values()
    assert choice.front == ()


def test_launches_take_the_best_in_the_first_figure(matmul) -> None:
    kernel, arrays = matmul
    database, call = Database(None), dict(zip(("lhsT", "rhs"), arrays))
    by_sbuf = search(kernel, arrays, objective="sbuf,trn2", space=BLOCKS, database=database)
    assert Configurations(database)(kernel, call) == by_sbuf.best.configuration
    by_time = search(kernel, arrays, objective="trn2,sbuf", space=BLOCKS, database=database)
    assert by_time.best.configuration != by_sbuf.best.configuration
    assert Configurations(database)(kernel, call) == by_time.best.configuration  # latency before other figures


def test_several_workloads_combine_by_the_kind_of_figure(kernel, x) -> None:
    small = Workload.of(kernel, np.zeros((128, 96), np.float32))
    both = [Workload.of(kernel, x), small]
    result = search(kernel, workloads=both, objective="trn2,sbuf", space={"CHUNK": [32, 96], "COPIES": [1, 2]})
    for candidate in result.ranking:
        first, second = candidate.outcomes
        assert candidate.values[0] == pytest.approx((first.value * second.value) ** 0.5)
        assert candidate.values[1] == max(o.figures["sbuf_peak_bytes"] for o in candidate.outcomes)


def test_sbuf_alone_is_an_objective(kernel, x) -> None:
    result = search(kernel, (x,), objective="sbuf", space={"CHUNK": [64, 96], "COPIES": [1, 2]})
    assert (result.front, result.speedup) == ((), None)
    assert result.best.value == min(c.value for c in result.ranking)


def test_error_and_time_on_this_cpu() -> None:
    x = make((128, 512), "float32", 0)
    workload = Workload.of(subjects.doubled, x, reference=lambda x: 2 * x.astype(np.float64))
    space = {"PASSES": [1, 2], "HOW": ["well", "wrong"]}
    result = search(
        subjects.doubled, workloads=[workload], objective=("error", "cpu", "sbuf"), space=space, protocol=QUICK
    )
    assert result.label == "cpu-measured and modelled"
    assert {c.configuration["HOW"] for c in result.ranking} == {"well"}
    assert {r.value for r in result.rejections.counts} == {"wrong result"}
    for candidate in result.ranking:
        (outcome,) = candidate.outcomes
        assert candidate.values[0] == 0
        assert outcome.figures["cpu_low"] <= outcome.figures["cpu"] <= outcome.figures["cpu_high"]


def test_a_measured_front_is_timed_again_with_the_default(matmul) -> None:
    kernel, _ = matmul
    arrays = importlib.import_module("kernels.matmul").inputs("float32", M=256, N=512, K=256)
    workload = Workload.of(kernel, *arrays)
    space = {"TILES_IN_BLOCK_M": [1, 2], "TILES_IN_BLOCK_K": [1]}
    result = search(kernel, workloads=[workload], objective="cpu,sbuf", space=space, protocol=QUICK)
    assert "timed again, interleaved, in" in result.remark
    assert result.best is result.front[0]
    assert [c.values for c in result.front] == sorted(c.values for c in result.front)
    assert result.default.configuration == {"TILES_IN_BLOCK_M": 8, "TILES_IN_BLOCK_K": 8}
    outcome = result.best.outcomes[0]
    assert (outcome.value, outcome.low) == (outcome.figures["cpu"], outcome.figures["cpu_low"])


def test_without_a_reference_the_default_is_simulated_in_float32() -> None:
    x = make((128, 512), "bfloat16", 0)
    objective = Several(figures_named("error"), QUICK)
    workload = Workload.of(subjects.doubled, x)
    objective.prepare([workload], {"PASSES": 1, "HOW": "well"})
    try:
        outcome = objective.evaluate(workload, {"PASSES": 2, "HOW": "well"})
        assert outcome == Outcome(value=0.0, figures={"error": 0.0}, seconds=outcome.seconds)  # doubling is exact
    finally:
        objective.close()
    with pytest.raises(ReferenceFailed, match="in float32"):
        objective.prepare([Workload.of(subjects.doubled, np.zeros((300, 4), np.float32))], {"PASSES": 1})


def test_relative_error_is_of_the_element_or_the_rms() -> None:
    wanted = np.array([0.0, 1.0, 100.0, np.inf])
    assert relative_error(np.array([0.5, 1.0, 100.0, np.inf]), wanted, rms=50.0) == 0.01
    assert relative_error(np.array([0.0, 1.0, 110.0, np.inf]), wanted, rms=50.0) == pytest.approx(0.1)
    assert relative_error(wanted, wanted, rms=0.0) == 0


def test_names(kernel, x) -> None:
    assert [f.name for f in figures_named(" trn2, sbuf")] == ["trn2", "sbuf"]
    for names in ("trn2,", "trn2,trn2", "", ["gpu"], ()):
        with pytest.raises(UnknownObjective, match="(?s)is not one of .*each named once"):
            figures_named(names)
    pytest.importorskip("cmaes", reason="cmaes is not installed")
    with pytest.raises(OneFigureOnly, match="(?s)cmaes.*one of tpe"):
        search(kernel, (x,), objective="trn2,sbuf", space=SPACE, sampler="cmaes", trials=5)
