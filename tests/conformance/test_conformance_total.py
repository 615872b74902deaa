"""The share of public cases that is right, from logs of several runs, and the reasons of the others."""

from __future__ import annotations

import re

from conformance.case import Mode, Result, Status
from conformance.report import append_json
from conformance.total import Reason, Share, explained, latest, read, reasons, shares

SIM, RUN = Mode.SIMULATE_TRN2, Mode.COMPILED_TRN2


def test_shares_are_of_cases_that_ran_in_any_of_several_logs(tmp_path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    for result in (
        Result("course:/a.py:add", SIM, Status.TIMEOUT),
        Result("course:/a.py:add", RUN, Status.PASS),
        Result("course:/a.py:pool", SIM, Status.SKIP, message="unfinished"),
        Result("course:/a.py:pool", RUN, Status.SKIP, message="unfinished"),
        Result("port:/b.py:test_it", Mode.FILE, Status.FAIL, message="assert 1 == 2"),
        Result("port:/b.py:test_it", Mode.SIMULATED_FILE, Status.SKIP),
    ):
        append_json(first, result)
    append_json(second, Result("course:/a.py:add", SIM, Status.PASS))
    results = latest(read([first, second]))
    assert shares(results) == {"course": (Share(1, 1), Share(1, 1)), "port": (Share(0, 0), Share(0, 1))}
    assert str(Share(1, 3)) == "1 of 3 (33.3 %)"
    assert list(explained(results, [])) == ["unexplained: assert 1 == 2"]


def test_reasons_are_given_by_case_and_way(tmp_path) -> None:
    results = [Result("port:/b.py:test_it", mode, Status.FAIL) for mode in (Mode.FILE, Mode.SIMULATED_FILE)]
    known = [Reason("test_it$", "simulated alone", simulated=True), Reason("b.py", "of its file")]
    assert explained(results, known) == {"of its file": [results[0]], "simulated alone": [results[1]]}


def test_the_reasons_on_file_are_patterns_and_sentences() -> None:
    for reason in reasons():
        assert re.compile(reason.case)
        assert reason.why
