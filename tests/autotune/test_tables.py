"""The scripts behind the tables of docs/autotune.md."""

from __future__ import annotations

import pytest

from autotune.space import Space
from benchmarks import autotune_cpu, autotune_quality


@pytest.mark.parametrize("subject", tuple(autotune_quality.subjects(None)), ids=lambda s: s.name)
def test_subjects_of_the_quality_table_have_spaces_worth_searching(subject) -> None:
    space = Space(subject.space)
    space.fitting(subject.workload().kernel)
    assert space.size >= 300


@pytest.mark.parametrize("subject", autotune_cpu.SUBJECTS, ids=lambda s: s.name)
def test_subjects_measured_on_this_cpu_take_their_parameters(subject) -> None:
    workload = subject.workload()
    Space(subject.space).fitting(workload.kernel)
    assert workload.reference is not None


def test_candidates_are_timed_in_the_same_rounds() -> None:
    subject = autotune_cpu.QUICK[0]
    samples = autotune_cpu.retimed(subject.workload(), [{"COLUMNS": 64}, {"COLUMNS": 256}], rounds=3, seed=0)
    assert [len(taken) for taken in samples] == [3, 3]
    assert all(time > 0 for taken in samples for time in taken)
    ratio, interval = autotune_cpu._ratio(*samples).split(" ", 1)
    low, high = (float(bound) for bound in interval.strip("[]").split(", "))
    assert 0 < low <= float(ratio) <= high
