"""Random kernels on two cores: the values that NumPy has where cores do not race, and a report where they do."""

from __future__ import annotations

import numpy as np
import pytest
import random_kernels as drawing

from nkilite import errors

SEEDS = range(6)


@pytest.mark.parametrize("tame", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.filterwarnings("ignore::nkilite.notices.RetraceWarning")
def test_values_and_races(seed, tame, monkeypatch):
    monkeypatch.setenv("NKILITE_RACES", "error")
    steps = drawing.drawn(seed, tame)
    right, may = drawing.Run(steps), drawing.may_race(steps)
    for mode, launch in drawing.launches(steps).items():
        if right.races != may or (right.races and not right.seen and mode == "compiled"):
            continue  # it is not known, or not when the kernel is traced
        for threads in ("2", "1") if mode == "compiled" else ("2",):
            monkeypatch.setenv("NKILITE_NUM_THREADS", threads)
            if right.races:
                with pytest.raises(errors.DataRace):
                    launch()
                continue
            for found, expected in zip(launch(), right.results, strict=True):
                np.testing.assert_array_equal(found, expected, err_msg=f"{mode} on {threads} threads")


def test_some_of_them_race():
    raced = [drawing.Run(drawing.drawn(seed, tame)).races for seed in SEEDS for tame in (True, False)]
    assert 1 < sum(raced) < len(SEEDS)
