"""docs/scaling.md: its tables are there, complete and labelled, and the script makes such."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import scaling

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


@pytest.mark.parametrize("name", scaling.STUDIES)
def test_every_study_has_its_rows(name: str) -> None:
    match = re.search(rf"<!-- {name}: modelled, by .*-->\n((?:\|.*\n)+)", PAGE.read_text())
    assert match
    heading, _, *rows = match[1].splitlines()
    assert [cell.strip() for cell in heading.strip("|").split("|")] == list(scaling.HEADINGS)
    assert [int(row.split("|")[1]) for row in rows] == [ranks for ranks, _ in scaling.STUDIES[name].cases]


def test_a_row_is_that_of_a_profile() -> None:
    small = scaling.STUDIES["mlp"]._replace(arguments=lambda ranks: scaling.mlp(ranks, tokens=128, H=128, F=2048))
    found, cells = scaling.row(small, 8, None, None)
    assert len(cells) == len(scaling.HEADINGS)
    assert cells[:2] == ["8", "trn2-48xlarge"]
    assert cells[scaling.HEADINGS.index("MFU")] == f"{found.mfu:.0%}"
    assert "modelled" in PAGE.read_text().split("\n\n")[1]
