"""Random programs give the same bits grouped or not, with any number of threads, and what a simulation gives."""

from __future__ import annotations

import numpy as np
import pytest
from random_programs import arguments, draw, run
from team_testing import SCHEDULES, Trial, every_program_has_a_team

import nkilite as nki
from nkilite.codegen.host import available

SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_program(seed, monkeypatch):
    every_program_has_a_team(monkeypatch)
    monkeypatch.setenv("NKILITE_NUM_THREADS", "1")
    levels = list(available())
    monkeypatch.setenv("NKILITE_CPU", levels[seed % len(levels)])
    program, inputs = draw(seed), arguments()
    grouped = Trial(run, *inputs, program=program)
    for parts in (2, 3):
        assert grouped.slowly(parts, SCHEDULES[seed % len(SCHEDULES)]), parts
    monkeypatch.setenv("NKILITE_FUSE", "0")
    assert Trial(run, *inputs, program=program).expected == grouped.expected

    tolerance = 1e-4 if all(tile.dtype == "float32" for tile in program.tiles) else 5e-2
    simulated = nki.simulate(run)(*inputs, program=program)
    for ours, theirs in zip(grouped.launcher.run(), simulated, strict=True):
        ours, theirs = (np.asarray(x).astype(np.float64) for x in (ours, theirs))
        sane = np.isfinite(theirs)
        assert (np.isfinite(ours) == sane).mean() > 0.999
        most = np.abs(theirs[sane]).max(initial=1)
        np.testing.assert_allclose(ours[sane], theirs[sane], rtol=tolerance, atol=tolerance * most)
