"""How a measured search begins: legal configurations that the model favours, within a share of the budget."""

from __future__ import annotations

import importlib

import pytest

from autotune import Database, Space, Study, Workload
from autotune.explore.opening import SAMPLE, opening
from autotune.figures import CPU
from autotune.objective import Modelled
from autotune.outcome import Outcome

SPACE = Space({"TILES_IN_BLOCK_M": [1, 2, 4], "TILES_IN_BLOCK_K": [1, 2, 4]})


@pytest.fixture
def workload() -> Workload:
    module = importlib.import_module("kernels.matmul")
    return Workload.of(module.matmul, *module.inputs("bfloat16", M=512, N=1024, K=512))


class Clock(Modelled):
    """Stands in for measured time: the larger the blocks, the slower."""

    name = "cpu"

    def __init__(self) -> None:
        super().__init__("trn2")
        self.name, self.figures = "cpu", (CPU,)

    def evaluate(self, workload, configuration, incumbent=None) -> Outcome:
        return Outcome(value=float(1 + sum(configuration.values())))


def test_latency_and_footprint_take_turns(workload) -> None:
    everything = [(c, Modelled("trn2").evaluate(workload, c)) for c in SPACE]
    fastest = min(everything, key=lambda e: e[1].value)[0]
    smallest = min(everything, key=lambda e: e[1].figures["sbuf_peak_bytes"])[0]
    assert fastest != smallest
    assert opening(workload, SPACE, "trn2", 0, trials=8) == [fastest, smallest]
    assert len(opening(workload, SPACE, "trn2", 0, trials=1)) == 1
    assert len(opening(workload, SPACE, "trn2", 0, trials=1000)) == 9


def test_large_spaces_are_sampled_by_seed_and_keep_rules(kernel, x) -> None:
    workload = Workload.of(kernel, x)
    space = Space({"CHUNK": range(1, 193), "COPIES": range(1, 9)}, constraints=["192 % CHUNK == 0", "COPIES < 8"])
    runs = [opening(workload, space, "trn2", seed, trials=4000) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert 0 < len(runs[0]) <= SAMPLE
    assert all(192 % c["CHUNK"] == 0 and c["COPIES"] < 8 for c in runs[0])
    assert opening(workload, space, "trn2", 0, trials=4000, seconds=0.0) == []


def test_a_measured_study_begins_with_it_unless_told_not_to(workload) -> None:
    space = Space({**SPACE.parameters, "TILES_IN_BLOCK_N": [1, 2, 4, 8]})
    expected = opening(workload, space, "trn2", 0, trials=12)
    default = space.default(workload.kernel.signature)
    begun = []
    for model in (True, False):
        result = Study([workload], Clock(), space, trials=12, model=model, database=Database(None)).run()
        begun.append([c for c, _ in result.history[:4]])
    assert begun[0] == [default, *expected]
    assert begun[1] != begun[0]


def test_rejected_configurations_are_left_out(kernel, x) -> None:
    space = Space({"CHUNK": [32, 33, 64, 65], "REFUSE": [0, 1]})
    found = opening(Workload.of(kernel, x), space, "trn2", 0, trials=100)
    assert {c["CHUNK"] for c in found} == {32, 64}
    assert {c["REFUSE"] for c in found} == {0}
