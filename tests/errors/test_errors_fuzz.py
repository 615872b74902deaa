"""Random, mostly wrong calls of every instruction: an error of ours, or the same results in both modes."""

from __future__ import annotations

from errors_fuzz import INSTRUCTIONS, Call, calls, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@settings(max_examples=8, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.tuples(*(calls([definition]) for definition in INSTRUCTIONS)))
def test_calls_of_every_instruction(drawn: tuple[Call, ...]) -> None:
    for call in drawn:
        run(call)
