"""Random programs give the same bits grouped or not, compiled well or hastily, with any number of threads, and what a
simulation gives.
"""

from __future__ import annotations

import pytest
from team_testing import SCHEDULES, Trial, every_program_has_a_team

from conformance.fuzz.differ import differences, ways
from conformance.fuzz.draw import draw
from nkilite.host.cpu import available


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_program(seed, monkeypatch):
    every_program_has_a_team(monkeypatch)
    levels = list(available())
    level = levels[seed % len(levels)]
    program = draw(seed)
    assert not list(differences(program, [way for way in ways() if way.level == level]))

    monkeypatch.setenv("NKILITE_NUM_THREADS", "1")
    monkeypatch.setenv("NKILITE_CPU", level)
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", program.target)
    trial = Trial(program.function(), *program.arguments())
    for parts in (2, 3):
        if trial.loops:
            assert trial.threaded(parts, monkeypatch), parts
        else:
            assert trial.slowly(parts, SCHEDULES[seed % len(SCHEDULES)]), parts
